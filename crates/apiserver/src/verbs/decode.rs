//! From a body to an object: media types, type names, unknown and duplicate fields.

use bytes::Bytes;
use gantry_api::field::quote;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_kinds::AnyObject;
use serde_json::Value;

use super::{Call, Input};
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
    let json = json(input)?;
    let resource = call.served.resource();
    let (version, kind) = type_names(&json, resource)?;
    let strict = validation != FieldValidation::Ignore;
    let cannot = |why: String| cannot_handle(&version, &kind, resource, &json, &why);
    let decoded = call.served.kind.decode(&json, strict).map_err(|e| cannot(e.to_string()))?;
    if strict {
        let mut complaints: Vec<String> =
            duplicates(input, &json).iter().map(|path| format!("duplicate field {}", quote(path))).collect();
        complaints.extend(decoded.unknown.iter().cloned());
        complain(call, complaints, validation, cannot)?;
    }
    Ok(decoded.object)
}

/// Reads an object from a tree that a patch made; `cannot` words the refusal of strict validation.
pub(crate) fn patched(
    call: &Call<'_>,
    tree: Value,
    validation: FieldValidation,
) -> Result<Box<dyn AnyObject>> {
    let resource = call.served.resource();
    let version = tree["apiVersion"].as_str().unwrap_or("").to_owned();
    let kind = tree["kind"].as_str().unwrap_or("").to_owned();
    check_type(&version, &kind, resource)?;
    let unreadable = |e: gantry_api::DecodeError| {
        let error = gantry_api::field::Error::invalid(
            &gantry_api::field::Path::new("patch"),
            Value::String(tree.to_string()),
            e.to_string(),
        );
        ApiError::invalid(&nameless(resource), "", &[error])
    };
    if validation == FieldValidation::Ignore {
        return call.served.kind.decode_value(tree.clone()).map_err(unreadable);
    }
    let decoded = call.served.kind.decode(tree.to_string().as_bytes(), true).map_err(unreadable)?;
    let complaints = decoded.unknown.clone();
    complain(call, complaints, validation, ApiError::bad_request)?;
    Ok(decoded.object)
}

fn nameless(resource: &Resource) -> Resource {
    Resource { group: "".into(), ..resource.clone() }
}

fn complain(
    call: &Call<'_>,
    complaints: Vec<String>,
    validation: FieldValidation,
    refuse: impl Fn(String) -> ApiError,
) -> Result<()> {
    if complaints.is_empty() {
        return Ok(());
    }
    if validation == FieldValidation::Strict {
        return Err(refuse(format!("strict decoding error: {}", complaints.join(", "))));
    }
    for complaint in complaints {
        call.warnings.add(complaint);
    }
    Ok(())
}

/// Reads any JSON or YAML body as a tree.
pub(crate) fn tree(input: &Input<'_>, expected: &str) -> Result<Value> {
    let json = json(input)?;
    serde_json::from_slice(&json).map_err(|e| unrecognized(expected, &parse_error(&e), &json))
}

/// The body as JSON.
pub(crate) fn json(input: &Input<'_>) -> Result<Bytes> {
    match media_type(input.content_type).as_str() {
        "" | "application/json" | "*/*" => Ok(input.bytes.clone()),
        "application/yaml" => yaml(&input.bytes),
        "application/vnd.kubernetes.protobuf" => protobuf(&input.bytes),
        _ => Err(unsupported()),
    }
}

/// Protobuf as JSON. Custom resources have no such encoding.
fn protobuf(bytes: &[u8]) -> Result<Bytes> {
    match gantry_api::protobuf::to_json(bytes) {
        Ok(tree) => Ok(Bytes::from(tree.to_string())),
        Err(gantry_api::protobuf::Error::Kind { .. }) => Err(unsupported()),
        Err(error) => Err(ApiError::bad_request(error.to_string())),
    }
}

/// YAML as JSON. JSON is YAML, and passes unchanged.
pub(crate) fn yaml(bytes: &Bytes) -> Result<Bytes> {
    if bytes.first() == Some(&b'{') {
        return Ok(bytes.clone());
    }
    let text =
        std::str::from_utf8(bytes).map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))?;
    // `y` and `on` are text: who means a boolean writes one.
    let options = serde_saphyr::options! { strict_booleans: true };
    let tree: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))?;
    Ok(Bytes::from(tree.to_string()))
}

/// `application/json` of `application/json; charset=utf-8`.
pub(crate) fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// 415
fn unsupported() -> ApiError {
    ApiError::unsupported_media_type(
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    )
}

/// `apiVersion` and `kind` of the body, the resource's own where there are none.
fn type_names(json: &[u8], resource: &Resource) -> Result<(String, String)> {
    if json.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        let why = match serde_json::from_slice::<serde::de::IgnoredAny>(json) {
            Err(e) => parse_error(&e),
            Ok(_) => "json: cannot unmarshal value into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }".to_owned(),
        };
        return Err(unrecognized(
            &resource.kind,
            &format!("couldn't get version/kind; json parse error: {why}"),
            json,
        ));
    }
    let (version, kind) = splice::type_meta(json);
    check_type(&version, &kind, resource)?;
    Ok((version, kind))
}

fn check_type(version: &str, kind: &str, resource: &Resource) -> Result<()> {
    let expected = resource.api_version();
    if !version.is_empty() && version != expected {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    if !kind.is_empty() && kind != resource.kind {
        let version = short_version(&expected);
        return Err(ApiError::bad_request(format!(
            "{kind} in version {} cannot be handled as a {}: converting ({version}.{kind}) to ({version}.{}): unknown conversion",
            quote(version),
            resource.kind,
            resource.kind
        )));
    }
    Ok(())
}

fn cannot_handle(version: &str, kind: &str, resource: &Resource, json: &[u8], why: &str) -> ApiError {
    if kind.is_empty() {
        return unrecognized(&resource.kind, why, json);
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

/// Go's words for a body that ends too early; for the rest those of the reader.
fn parse_error(error: &serde_json::Error) -> String {
    if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() }
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

/// Fields that stand twice; a YAML reader refuses those by itself.
fn duplicates(input: &Input<'_>, json: &[u8]) -> Vec<String> {
    if media_type(input.content_type) == "application/yaml" {
        return Vec::new();
    }
    crate::apply::duplicate_fields(json)
}
