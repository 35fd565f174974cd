//! Sets of fields, in the form `managedFields` stores them.
//!
//! A set is a tree in JSON. A key is a path element: `f:<field>`, `k:<key fields of a list element>`,
//! `v:<scalar of a list>`; a field belongs to the set if its object is empty or has the key `.`. Working on that
//! form itself, nothing is converted when an entry is read, left alone and written back.

use std::borrow::Cow;
use std::fmt::Write as _;

use gantry_api::schema::{Keys, ListShape, Node, Shape};
use serde_json::{Map, Value};

use super::go_text::go_quote;

/// A set of fields: the children of its root.
pub type FieldSet = Map<String, Value>;

const SELF: &str = ".";

/// Whether the place itself belongs to the set.
pub fn is_member(place: &Value) -> bool {
    place.as_object().is_some_and(|children| children.is_empty() || children.contains_key(SELF))
}

/// A place of these parts; `None` if nothing belongs to the set.
fn place(member: bool, mut children: FieldSet) -> Option<Value> {
    if children.is_empty() {
        return member.then_some(Value::Object(children));
    }
    if member {
        children.insert(SELF.to_owned(), Value::Object(Map::new()));
    }
    Some(Value::Object(children))
}

/// Puts a place into a set.
pub fn insert(set: &mut FieldSet, element: String, member: bool, below: FieldSet) {
    if let Some(new) = place(member, below) {
        match set.get_mut(&element) {
            Some(old) => union_place(old, &new),
            None => drop(set.insert(element, new)),
        }
    }
}

/// Adds every field of `other`.
pub fn union(set: &mut FieldSet, other: &FieldSet) {
    for (element, new) in other {
        match set.get_mut(element) {
            Some(old) => union_place(old, new),
            None => drop(set.insert(element.clone(), new.clone())),
        }
    }
}

fn union_place(old: &mut Value, new: &Value) {
    let member = is_member(old) || is_member(new);
    let mut below = take_children(old);
    if let Some(new) = new.as_object() {
        union(&mut below, new);
    }
    below.remove(SELF);
    *old = place(member, below).unwrap_or_else(|| Value::Object(Map::new()));
}

fn take_children(value: &mut Value) -> FieldSet {
    let mut below = match value.take() {
        Value::Object(below) => below,
        _ => Map::new(),
    };
    below.remove(SELF);
    below
}

/// Removes every field of `other`, but not what lies below it; returns whether there was one.
pub fn subtract(set: &mut FieldSet, other: &FieldSet) -> bool {
    let mut changed = false;
    for (element, gone) in other.iter().filter(|(element, _)| *element != SELF) {
        let Some(old) = set.get_mut(element) else { continue };
        let (was, removed) = (is_member(old), is_member(gone));
        let below_changed = match (old.as_object_mut(), gone.as_object()) {
            (Some(old), Some(gone)) => subtract(old, gone),
            _ => false,
        };
        if !(below_changed || was && removed) {
            continue;
        }
        changed = true;
        let below = take_children(old);
        match place(was && !removed, below) {
            Some(rest) => *old = rest,
            None => drop(set.remove(element)),
        }
    }
    changed
}

/// The fields that both have.
pub fn intersection(a: &FieldSet, b: &FieldSet) -> FieldSet {
    let mut both = Map::new();
    for (element, in_a) in a.iter().filter(|(element, _)| *element != SELF) {
        let Some(in_b) = b.get(element) else { continue };
        let below = match (in_a.as_object(), in_b.as_object()) {
            (Some(a), Some(b)) => intersection(a, b),
            _ => Map::new(),
        };
        insert(&mut both, element.clone(), is_member(in_a) && is_member(in_b), below);
    }
    both
}

/// Whether every field of `part` belongs to `set`.
pub fn covers(set: &FieldSet, part: &FieldSet) -> bool {
    part.iter().filter(|(element, _)| *element != SELF).all(|(element, wanted)| {
        let Some(found) = set.get(element) else { return false };
        (is_member(found) || !is_member(wanted))
            && match (found.as_object(), wanted.as_object()) {
                (Some(found), Some(wanted)) => covers(found, wanted),
                _ => true,
            }
    })
}

/// A step of a pattern: a field of this name, or any element of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The field of this name.
    Field(&'static str),
    /// Whatever is there.
    Any,
}

/// What of a set lies at or below the places that one of the patterns describes.
pub fn only(set: &FieldSet, patterns: &[&[Step]]) -> FieldSet {
    let mut kept = Map::new();
    for (element, place) in set.iter().filter(|(element, _)| *element != SELF) {
        let matches = |step: &Step| match step {
            Step::Field(name) => element.strip_prefix("f:") == Some(*name),
            Step::Any => true,
        };
        let deeper: Vec<&[Step]> = patterns
            .iter()
            .filter_map(|pattern| pattern.split_first())
            .filter(|(first, _)| matches(first))
            .map(|(_, rest)| rest)
            .collect();
        if deeper.iter().any(|rest| rest.is_empty()) {
            kept.insert(element.clone(), place.clone());
        } else if let Some(below) = place.as_object().filter(|_| !deeper.is_empty()) {
            insert(&mut kept, element.clone(), false, only(below, &deeper));
        }
    }
    kept
}

