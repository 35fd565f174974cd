//! What the server serves, and by which names a user may call it.

use gantry_api::Resource;
use gantry_client::HttpsTransport;
use gantry_client::https::Request;
use serde_json::Value;

use crate::error::{CliError, Result};

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// A resource and all that discovery says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its names.
    pub resource: Resource,
    /// `pod`
    pub singular: String,
    /// `po`
    pub short_names: Vec<String>,
    /// `get`, `list`, …
    pub verbs: Vec<String>,
    /// `all`
    pub categories: Vec<String>,
    /// Whether this is the version that its group prefers.
    pub preferred: bool,
}

impl Found {
    /// `deployment.apps/web`: as verbs report an object.
    pub(crate) fn object_name(&self, name: &str) -> String {
        format!("{}/{name}", self.kind_name())
    }

    /// `deployment.apps`
    pub(crate) fn kind_name(&self) -> String {
        let kind = self.resource.kind.to_lowercase();
        if self.resource.group.is_empty() { kind } else { format!("{kind}.{}", self.resource.group) }
    }

    /// Whether the server offers `verb` on it.
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    fn is_called(&self, name: &str) -> bool {
        self.resource.plural == name || self.singular == name || self.resource.kind.eq_ignore_ascii_case(name)
    }
}

/// All resources, in the server's order, preferred versions first within a group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Discovery {
    all: Vec<Found>,
}

impl Discovery {
    /// Asks the server.
    pub(crate) async fn read(client: &HttpsTransport) -> Result<Self> {
        let ask = async |path: &str| -> Result<Value> {
            let reply = client.send(Request::get(path).accepting(AGGREGATED)).await?;
            serde_json::from_slice(&reply.body).map_err(|e| {
                CliError::message(format!("the server's discovery document cannot be read: {e}"))
            })
        };
        let (core, groups) = futures::try_join!(ask("/api"), ask("/apis"))?;
        let mut all = Vec::new();
        for document in [core, groups] {
            if document["kind"] == "APIGroupDiscoveryList" {
                all.extend(aggregated(&document));
            } else {
                for (path, group, version, preferred) in legacy_versions(&document) {
                    all.extend(legacy(&ask(&path).await?, &group, &version, preferred));
                }
            }
        }
        Ok(Self { all })
    }

    /// Of a list that is already known.
    #[cfg(test)]
    pub(crate) fn of(all: Vec<Found>) -> Self {
        Self { all }
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Found] {
        &self.all
    }

    /// The resource that a user calls `name`: `pods`, `po`, `deployment.apps`, `deployments.v1.apps`.
    pub(crate) fn find(&self, name: &str) -> Result<&Found> {
        let lower = name.to_lowercase();
        self.lookup(&lower)
            .ok_or_else(|| CliError::message(format!("the server doesn't have a resource type {name:?}")))
    }

    fn lookup(&self, name: &str) -> Option<&Found> {
        if let Some(found) = self.among(name, |_| true) {
            return Some(found);
        }
        let (plural, group) = name.split_once('.')?;
        if let Some(found) = self.among(plural, |r| r.group == group) {
            return Some(found);
        }
        // `deployments.v1.apps`, and `v1.` alone for the core group.
        let (version, group) = group.split_once('.').unwrap_or((group, ""));
        let versioned = self.among(plural, |r| r.version == version && r.group == group);
        // A group may be shortened: `ingresses.networking`.
        versioned.or_else(|| self.among(plural, |r| r.group.starts_with(&name[plural.len() + 1..])))
    }

