//! Equality and order.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use crate::data::{Data, DataKind, ListKind};
use crate::error::{EvalError, Result};
use crate::json::{to_json, typed};
use crate::value::{Entries, List, Map, Opaque, Value};

/// Whether two values are equal. Numbers are, whatever their type; else different types are different.
///
/// # Errors
/// Data that cannot be read.
pub fn equal(a: &Value<'_>, b: &Value<'_>) -> Result<bool> {
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => a.as_str() == b.as_str(),
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a.name() == b.name(),
        (Value::List(a), Value::List(b)) => lists(a, b)?,
        (Value::Map(a), Value::Map(b)) => maps(a, b)?,
        (Value::Optional(None), Value::Optional(None)) => true,
        (Value::Optional(Some(a)), Value::Optional(Some(b))) => equal(a, b)?,
        (Value::Opaque(a), Value::Opaque(b)) => opaque(a, b),
        (Value::Preserved(a), other) | (other, Value::Preserved(a)) => {
            to_json(other).is_ok_and(|other| **a == other)
        }
        _ => numbers(a, b) == Some(Ordering::Equal),
    })
}

fn opaque(a: &Opaque, b: &Opaque) -> bool {
    match (a, b) {
        (Opaque::Quantity(a), Opaque::Quantity(b)) => a == b,
        (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
        (Opaque::Cidr(a), Opaque::Cidr(b)) => a == b,
        (Opaque::Url(a), Opaque::Url(b)) => a.text() == b.text(),
        (Opaque::Semver(a), Opaque::Semver(b)) => a.cmp(b) == Ordering::Equal,
        (Opaque::Format(a), Opaque::Format(b)) => a.name == b.name,
        _ => false,
    }
}

fn lists(a: &List<'_>, b: &List<'_>) -> Result<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    if let List::Json(items, Some(data)) = a
        && let DataKind::List { item, list } = &data.kind
    {
        match list {
            ListKind::Atomic => {}
            ListKind::Set => return sets(items, b),
            ListKind::Map(keys) => return keyed(items, item, keys, b),
        }
    }
    for (a, b) in a.iter().zip(b.iter()) {
        if !equal(&a?, &b?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The elements of a list as JSON.
fn raw(list: &List<'_>) -> Result<Vec<Json>> {
    match list {
        List::Json(items, _) => Ok(items.to_vec()),
        List::Values(values) => values.iter().map(|v| to_json(v).map_err(EvalError::other)).collect(),
    }
}

fn sets(a: &[Json], b: &List<'_>) -> Result<bool> {
    let known: HashSet<String> = a.iter().map(Json::to_string).collect();
    Ok(raw(b)?.iter().all(|item| known.contains(&item.to_string())))
}

pub(crate) fn composite_key(item: &Json, keys: &[String]) -> String {
    let parts: Vec<String> =
        keys.iter().map(|key| item.get(key).map_or_else(|| "null".to_owned(), Json::to_string)).collect();
    parts.join("\0")
}

fn keyed(a: &[Json], item: &Data, keys: &[String], b: &List<'_>) -> Result<bool> {
    let known: HashMap<String, &Json> = a.iter().map(|i| (composite_key(i, keys), i)).collect();
    for (other, value) in raw(b)?.iter().zip(b.iter()) {
        let Some(own) = known.get(&composite_key(other, keys)) else { return Ok(false) };
        if !equal(&typed(own, item)?, &value?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn maps(a: &Map<'_>, b: &Map<'_>) -> Result<bool> {
    if let (Map::Struct(a_name, _), Map::Struct(b_name, _)) = (a, b)
        && a_name != b_name
    {
        return Ok(false);
    }
    if a.len() != b.len() {
        return Ok(false);
    }
    if let (Map::Json(a, a_data), Map::Json(b, _)) = (a, b) {
        // Fields outside of the schema are compared as they are.
        let schema = a_data.and_then(|d| match &d.kind {
            DataKind::Object(fields) => Some(fields),
            _ => None,
        });
        let unknown = |name: &String| schema.is_some_and(|fields| !fields.contains_key(name));
        if a.iter().any(|(name, value)| unknown(name) && b.get(name).is_some_and(|other| other != value)) {
            return Ok(false);
        }
    }
    for key in a.keys() {
        match (a.get(&key)?, b.get(&key)?) {
            (Some(a), Some(b)) if equal(&a, &b)? => {}
            (None, None) => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// The order of two numbers of any types; `None` for what are no numbers, and for NaN.
pub fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => int_and_double(whole(b)?, *a).map(Ordering::reverse),
        (a, Value::Double(b)) => int_and_double(whole(a)?, *b),
        _ => Some(whole(a)?.cmp(&whole(b)?)),
    }
}

fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        _ => None,
    }
}

fn int_and_double(a: i128, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    // Beyond 64 bits the number of the other side decides nothing.
    if b.abs() >= 1e30 {
        return Some(if b > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let floor = b.floor();
    Some(a.cmp(&(floor as i128)).then(if b > floor { Ordering::Less } else { Ordering::Equal }))
}

/// The order of two values of the same type, or of two numbers.
///
/// # Errors
/// Values that have no order.
pub fn order(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Ok(a.as_str().cmp(b.as_str())),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Ok(a.cmp(b)),
        _ => {
            let nan = |v: &Value<'_>| matches!(v, Value::Double(d) if d.is_nan());
            if nan(a) || nan(b) {
                return Err(EvalError::other("NaN values cannot be ordered"));
            }
            numbers(a, b).ok_or_else(EvalError::no_overload)
        }
    }
}

/// Whether a list has an element.
///
/// # Errors
/// Data that cannot be read.
pub fn contains(list: &List<'_>, value: &Value<'_>) -> Result<bool> {
    for item in list.iter() {
        if equal(&item?, value)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Adds two lists: sets are united, and lists with keys merged, if the first is one.
///
/// # Errors
/// Data that cannot be read.
pub fn add_lists<'a>(a: &List<'a>, b: &List<'a>) -> Result<Vec<Value<'a>>> {
    let mut out = a.to_vec()?;
    let kind = match a {
        List::Json(_, Some(data)) => match &data.kind {
            DataKind::List { list, .. } => list,
            _ => &ListKind::Atomic,
        },
        _ => &ListKind::Atomic,
    };
    let identity = |json: &Json| match kind {
        ListKind::Map(keys) => composite_key(json, keys),
        _ => json.to_string(),
    };
    if *kind == ListKind::Atomic {
        out.extend(b.to_vec()?);
        return Ok(out);
    }
    let mut positions: HashMap<String, usize> =
        raw(a)?.iter().enumerate().map(|(i, json)| (identity(json), i)).collect();
    for (json, value) in raw(b)?.iter().zip(b.to_vec()?) {
        match positions.get(&identity(json)) {
            Some(position) if *kind != ListKind::Set => out[*position] = value,
            Some(_) => {}
            None => {
                positions.insert(identity(json), out.len());
                out.push(value);
            }
        }
    }
    Ok(out)
}

/// Puts entries of one map into another.
///
/// # Errors
/// A key that is there already.
pub fn insert_all<'a>(into: &mut Entries<'a>, entries: Entries<'a>) -> Result<()> {
    for (key, value) in entries {
        if into.contains_key(&key) {
            return Err(EvalError::other(format!(
                "insert failed: key {} already exists",
                crate::library::convert::shown(&key.to_value())
            )));
        }
        into.insert(key, value);
    }
    Ok(())
}
