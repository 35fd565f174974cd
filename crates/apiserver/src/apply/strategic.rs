//! Strategic merge patch: a merge patch that knows which lists merge, and by what key.
//!
//! Directives inside the patch: `$patch` (`replace`, `delete`, `merge`), `$retainKeys`,
//! `$deleteFromPrimitiveList/<field>` and `$setElementOrder/<field>`.

use std::borrow::Cow;
use std::collections::HashMap;

use gantry_api::ApiError;
use gantry_api::schema::{Node, Type};
use serde_json::{Map, Value};

use super::go_text::go_text;
use super::patch::unprocessable;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";
const ORDER_PREFIX: &str = "$setElementOrder/";

type Object = Map<String, Value>;

/// Applies a strategic merge patch to an object of a built-in kind.
///
/// # Errors
/// 400 if a directive is malformed, 415 for custom resources, whose schema knows no merge keys, 422 for lists of
/// lists, 500 (as upstream) if the patch does not fit the type.
pub fn strategic_merge_patch(current: Value, patch: Value, node: Node<'_>) -> Result<Value, ApiError> {
    if !matches!(node, Node::Static(..)) {
        return Err(unsupported());
    }
    let Value::Object(patch) = patch else {
        let kind = if patch.is_array() { "array" } else { "value" };
        return Err(ApiError::bad_request(format!(
            "json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
        )));
    };
    let current = match current {
        Value::Object(current) => current,
        _ => Object::new(),
    };
    merge_map(current, patch, node).map(Value::Object).map_err(Fault::into_api)
}

fn unsupported() -> ApiError {
    ApiError::unsupported_media_type(
        "the body of the request was in an unknown format - accepted media types include: \
         application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
    )
}

/// Why a patch cannot be applied, by the answer upstream gives.
#[derive(Debug)]
enum Fault {
    /// 400
    BadPatch(&'static str),
    /// 422
    ListOfLists,
    /// 500
    Misfit(String),
}

impl Fault {
    fn into_api(self) -> ApiError {
        match self {
            Fault::BadPatch(text) => ApiError::bad_request(text),
            Fault::ListOfLists => unprocessable(),
            Fault::Misfit(text) => ApiError::new(500, "", text),
        }
    }
}

const BAD_RETAIN_KEYS: Fault = Fault::BadPatch("invalid patch format of retainKeys");

fn no_merge_key(element: &Object, key: &str) -> Fault {
    let text = go_text(&Value::Object(element.clone()));
    Fault::Misfit(format!("map: {text} does not contain declared merge key: {key}"))
}

/// How a field merges.
#[derive(Clone, Copy)]
struct Strategy {
    merge: bool,
    replace: bool,
    key: Option<&'static str>,
}

fn strategy(node: Node<'_>) -> Strategy {
    let markers = node.markers();
    let words = markers.patch_strategy.unwrap_or_default();
    let has = |word| words.split(',').any(|w| w == word);
    Strategy { merge: has("merge"), replace: has("replace"), key: markers.patch_merge_key }
}

/// The place of a field that holds an object or list; the patch goes deeper only where the type does.
fn lookup<'a>(node: Node<'a>, name: &str) -> Result<Node<'a>, Fault> {
    if let Some(def) = node.definition() {
        return node.child(name).ok_or_else(|| {
            let ty = def.name();
            let ty = ty.rsplit('.').next().unwrap_or_default();
            Fault::Misfit(format!("unable to find api field in struct {ty} for the json field {name:?}"))
        });
    }
    match node {
        Node::Static(Type::AnyObject(_) | Type::Any(_), _) => Err(Fault::Misfit(format!(
            "unable to find api field in struct RawExtension for the json field {name:?}"
        ))),
        _ => Err(Fault::Misfit(
            "merging an object in json but data type is not struct, instead is: map".to_owned(),
        )),
    }
}

fn merge_map(mut original: Object, mut patch: Object, node: Node<'_>) -> Result<Object, Fault> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Object::new()),
            _ => Err(unknown_directive(&patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, node)?;
    // What is deleted goes first, so that a value both deleted and added stays.
    let (deletions, rest): (Vec<_>, Vec<_>) =
        patch.into_iter().partition(|(k, _)| k.starts_with(DELETE_PREFIX));
    for (key, values) in deletions {
        delete_from_list(&mut original, &key[DELETE_PREFIX.len()..], values);
    }
    for (key, value) in rest {
        merge_field(&mut original, key, value, node)?;
    }
    Ok(original)
}

fn unknown_directive(patch: &Object) -> Fault {
    let directive = patch.get(DIRECTIVE).map(go_text).unwrap_or_default();
    Fault::Misfit(format!(
        "unknown patch type: {directive} in map: {}",
        go_text(&Value::Object(patch.clone()))
    ))
}

fn merge_field(original: &mut Object, key: String, patch: Value, node: Node<'_>) -> Result<(), Fault> {
    if patch.is_null() {
        original.remove(&key);
        return Ok(());
    }
    let merged = match (original.remove(&key), patch) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            let child = lookup(node, &key)?;
            let merged = if strategy(child).replace { new } else { merge_map(old, new, child)? };
            Some(Value::Object(merged))
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            let child = lookup(node, &key)?;
            let strategy = strategy(child);
            let merged = if strategy.merge { merge_list(old, new, child.item(), strategy.key)? } else { new };
            Some(Value::Array(merged))
        }
        (_, mut new) => {
            discard_nulls(&mut new);
            without_directives(new)
        }
    };
    if let Some(merged) = merged {
        original.insert(key, merged);
    }
    Ok(())
}

