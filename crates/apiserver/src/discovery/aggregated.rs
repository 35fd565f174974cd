//! Discovery in one document: `APIGroupDiscoveryList` of `apidiscovery.k8s.io`.

use gantry_kinds::AnyKind;
use http::{HeaderMap, Response};
use serde_json::{Value, json};

use super::{legacy, tagged};
use crate::resources::Table;
use crate::serve::Body;

const CONTENT_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Whether the client prefers this form.
pub(super) fn is_wanted(accept: &str) -> bool {
    let range = |range: &str| {
        let has = |parameter: &str| range.split(';').any(|p| p.trim() == parameter);
        has("g=apidiscovery.k8s.io")
            && has("v=v2")
            && has("as=APIGroupDiscoveryList")
            && range.trim().starts_with("application/json")
    };
    accept.split(',').any(range)
}

/// `/api` (the core group) or `/apis` (all others).
pub(super) fn response(table: &Table, core: bool, headers: &HeaderMap) -> Response<Body> {
    let items: Vec<Value> = if core {
        vec![group(table, "", &["v1".to_owned()])]
    } else {
        legacy::group_versions(table).iter().map(|(name, versions)| group(table, name, versions)).collect()
    };
    let document = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    tagged(&document, CONTENT_TYPE, headers)
}

fn group(table: &Table, name: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"version": version, "resources": resources(table, name, version), "freshness": "Current"}))
        .collect();
    let metadata = if name.is_empty() {
        json!({"creationTimestamp": null})
    } else {
        json!({"name": name, "creationTimestamp": null})
    };
    json!({"metadata": metadata, "versions": versions})
}

fn resources(table: &Table, group: &str, version: &str) -> Vec<Value> {
    let mut all: Vec<Value> =
        legacy::kinds(table, group, version).iter().map(|kind| resource(&**kind)).collect();
    let virtuals =
        table.virtuals.iter().filter(|v| v.resource().group == group && v.resource().version == version);
    all.extend(virtuals.map(|v| {
        let names = v.resource();
        json!({
            "resource": names.plural, "singularResource": v.singular(), "scope": scope(names.namespaced),
            "responseKind": {"group": names.group, "version": names.version, "kind": names.kind},
            "verbs": ["create"],
        })
    }));
    if group.is_empty() && version == "v1" {
        all.push(json!({
            "resource": "bindings", "singularResource": "binding", "scope": "Namespaced",
            "responseKind": {"group": "", "version": "v1", "kind": "Binding"}, "verbs": ["create"],
        }));
    }
    all.sort_by(|a, b| a["resource"].as_str().cmp(&b["resource"].as_str()));
    all
}

fn scope(namespaced: bool) -> &'static str {
    if namespaced { "Namespaced" } else { "Cluster" }
}

fn resource(kind: &dyn AnyKind) -> Value {
    let names = kind.resource();
    let mut value = json!({
        "resource": names.plural,
        "singularResource": kind.singular(),
        "scope": scope(names.namespaced),
        "responseKind": {"group": names.group, "version": names.version, "kind": names.kind},
        "verbs": legacy::VERBS,
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
            json!({
                "subresource": sub.name, "verbs": sub.verbs,
                "responseKind": {"group": group, "version": version, "kind": kind},
            })
        })
        .collect();
    if !subresources.is_empty() {
        value["subresources"] = subresources.into();
    }
    value
}
