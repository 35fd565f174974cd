//! JSON patch (RFC 6902) and JSON merge patch (RFC 7386).

use gantry_api::ApiError;
use serde_json::{Map, Value};

use crate::limits::MAX_JSON_DEPTH;

/// The most operations that one JSON patch may hold.
pub const MAX_OPERATIONS: usize = 10_000;

/// The most bytes that the `copy` operations of one JSON patch may add.
pub const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// Applies a merge patch: objects merge by key, `null` removes, everything else replaces.
///
/// # Errors
/// 400 if the patch is no object.
pub fn merge_patch(mut current: Value, patch: Value) -> Result<Value, ApiError> {
    if !patch.is_object() {
        return Err(ApiError::bad_request("Invalid JSON Patch"));
    }
    merge_into(&mut current, patch);
    Ok(current)
}

fn merge_into(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge_into(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Applies a JSON patch. Indexes may be negative, counting from the end, as clients of Kubernetes may expect.
///
/// # Errors
/// 400 if the patch is not a list of operations, 413 if it has too many, 422 if an operation does not apply.
pub fn json_patch(mut current: Value, patch: &Value) -> Result<Value, ApiError> {
    let operations = patch.as_array().ok_or_else(|| {
        let kind = if patch.is_object() { "object" } else { "value" };
        ApiError::bad_request(format!("json: cannot unmarshal {kind} into Go value of type jsonpatch.Patch"))
    })?;
    if operations.len() > MAX_OPERATIONS {
        return Err(ApiError::too_large(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut bounds = Bounds::of(&current);
    for operation in operations {
        apply(&mut current, operation, &mut bounds).map_err(|_| unprocessable())?;
    }
    Ok(current)
}

/// What a client is told when a patch does not apply; upstream keeps the particulars to itself.
pub(super) fn unprocessable() -> ApiError {
    ApiError::unprocessable()
}

/// Why one operation did not apply.
#[derive(Debug, PartialEq, Eq)]
struct Inapplicable;

type Step<T> = Result<T, Inapplicable>;

/// What a patch may not exceed while it is applied.
struct Bounds {
    /// Bytes that were copied.
    copied: usize,
    /// No value lies deeper in the document; it may be less deep than this.
    depth: usize,
}

impl Bounds {
    fn of(document: &Value) -> Self {
        Self { copied: 0, depth: depth(document) }
    }

    fn copy(&mut self, bytes: usize) -> Step<()> {
        self.copied += bytes;
        if self.copied > MAX_COPIED_BYTES { Err(Inapplicable) } else { Ok(()) }
    }

    /// A value is put to where `path` leads; `below` says how deep it is. Whatever walks over a document does so by
    /// recursion: operations may not stack values so deep that the stack runs out.
    fn put(&mut self, document: &Value, path: &[String], below: usize) -> Step<()> {
        self.depth = self.depth.max(path.len() + below);
        if self.depth > MAX_DEPTH {
            self.depth = depth(document).max(path.len() + below);
        }
        if self.depth > MAX_DEPTH { Err(Inapplicable) } else { Ok(()) }
    }
}

/// How deep values may lie in the document while a patch is applied. (What comes of it is read again, which has a limit
/// of its own.)
const MAX_DEPTH: usize = 4 * MAX_JSON_DEPTH;

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn apply(document: &mut Value, operation: &Value, bounds: &mut Bounds) -> Step<()> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str).ok_or(Inapplicable);
    // Who names no value means null.
    let value = || operation.get("value").cloned().unwrap_or_default();
    let path = pointer(text("path")?)?;
    match text("op")? {
        "add" => {
            let value = value();
            bounds.put(document, &path, depth(&value))?;
            add(document, &path, value)
        }
        "remove" => remove(document, &path).map(drop),
        "replace" => {
            let value = value();
            bounds.put(document, &path, depth(&value))?;
            replace(document, &path, value)
        }
        "move" => {
            let from = pointer(text("from")?)?;
            if path.len() > from.len() && path.starts_with(&from) {
                return Err(Inapplicable);
            }
            let value = remove(document, &from)?;
            // The estimate of the depth is only looked into where it matters.
            let most = bounds.depth.saturating_sub(from.len());
            let below = if path.len() + most > MAX_DEPTH { depth(&value) } else { most };
            bounds.put(document, &path, below)?;
            add(document, &path, value)
        }
        "copy" => {
            let value = get(document, &pointer(text("from")?)?)?.clone();
            bounds.copy(value.to_string().len())?;
            bounds.put(document, &path, depth(&value))?;
            add(document, &path, value)
        }
        "test" => {
            let found = get(document, &path).unwrap_or(&Value::Null);
            if equal(found, &value()) { Ok(()) } else { Err(Inapplicable) }
        }
        _ => Err(Inapplicable),
    }
}

/// JSON equality: `1` and `1.0` are the same number.
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| equal(v, w)))
        }
        _ => a == b,
    }
}

fn pointer(text: &str) -> Step<Vec<String>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let parts = text.strip_prefix('/').ok_or(Inapplicable)?.split('/');
    Ok(parts.map(|p| p.replace("~1", "/").replace("~0", "~")).collect())
}

