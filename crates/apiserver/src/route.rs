//! What a URL and method ask for, as `apiserver/pkg/endpoints/request/requestinfo.go` resolves it.

use gantry_api::{FieldSelector, LabelSelector};
use http::Method;

use crate::authorize::Attributes;
use crate::identify::User;
use crate::query::Query;

/// A request, resolved. For paths that are no resource only `verb` and `path` are set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    pub(crate) is_resource: bool,
    pub(crate) path: String,
    pub(crate) verb: &'static str,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) name: String,
    /// What follows the subresource, with a leading slash.
    pub(crate) rest: String,
    /// Whether the name stands in the path (and not only in a field selector).
    pub(crate) name_in_path: bool,
    /// Whether the path of a resource has empty parts or more parts than there is anything for.
    pub(crate) leads_nowhere: bool,
    /// The selectors of a request on a collection, as far as they can be read.
    pub(crate) fields: FieldSelector,
    pub(crate) labels: LabelSelector,
}

impl RequestInfo {
    /// What the authorizer wants to know of it.
    pub(crate) fn attributes<'a>(&'a self, user: &'a User) -> Attributes<'a> {
        Attributes {
            user,
            verb: self.verb,
            is_resource: self.is_resource,
            group: &self.group,
            version: &self.version,
            resource: &self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
            path: &self.path,
            fields: (!self.fields.is_everything()).then_some(&self.fields),
            labels: (!self.labels.is_everything()).then_some(&self.labels),
        }
    }

    /// Whether the request may run for hours.
    pub(crate) fn is_long_running(&self) -> bool {
        self.is_resource
            && (self.verb == "watch"
                || matches!(self.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy"))
    }
}

const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// The version, a namespace, the resource, a name and a subresource; behind a proxy there may be more.
const MOST_PARTS: usize = 6;

/// Resolves `method` on `path`. `None` for a resource path that cannot be understood.
pub(crate) fn resolve(method: &Method, path: &str, query: &Query) -> RequestInfo {
    let mut info = RequestInfo { path: path.to_owned(), verb: method_verb(method), ..RequestInfo::default() };
    // Upstream splits the path when it is decoded already.
    let whole = percent_decode(path);
    let decoded: Vec<String> = whole.trim_matches('/').split('/').map(str::to_owned).collect();
    let mut parts: &[String] = &decoded;
    match parts.first().map(String::as_str) {
        Some("api") if parts.len() >= 3 => parts = &parts[1..],
        Some("apis") if parts.len() >= 4 => {
            info.group.clone_from(&parts[1]);
            parts = &parts[2..];
        }
        _ => return info,
    }
    info.is_resource = true;
    info.leads_nowhere = parts.iter().take(MOST_PARTS).any(String::is_empty);
    info.version.clone_from(&parts[0]);
    parts = &parts[1..];
    let watch_prefix = parts[0] == "watch" && parts.len() >= 2;
    if watch_prefix {
        info.verb = "watch";
        parts = &parts[1..];
    } else {
        info.verb = resource_verb(method);
    }
    if parts[0] == "namespaces" && parts.len() > 1 {
        info.namespace.clone_from(&parts[1]);
        if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2].as_str()) {
            parts = &parts[2..];
        }
    }
    info.resource.clone_from(&parts[0]);
    if let Some(name) = parts.get(1) {
        info.name.clone_from(name);
        info.name_in_path = true;
    }
    if !watch_prefix && let Some(subresource) = parts.get(2) {
        info.subresource.clone_from(subresource);
        info.rest = rest_of(path, &info);
        if subresource == "proxy" {
            info.leads_nowhere = info.resource.is_empty() || info.name.is_empty();
        } else {
            info.leads_nowhere |= parts.len() > 3;
        }
    }
    refine_verb(&mut info, query);
    if !watch_prefix && matches!(info.verb, "list" | "watch" | "deletecollection") {
        let text = |name: &str| query.get(name).unwrap_or("").to_owned();
        info.fields = FieldSelector::parse(&text("fieldSelector")).unwrap_or_default();
        info.labels = LabelSelector::parse(&text("labelSelector")).unwrap_or_default();
    }
    info
}

/// A `get` without a name is a list or a watch, a `delete` without one a `deletecollection`.
fn refine_verb(info: &mut RequestInfo, query: &Query) {
    if info.name.is_empty() && info.verb == "get" {
        info.verb = if query.flag("watch") { "watch" } else { "list" };
        let fields = query.get("fieldSelector").unwrap_or("");
        if let Ok(selector) = FieldSelector::parse(fields)
            && let Some(name) = selector.required("metadata.name")
            && gantry_api::names::path_segment(name).is_ok()
        {
            name.clone_into(&mut info.name);
        }
    }
    if info.name.is_empty() && info.verb == "delete" {
        info.verb = "deletecollection";
    }
}

fn rest_of(path: &str, info: &RequestInfo) -> String {
    let marker = format!("/{}", info.subresource);
    let from = path.find(&format!("/{}/", info.resource)).unwrap_or(0) + info.resource.len() + 2;
    match path[from.min(path.len())..].find(&marker) {
        Some(at) => path[from + at + marker.len()..].to_owned(),
        None => String::new(),
    }
}

fn resource_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

fn method_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "post",
        "GET" => "get",
        "HEAD" => "head",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "",
    }
}

/// `%2F` and the like; what is no valid escape stays as it is.
pub(crate) fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let escape = (bytes[i] == b'%').then(|| bytes.get(i + 1..i + 3)).flatten();
        let value = escape
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match value {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, url: &str) -> (String, String, String, String, String) {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let i = resolve(&method, path, &Query::parse(query));
        (i.verb.into(), i.namespace, i.resource, i.subresource, i.name)
    }

    #[test]
    fn urls_resolve_as_upstream() {
        let row = |v: &str, ns: &str, r: &str, s: &str, n: &str| {
            (v.to_owned(), ns.to_owned(), r.to_owned(), s.to_owned(), n.to_owned())
        };
        assert_eq!(of("GET", "/api/v1/namespaces"), row("list", "", "namespaces", "", ""));
        assert_eq!(of("GET", "/api/v1/namespaces/a"), row("get", "a", "namespaces", "", "a"));
        assert_eq!(
            of("PUT", "/api/v1/namespaces/a/finalize"),
            row("update", "a", "namespaces", "finalize", "a")
        );
        assert_eq!(of("GET", "/api/v1/namespaces/a/pods"), row("list", "a", "pods", "", ""));
        assert_eq!(of("GET", "/api/v1/namespaces/a/pods/p/log"), row("get", "a", "pods", "log", "p"));
        assert_eq!(of("GET", "/api/v1/watch/namespaces/a/pods/p"), row("watch", "a", "pods", "", "p"));
        assert_eq!(of("GET", "/api/v1/pods?watch=true"), row("watch", "", "pods", "", ""));
        assert_eq!(
            of("GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dx"),
            row("list", "a", "pods", "", "x")
        );
        assert_eq!(
            of("DELETE", "/apis/apps/v1/namespaces/a/deployments"),
            row("deletecollection", "a", "deployments", "", "")
        );
        assert_eq!(of("GET", "/apis/apps/v1"), row("get", "", "", "", ""));
        assert_eq!(of("GET", "/healthz"), row("get", "", "", "", ""));
    }

    #[test]
    fn the_rest_of_a_proxy_path_keeps_its_slash() {
        let info =
            resolve(&Method::GET, "/api/v1/namespaces/a/services/https:web:80/proxy/x/y", &Query::parse(""));
        assert_eq!(info.rest, "/x/y");
    }
}
