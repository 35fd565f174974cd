//! Paths that are no resource: discovery, version, health, metrics, OpenAPI.

mod aggregated;
mod legacy;
mod open_api;
mod zpages;

pub(crate) use legacy::{priority, verbs};
pub(crate) use open_api::Documents;

use bytes::Bytes;
use gantry_api::ApiError;
use gantry_api::status::Result;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

use crate::core::Core;
use crate::dispatch::not_allowed;
use crate::identify::Discovery;
use crate::metrics;
use crate::pipeline::{accepts_gzip, header, wish};
use crate::query::Query;
use crate::resources::Table;
use crate::respond::{self, Encoding, Endpoint, Format, Shape, with_type};
use crate::route::RequestInfo;
use crate::serve::{Body, empty};
use crate::warnings::Warnings;

/// The version of Kubernetes whose API is spoken.
const GIT_VERSION: &str = concat!("v1.36.2+gantry-", env!("CARGO_PKG_VERSION"));

/// Serves a path that is no resource.
///
/// # Errors
/// 404 if nothing is there, 405 for writes.
pub(crate) fn path(
    core: &Core,
    info: &RequestInfo,
    query: &Query,
    method: &Method,
    headers: &HeaderMap,
    warnings: &Warnings,
) -> Result<Response<Body>> {
    let path = info.path.trim_end_matches('/');
    let accept = header(headers, ACCEPT.as_str());
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if info.path.contains("//") {
        return Err(ApiError::no_such_page());
    }
    let table = core.table.load();
    // Only what upstream has in its router cares for the method and for what is accepted.
    if let Some(encodings) = routed(&table, &parts) {
        if *method != Method::GET {
            return Err(not_allowed());
        }
        if aggregated::wanted(accept).is_none() {
            wish(headers, query).check_document(encodings)?;
        }
    }
    if let (["api" | "apis"], Some(encoding)) = (parts.as_slice(), aggregated::wanted(accept)) {
        let document = aggregated::document(&table, parts[0] == "api");
        crate::audit::document(warnings, &document);
        return aggregated::response(&document, encoding, headers);
    }
    let document = match parts.as_slice() {
        [".well-known", "openid-configuration"] => {
            return issuer(core, |d| &d.configuration, "application/json");
        }
        ["openid", "v1", "jwks"] => return issuer(core, |d| &d.keys, "application/jwk-set+json"),
        // Upstream writes these two as JSON for people.
        [""] => return respond::written(200, &raw(&json!({"paths": paths(core)})), &PRETTY, false),
        ["version"] => return respond::written(200, &raw(&version()), &PRETTY, false),
        ["metrics"] => {
            let (text, media) = metrics::page(core, headers);
            return respond::document(Bytes::from(text), media, accepts_gzip(headers));
        }
        ["metrics", "slis"] => {
            let (text, media) = metrics::slis(headers);
            return respond::document(Bytes::from(text), media, accepts_gzip(headers));
        }
        ["statusz"] => return zpages::status(core, headers, warnings),
        ["flagz"] => return zpages::flags(core, headers, warnings),
        ["debug", "flags" | "pprof", ..] => {
            let text = Bytes::from_static(NO_PROFILING);
            return Ok(with_type(404, text, "text/plain; charset=utf-8"));
        }
        ["debug", "api_priority_and_fairness", name] => {
            let details = query.get("includeRequestDetails").is_some_and(|text| !text.is_empty());
            let text = core.fairness.show(name, details).ok_or_else(ApiError::no_such_path)?;
            return Ok(with_type(200, Bytes::from(text), "text/plain; charset=utf-8"));
        }
        ["openapi", ..] => return open_api::response(core, &parts, query, headers),
        ["api"] => legacy::core_versions(),
        ["apis"] => legacy::groups(&table),
        ["api", "v1"] => legacy::resources(&table, "", "v1").ok_or_else(ApiError::no_such_path)?,
        ["apis", group] => legacy::group(&table, group).ok_or_else(ApiError::no_such_page)?,
        ["apis", group, version] => {
            legacy::resources(&table, group, version).ok_or_else(|| no_such(core, info))?
        }
        _ => return Err(no_such(core, info)),
    };
    let format = wish(headers, query).negotiate(Endpoint::default())?;
    crate::audit::document(warnings, &document);
    respond::written(200, &raw(&document), &format, accepts_gzip(headers))
}

/// Go's profiles and flags: nothing here could fill them.
const NO_PROFILING: &[u8] = b"profiling is not available: this server has no Go runtime to look into\n";

/// The encodings of a document that upstream's router serves.
fn routed(table: &Table, parts: &[&str]) -> Option<&'static [Encoding]> {
    match parts {
        ["version"] => Some(&[Encoding::Json]),
        ["api"] | ["api", "v1"] => Some(&Encoding::ALL),
        ["apis", group, version] => table.is_builtin(group, version).then_some(&Encoding::ALL),
        _ => None,
    }
}

/// 404: in the words of the API that the path lies below, if it lies below one.
pub(crate) fn no_such(core: &Core, info: &RequestInfo) -> ApiError {
    let mut parts = info.path.trim_start_matches('/').split('/');
    let is_api = match (parts.next(), parts.next()) {
        (Some("api"), _) => true,
        (Some("apis"), Some(group)) => legacy::group(&core.table.load(), group).is_some(),
        _ => false,
    };
    if is_api { ApiError::no_such_path() } else { ApiError::no_such_page() }
}

const PRETTY: Format =
    Format { encoding: Encoding::Json, shape: Shape::Plain, meta_version: "", pretty: true };

fn raw(document: &Value) -> Bytes {
    Bytes::from(document.to_string())
}

/// A document about the issuer of service account tokens.
fn issuer(core: &Core, which: fn(&Discovery) -> &Bytes, media: &'static str) -> Result<Response<Body>> {
    let documents = core.parts.discovery.as_ref().ok_or_else(ApiError::no_such_path)?;
    let mut response = with_type(200, which(documents).clone(), media);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Ok(response)
}

pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}

fn paths(core: &Core) -> Vec<String> {
    let mut paths: Vec<String> = [
        "/api",
        "/api/v1",
        "/apis",
        "/flagz",
        "/healthz",
        "/livez",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/statusz",
        "/version",
    ]
    .map(str::to_owned)
    .into();
    if core.parts.discovery.is_some() {
        paths.extend(["/.well-known/openid-configuration", "/openid/v1/jwks"].map(str::to_owned));
    }
    for (group, versions) in crate::aggregate::group_versions(&core.table.load()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|v| format!("/apis/{group}/{v}")));
    }
    paths.sort();
    paths
}

/// A document with an entity tag; 304 if the client has it already.
fn tagged(
    document: &Value,
    encoding: Encoding,
    content_type: &'static str,
    headers: &HeaderMap,
) -> Result<Response<Body>> {
    let bytes = raw(document);
    let hash: String = Sha512::digest(&bytes).iter().map(|b| format!("{b:02X}")).collect();
    let tag = format!("\"{hash}\"");
    let mut response = if header(headers, IF_NONE_MATCH.as_str()) == tag {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let format = Format { encoding, ..Format::default() };
        let mut response = respond::written(200, &bytes, &format, accepts_gzip(headers))?;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    Ok(response)
}
