//! From a body to an object: media types, type names, unknown and duplicate fields.

use bytes::Bytes;
use gantry_api::field::quote;
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
    let (version, kind) = type_names(&body.json, resource, call.served.entry.custom)?;
    let cannot = |why: String| cannot_handle(&version, &kind, resource, &input.bytes, &why);
    let served = &call.served.kind;
    // A body is read into a tree at most once.
    let read = match body.typed {
        false => apply::read(&body.json, served.definition().map(|_| served.schema())).ok(),
        true => None,
    };
    let misread = |error: &gantry_api::DecodeError| match go_json::syntax_error(&body.json) {
        Some(why) => unparsable(&resource.kind, &why, &input.bytes),
        None => cannot(misread(call, &body.json, error)),
    };
    let Some(read) = read else {
        let decoded = served.decode(&body.json, false).map_err(|e| misread(&e))?;
        return Ok(decoded.object);
    };
    if read.no_quantity
        && let Some(Misfit(why)) = apply::misfit(&read.tree, served.schema())
    {
        return Err(cannot(why));
    }
    let mut complaints = body.complaints;
    // Of YAML the reader has complained already, and with the line.
    let duplicates_told = body.is_yaml;
    complaints
        .extend(read.problems.into_iter().filter(|p| !duplicates_told || !p.starts_with("duplicate field ")));
    let object = if served.definition().is_some() {
        served.decode(&body.json, false).map(|decoded| decoded.object)
    } else {
        complaints.extend(apply::unknown_fields(&read.tree, served.schema()));
        served.decode_value(read.tree)
    };
    let object = object.map_err(|e| misread(&e))?;
    complain(call, complaints, validation, cannot)?;
    check_kind(&kind, resource)?;
    Ok(object)
}

/// A custom resource may be read under another kind's name, and is then invalid.
fn check_kind(kind: &str, resource: &Resource) -> Result<()> {
    if kind.is_empty() || kind == resource.kind {
        return Ok(());
    }
    let path = gantry_api::field::Path::new("kind");
    let why = format!("must be {}", resource.kind);
    let error = gantry_api::field::Error::invalid(&path, kind, why);
    let other = Resource { kind: kind.to_owned().into(), ..resource.clone() };
    Err(ApiError::invalid(&other, "", &[error]))
}

/// Why a body does not fit the kind, in Go's words where they are known.
fn misread(call: &Call<'_>, json: &[u8], error: &gantry_api::DecodeError) -> String {
    let served = &call.served.kind;
    let tree = served.definition().and_then(|_| serde_json::from_slice::<Value>(json).ok());
    match tree.and_then(|tree| apply::misfit(&tree, served.schema())) {
        Some(Misfit(text)) => text,
        None => error.to_string(),
    }
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
    let (version, kind) = (text(tree, "apiVersion"), text(tree, "kind"));
    if call.served.entry.custom {
        check_version(version, &call.served.resource().api_version())?;
        check_kind(kind, call.served.resource())?;
    } else {
        check_type(version, kind, call.served.resource())?;
    }
    let object = match served.definition() {
        Some(_) => served.decode(tree.to_string().as_bytes(), false).map(|decoded| decoded.object),
        None => served.decode_value(tree.clone()),
    };
    let misfit = apply::misfit(tree, served.schema());
    match (object, misfit) {
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
    complain(call, complaints, validation, |why| invalid_patch(shown(), why))
}

/// 422 for what a patch made.
pub(crate) fn invalid_patch(shown: String, why: String) -> ApiError {
    let error =
        gantry_api::field::Error::invalid(&gantry_api::field::Path::new("patch"), Value::String(shown), why);
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
    call: &Call<'_>,
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
        warn(call, &complaint);
    }
    Ok(())
}

/// A warning for each line that a YAML reader complains of, or one of the whole text.
pub(crate) fn warn(call: &Call<'_>, complaint: &str) {
    match complaint.rsplit_once(YAML_ERRORS) {
        Some((_, lines)) => lines.lines().for_each(|line| call.warnings.add(line.trim_start())),
        None => call.warnings.add(complaint),
    }
}

/// What precedes the lines of a YAML reader's complaints.
const YAML_ERRORS: &str = "yaml: unmarshal errors:\n";

