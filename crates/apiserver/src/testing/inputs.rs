//! The readers behind the pipeline, each alone: what fuzz targets call with bytes from outside.

use bytes::Bytes;
use gantry_api::status::Result as ApiResult;
use http::Method;
use serde_json::Value;

pub use crate::identify::inputs as credentials;

use crate::connect::rewrite::Rewriter;
use crate::custom::json_path::JsonPath;
use crate::query::{ListOptions, Query, WriteOptions};
use crate::respond::{Endpoint, Wish};
use crate::verbs::{decode, list};
use crate::{authorize, openapi, respond, route, splice};

/// A YAML body as JSON.
///
/// # Errors
/// What is wrong, and in which line.
pub fn yaml(body: &Bytes) -> Result<Bytes, String> {
    decode::yaml(body)
}

/// What is spliced into objects: the type names, and the object with this revision.
pub fn spliced(json: &Bytes, revision: u64) -> (String, String, Option<Bytes>) {
    let (version, kind) = splice::type_meta(json);
    // A name that is no text is read as the nearest one.
    let is_text = std::str::from_utf8(json).is_ok();
    if let Some(same) = splice::with_api_version(json, &version).filter(|_| is_text) {
        assert_eq!(&same, json, "the version that an object has is no change");
    }
    (version, kind, splice::with_revision(json, revision))
}

/// Reads a continue token of the collection at `prefix`: where it goes on, and at which revision.
///
/// # Errors
/// 400
pub fn continue_token(text: &str, prefix: &str) -> ApiResult<(String, i64)> {
    list::read_token(text, prefix)
}

/// The continue token behind `last_key`.
pub fn make_continue_token(prefix: &str, last_key: &str, revision: i64) -> String {
    list::token(prefix, last_key, revision)
}

/// Resolves a request line and reads every option of its query; says what it asks for.
pub fn request_line(method: &Method, path: &str, query: &str, user_agent: &str) -> String {
    let query = Query::parse(query);
    let info = route::resolve(method, path, &query);
    if let Ok(options) = ListOptions::parse(&query) {
        let problems = [options.validate(false), options.validate(true)];
        drop(problems);
    }
    if let Ok(options) = WriteOptions::parse(&query, user_agent, "PatchOptions") {
        assert!(options.manager().len() <= 128, "a field manager is no longer than upstream's");
    }
    format!("{info:?}")
}

/// What a client may be answered in; the media type, if any can be served.
pub fn negotiated(accept: &str, query: &str, custom: bool, watch: bool) -> Option<&'static str> {
    for clause in respond::accept::parse(accept) {
        clause.matches("application", "json");
    }
    let query = Query::parse(query);
    let wish = Wish { accept, user_agent: "", query: &query };
    let endpoint = Endpoint { transforms: true, custom, watch, known: true, named: true };
    let format = wish.negotiate(endpoint).ok()?;
    Some(format.encoding.media_type())
}

/// Reads an AuthorizationConfiguration.
///
/// # Errors
/// What is wrong with it.
pub fn authorization_configuration(text: &str) -> gantry_base::Result<usize> {
    authorize::count_authorizers(text)
}

/// Reads the path of a printer column or of a selectable field and follows it.
///
/// # Errors
/// It is malformed.
pub fn json_path(text: &str, object: &mut Value) -> Result<usize, String> {
    let path = JsonPath::parse(text)?;
    let found = path.find(object).len();
    path.set(object, Value::from("set"));
    Ok(found)
}

/// A page on its way through a proxy, its links rewritten.
///
/// # Errors
/// It is not compressed as its encoding says.
pub fn proxied_page(encoding: &str, page: &[u8]) -> std::io::Result<Option<Bytes>> {
    let rewriter = Rewriter {
        prefix: "/api/v1/namespaces/n/pods/p:80/proxy".to_owned(),
        target: "10.1.0.1:80".to_owned(),
        host: "server:6443".to_owned(),
    };
    rewriter.page(encoding, page)
}

/// An OpenAPI document of an aggregated server in protobuf.
pub fn open_api_protobuf(document: &Value) -> Vec<u8> {
    openapi::gnostic_document(document)
}
