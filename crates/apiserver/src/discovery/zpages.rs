//! `/statusz` and `/flagz` (KEP-4827 and KEP-4828): since when the server runs and what it was told, as a page for people
//! or as an object of `config.k8s.io` for who asks for that.

use std::fmt::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use gantry_api::status::Result;
use gantry_api::{ApiError, time};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response};
use serde_json::{Value, json};

use super::raw;
use crate::core::Core;
use crate::pipeline::header;
use crate::respond::{self, Encoding, Format, accept, with_type};
use crate::serve::Body;
use crate::warnings::Warnings;

/// What upstream calls the component.
const NAME: &str = "apiserver";
/// The version of the API, of what is emulated.
const VERSION: &str = "1.36";
const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.";
/// The paths that upstream tells of.
const PATHS: [&str; 7] = ["/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version"];

/// A page, and the same as an object.
struct Page {
    kind: &'static str,
    text: String,
    object: Value,
}

/// Since when the server runs, and which version it is.
///
/// # Errors
/// 406
pub(super) fn status(core: &Core, headers: &HeaderMap, warnings: &Warnings) -> Result<Response<Body>> {
    let (started, now) = (core.started, core.now());
    let up = now.duration_since(started).unwrap_or_default().as_secs();
    let text = format!(
        "Started: {}\nUp: {} hr {:02} min {:02} sec\nGo version: \nBinary version: {VERSION}\nEmulation version: {VERSION}\nPaths: {}\n",
        unix_date(started),
        up / 3600,
        up / 60 % 60,
        up % 60,
        PATHS.join(" ")
    );
    let object = json!({
        "startTime": time::time(started), "uptimeSeconds": up, "goVersion": "", "binaryVersion": VERSION,
        "emulationVersion": VERSION, "paths": PATHS,
    });
    answer(Page { kind: "Statusz", text, object }, headers, warnings)
}

/// The flags and what they say; empty are those that nobody has set.
///
/// # Errors
/// 406
pub(super) fn flags(core: &Core, headers: &HeaderMap, warnings: &Warnings) -> Result<Response<Body>> {
    let flags = core.flags.load();
    let mut text = String::new();
    for (name, value) in flags.iter() {
        // Writing to a string cannot fail.
        writeln!(text, "{name}={value}").ok();
    }
    answer(Page { kind: "Flagz", text, object: json!({"flags": &**flags}) }, headers, warnings)
}

/// As Go's `time.UnixDate`.
fn unix_date(at: SystemTime) -> String {
    time::time(at).0.strftime("%a %b %e %H:%M:%S UTC %Y").to_string()
}

fn answer(page: Page, headers: &HeaderMap, warnings: &Warnings) -> Result<Response<Body>> {
    let Page { kind, text, mut object } = page;
    let endpoint = kind.to_lowercase();
    for clause in accept::parse(header(headers, ACCEPT.as_str())) {
        if clause.parameters.is_empty() && clause.matches("text", "plain") {
            return Ok(plain(&endpoint, &text));
        }
        let structured = [(Encoding::Json, "json"), (Encoding::Yaml, "yaml")];
        let encoding = structured.into_iter().find(|(_, subtype)| clause.matches("application", subtype));
        let version = ["v1beta1", "v1alpha1"].into_iter().find(|v| clause.asks_for("config.k8s.io", v, kind));
        let (Some((encoding, _)), Some(version)) = (encoding, version) else { continue };
        if version == "v1alpha1" {
            warnings.add(format!(
                "This version of the {endpoint} endpoint is deprecated. Please use a newer version."
            ));
        }
        object["kind"] = kind.into();
        object["apiVersion"] = format!("config.k8s.io/{version}").into();
        object["metadata"] = json!({"name": NAME});
        let format = Format { encoding, pretty: true, ..Format::default() };
        let mut response = respond::written(200, &raw(&object), &format, false)?;
        let media = format!("{};g=config.k8s.io;v={version};as={kind}", encoding.media_type());
        if let Ok(media) = HeaderValue::from_str(&media) {
            response.headers_mut().insert(CONTENT_TYPE, media);
        }
        return Ok(response);
    }
    if headers.get(ACCEPT).is_none() {
        return Ok(plain(&endpoint, &text));
    }
    let why = "only the following media types are accepted: application/json, application/yaml, text/plain";
    Err(ApiError::not_acceptable(why))
}

fn plain(endpoint: &str, text: &str) -> Response<Body> {
    let gap = if endpoint == "statusz" { "\n" } else { "" };
    let page = format!("\n{NAME} {endpoint}\n{WARNING}\n{gap}{text}");
    with_type(200, Bytes::from(page), "text/plain; charset=utf-8")
}
