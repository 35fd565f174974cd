//! Discovery group by group: `APIVersions`, `APIGroupList`, `APIGroup`, `APIResourceList`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_kinds::AnyKind;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::aggregate;
use crate::resources::{Entry, Table};

/// The verbs of a stored resource.
pub(super) const VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// `/api`
pub(super) fn core_versions() -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
    })
}

/// Stable versions before betas before alphas, the higher number first; anything else last.
pub(crate) fn priority(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let Ok(major) = digits.parse::<u32>() else { return (0, 0, 0) };
    match &rest[digits.len()..] {
        "" => (3, major, 0),
        beta if beta.starts_with("beta") => (2, major, beta[4..].parse().unwrap_or(0)),
        alpha if alpha.starts_with("alpha") => (1, major, alpha[5..].parse().unwrap_or(0)),
        _ => (0, 0, 0),
    }
}

fn group_value(group: &str, versions: &[String]) -> Value {
    let version = |v: &String| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    json!({
        "name": group,
        "versions": versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(version),
    })
}

/// `/apis`
pub(super) fn groups(table: &Table) -> Value {
    let groups: Vec<Value> =
        aggregate::group_versions(table).iter().map(|(g, v)| group_value(g, v)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`
pub(super) fn group(table: &Table, group: &str) -> Option<Value> {
    let (_, versions) = aggregate::group_versions(table).into_iter().find(|(name, _)| name == group)?;
    let mut value = group_value(group, &versions);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

/// A subresource: its name, the group, version and kind of its body, its verbs.
pub(super) struct Subresource {
    pub(super) name: String,
    pub(super) gvk: (String, String, String),
    pub(super) verbs: &'static [&'static str],
}

/// The subresources of a kind.
pub(super) fn subresources(kind: &dyn AnyKind) -> Vec<Subresource> {
    let resource = kind.resource();
    let own = || (resource.group.to_string(), resource.version.to_string(), resource.kind.to_string());
    let gvk =
        |group: &str, version: &str, kind: &str| (group.to_owned(), version.to_owned(), kind.to_owned());
    let options = |name: &str| gvk("", "v1", &format!("{}{name}Options", resource.kind));
    const RW: &[&str] = &["get", "patch", "update"];
    let verbs = kind.verbs();
    let mut all = Vec::new();
    for name in verbs.connect {
        let (gvk, verbs): (_, &'static [&'static str]) = match *name {
            "attach" => (options("Attach"), &["create", "get"]),
            "exec" => (options("Exec"), &["create", "get"]),
            "portforward" => (options("PortForward"), &["create", "get"]),
            "proxy" => (options("Proxy"), &["create", "delete", "get", "patch", "update"]),
            "log" => (own(), &["get"]),
            "binding" => (gvk("", "v1", "Binding"), &["create"]),
            "eviction" => (gvk("policy", "v1", "Eviction"), &["create"]),
            "token" => (gvk("authentication.k8s.io", "v1", "TokenRequest"), &["create"]),
            "finalize" => (own(), &["update"]),
            _ => (own(), RW),
        };
        all.push(Subresource { name: (*name).to_owned(), gvk, verbs });
    }
    if verbs.status {
        all.push(Subresource { name: "status".into(), gvk: own(), verbs: RW });
    }
    if verbs.scale {
        all.push(Subresource { name: "scale".into(), gvk: gvk("autoscaling", "v1", "Scale"), verbs: RW });
    }
    // Custom resources have them as they come.
    if kind.definition().is_some() {
        all.sort_by(|a, b| a.name.cmp(&b.name));
    }
    all
}

/// `/api/v1`, `/apis/<group>/<version>`
pub(super) fn resources(table: &Table, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for (entry, kind) in kinds(table, group, version) {
        resource(entry, kind, &mut list);
    }
    for resource in
        table.virtuals.iter().filter(|v| v.resource().group == group && v.resource().version == version)
    {
        let names = resource.resource();
        list.push(json!({
            "name": names.plural, "singularName": resource.singular(), "namespaced": names.namespaced,
            "kind": names.kind, "verbs": ["create"],
        }));
    }
    if group.is_empty() && version == "v1" {
        list.push(json!({
            "name": "bindings", "singularName": "binding", "namespaced": true, "kind": "Binding", "verbs": ["create"],
        }));
    }
    if list.is_empty() {
        return None;
    }
    // By resource; what lies below one stays in its order.
    let resource_of = |value: &Value| {
        let name = value["name"].as_str().unwrap_or_default();
        name.split('/').next().unwrap_or_default().to_owned()
    };
    list.sort_by_cached_key(resource_of);
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut value = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": list});
    if !group.is_empty() {
        value["apiVersion"] = "v1".into();
    }
    Some(value)
}

/// The stored kinds of a group's version, each with its resource.
pub(super) fn kinds<'a>(
    table: &'a Table,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = (&'a Entry, &'a dyn AnyKind)> {
    let all = table.entries().flat_map(|entry| entry.versions.iter().map(move |v| (&**entry, &*v.kind)));
    all.filter(move |(_, kind)| kind.resource().group == group && kind.resource().version == version)
}

/// The verbs of a resource. Of a definition that is being deleted, nothing new may be made.
pub(crate) fn verbs(entry: &Entry) -> &'static [&'static str] {
    let resource = entry.storage.resource();
    if entry.storage.read_only() {
        return &["get", "list"];
    }
    if resource.group.is_empty() && resource.plural == "namespaces" {
        // They are deleted one by one.
        return &["create", "delete", "get", "list", "patch", "update", "watch"];
    }
    if entry.custom && !entry.terminating {
        return &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
    }
    if entry.terminating { &["delete", "deletecollection", "get", "list", "watch"] } else { &VERBS }
}

/// What changes when objects are stored in another version (upstream's `StorageVersionHash`).
fn storage_version_hash(entry: &Entry) -> String {
    let stored = entry.storage.resource();
    let digest = Sha256::digest(format!("{}/{}/{}", stored.group, stored.version, stored.kind));
    STANDARD.encode(&digest[..8])
}

fn resource(entry: &Entry, kind: &dyn AnyKind, list: &mut Vec<Value>) {
    let names = kind.resource();
    let mut value = json!({
        "name": names.plural, "singularName": kind.singular(), "namespaced": names.namespaced,
        "kind": names.kind, "verbs": verbs(entry),
    });
    if let Some(map) = value.as_object_mut() {
        if !kind.read_only() {
            map.insert("storageVersionHash".into(), storage_version_hash(entry).into());
        }
        if !kind.short_names().is_empty() {
            map.insert("shortNames".into(), kind.short_names().into());
        }
        if !kind.categories().is_empty() {
            map.insert("categories".into(), kind.categories().into());
        }
    }
    list.push(value);
    for sub in subresources(kind) {
        let (group, version, body) = sub.gvk;
        let mut value = json!({
            "name": format!("{}/{}", names.plural, sub.name), "singularName": "", "namespaced": names.namespaced,
            "kind": body, "verbs": sub.verbs,
        });
        if (group.as_str(), version.as_str()) != (&*names.group, &*names.version) {
            value["group"] = group.into();
            value["version"] = version.into();
        }
        list.push(value);
    }
}
