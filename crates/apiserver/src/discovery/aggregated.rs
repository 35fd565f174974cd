//! Discovery in one document: `APIGroupDiscoveryList` of `apidiscovery.k8s.io`.

use gantry_api::status::Result;
use gantry_kinds::AnyKind;
use http::{HeaderMap, Response};
use serde_json::{Value, json};

use super::{legacy, tagged};
use crate::resources::{Entry, Table};
use crate::respond::{Encoding, accept};
use crate::serve::Body;

/// The encoding in which the client wants this form first, if it does.
pub(super) fn wanted(accept: &str) -> Option<Encoding> {
    accept::parse(accept).iter().find_map(|clause| {
        let is_this = clause.asks_for("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList");
        let encoding = Encoding::ALL.into_iter().find(|encoding| {
            encoding.media_type().split_once('/').is_some_and(|(kind, subtype)| clause.matches(kind, subtype))
        });
        encoding.filter(|_| is_this)
    })
}

fn content_type(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Json => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        Encoding::Yaml => "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        Encoding::Protobuf => {
            "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        }
    }
}

/// `/api` (the core group) or `/apis` (all others).
pub(super) fn document(table: &Table, core: bool) -> Value {
    let items: Vec<Value> = if core {
        vec![group(table, "", &["v1".to_owned()])]
    } else {
        crate::aggregate::group_versions(table)
            .iter()
            .map(|(name, versions)| group(table, name, versions))
            .collect()
    };
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    })
}

/// The document in one of its encodings, with its `ETag`.
///
/// # Errors
/// 500 if the document cannot be written.
pub(super) fn response(document: &Value, encoding: Encoding, headers: &HeaderMap) -> Result<Response<Body>> {
    tagged(document, encoding, content_type(encoding), headers)
}

fn group(table: &Table, name: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions.iter().map(|name_of| version(table, name, name_of)).collect();
    let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
    json!({"metadata": metadata, "versions": versions})
}

/// One version of a group; that of another server as it was when it last answered.
fn version(table: &Table, group: &str, version: &str) -> Value {
    let Some(remote) = table.remotes.get(&(group.to_owned(), version.to_owned())) else {
        return json!({"version": version, "resources": resources(table, group, version), "freshness": "Current"});
    };
    let known = remote.resources.as_ref().map(|list| foreign(list)).unwrap_or_default();
    let fresh = remote.available && remote.resources.is_some();
    let mut shown = json!({"version": version, "freshness": if fresh { "Current" } else { "Stale" }});
    if !known.is_empty() {
        shown["resources"] = known.into();
    }
    shown
}

/// An `APIResourceList` in the new form.
fn foreign(list: &[Value]) -> Vec<Value> {
    let text = |r: &Value, key: &str| r[key].as_str().unwrap_or("").to_owned();
    let kind = |r: &Value| json!({"group": text(r, "group"), "version": text(r, "version"), "kind": text(r, "kind")});
    let mut all: Vec<Value> = Vec::new();
    for r in list.iter().filter(|r| !text(r, "name").contains('/')) {
        let mut resource = json!({
            "resource": r["name"], "responseKind": kind(r), "scope": scope(r["namespaced"] == true),
            "singularResource": text(r, "singularName"), "verbs": r["verbs"],
        });
        for key in ["shortNames", "categories"] {
            if r[key].is_array() {
                resource[key] = r[key].clone();
            }
        }
        let prefix = format!("{}/", text(r, "name"));
        let subs = list.iter().filter_map(|s| {
            let name = s["name"].as_str()?.strip_prefix(&prefix)?;
            Some(json!({"subresource": name, "responseKind": kind(s), "verbs": s["verbs"]}))
        });
        let subs: Vec<Value> = subs.collect();
        if !subs.is_empty() {
            resource["subresources"] = subs.into();
        }
        all.push(resource);
    }
    all
}

fn resources(table: &Table, group: &str, version: &str) -> Vec<Value> {
    let mut all: Vec<Value> =
        legacy::kinds(table, group, version).map(|(entry, kind)| resource(entry, kind)).collect();
    let virtuals =
        table.virtuals.iter().filter(|v| v.resource().group == group && v.resource().version == version);
    all.extend(virtuals.map(|v| {
        let names = v.resource();
        json!({
            "resource": names.plural, "singularResource": v.singular(), "scope": scope(names.namespaced),
            "responseKind": own_kind(&names.kind),
            "verbs": ["create"],
        })
    }));
    if group.is_empty() && version == "v1" {
        all.push(json!({
            "resource": "bindings", "singularResource": "binding", "scope": "Namespaced",
            "responseKind": own_kind("Binding"), "verbs": ["create"],
        }));
    }
    all.sort_by(|a, b| a["resource"].as_str().cmp(&b["resource"].as_str()));
    all
}

/// A kind of the group and version that the list is of, which are not said again.
fn own_kind(kind: &str) -> Value {
    json!({"group": "", "version": "", "kind": kind})
}

fn scope(namespaced: bool) -> &'static str {
    if namespaced { "Namespaced" } else { "Cluster" }
}

fn resource(entry: &Entry, kind: &dyn AnyKind) -> Value {
    let names = kind.resource();
    let mut value = json!({
        "resource": names.plural,
        "singularResource": kind.singular(),
        "scope": scope(names.namespaced),
        "responseKind": own_kind(&names.kind),
        "verbs": legacy::verbs(entry),
    });
    if !kind.short_names().is_empty() {
        value["shortNames"] = kind.short_names().into();
    }
    if !kind.categories().is_empty() {
        value["categories"] = kind.categories().into();
    }
    let subresources: Vec<Value> = legacy::subresources(kind)
        .into_iter()
        .map(|sub| {
            let (group, version, kind) = sub.gvk;
            let is_own = (&*group, &*version) == (&*names.group, &*names.version);
            let kind = match is_own {
                true => own_kind(&kind),
                false => json!({"group": group, "version": version, "kind": kind}),
            };
            json!({"subresource": sub.name, "verbs": sub.verbs, "responseKind": kind})
        })
        .collect();
    if !subresources.is_empty() {
        value["subresources"] = subresources.into();
    }
    value
}
