//! Walks along a schema: what differs between two objects, which fields one has, how two merge, what is taken out.

use std::collections::HashMap;

use gantry_api::schema::{ListShape, Node, Shape};
use serde_json::{Map, Value};

use super::fields::{self, FieldSet};
use super::patch::equal;

/// What differs between two objects.
#[derive(Debug, Default)]
pub struct Difference {
    /// The fields that are new or have another value.
    pub changed: FieldSet,
    /// The fields that are gone.
    pub removed: FieldSet,
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Compares two objects of one schema.
pub fn compare(old: &Value, new: &Value, node: Node<'_>) -> Difference {
    compare_place(Some(old), Some(new), node).below
}

/// What differs at a place and below it.
#[derive(Default)]
struct Place {
    own: Option<Change>,
    below: Difference,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Changed,
    Removed,
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Place {
    let own = match (old, new) {
        (Some(old), Some(new)) => (!equal(old, new)).then_some(Change::Changed),
        (None, _) => Some(Change::Changed),
        (Some(_), None) => Some(Change::Removed),
    };
    Place { own, below: Difference::default() }
}

fn compare_place(old: Option<&Value>, new: Option<&Value>, node: Node<'_>) -> Place {
    let as_map = |v: Option<&Value>| matches!(v, None | Some(Value::Object(_) | Value::Null));
    let granular = match node.shape() {
        Shape::Scalar => false,
        Shape::Object { atomic } => !atomic,
        Shape::List(shape) => !matches!(shape, ListShape::Atomic),
        Shape::Any { atomic } => !atomic && as_map(old) && as_map(new),
    };
    if node.is_opaque() {
        let is_some = |v: Option<&Value>| v.map(|v| !v.is_null());
        let changed = is_some(old) != is_some(new) && new.is_some();
        return Place { own: changed.then_some(Change::Changed), below: Difference::default() };
    }
    if !granular || is_empty(old) && is_empty(new) {
        return leaf(old, new);
    }
    let mut below = Difference::default();
    match node.shape() {
        Shape::List(shape) => compare_lists(old, new, shape, node.item(), &mut below),
        _ => compare_maps(old, new, node, &mut below),
    }
    let own = match (old, new) {
        (None, _) => Some(Change::Changed),
        (_, None) => Some(Change::Removed),
        _ => None,
    };
    Place { own, below }
}

fn compare_maps(old: Option<&Value>, new: Option<&Value>, node: Node<'_>, out: &mut Difference) {
    let nothing = Map::new();
    // In a struct that is not there, nothing is.
    let (is_old, is_new) = (old.is_some_and(Value::is_object), new.is_some_and(Value::is_object));
    let old = old.and_then(Value::as_object).unwrap_or(&nothing);
    let new = new.and_then(Value::as_object).unwrap_or(&nothing);
    let mut visit = |name: &str, before: Option<&Value>, after: Option<&Value>| {
        let inner = node.child(name).unwrap_or(Node::ANY);
        let before = before.or_else(|| node.absent(name).filter(|_| is_old));
        let after = after.or_else(|| node.absent(name).filter(|_| is_new));
        record(out, || fields::field(name), compare_place(before, after, inner));
    };
    for (name, before) in old {
        visit(name, Some(before), new.get(name));
    }
    for (name, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        visit(name, None, Some(after));
    }
}

fn record(out: &mut Difference, element: impl Fn() -> String, place: Place) {
    let Place { own, below } = place;
    if own == Some(Change::Changed) || !below.changed.is_empty() {
        fields::insert(&mut out.changed, element(), own == Some(Change::Changed), below.changed);
    }
    if own == Some(Change::Removed) || !below.removed.is_empty() {
        fields::insert(&mut out.removed, element(), own == Some(Change::Removed), below.removed);
    }
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn compare_lists(
    old: Option<&Value>,
    new: Option<&Value>,
    shape: ListShape<'_>,
    item: Node<'_>,
    out: &mut Difference,
) {
    let (old, new) = (list(old), list(new));
    // Nearly always nothing changed, and telling that costs no keys.
    if old == new {
        return;
    }
    let mut order: Vec<String> = Vec::with_capacity(old.len().max(new.len()));
    let mut found: HashMap<String, (Vec<&Value>, Vec<&Value>)> = HashMap::with_capacity(order.capacity());
    for (values, is_new) in [(old, false), (new, true)] {
        for value in values {
            // An element that cannot be told apart belongs to nobody.
            let Ok(element) = fields::element(value, shape, item) else { continue };
            let entry = found.entry(element).or_insert_with_key(|element| {
                order.push(element.clone());
                (Vec::new(), Vec::new())
            });
            if is_new { entry.1.push(value) } else { entry.0.push(value) }
        }
    }
    for element in order {
        let (before, after) = &found[&element];
        let place = match (before.as_slice(), after.as_slice()) {
            (before @ ([] | [_]), after @ ([] | [_])) => {
                compare_place(before.first().copied(), after.first().copied(), item)
            }
            // Duplicates count as one leaf.
            (before @ [_, _, ..], after @ [_, _, ..]) => {
                let own = (before != after).then_some(Change::Changed);
                Place { own, below: Difference::default() }
            }
            ([_, _, ..], after) => {
                let mut place = after.first().map(|v| compare_place(None, Some(v), item)).unwrap_or_default();
                if place.own == Some(Change::Changed) {
                    fields::insert(&mut out.changed, element.clone(), true, FieldSet::new());
                }
                place.own = Some(Change::Removed);
                place
            }
            (before, [_, _, ..]) => {
                let mut place =
                    before.first().map(|v| compare_place(Some(v), None, item)).unwrap_or_default();
                if place.own == Some(Change::Removed) {
                    fields::insert(&mut out.removed, element.clone(), true, FieldSet::new());
                }
                place.own = Some(Change::Changed);
                place
            }
        };
        record(out, || element.clone(), place);
    }
}

/// Every field that an object has, as an applied configuration owns them.
pub fn field_set(value: &Value, node: Node<'_>) -> FieldSet {
    fields_below(value, node).1
}

/// Whether the place is a member itself, and the members below it.
fn fields_below(value: &Value, node: Node<'_>) -> (bool, FieldSet) {
    let mut below = FieldSet::new();
    match (node.shape(), value) {
        (Shape::Object { atomic: false } | Shape::Any { atomic: false }, Value::Object(map)) => {
            for (name, value) in map {
                let (member, inner) = fields_below(value, node.child(name).unwrap_or(Node::ANY));
                let bare = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                let member = member || bare || !node.declares(name);
                fields::insert(&mut below, fields::field(name), member, inner);
            }
            (false, below)
        }
        (Shape::List(shape @ (ListShape::Set | ListShape::Map(_))), Value::Array(list)) => {
            let item = node.item();
            let mut seen: HashMap<String, usize> = HashMap::with_capacity(list.len());
            let elements: Vec<Option<String>> =
                list.iter().map(|v| fields::element(v, shape, item).ok()).collect();
            elements.iter().flatten().for_each(|e| *seen.entry(e.clone()).or_default() += 1);
            for (value, element) in list.iter().zip(elements) {
                let Some(element) = element else { continue };
                let single = seen[&element] == 1;
                let inner = if single { fields_below(value, item).1 } else { FieldSet::new() };
                fields::insert(&mut below, element, true, inner);
            }
            (false, below)
        }
        (Shape::Object { atomic: false } | Shape::List(ListShape::Set | ListShape::Map(_)), Value::Null) => {
            (false, below)
        }
        _ => (true, below),
    }
}

/// Merges an applied configuration into an object.
pub fn merge(live: Value, config: &Value, node: Node<'_>) -> Value {
    match (node.shape(), live, config) {
        (
            Shape::Object { atomic: false } | Shape::Any { atomic: false },
            Value::Object(mut live),
            Value::Object(config),
        ) if !(live.is_empty() && config.is_empty()) => {
            for (name, value) in config {
                let merged = match live.remove(name) {
                    Some(old) => merge(old, value, node.child(name).unwrap_or(Node::ANY)),
                    None => value.clone(),
                };
                live.insert(name.clone(), merged);
            }
            Value::Object(live)
        }
        (
            Shape::List(shape @ (ListShape::Set | ListShape::Map(_))),
            Value::Array(live),
            Value::Array(config),
        ) if !(live.is_empty() && config.is_empty()) => {
            Value::Array(merge_lists(live, config, shape, node.item()))
        }
        // `null` for something that merges takes nothing away.
        (Shape::Object { atomic: false }, live @ Value::Object(_), Value::Null) if !is_empty(Some(&live)) => {
            live
        }
        (Shape::List(ListShape::Set | ListShape::Map(_)), live @ Value::Array(_), Value::Null)
            if !is_empty(Some(&live)) =>
        {
            live
        }
        (_, _, config) => config.clone(),
    }
}

/// Merges two lists by element. The configuration's elements keep their order, and what only the live list has stays
/// where it was among its neighbours.
fn merge_lists(live: Vec<Value>, config: &[Value], shape: ListShape<'_>, item: Node<'_>) -> Vec<Value> {
    let key = |value: &Value| fields::element(value, shape, item).ok();
    let left_keys: Vec<Option<String>> = live.iter().map(key).collect();
    let right_keys: Vec<Option<String>> = config.iter().map(key).collect();
    let in_right: HashMap<&str, usize> =
        right_keys.iter().enumerate().filter_map(|(i, k)| Some((k.as_deref()?, i))).collect();
    let mut in_left: HashMap<&str, Vec<usize>> = HashMap::with_capacity(live.len());
    for (i, key) in left_keys.iter().enumerate() {
        if let Some(key) = key {
            in_left.entry(key).or_default().push(i);
        }
    }
    let mut shared = right_keys.iter().flatten().filter(|k| in_left.contains_key(k.as_str())).peekable();
    let mut merged = vec![false; config.len()];
    let mut plan: Vec<Step> = Vec::with_capacity(left_keys.len() + right_keys.len());
    let (mut l, mut r) = (0, 0);
    while l < left_keys.len() || r < right_keys.len() {
        if l < left_keys.len() && r < right_keys.len() {
            if left_keys[l].is_some() && left_keys[l] == right_keys[r] {
                plan.push(Step::Config(r));
                merged[r] = true;
                l += 1;
                r += 1;
                shared.next();
                continue;
            }
            let is_shared = left_keys[l].as_deref().is_some_and(|k| in_right.contains_key(k));
            if is_shared && shared.peek().is_some_and(|next| Some(*next) != left_keys[l].as_ref()) {
                l += 1;
                continue;
            }
        }
        if l < left_keys.len() {
            match left_keys[l].as_deref().and_then(|k| in_right.get(k)) {
                None => {
                    plan.push(Step::Live(l));
                    l += 1;
                    continue;
                }
                Some(at) if merged[*at] => l += 1,
                Some(_) => {}
            }
        }
        if r < right_keys.len() {
            plan.push(Step::Config(r));
            merged[r] = true;
            if shared.peek().copied() == right_keys[r].as_ref() {
                shared.next();
            }
            r += 1;
        }
    }
    let mut left: Vec<Option<Value>> = live.into_iter().map(Some).collect();
    let mut out = Vec::with_capacity(plan.len());
    for step in plan {
        match step {
            Step::Live(at) => out.extend(left[at].take()),
            Step::Config(at) => {
                // Duplicates do not merge: the configuration's element replaces them.
                let same = right_keys[at].as_deref().and_then(|k| in_left.get(k)).map(Vec::as_slice);
                let old = same.and_then(|same| if let [only] = same { left[*only].take() } else { None });
                out.push(match old {
                    Some(old) => merge(old, &config[at], item),
                    None => config[at].clone(),
                });
            }
        }
    }
    out
}

/// Where the next element of a merged list comes from.
enum Step {
    Live(usize),
    Config(usize),
}

/// Takes the fields of a set out of an object. A map or list that this leaves empty stays: somebody owns it.
pub fn remove(value: &mut Value, set: &FieldSet, node: Node<'_>) {
    match (node.shape(), value) {
        (Shape::Object { atomic: false } | Shape::Any { atomic: false }, Value::Object(map)) => {
            for (element, place) in set {
                let Some(name) = element.strip_prefix("f:") else { continue };
                let Some(inner) = map.get_mut(name) else { continue };
                if fields::is_member(place) {
                    map.remove(name);
                } else if let Some(below) = place.as_object() {
                    remove(inner, below, node.child(name).unwrap_or(Node::ANY));
                }
            }
        }
        (Shape::List(shape @ (ListShape::Set | ListShape::Map(_))), Value::Array(list)) => {
            let item = node.item();
            list.retain_mut(|value| {
                let Ok(element) = fields::element(value, shape, item) else { return true };
                let Some(place) = set.get(&element) else { return true };
                if fields::is_member(place) {
                    return false;
                }
                if let Some(below) = place.as_object() {
                    remove(value, below, item);
                }
                true
            });
        }
        _ => {}
    }
}
