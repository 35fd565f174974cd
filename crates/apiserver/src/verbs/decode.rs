//! From a body to an object: media types, type names, unknown and duplicate fields.

use bytes::Bytes;
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
use crate::splice;
use crate::warnings::Warnings;

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

fn untyped(why: &str) -> String {
    format!("couldn't get version/kind; json parse error: {why}")
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

/// 422 for what a patch made.
pub(crate) fn invalid_patch(shown: String, why: String) -> ApiError {
    let error = Error::invalid(&Path::new("patch"), Value::String(shown), why);
    ApiError::invalid(&Resource::fixed("", "", "", "", false), "", &[error])
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

/// What precedes the lines of a YAML reader's complaints.
const YAML_ERRORS: &str = "yaml: unmarshal errors:\n";

/// The keys that stand twice in a YAML text, in one complaint as upstream's reader words it.
pub(crate) fn yaml_complaint(bytes: &[u8]) -> Option<String> {
    let lines = apply::yaml_duplicates(std::str::from_utf8(bytes).ok()?);
    (!lines.is_empty()).then(|| format!("{YAML_ERRORS}  {}", lines.join("\n  ")))
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

/// A body as JSON.
struct Body {
    json: Bytes,
    /// What strict reading complains of beside unknown fields.
    complaints: Vec<String>,
    /// Whether the encoding has no place for unknown fields.
    typed: bool,
    is_yaml: bool,
}

impl Body {
    fn read(input: &Input<'_>, custom: bool, expected: &str) -> Result<Self> {
        // Nothing at all stands for an empty object.
        let or_empty =
            |json: Bytes| if json.trim_ascii() == b"null" { Bytes::from_static(b"{}") } else { json };
        let plain =
            |json, is_yaml| Self { json: or_empty(json), complaints: Vec::new(), typed: false, is_yaml };
        let unreadable = |why: String| unrecognized(expected, &why, &input.bytes);
        match media_type(input.content_type).as_str() {
            "" | "application/json" => Ok(plain(in_utf8(&input.bytes), false)),
            "application/yaml" => {
                let complaints = yaml_complaint(&input.bytes).into_iter().collect();
                Ok(Self { complaints, ..plain(yaml(&input.bytes).map_err(unreadable)?, true) })
            }
            "application/vnd.kubernetes.protobuf" if !custom => {
                Ok(Self { typed: true, ..plain(protobuf(&input.bytes, unreadable)?, false) })
            }
            _ => Err(unsupported()),
        }
    }
}

/// A text as Go reads it: each byte that belongs to no character is a replacement character.
fn in_utf8(bytes: &Bytes) -> Bytes {
    if std::str::from_utf8(bytes).is_ok() {
        return bytes.clone();
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Bytes::from(text)
}

/// Protobuf as JSON; or why not, as upstream's codec says it.
fn protobuf(bytes: &[u8], unreadable: impl Fn(String) -> ApiError) -> Result<Bytes> {
    if bytes.is_empty() {
        return Err(unreadable("empty data".to_owned()));
    }
    if !bytes.starts_with(b"k8s\0") {
        let why = "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]";
        return Err(unreadable(why.to_owned()));
    }
    match gantry_api::protobuf::to_json(bytes) {
        Ok(tree) => Ok(Bytes::from(tree.to_string())),
        // Custom resources have no such encoding.
        Err(gantry_api::protobuf::Error::Kind { .. }) => Err(unsupported()),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

/// The first document of a YAML text.
fn first_document(text: &str) -> &str {
    let mut at = 0;
    let mut has_begun = false;
    for line in text.split_inclusive('\n') {
        if line.trim_end() == "---" && has_begun {
            return &text[..at];
        }
        has_begun |= !(line.trim().is_empty() || line.starts_with('#') || line.trim_end() == "---");
        at += line.len();
    }
    text
}

/// YAML as JSON. JSON is YAML, and passes unchanged. Of a key that stands twice the later value counts, and of several
/// documents the first.
///
/// # Errors
/// What is wrong, and in which line.
pub(crate) fn yaml(bytes: &Bytes) -> std::result::Result<Bytes, String> {
    if bytes.first() == Some(&b'{') {
        return Ok(bytes.clone());
    }
    let text = std::str::from_utf8(bytes).map_err(|e| format!("yaml: {e}"))?;
    // `y` and `on` are text: who means a boolean writes one.
    let options = serde_saphyr::options! {
        strict_booleans: true,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
    };
    let tree: Value = serde_saphyr::from_str_with_options(first_document(text), options)
        .map_err(|e| yaml_error(&e.to_string()))?;
    Ok(Bytes::from(tree.to_string()))
}

/// `yaml: line 3: …` of a reader's message, which shows the text as well.
fn yaml_error(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default().trim_start_matches("error: ");
    match line.strip_prefix("line ").and_then(|rest| rest.split_once(" column ")) {
        Some((number, rest)) => {
            let why = rest.split_once(": ").map_or(rest, |(_, why)| why);
            format!("yaml: line {number}: {why}")
        }
        None => format!("yaml: {line}"),
    }
}

/// `application/json` of `application/json; charset=utf-8`.
pub(crate) fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// 415
fn unsupported() -> ApiError {
    unsupported_media_type(&["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"])
}

/// 415, and what would be accepted.
pub(crate) fn unsupported_media_type(accepted: &[&str]) -> ApiError {
    ApiError::unsupported_media_type(format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    ))
}

/// `apiVersion` and `kind` of the body, the resource's own where there are none.
fn type_names(json: &[u8], resource: &Resource, sent: &[u8]) -> Result<(String, String)> {
    if json.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        let why = go_json::shallow_syntax_error(json).unwrap_or_else(|| no_object(json));
        return Err(unrecognized(&resource.kind, &untyped(&why), sent));
    }
    let (version, kind) = splice::type_meta(json);
    if version.matches('/').count() > 1 {
        let why = format!("unexpected GroupVersion string: {version}");
        return Err(unrecognized(&resource.kind, &why, sent));
    }
    check_as_sent(json, &version, &kind, resource)?;
    check_type(&version, &kind, resource)?;
    Ok((version, kind))
}

/// A body that says that it is of another built-in kind is read as that before it is told that it is another.
fn check_as_sent(json: &[u8], version: &str, kind: &str, resource: &Resource) -> Result<()> {
    if kind.is_empty() || (kind == resource.kind && (version.is_empty() || version == resource.api_version()))
    {
        return Ok(());
    }
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    let definition = gantry_api::schema::lookup_kind(group, short_version(version), kind);
    let misfit = definition.zip(serde_json::from_slice::<Value>(json).ok());
    match misfit.and_then(|(def, tree)| apply::misfit(&tree, def.node())) {
        Some(Misfit(why)) => Err(cannot_handle(version, kind, resource, &why)),
        None => Ok(()),
    }
}

/// The same of a custom resource, which has to say both.
fn custom_type_names(json: &[u8], resource: &Resource, sent: &[u8]) -> Result<(String, String)> {
    if json.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        let why = go_json::shallow_syntax_error(json).unwrap_or_else(|| no_object(json));
        return Err(unrecognized(&resource.kind, &untyped(&why), sent));
    }
    let (version, kind) = splice::type_meta(json);
    if kind.is_empty() {
        if let Some(why) = go_json::shallow_syntax_error(json) {
            return Err(unrecognized(&resource.kind, &untyped(&why), sent));
        }
        let why = format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(json).trim_end());
        return Err(unrecognized(&resource.kind, &why, sent));
    }
    Ok((version, kind))
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

/// 422 for a custom resource of another kind.
fn other_kind(resource: &Resource, kind: &str, name: &str) -> ApiError {
    let why = format!("must be {}", resource.kind);
    let error = Error::invalid(&Path::new("kind"), kind, why);
    ApiError::invalid(&Resource { kind: kind.to_owned().into(), ..resource.clone() }, name, &[error])
}

/// What is said of a value that should say its type.
fn no_object(json: &[u8]) -> String {
    let found = go_json::json_type(json);
    format!(
        "json: cannot unmarshal {found} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
    )
}

fn check_type(version: &str, kind: &str, resource: &Resource) -> Result<()> {
    let expected = resource.api_version();
    let version = if version.is_empty() { &*expected } else { version };
    let kind = if kind.is_empty() { &*resource.kind } else { kind };
    if version == expected && kind == resource.kind {
        return Ok(());
    }
    let is_builtin = |group: &str, version: &str, kind: &str| {
        gantry_api::schema::lookup_kind(group, version, kind).is_some()
    };
    let short = short_version(version);
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    let cannot = |why: String| {
        ApiError::bad_request(format!(
            "{kind} in version {} cannot be handled as a {}: {why}",
            quote(short),
            resource.kind
        ))
    };
    if !is_builtin(&resource.group, &resource.version, &resource.kind) {
        // Of a custom resource only the version is looked at here.
    } else if !is_builtin(group, short, kind) && kind != "List" {
        return Err(cannot(format!(
            "no kind {} is registered for version {} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            quote(kind),
            quote(version)
        )));
    } else if kind != resource.kind || package(group) != package(&resource.group) {
        return Err(cannot(format!(
            "converting ({short}.{kind}) to ({}.{}): unknown conversion",
            package(&resource.group),
            resource.kind
        )));
    }
    if version == expected {
        return Err(cannot(format!(
            "converting ({short}.{kind}) to ({short}.{}): unknown conversion",
            resource.kind
        )));
    }
    Err(ApiError::bad_request(format!(
        "the API version in the data ({version}) does not match the expected API version ({expected})"
    )))
}

/// The package of a group's internal types.
fn package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        group => group.split('.').next().unwrap_or(group),
    }
}

fn cannot_handle(version: &str, kind: &str, resource: &Resource, why: &str) -> ApiError {
    let kind = if kind.is_empty() { &*resource.kind } else { kind };
    let version = if version.is_empty() { &resource.version } else { short_version(version) };
    ApiError::bad_request(format!(
        "{kind} in version {} cannot be handled as a {}: {why}",
        quote(version),
        resource.kind
    ))
}

fn unrecognized(kind: &str, why: &str, body: &[u8]) -> ApiError {
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({})",
        summary(body)
    ))
}

/// Go's words for a body that ends too early; for the rest those of the reader.
pub(crate) fn parse_error(error: &serde_json::Error, bytes: &[u8]) -> String {
    go_json::shallow_syntax_error(bytes).unwrap_or_else(|| error.to_string())
}

fn short_version(api_version: &str) -> &str {
    api_version.rsplit_once('/').map_or(api_version, |(_, version)| version)
}

/// The beginning of a body, for a message.
fn summary(body: &[u8]) -> String {
    const MAX: usize = 30;
    let cut = &body[..body.len().min(MAX)];
    let more = if body.len() > MAX { " ..." } else { "" };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(cut)),
        Some(_) => cut.iter().map(|b| format!("{b:02x}")).collect::<String>() + more,
    }
}