fn delete_from_list(original: &mut Object, key: &str, values: Value) {
    // What is no list deletes nothing from one.
    let Value::Array(values) = values else { return };
    if let Some(Value::Array(list)) = original.get_mut(key) {
        let gone = Places::of(&values, None);
        list.retain(|v| gone.get(v).is_none());
    }
}

fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), Fault> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = keys else { return Err(BAD_RETAIN_KEYS) };
    let kept = |name: &str| keys.iter().any(|k| k == name);
    let stray = patch.iter().any(|(k, v)| {
        !v.is_null() && !k.starts_with(DELETE_PREFIX) && !k.starts_with(ORDER_PREFIX) && !kept(k)
    });
    if stray {
        return Err(BAD_RETAIN_KEYS);
    }
    original.retain(|k, _| kept(k));
    Ok(())
}

/// Merges the lists that come with a `$setElementOrder`, and takes both out of the patch.
fn merge_ordered_lists(original: &mut Object, patch: &mut Object, node: Node<'_>) -> Result<(), Fault> {
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(ORDER_PREFIX)).cloned().collect();
    for directive in directives {
        let order = as_list(patch.remove(&directive).unwrap_or_default())?;
        let key = &directive[ORDER_PREFIX.len()..];
        let old = original.get(key).cloned().map(as_list).transpose()?;
        let new = patch.get(key).filter(|v| !v.is_null()).cloned().map(as_list).transpose()?;
        let child = lookup(node, key)?;
        let strategy = strategy(child);
        check_order(new.as_deref().unwrap_or_default(), &order, strategy.key)?;
        let merged = match (&old, new) {
            (None, None) => continue,
            // The order of a list that the patch removes.
            (Some(_), None) if patch.get(key).is_some_and(Value::is_null) => continue,
            (Some(old), None) => old.clone(),
            (None, Some(new)) => new.into_iter().filter_map(without_directives).collect(),
            (Some(old), Some(new)) if strategy.merge => {
                merge_list(old.clone(), new, child.item(), strategy.key)?
            }
            (Some(_), Some(new)) => new,
        };
        let old = old.unwrap_or_default();
        let sorted = sort(merged, &order, &old, strategy.key)?;
        original.insert(key.to_owned(), Value::Array(sorted));
        patch.remove(key);
    }
    Ok(())
}

fn as_list(value: Value) -> Result<Vec<Value>, Fault> {
    match value {
        Value::Array(list) => Ok(list),
        other => {
            let kind = match other {
                Value::Object(_) => "map[string]interface {}",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                Value::Number(_) => "int64",
                _ => "%!s(<nil>)",
            };
            Err(Fault::Misfit(format!("expected a []interface {{}}, but received a {kind}")))
        }
    }
}

/// The patched elements must occur in the order list, in the same order.
fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), Fault> {
    if order.is_empty() || patch.is_empty() {
        return Ok(());
    }
    let mut remaining = order.iter();
    for element in patch.iter().filter(|e| e.get(DIRECTIVE).is_none()) {
        let wanted = identity(element, key)?;
        let mut found = false;
        for candidate in remaining.by_ref() {
            if *identity(candidate, key)? == *wanted {
                found = true;
                break;
            }
        }
        if !found {
            return Err(Fault::Misfit(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                go_text(&Value::Array(patch.to_vec())),
                go_text(&Value::Array(order.to_vec()))
            )));
        }
    }
    Ok(())
}

/// What tells an element from the others: its merge key's value, or a scalar itself.
fn identity<'a>(element: &'a Value, key: Option<&str>) -> Result<Cow<'a, Value>, Fault> {
    let Some(key) = key else { return Ok(Cow::Borrowed(element)) };
    let Value::Object(map) = element else {
        return Err(Fault::Misfit(
            "expected a map[string]interface {}, but received another type".to_owned(),
        ));
    };
    map.get(key).map(Cow::Borrowed).ok_or_else(|| no_merge_key(map, key))
}

