//! From a body to an object: media types, type names, unknown and duplicate fields.

use gantry_api::field::{Error, Path, quote};
use gantry_api::go_json;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_kinds::AnyObject;
use serde_json::Value;

use super::{Call, Input};
use crate::apply::{self, Misfit};
use crate::audit;
use crate::query::FieldValidation;
use crate::warnings::Warnings;

mod body;
mod errors;
mod names;

use body::{Body, YAML_ERRORS};
pub(crate) use body::{media_type, unsupported_media_type, yaml, yaml_complaint};
use errors::{cannot_handle, other_kind, unrecognized};
pub(crate) use errors::{invalid_patch, no_object, parse_error, untyped};
use names::{check_type, custom_type_names, type_names};

/// Reads an object of the call's kind.
///
/// # Errors
/// 400 for what cannot be read, 415 for other media types.
pub(crate) fn object(
    call: &Call<'_>,
    input: &Input<'_>,
    validation: FieldValidation,
) -> Result<Box<dyn AnyObject>> {
    let resource = call.served.resource();
    let body = Body::read(input, call.served.entry.custom, &resource.kind)?;
    let (version, kind) = match call.served.entry.custom {
        true => custom_type_names(&body.json, resource, &input.bytes)?,
        false => type_names(&body.json, resource, &input.bytes)?,
    };
    let cannot = |why: String| cannot_handle(&version, &kind, resource, &why);
    let served = &call.served.kind;
    if call.served.entry.custom {
        check_version(call, &body.json, &version, validation, cannot)?;
    }
    let (object, problems) = match served.definition() {
        _ if body.typed => (typed(call, &body.json), Vec::new()),
        // A custom resource is a tree.
        None => match apply::read(&body.json, None) {
            Ok(read) => {
                let unknown = apply::unknown_fields(&read.tree, served.schema());
                (served.decode_value(read.tree), [read.problems, unknown].concat())
            }
            Err(_) => (typed(call, &body.json), Vec::new()),
        },
        Some(_) => {
            // Whoever decodes it says that it is no JSON.
            let found = apply::complaints(&body.json, Some(served.schema())).unwrap_or_default();
            if found.no_quantity
                && let Ok(tree) = serde_json::from_slice(&body.json)
                && let Some(Misfit(why)) = apply::misfit(&tree, served.schema())
            {
                return Err(cannot(why));
            }
            (typed(call, &body.json), found.problems)
        }
    };
    let object = object.map_err(|e| misread(call, input, &body.json, &e, cannot))?;
    let mut complaints = body.complaints;
    // Of YAML the reader has complained already, and with the line.
    complaints.extend(problems.into_iter().filter(|p| !(body.is_yaml && p.starts_with("duplicate field "))));
    complain(call.warnings, complaints, validation, cannot)?;
    Ok(object)
}

/// An object of the call's kind, without what Go would forget of it.
fn typed(call: &Call<'_>, json: &[u8]) -> std::result::Result<Box<dyn AnyObject>, gantry_api::DecodeError> {
    let served = &call.served.kind;
    let tidied = served.schema().definition().and_then(|def| gantry_api::schema::tidied(json, def));
    let mut object = served.decode(tidied.as_deref().unwrap_or(json), false)?.object;
    served.recall(&mut *object, json);
    Ok(object)
}

/// Why a body does not fit the kind, in Go's words where they are known; `cannot` is what is said of a body whose
/// type could be read.
fn misread(
    call: &Call<'_>,
    input: &Input<'_>,
    json: &[u8],
    error: &gantry_api::DecodeError,
    cannot: impl FnOnce(String) -> ApiError,
) -> ApiError {
    let served = &call.served.kind;
    let kind = &call.served.resource().kind;
    let untyped = |why: &str| unrecognized(kind, &untyped(why), &input.bytes);
    if let Some(why) = go_json::shallow_syntax_error(json) {
        return untyped(&why);
    }
    let Some(tree) = served.definition().and_then(|_| serde_json::from_slice::<Value>(json).ok()) else {
        return cannot(error.to_string());
    };
    let no_text = |name: &&str| tree.get(*name).is_some_and(|v| !v.is_string() && !v.is_null());
    if let Some(name) = ["apiVersion", "kind"].into_iter().find(|name| no_text(name)) {
        let found = go_json::json_type(tree[name].to_string().as_bytes());
        return untyped(&format!(
            "json: cannot unmarshal {found} into Go struct field .{name} of type string"
        ));
    }
    cannot(apply::misfit(&tree, served.schema()).map_or_else(|| error.to_string(), |misfit| misfit.0))
}

/// Reads an object from a tree that a patch made, whatever is in it.
///
/// # Errors
/// 422 if it is of no such type; `shown` is the patch or its result, as upstream shows it.
pub(crate) fn patched(
    call: &Call<'_>,
    tree: &Value,
    shown: impl FnOnce(&Value) -> String,
) -> Result<Box<dyn AnyObject>> {
    let served = &call.served.kind;
    let (version, kind, resource) = (text(tree, "apiVersion"), text(tree, "kind"), call.served.resource());
    if !call.served.entry.custom {
        check_type(version, kind, resource)?;
    } else if version != resource.api_version() {
        let (group, short) = version.rsplit_once('/').unwrap_or(("", version));
        let why = format!("must be {}", resource.api_version());
        let error = Error::invalid(&Path::new("apiVersion"), version, why);
        let (group, short) = (group.to_owned().into(), short.to_owned().into());
        let shown = Resource { group, version: short, ..resource.clone() };
        return Err(ApiError::invalid(&shown, call.name, &[error]));
    } else if kind != resource.kind {
        return Err(other_kind(resource, kind, call.name));
    }
    let object = match served.definition() {
        Some(_) => typed(call, tree.to_string().as_bytes()),
        None => served.decode_value(tree.clone()),
    };
    match (object, apply::misfit(tree, served.schema())) {
        (Ok(object), None) => Ok(object),
        (_, Some(Misfit(why))) => Err(invalid_patch(shown(tree), why)),
        (Err(error), None) => Err(invalid_patch(shown(tree), error.to_string())),
    }
}