    fn among(&self, name: &str, which: impl Fn(&Resource) -> bool) -> Option<&Found> {
        let candidates = || self.all.iter().filter(|f| which(&f.resource));
        let best = |mut list: Vec<&'_ Found>| {
            list.sort_by_key(|f| !f.preferred);
            list.first()
                .map(|f| (f.resource.group.clone(), f.resource.version.clone(), f.resource.plural.clone()))
        };
        let names: Vec<&Found> = candidates().filter(|f| f.is_called(name)).collect();
        let chosen = if names.is_empty() {
            candidates().find(|f| f.short_names.iter().any(|s| s == name))?
        } else {
            // The first group that has it wins, with the version that it prefers.
            let group = names[0].resource.group.clone();
            let of_group = names.into_iter().filter(|f| f.resource.group == group).collect();
            let (group, version, plural) = best(of_group)?;
            candidates().find(|f| {
                f.resource.group == group && f.resource.version == version && f.resource.plural == plural
            })?
        };
        Some(chosen)
    }

    /// The resources of a category, `all` for example.
    pub(crate) fn category(&self, name: &str) -> Vec<&Found> {
        let mut found: Vec<&Found> =
            self.all.iter().filter(|f| f.preferred && f.categories.iter().any(|c| c == name)).collect();
        found.dedup_by_key(|f| (f.resource.group.clone(), f.resource.plural.clone()));
        found
    }

    /// The resource of an object with this `apiVersion` and `kind`.
    pub(crate) fn of_object(&self, api_version: &str, kind: &str) -> Option<&Found> {
        self.all.iter().find(|f| f.resource.kind == kind && f.resource.api_version() == api_version)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn aggregated(document: &Value) -> Vec<Found> {
    let mut all = Vec::new();
    for group in list(&document["items"]) {
        let name = text(&group["metadata"]["name"]);
        for (i, version) in list(&group["versions"]).enumerate() {
            for entry in list(&version["resources"]) {
                let kind = text(&entry["responseKind"]["kind"]);
                let plural = text(&entry["resource"]);
                all.push(Found {
                    singular: singular(&text(&entry["singularResource"]), &kind),
                    resource: Resource {
                        group: name.clone().into(),
                        version: text(&version["version"]).into(),
                        kind: kind.into(),
                        plural: plural.into(),
                        namespaced: entry["scope"] == "Namespaced",
                    },
                    short_names: texts(&entry["shortNames"]),
                    verbs: texts(&entry["verbs"]),
                    categories: texts(&entry["categories"]),
                    preferred: i == 0,
                });
            }
        }
    }
    all
}

fn singular(name: &str, kind: &str) -> String {
    if name.is_empty() { kind.to_lowercase() } else { name.to_owned() }
}

/// Path, group, version, and whether it is preferred, of all that a legacy document names.
fn legacy_versions(document: &Value) -> Vec<(String, String, String, bool)> {
    if document["kind"] == "APIVersions" {
        return texts(&document["versions"])
            .into_iter()
            .map(|v| (format!("/api/{v}"), String::new(), v.clone(), v == "v1"))
            .collect();
    }
    let mut all = Vec::new();
    for group in list(&document["groups"]) {
        let preferred = &group["preferredVersion"]["groupVersion"];
        for version in list(&group["versions"]) {
            let path = format!("/apis/{}", text(&version["groupVersion"]));
            let is_preferred = version["groupVersion"] == *preferred;
            all.push((path, text(&group["name"]), text(&version["version"]), is_preferred));
        }
    }
    all
}

fn legacy(document: &Value, group: &str, version: &str, preferred: bool) -> Vec<Found> {
    let resources = list(&document["resources"]).filter(|r| !text(&r["name"]).contains('/'));
    resources
        .map(|entry| {
            let kind = text(&entry["kind"]);
            Found {
                singular: singular(&text(&entry["singularName"]), &kind),
                resource: Resource {
                    group: group.to_owned().into(),
                    version: version.to_owned().into(),
                    kind: kind.into(),
                    plural: text(&entry["name"]).into(),
                    namespaced: entry["namespaced"] == true,
                },
                short_names: texts(&entry["shortNames"]),
                verbs: texts(&entry["verbs"]),
                categories: texts(&entry["categories"]),
                preferred,
            }
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn some() -> Discovery {
        let resource = |plural: &str, kind: &str, short: &[&str], categories: &[&str]| {
            json!({"resource": plural, "responseKind": {"kind": kind}, "scope": "Namespaced", "singularResource":
                kind.to_lowercase(), "shortNames": short, "verbs": ["get", "list"], "categories": categories})
        };
        let document = json!({"kind": "APIGroupDiscoveryList", "items": [
            {"metadata": {}, "versions": [{"version": "v1", "resources": [
                resource("pods", "Pod", &["po"], &["all"]), resource("services", "Service", &["svc"], &["all"]),
                resource("events", "Event", &["ev"], &[])]}]},
            {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [
                resource("deployments", "Deployment", &["deploy"], &["all"])]}]},
            {"metadata": {"name": "events.k8s.io"}, "versions": [{"version": "v1", "resources": [
                resource("events", "Event", &["ev"], &[])]}]},
            {"metadata": {"name": "example.com"}, "versions": [
                {"version": "v2", "resources": [resource("widgets", "Widget", &[], &[])]},
                {"version": "v1", "resources": [resource("widgets", "Widget", &[], &[])]}]},
        ]});
        Discovery::of(aggregated(&document))
    }

    #[test]
    fn users_call_resources_by_many_names() {
        let discovery = some();
        let find = |name: &str| {
            discovery.find(name).map(|f| format!("{} {}", f.resource.api_version(), f.resource.plural))
        };
        for name in ["pods", "pod", "po", "Pod", "PODS"] {
            assert_eq!(find(name).expect(name), "v1 pods");
        }
        for name in ["deploy", "deployments.apps", "deployment.v1.apps", "deploy.apps"] {
            assert_eq!(find(name).expect(name), "apps/v1 deployments");
        }
        assert_eq!(find("ev").expect("the core group is first"), "v1 events");
        assert_eq!(find("events.events.k8s.io").expect("by group"), "events.k8s.io/v1 events");
        assert_eq!(find("widget").expect("the preferred version"), "example.com/v2 widgets");
        assert_eq!(find("widget.v1.example.com").expect("another version"), "example.com/v1 widgets");
        let error = find("nope").expect_err("there is none");
        assert_eq!(error.text(), "error: the server doesn't have a resource type \"nope\"");
    }

    #[test]
    fn categories_hold_several() {
        let discovery = some();
        let names: Vec<&str> = discovery.category("all").iter().map(|f| &*f.resource.plural).collect();
        assert_eq!(names, ["pods", "services", "deployments"]);
    }
}