/// The keys that stand twice in a YAML text, in one complaint as upstream's reader words it.
pub(crate) fn yaml_complaint(bytes: &[u8]) -> Option<String> {
    let lines = apply::yaml_duplicates(std::str::from_utf8(bytes).ok()?);
    (!lines.is_empty()).then(|| format!("{YAML_ERRORS}  {}", lines.join("\n  ")))
}

/// Reads any JSON or YAML body as a tree.
pub(crate) fn tree(input: &Input<'_>, expected: &str) -> Result<Value> {
    let body = Body::read(input, false, expected)?;
    serde_json::from_slice(&body.json)
        .map_err(|e| unrecognized(expected, &parse_error(&e, &body.json), &body.json))
}

/// Reads the body of a subresource that has a kind of its own.
///
/// # Errors
/// 400 for what cannot be read, 415 for other media types.
pub(crate) fn body(
    call: &Call<'_>,
    input: &Input<'_>,
    resource: &Resource,
    validation: FieldValidation,
) -> Result<Value> {
    let body = Body::read(input, false, &resource.kind)?;
    let (version, kind) = type_names(&body.json, resource, false)?;
    let cannot = |why: String| cannot_handle(&version, &kind, resource, &input.bytes, &why);
    let definition = gantry_api::schema::lookup_kind(&resource.group, &resource.version, &resource.kind);
    let node = definition.map(|def| def.node()).filter(|_| !body.typed);
    let read = apply::read(&body.json, node)
        .map_err(|e| unparsable(&resource.kind, &parse_error(&e, &body.json), &input.bytes))?;
    if let Some(Misfit(why)) = node.and_then(|node| apply::misfit(&read.tree, node)) {
        return Err(cannot(why));
    }
    let mut complaints = body.complaints;
    complaints.extend(read.problems);
    complain(call, complaints, validation, cannot)?;
    audit::object_body(call.warnings, &read.tree);
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
        let plain = |json, is_yaml| Self { json, complaints: Vec::new(), typed: false, is_yaml };
        match media_type(input.content_type).as_str() {
            "" | "application/json" | "*/*" => Ok(plain(input.bytes.clone(), false)),
            "application/yaml" => {
                let complaints = yaml_complaint(&input.bytes).into_iter().collect();
                Ok(Self { complaints, ..plain(yaml_of(&input.bytes, expected)?, true) })
            }
            "application/vnd.kubernetes.protobuf" if !custom => {
                Ok(Self { typed: true, ..plain(protobuf(&input.bytes, expected)?, false) })
            }
            _ => Err(unsupported(custom)),
        }
    }
}

/// Protobuf as JSON. Custom resources have no such encoding.
fn protobuf(bytes: &[u8], expected: &str) -> Result<Bytes> {
    if bytes.is_empty() {
        return Err(unrecognized(expected, "empty data", bytes));
    }
    if !bytes.starts_with(b"k8s\0") {
        let why = "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]";
        return Err(unrecognized(expected, why, bytes));
    }
    match gantry_api::protobuf::to_json(bytes) {
        Ok(tree) => Ok(Bytes::from(tree.to_string())),
        Err(gantry_api::protobuf::Error::Kind { .. }) => Err(unsupported(true)),
        Err(error) => Err(unrecognized(expected, &error.to_string(), bytes)),
    }
}

/// The YAML body of an object as JSON.
fn yaml_of(bytes: &Bytes, expected: &str) -> Result<Bytes> {
    yaml(bytes).map_err(|error| {
        let why = error.message().replacen("error decoding YAML: ", "yaml: ", 1);
        unrecognized(expected, &why, bytes)
    })
}

/// YAML as JSON. JSON is YAML, and passes unchanged. Of a key that stands twice the later value counts.
pub(crate) fn yaml(bytes: &Bytes) -> Result<Bytes> {
    if bytes.first() == Some(&b'{') {
        return Ok(bytes.clone());
    }
    let text =
        std::str::from_utf8(bytes).map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))?;
    // `y` and `on` are text: who means a boolean writes one.
    let options = serde_saphyr::options! {
        strict_booleans: true,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
    };
    let tree: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))?;
    Ok(Bytes::from(tree.to_string()))
}

/// `application/json` of `application/json; charset=utf-8`.
pub(crate) fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// 415
fn unsupported(custom: bool) -> ApiError {
    let mut accepted = vec!["application/json", "application/yaml"];
    if !custom {
        accepted.push("application/vnd.kubernetes.protobuf");
    }
    unsupported_media_type(&accepted)
}