/// What strict validation says of a patch and of what it made: refuses, warns, or says nothing.
///
/// # Errors
/// 422
pub(crate) fn check_patched(
    call: &Call<'_>,
    tree: &Value,
    mut complaints: Vec<String>,
    validation: FieldValidation,
    shown: impl FnOnce(&Value) -> String,
) -> Result<()> {
    if validation == FieldValidation::Ignore {
        return Ok(());
    }
    complaints.extend(apply::unknown_fields(tree, call.served.kind.schema()));
    let shown = || shown(tree);
    complain(call.warnings, complaints, validation, |why| invalid_patch(shown(), why))
}

fn text<'a>(tree: &'a Value, key: &str) -> &'a str {
    tree.get(key).and_then(Value::as_str).unwrap_or("")
}

/// Refuses complaints, or makes them warnings.
///
/// # Errors
/// What `refuse` makes of them, if validation is strict.
pub(crate) fn complain(
    warnings: &Warnings,
    complaints: Vec<String>,
    validation: FieldValidation,
    refuse: impl FnOnce(String) -> ApiError,
) -> Result<()> {
    if complaints.is_empty() || validation == FieldValidation::Ignore {
        return Ok(());
    }
    if validation == FieldValidation::Strict {
        return Err(refuse(format!("strict decoding error: {}", complaints.join(", "))));
    }
    for complaint in complaints {
        warn(warnings, &complaint);
    }
    Ok(())
}

/// A warning for each line that a YAML reader complains of, or one of the whole text.
pub(crate) fn warn(warnings: &Warnings, complaint: &str) {
    match complaint.rsplit_once(YAML_ERRORS) {
        Some((_, lines)) => lines.lines().for_each(|line| warnings.add(line.trim_start())),
        None => warnings.add(complaint),
    }
}

/// Reads the options of a deletion.
///
/// # Errors
/// 400 for what cannot be read, 415 for other media types.
pub(crate) fn options(input: &Input<'_>) -> Result<Value> {
    let body = Body::read(input, false, "DeleteOptions")?;
    let bad = |why: String| ApiError::bad_request(why);
    if let Some(why) = go_json::shallow_syntax_error(&body.json) {
        return Err(bad(untyped(&why)));
    }
    let tree: Value = serde_json::from_slice(&body.json).map_err(|e| bad(e.to_string()))?;
    if !tree.is_object() {
        return Err(bad(untyped(&no_object(&body.json))));
    }
    let node = gantry_api::schema::lookup("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions");
    match node.and_then(|def| apply::misfit(&tree, def.node())) {
        Some(misfit) => Err(bad(misfit.0)),
        None => Ok(tree),
    }
}

/// Reads the body of a subresource that has a kind of its own.
///
/// # Errors
/// 400 for what cannot be read, 415 for other media types.
pub(crate) fn body(
    warnings: &Warnings,
    input: &Input<'_>,
    resource: &Resource,
    validation: FieldValidation,
) -> Result<Value> {
    let body = Body::read(input, false, &resource.kind)?;
    let (version, kind) = type_names(&body.json, resource, &input.bytes)?;
    let cannot = |why: String| cannot_handle(&version, &kind, resource, &why);
    let definition = gantry_api::schema::lookup_kind(&resource.group, &resource.version, &resource.kind);
    let node = definition.map(|def| def.node()).filter(|_| !body.typed);
    let read =
        apply::read(&body.json, node).map_err(|e| match go_json::shallow_syntax_error(&body.json) {
            Some(why) => unrecognized(&resource.kind, &untyped(&why), &input.bytes),
            None => cannot(e.to_string()),
        })?;
    if let Some(Misfit(why)) = node.and_then(|node| apply::misfit(&read.tree, node)) {
        return Err(cannot(why));
    }
    let mut complaints = body.complaints;
    complaints.extend(read.problems);
    complain(warnings, complaints, validation, cannot)?;
    audit::object_body(warnings, &read.tree);
    Ok(read.tree)
}

/// Refuses a custom resource in another version than that of the path, as upstream does it: after it was read in that
/// version, of which nothing may be known. What validation says of fields then are warnings at most.
fn check_version(
    call: &Call<'_>,
    json: &[u8],
    version: &str,
    validation: FieldValidation,
    refuse: impl FnOnce(String) -> ApiError,
) -> Result<()> {
    let expected = call.served.resource().api_version();
    if version == expected {
        return Ok(());
    }
    let known = call.served.entry.versions.iter().find(|v| v.kind.resource().api_version() == version);
    let is_of_group = version.rsplit_once('/').is_some_and(|(g, _)| *g == *call.served.resource().group);
    if is_of_group && let Ok(tree) = serde_json::from_slice::<Value>(json) {
        let unknown = match known {
            Some(known) => apply::unknown_fields(&tree, known.kind.schema()),
            None => {
                let names = tree.as_object().into_iter().flat_map(|map| map.keys());
                let names = names.filter(|n| !matches!(n.as_str(), "apiVersion" | "kind" | "metadata"));
                names.map(|name| format!("unknown field {}", quote(name))).collect()
            }
        };
        complain(call.warnings, unknown, validation, refuse)?;
    }
    Err(ApiError::bad_request(format!(
        "the API version in the data ({version}) does not match the expected API version ({expected})"
    )))
}