fn get<'a>(document: &'a Value, path: &[String]) -> Step<&'a Value> {
    path.iter().try_fold(document, |value, part| match value {
        Value::Object(map) => map.get(part).ok_or(Inapplicable),
        Value::Array(list) => list.get(index(part, list.len())?).ok_or(Inapplicable),
        _ => Err(Inapplicable),
    })
}

fn get_mut<'a>(document: &'a mut Value, path: &[String]) -> Step<&'a mut Value> {
    path.iter().try_fold(document, |value, part| match value {
        Value::Object(map) => map.get_mut(part).ok_or(Inapplicable),
        Value::Array(list) => {
            let at = index(part, list.len())?;
            list.get_mut(at).ok_or(Inapplicable)
        }
        _ => Err(Inapplicable),
    })
}

/// An index into a list of `len` elements; negative ones count from the end.
fn index(part: &str, len: usize) -> Step<usize> {
    let number: i64 = part.parse().map_err(|_| Inapplicable)?;
    let len = i64::try_from(len).map_err(|_| Inapplicable)?;
    usize::try_from(if number < 0 { number + len } else { number }).map_err(|_| Inapplicable)
}

fn add(document: &mut Value, path: &[String], value: Value) -> Step<()> {
    let Some((last, parent)) = path.split_last() else {
        *document = value;
        return Ok(());
    };
    match get_mut(document, parent)? {
        Value::Object(map) => drop(map.insert(last.clone(), value)),
        Value::Array(list) if last == "-" => list.push(value),
        Value::Array(list) => {
            // An insertion may also go behind the last element.
            let at = index(last, list.len() + 1)?;
            if at > list.len() {
                return Err(Inapplicable);
            }
            list.insert(at, value);
        }
        _ => return Err(Inapplicable),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &[String]) -> Step<Value> {
    let (last, parent) = path.split_last().ok_or(Inapplicable)?;
    match get_mut(document, parent)? {
        Value::Object(map) => map.remove(last).ok_or(Inapplicable),
        Value::Array(list) => {
            let at = index(last, list.len())?;
            if at < list.len() { Ok(list.remove(at)) } else { Err(Inapplicable) }
        }
        _ => Err(Inapplicable),
    }
}

/// A field that is not there can be replaced as well: upstream's library does not look.
fn replace(document: &mut Value, path: &[String], value: Value) -> Step<()> {
    let parent = path.split_last().map(|(last, parent)| (last, get_mut(document, parent)));
    if let Some((last, Ok(Value::Object(map)))) = parent {
        map.insert(last.clone(), value);
        return Ok(());
    }
    *get_mut(document, path)? = value;
    Ok(())
}

/// The same for patches that do not come from a client: says why one does not apply, as the library upstream uses does.
///
/// # Errors
/// The first operation that does not apply.
pub(crate) fn json_patch_explained(mut current: Value, patch: &Value) -> Result<Value, String> {
    let operations = patch.as_array().map(Vec::as_slice).unwrap_or_default();
    if operations.len() > MAX_OPERATIONS {
        return Err(format!("more than {MAX_OPERATIONS} operations"));
    }
    let mut bounds = Bounds::of(&current);
    for operation in operations {
        if apply(&mut current, operation, &mut bounds).is_err() {
            return Err(explain(&current, operation));
        }
    }
    Ok(current)
}

fn explain(document: &Value, operation: &Value) -> String {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let kind = text("op").unwrap_or("unknown");
    let Some(path) = text("path") else {
        return format!("{kind} operation failed to decode path: missing value");
    };
    let steps = pointer(path).unwrap_or_default();
    let (key, parent) = steps.split_last().map_or(("", &[][..]), |(key, parent)| (key.as_str(), parent));
    let container = get(document, parent).ok().filter(|c| c.is_object() || c.is_array());
    let index = || match key.parse::<i64>() {
        Ok(index) => format!("Unable to access invalid index: {index}: invalid index referenced"),
        Err(_) => format!("strconv.Atoi: parsing {key:?}: invalid syntax"),
    };
    let missing =
        |what: &str| format!("{kind} operation does not apply: doc is missing {what}: missing value");
    match (kind, container) {
        ("add" | "remove", None) => missing(&format!("path: \"{path}\"")),
        ("add", Some(_)) if key.parse::<i64>().is_err() => {
            format!(
                "error in add for path: '{path}': value was not a proper array index: '{key}': {}",
                index()
            )
        }
        ("remove", Some(Value::Object(_))) => {
            format!(
                "error in remove for path: '{path}': Unable to remove nonexistent key: {key}: missing value"
            )
        }
        ("add" | "remove", Some(_)) => format!("error in {kind} for path: '{path}': {}", index()),
        ("replace", None) => missing(&format!("path: {path}")),
        ("replace", Some(_)) => missing(&format!("key: {path}")),
        ("test", _) => format!("testing value {path} failed: test failed"),
        ("move" | "copy", _) => missing(&format!("from path: {}", text("from").unwrap_or(""))),
        _ => format!("Unexpected kind: {kind}"),
    }
}
