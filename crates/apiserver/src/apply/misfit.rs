//! Where a value is of another type than a built-in kind's field, in the words of Go's JSON reader:
//! `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`. Quantities, times and
//! base64 read themselves, and complain in words of their own.

use gantry_api::Quantity;
use gantry_api::schema::{Node, Type};
use serde_json::Value;

use super::go_time::{base64_error, time_error};

/// The words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit(pub String);

/// The first value that its field cannot take; `None` if there is none that Go's own reader would find.
pub fn misfit(tree: &Value, node: Node<'_>) -> Option<Misfit> {
    let mut place = Place { names: Vec::new(), owner: None };
    walk(tree, node, &mut place).map(|found| {
        let (what, ty) = match found {
            Found::Words(words) => return Misfit(words),
            Found::Type(what, ty) => (what, ty),
        };
        Misfit(match place.owner {
            Some(owner) => format!(
                "json: cannot unmarshal {what} into Go struct field {owner}.{} of type {ty}",
                place.names.join(".")
            ),
            None => format!("json: cannot unmarshal {what} into Go value of type {ty}"),
        })
    })
}

/// What was found.
enum Found {
    /// A value, and the type that its place has.
    Type(String, String),
    /// What a type that reads itself says.
    Words(String),
}

/// Where the reader is: the fields so far, and the type that the last one belongs to.
struct Place {
    names: Vec<String>,
    owner: Option<String>,
}

fn walk(value: &Value, node: Node<'_>, place: &mut Place) -> Option<Found> {
    let Node::Static(ty, _) = node else { return None };
    let expects = match (ty, value) {
        (_, Value::Null) => return None,
        (Type::Ref(_), Value::Object(map)) => {
            let outer = place.owner.take();
            let own = node.definition().map(|def| short(&def.name()).to_owned());
            for (name, value) in map {
                let Some(inner) = node.child(name) else { continue };
                place.names.push(name.clone());
                place.owner.clone_from(&own);
                if let Some(found) = walk(value, inner, place) {
                    return Some(found);
                }
                place.names.pop();
            }
            place.owner = outer;
            return None;
        }
        (Type::Map(_), Value::Object(map)) => {
            return map.iter().find_map(|(name, value)| walk(value, node.child(name)?, place));
        }
        (Type::Array(_), Value::Array(list)) => {
            let item = node.item();
            return list.iter().find_map(|value| walk(value, item, place));
        }
        (Type::String, Value::String(_)) | (Type::Bool, Value::Bool(_)) => return None,
        (Type::Int32, Value::Number(n)) => n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        (Type::Int64, Value::Number(n)) => n.as_i64().is_some(),
        (Type::Double, Value::Number(_)) => return None,
        (Type::Quantity, value) => return quantity_error(value).map(Found::Words),
        (Type::Time | Type::MicroTime, Value::String(text)) => {
            return time_error(text, matches!(ty, Type::MicroTime)).map(Found::Words);
        }
        (Type::Bytes, Value::String(text)) => return base64_error(text).map(Found::Words),
        (Type::Bytes, Value::Array(list)) => {
            return list.iter().find_map(|value| {
                let fits = value.as_u64().is_some_and(|n| n < 256);
                (!fits).then(|| Found::Type(described(value, true), "uint8".to_owned()))
            });
        }
        (Type::IntOrString, Value::String(_)) => return None,
        (Type::IntOrString, Value::Number(n)) => n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        (
            Type::Ref(_)
            | Type::Map(_)
            | Type::Array(_)
            | Type::String
            | Type::Bool
            | Type::Int32
            | Type::Int64
            | Type::Double
            | Type::Time
            | Type::MicroTime
            | Type::Bytes
            | Type::IntOrString,
            _,
        ) => false,
        // These types read themselves, in words of their own.
        _ => return None,
    };
    if expects {
        return None;
    }
    let whole = matches!(ty, Type::Int32 | Type::Int64 | Type::IntOrString);
    Some(Found::Type(described(value, whole), go_type(node)))
}

/// A value as errors name it; the number itself where a whole one is expected.
fn described(value: &Value, whole: bool) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(n) if whole => format!("number {n}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

/// Why a value is no quantity. Upstream reads the text of whatever stands there.
fn quantity_error(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    text.parse::<Quantity>().err().map(|why| why.to_string())
}

fn go_type(node: Node<'_>) -> String {
    let Node::Static(ty, _) = node else { return "interface {}".to_owned() };
    match ty {
        Type::String => "string".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Int32 | Type::IntOrString => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Double => "float64".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Array(_) => format!("[]{}", go_type(node.item())),
        Type::Map(Type::Quantity) => "v1.ResourceList".to_owned(),
        Type::Map(_) => {
            format!("map[string]{}", node.child("").map_or_else(|| "interface {}".to_owned(), go_type))
        }
        Type::Ref(_) => match node.definition() {
            Some(def) => {
                let name = def.name();
                let package = name.rsplit('.').nth(1).unwrap_or("v1");
                format!("{package}.{}", short(&name))
            }
            None => "interface {}".to_owned(),
        },
        _ => "string".to_owned(),
    }
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