fn merge_list(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    item: Node<'_>,
    key: Option<&str>,
) -> Result<Vec<Value>, Fault> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    if !same_kind(&original, &patch)? {
        return merge_scalars(original, patch);
    }
    let Some(key) = key else {
        return Err(Fault::Misfit("cannot merge lists without merge key for struct".to_owned()));
    };
    let mut elements = Vec::with_capacity(patch.len());
    let mut gone = Places::default();
    let mut replace = false;
    for element in patch {
        let Value::Object(map) = &element else { continue };
        match map.get(DIRECTIVE).map(|d| d.as_str().unwrap_or_default()) {
            None => elements.push(element),
            Some("delete") => {
                gone.note(map.get(key).ok_or_else(|| no_merge_key(map, key))?, 0);
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(Fault::Misfit("merging lists cannot yet be specified in the patch".to_owned()));
            }
            Some(_) => return Err(unknown_directive(map)),
        }
    }
    if replace {
        return Ok(elements);
    }
    original.retain(|e| e.get(key).is_none_or(|of| gone.get(of).is_none()));
    let order = elements.clone();
    let before = original.clone();
    let mut places = Places::of(&original, Some(key));
    for element in elements {
        let Value::Object(map) = element else { continue };
        let wanted = map.get(key).ok_or_else(|| no_merge_key(&map, key))?;
        match places.get(wanted).and_then(|at| original.get_mut(at)) {
            Some(found) => {
                let Value::Object(old) = found.take() else { continue };
                *found = Value::Object(merge_map(old, map, item)?);
            }
            None => {
                places.note(wanted, original.len());
                original.push(Value::Object(map));
            }
        }
    }
    sort(original, &order, &before, Some(key))
}

/// Where the elements of a list are, by what tells them apart: of those that are the same, the first. Lists may be long
/// (a patch is as long as a request), so that nobody looks through one for each element of another.
#[derive(Default)]
struct Places(HashMap<String, usize>);

impl Places {
    /// By the value of `key`, or without one by the element itself. What has no such key is nowhere.
    fn of(list: &[Value], key: Option<&str>) -> Self {
        let mut places = Self(HashMap::with_capacity(list.len()));
        for (at, element) in list.iter().enumerate() {
            if let Some(identity) = key.map_or(Some(element), |key| element.get(key)) {
                places.note(identity, at);
            }
        }
        places
    }

    fn note(&mut self, identity: &Value, at: usize) {
        self.0.entry(identity.to_string()).or_insert(at);
    }

    fn get(&self, identity: &Value) -> Option<usize> {
        self.0.get(&identity.to_string()).copied()
    }
}

/// Whether the elements are objects; they must all be of one kind, and no lists.
fn same_kind(original: &[Value], patch: &[Value]) -> Result<bool, Fault> {
    let mut elements = original.iter().chain(patch);
    let first = elements.next().map(std::mem::discriminant);
    if original.iter().chain(patch).any(Value::is_array) {
        return Err(Fault::ListOfLists);
    }
    if elements.any(|e| Some(std::mem::discriminant(e)) != first) {
        let lists = [Value::Array(original.to_vec()), Value::Array(patch.to_vec())];
        let text = go_text(&Value::Array(lists.to_vec()));
        return Err(Fault::Misfit(format!("list element types are not identical: {text}")));
    }
    Ok(original.first().or_else(|| patch.first()).is_some_and(Value::is_object))
}

fn merge_scalars(original: Vec<Value>, patch: Vec<Value>) -> Result<Vec<Value>, Fault> {
    let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
    let mut known = Places::default();
    for value in original.iter().chain(&patch) {
        if known.get(value).is_none() {
            known.note(value, merged.len());
            merged.push(value.clone());
        }
    }
    sort(merged, &patch, &original, None)
}

/// Orders a merged list: elements in `order` come in that order, the others as they were in `before`, and the two
/// interleave as `before` has them.
fn sort(
    merged: Vec<Value>,
    order: &[Value],
    before: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, Fault> {
    let (in_order, in_before) = (Places::of(order, key), Places::of(before, key));
    let mut named = Vec::new();
    let mut others = Vec::new();
    for element in merged {
        let (live, at) = {
            let wanted = identity(&element, key)?;
            (in_before.get(&wanted), in_order.get(&wanted))
        };
        match at {
            Some(at) => named.push((at, live, element)),
            None => others.push((live.unwrap_or(usize::MAX), element)),
        }
    }
    named.sort_by_key(|(at, ..)| *at);
    others.sort_by_key(|(live, _)| *live);
    let mut sorted = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, live, element) in named {
        while let Some((_, other)) = others.next_if(|(at, _)| live.is_some_and(|live| *at < live)) {
            sorted.push(other);
        }
        sorted.push(element);
    }
    sorted.extend(others.map(|(_, other)| other));
    Ok(sorted)
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// What is left of a value that is taken over as it is: objects with a `$patch` are instructions and go.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            Some(map.into_iter().filter_map(|(k, v)| Some((k, without_directives(v)?))).collect())
        }
        Value::Array(list) => Some(list.into_iter().filter_map(without_directives).collect()),
        other => Some(other),
    }
}