/// Removes the field at a path of names and everything below it.
pub fn remove_subtree(set: &mut FieldSet, path: &[&str]) {
    let Some((first, rest)) = path.split_first() else { return };
    let element = format!("f:{first}");
    if rest.is_empty() {
        set.remove(&element);
        return;
    }
    let Some(old) = set.get_mut(&element) else { return };
    let member = is_member(old);
    let mut below = take_children(old);
    remove_subtree(&mut below, rest);
    match place(member, below) {
        Some(left) => *old = left,
        None => drop(set.remove(&element)),
    }
}

/// Makes each declared field on the way to a member a member as well.
pub fn with_named_fields(set: &FieldSet, node: Node<'_>) -> FieldSet {
    let mut named = Map::new();
    for (element, old) in set.iter().filter(|(element, _)| *element != SELF) {
        let (declared, inner) = match element.strip_prefix("f:") {
            Some(name) => (node.declares(name), node.child(name)),
            None => (false, Some(node.item())),
        };
        let below = match old.as_object() {
            Some(below) => with_named_fields(below, inner.unwrap_or(Node::ANY)),
            None => Map::new(),
        };
        insert(&mut named, element.clone(), declared || is_member(old), below);
    }
    named
}

/// Fits a set to a schema that became coarser since: a place that is owned as a whole by now is a member, and nothing
/// below it. (A schema that became finer needs nothing: who owned the whole owns it still.) Returns whether anything
/// changed.
pub fn reconcile(set: &mut FieldSet, node: Node<'_>) -> bool {
    let mut changed = false;
    for (element, place) in set.iter_mut().filter(|(element, _)| *element != SELF) {
        let Some(below) = place.as_object_mut() else { continue };
        let inner = match element.strip_prefix("f:") {
            Some(name) => node.child(name),
            None => Some(node.item()),
        };
        let Some(inner) = inner.filter(|_| below.keys().any(|element| element != SELF)) else { continue };
        match inner.shape() {
            Shape::List(ListShape::Atomic) | Shape::Object { atomic: true } => {
                below.clear();
                changed = true;
            }
            _ => changed |= reconcile(below, inner),
        }
    }
    changed
}

/// A path element in the words of messages.
pub fn text(element: &str) -> String {
    let (kind, rest) = element.split_at_checked(2).unwrap_or((element, ""));
    let value = || serde_json::from_str::<Value>(rest).unwrap_or_else(|_| Value::from(rest));
    match kind {
        "f:" => format!(".{rest}"),
        "v:" => format!("[={}]", scalar(&value())),
        "k:" => {
            let fields = value();
            let fields = fields.as_object().into_iter().flatten();
            let pairs: Vec<String> =
                fields.map(|(name, value)| format!("{name}={}", scalar(value))).collect();
            format!("[{}]", pairs.join(","))
        }
        _ => format!("[{rest}]"),
    }
}

fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), go_quote)
}

/// The path element of a field.
pub fn field(name: &str) -> String {
    format!("f:{name}")
}

/// The path element of an element of a list of sets or maps.
///
/// # Errors
/// In upstream's words, if the element cannot be told apart from others.
pub fn element(item: &Value, shape: ListShape<'_>, node: Node<'_>) -> Result<String, String> {
    match shape {
        ListShape::Map(keys) => keyed_element(item, keys, node),
        ListShape::Set => match item {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => {
                Err("associative list without keys has an element that's an explicit null".to_owned())
            }
            scalar => {
                let mut out = String::from("v:");
                write_json(&mut out, scalar);
                Ok(out)
            }
        },
        ListShape::Atomic => Err("invalid indexing of non-associative list".to_owned()),
    }
}

fn keyed_element(item: &Value, keys: Keys<'_>, node: Node<'_>) -> Result<String, String> {
    let Value::Object(fields) = item else {
        let what = if item.is_null() { "a null element" } else { "non-map elements" };
        return Err(format!("associative list with keys may not have {what}"));
    };
    let mut found: Vec<(&str, Cow<'_, Value>)> = Vec::with_capacity(2);
    for key in keys.iter() {
        let value = fields.get(key).map(Cow::Borrowed).or_else(|| node.default_of(key));
        found.extend(value.map(|v| (key, v)));
    }
    if found.is_empty() {
        let names: Vec<String> = keys.iter().map(go_quote).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default \
             values for any key fields)",
            names.join(" ")
        ));
    }
    found.sort_unstable_by_key(|(name, _)| *name);
    let mut out = String::from("k:{");
    for (i, (name, value)) in found.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write!(out, "\"{name}\":").expect("a string takes text");
        write_json(&mut out, value);
    }
    out.push('}');
    Ok(out)
}

/// JSON as Go writes it: what could end a script element is escaped.
fn write_json(out: &mut String, value: &Value) {
    let text = value.to_string();
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        out.push_str(&text);
        return;
    }
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a string takes text");
            }
            c => out.push(c),
        }
    }
}