/// 415, and what would be accepted.
pub(crate) fn unsupported_media_type(accepted: &[&str]) -> ApiError {
    ApiError::unsupported_media_type(format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    ))
}

/// `apiVersion` and `kind` of the body, the resource's own where there are none.
fn type_names(json: &[u8], resource: &Resource, custom: bool) -> Result<(String, String)> {
    let wrong = |why: &str| match go_json::syntax_error(json) {
        Some(syntax) => unparsable(&resource.kind, &syntax, json),
        None => unrecognized(&resource.kind, why, json),
    };
    let first = json.iter().find(|b| !b.is_ascii_whitespace());
    if !matches!(first, Some(b'{' | b'n')) {
        let what = match first {
            Some(b'[') => "array",
            Some(b'"') => "string",
            Some(b't' | b'f') => "bool",
            _ => "number",
        };
        return Err(wrong(&format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {what} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
        )));
    }
    let (version, kind) = splice::type_meta(json);
    let expected = resource.api_version();
    if !custom && (version.is_empty() || version == expected) && (kind.is_empty() || kind == resource.kind) {
        return Ok((version, kind));
    }
    if go_json::syntax_error(json).is_some() {
        return Err(wrong(""));
    }
    if custom {
        if kind.is_empty() {
            let text = String::from_utf8_lossy(json);
            return Err(wrong(&format!("Object 'Kind' is missing in '{text}'")));
        }
        check_version(&version, &expected)?;
        return Ok((version, kind));
    }
    if version.matches('/').count() > 1 {
        return Err(wrong(&format!("unexpected GroupVersion string: {version}")));
    }
    check_type(&version, &kind, resource)?;
    Ok((version, kind))
}

fn check_version(version: &str, expected: &str) -> Result<()> {
    if version == expected {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "the API version in the data ({version}) does not match the expected API version ({expected})"
    )))
}

/// Refuses the names of another type; empty ones are the resource's own.
fn check_type(version: &str, kind: &str, resource: &Resource) -> Result<()> {
    let expected = resource.api_version();
    let version = if version.is_empty() { &expected } else { version };
    let kind = if kind.is_empty() { &*resource.kind } else { kind };
    if *version == expected && kind == resource.kind {
        return Ok(());
    }
    let (group, short) = version.rsplit_once('/').unwrap_or(("", version));
    let cannot = |why: String| {
        ApiError::bad_request(format!(
            "{kind} in version {} cannot be handled as a {}: {why}",
            quote(short),
            resource.kind
        ))
    };
    let known = scheme(group) == scheme(&resource.group)
        && gantry_api::schema::lookup_kind(group, short, kind).is_some();
    if !known {
        return Err(cannot(format!(
            "no kind {} is registered for version {} in scheme {}",
            quote(kind),
            quote(version),
            quote(scheme(&resource.group))
        )));
    }
    if kind == resource.kind && package(group) == package(&resource.group) {
        return check_version(version, &expected);
    }
    let internal = package(&resource.group);
    Err(cannot(format!("converting ({short}.{kind}) to ({internal}.{}): unknown conversion", resource.kind)))
}

/// Where upstream registers the types of a group.
fn scheme(group: &str) -> &'static str {
    match group {
        "apiextensions.k8s.io" => "pkg/apiserver/apiserver.go:55",
        "apiregistration.k8s.io" => "pkg/apiserver/scheme/scheme.go:28",
        _ => "pkg/api/legacyscheme/scheme.go:30",
    }
}

/// Upstream's package of a group's internal types.
fn package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        _ => group.split('.').next().unwrap_or(group),
    }
}

fn cannot_handle(version: &str, kind: &str, resource: &Resource, body: &[u8], why: &str) -> ApiError {
    if kind.is_empty() {
        return unrecognized(&resource.kind, why, body);
    }
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

/// What is wrong with a text that is no JSON, in Go's words.
pub(crate) fn parse_error(error: &serde_json::Error, bytes: &[u8]) -> String {
    go_json::syntax_error(bytes).unwrap_or_else(|| error.to_string())
}

/// 400 for a body that is no JSON.
fn unparsable(kind: &str, why: &str, body: &[u8]) -> ApiError {
    unrecognized(kind, &format!("couldn't get version/kind; json parse error: {why}"), body)
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
