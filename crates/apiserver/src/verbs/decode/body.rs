//! Bodies as JSON: media types, YAML, protobuf.

use bytes::Bytes;
use gantry_api::ApiError;
use gantry_api::status::Result;
use serde_json::Value;

use super::super::Input;
use super::errors::unrecognized;
use crate::apply;

/// What precedes the lines of a YAML reader's complaints.
pub(super) const YAML_ERRORS: &str = "yaml: unmarshal errors:\n";

/// The keys that stand twice in a YAML text, in one complaint as upstream's reader words it.
pub(crate) fn yaml_complaint(bytes: &[u8]) -> Option<String> {
    let lines = apply::yaml_duplicates(std::str::from_utf8(bytes).ok()?);
    (!lines.is_empty()).then(|| format!("{YAML_ERRORS}  {}", lines.join("\n  ")))
}

/// A body as JSON.
pub(super) struct Body {
    pub(super) json: Bytes,
    /// What strict reading complains of beside unknown fields.
    pub(super) complaints: Vec<String>,
    /// Whether the encoding has no place for unknown fields.
    pub(super) typed: bool,
    pub(super) is_yaml: bool,
}

impl Body {
    pub(super) fn read(input: &Input<'_>, custom: bool, expected: &str) -> Result<Self> {
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
pub(super) fn unsupported() -> ApiError {
    unsupported_media_type(&["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"])
}

/// 415, and what would be accepted.
pub(crate) fn unsupported_media_type(accepted: &[&str]) -> ApiError {
    ApiError::unsupported_media_type(format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    ))
}
