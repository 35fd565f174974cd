//! Which requests are audited, and how much of them: the rules of a Policy (`audit.k8s.io/v1`).

use std::path::Path as FilePath;

use gantry_api::field::{Error as Fault, Path, aggregate};
use gantry_api::names::dns1123_subdomain;
use gantry_base::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

use super::stage::{Level, Stage, Stages};
use crate::authorize::Attributes;

/// What applies where no file is given.
const DEFAULT: &str = include_str!("default_policy.yaml");
const VERSION: &str = "audit.k8s.io/v1";

/// The rules, in their order.
#[derive(Debug)]
pub(super) struct Policy {
    rules: Vec<Rule>,
    omit_stages: Stages,
    omit_managed_fields: bool,
}

/// How much of one request is audited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) level: Level,
    /// Stages without an event.
    pub(super) omit: Stages,
    pub(super) omit_managed_fields: bool,
}

#[derive(Debug)]
struct Rule {
    plan: Plan,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    paths: Vec<String>,
}

/// Resources of one group; without names all of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Resources {
    #[serde(deserialize_with = "nullable")]
    group: String,
    #[serde(deserialize_with = "nullable")]
    resources: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    resource_names: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    #[serde(deserialize_with = "nullable")]
    rules: Vec<RuleDocument>,
    #[serde(deserialize_with = "nullable")]
    omit_stages: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    omit_managed_fields: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuleDocument {
    #[serde(deserialize_with = "nullable")]
    level: String,
    #[serde(deserialize_with = "nullable")]
    users: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    user_groups: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    verbs: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    resources: Vec<Resources>,
    #[serde(deserialize_with = "nullable")]
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "nullable")]
    paths: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

/// `null` is as good as nothing.
fn nullable<'de, D, T>(reader: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(reader)?.unwrap_or_default())
}

const FIELDS: [&str; 6] = ["apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields"];
const RULE_FIELDS: [&str; 9] = [
    "level",
    "users",
    "userGroups",
    "verbs",
    "resources",
    "namespaces",
    "nonResourceURLs",
    "omitStages",
    "omitManagedFields",
];
const RESOURCES_FIELDS: [&str; 3] = ["group", "resources", "resourceNames"];

impl Policy {
    /// The one of `--audit-policy-file`.
    ///
    /// # Errors
    /// The file cannot be read, understood, or makes no sense.
    pub(super) fn from_file(path: &FilePath) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::invalid(format!("loading audit policy file: failed to read file path {path:?}: {error}"))
        })?;
        let read = Self::parse(&text);
        read.map_err(|why| {
            Error::invalid(format!("loading audit policy file: {why}: from file {}", path.display()))
        })
    }

    /// What applies where no file is given: see `docs/adr/0010`.
    ///
    /// # Errors
    /// Never; a test reads it.
    pub(super) fn usual() -> Result<Self> {
        Self::parse(DEFAULT).map_err(Error::bug)
    }

    pub(super) fn parse(text: &str) -> std::result::Result<Self, String> {
        let tree: Value = serde_saphyr::from_str(text).map_err(|e| format!("failed decoding: {e}"))?;
        check_type(&tree, text)?;
        let unknown = unknown_fields(&tree);
        if !unknown.is_empty() {
            tracing::warn!(
                "Audit policy contains errors, falling back to lenient decoding: strict decoding error: {}",
                unknown.join(", ")
            );
        }
        let document: Document = serde_json::from_value(tree).map_err(|e| format!("failed decoding: {e}"))?;
        let faults = document.faults();
        if !faults.is_empty() {
            return Err(aggregate(&faults));
        }
        if document.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".to_owned());
        }
        Ok(document.policy())
    }

    /// How much is audited of a request; what no rule means, is not.
    pub(super) fn evaluate(&self, request: &Attributes<'_>) -> Plan {
        let rest = Plan {
            level: Level::None,
            omit: self.omit_stages,
            omit_managed_fields: self.omit_managed_fields,
        };
        self.rules.iter().find(|rule| rule.matches(request)).map_or(rest, |rule| rule.plan)
    }
}

fn check_type(tree: &Value, text: &str) -> std::result::Result<(), String> {
    let of = |key: &str| tree.get(key).and_then(Value::as_str).unwrap_or("");
    let (version, kind) = (of("apiVersion"), of("kind"));
    if kind.is_empty() {
        return Err(format!("failed decoding: Object 'Kind' is missing in '{text}'"));
    }
    if version.is_empty() {
        return Err(format!("failed decoding: Object 'apiVersion' is missing in '{text}'"));
    }
    if version != VERSION || kind != "Policy" {
        return Err(format!("failed decoding: no kind {kind:?} is registered for version {version:?}"));
    }
    Ok(())
}

/// The paths of fields that no Policy has.
fn unknown_fields(tree: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut look = |at: &Value, path: &str, known: &[&str]| {
        for key in at.as_object().into_iter().flatten().map(|(key, _)| key) {
            if !known.contains(&key.as_str()) {
                unknown.push(format!("unknown field \"{path}{key}\""));
            }
        }
    };
    look(tree, "", &FIELDS);
    for (i, rule) in tree["rules"].as_array().into_iter().flatten().enumerate() {
        look(rule, &format!("rules[{i}]."), &RULE_FIELDS);
        for (j, resources) in rule["resources"].as_array().into_iter().flatten().enumerate() {
            look(resources, &format!("rules[{i}].resources[{j}]."), &RESOURCES_FIELDS);
        }
    }
    unknown
}

impl Document {
    fn faults(&self) -> Vec<Fault> {
        let mut faults = stage_faults(&self.omit_stages, &Path::new("omitStages"));
        for (i, rule) in self.rules.iter().enumerate() {
            faults.extend(rule.faults(&Path::new("rules").index(i)));
        }
        faults
    }

    /// What it says, once it is known to make sense.
    fn policy(self) -> Policy {
        let omit_stages = Stages::read(&self.omit_stages);
        let rules = self.rules.into_iter().map(|rule| Rule {
            plan: Plan {
                level: Level::read(&rule.level).unwrap_or_default(),
                omit: omit_stages.and(Stages::read(&rule.omit_stages)),
                omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
            },
            users: rule.users,
            groups: rule.user_groups,
            verbs: rule.verbs,
            resources: rule.resources,
            namespaces: rule.namespaces,
            paths: rule.paths,
        });
        Policy { rules: rules.collect(), omit_stages, omit_managed_fields: self.omit_managed_fields }
    }
}

impl RuleDocument {
    fn faults(&self, path: &Path) -> Vec<Fault> {
        let mut faults = Vec::new();
        let level = path.child("level");
        if self.level.is_empty() {
            faults.push(Fault::required(&level, ""));
        } else if Level::read(&self.level).is_none() {
            faults.push(Fault::not_supported(&level, self.level.as_str(), &Level::ALL.map(Level::name)));
        }
        let urls = path.child("nonResourceURLs");
        for (i, url) in self.paths.iter().enumerate().filter(|(_, url)| *url != "*") {
            faults.extend(url_faults(url, &urls.index(i)));
        }
        for resources in &self.resources {
            faults.extend(resources.faults(&path.child("resources")));
        }
        faults.extend(stage_faults(&self.omit_stages, &path.child("omitStages")));
        let for_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if for_resources && !self.paths.is_empty() {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            faults.push(Fault::invalid(&urls, self.paths.clone(), why));
        }
        faults
    }
}

fn url_faults(url: &str, path: &Path) -> Vec<Fault> {
    let mut faults = Vec::new();
    if !url.starts_with('/') {
        let why = "non-resource URL rules must begin with a '/' character";
        faults.push(Fault::invalid(path, url, why));
    }
    if url.char_indices().any(|(at, c)| c == '*' && at + 1 < url.len()) {
        let why = "non-resource URL wildcards '*' must be the final character of the rule";
        faults.push(Fault::invalid(path, url, why));
    }
    faults
}

fn stage_faults(names: &[String], path: &Path) -> Vec<Fault> {
    let allowed = Stage::ALL.map(Stage::name).join(",");
    let wrong = names.iter().enumerate().filter(|(_, name)| Stage::read(name).is_none());
    wrong
        .map(|(i, name)| {
            Fault::invalid(&path.index(i), name.as_str(), format!("allowed stages are {allowed}"))
        })
        .collect()
}

impl Resources {
    fn faults(&self, path: &Path) -> Vec<Fault> {
        let mut faults = Vec::new();
        if !self.group.is_empty()
            && self.group != "*"
            && let Err(why) = dns1123_subdomain(&self.group)
        {
            faults.push(Fault::invalid(&path.child("group"), self.group.as_str(), why));
        }
        if !self.resource_names.is_empty() && self.resources.is_empty() {
            let why = "using resourceNames requires at least one resource";
            faults.push(Fault::invalid(&path.child("resourceNames"), self.resource_names.clone(), why));
        }
        faults
    }

    fn matches(&self, request: &Attributes<'_>) -> bool {
        if self.group != "*" && self.group != request.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !has(&self.resource_names, request.name) {
            return false;
        }
        self.resources.iter().any(|named| means(named, request.resource, request.subresource))
    }
}

/// Whether `named` (`pods`, `pods/log`, `pods/*`, `*/scale`, `*`) means a resource or subresource.
fn means(named: &str, resource: &str, subresource: &str) -> bool {
    match named.split_once('/') {
        None => named == "*" || (subresource.is_empty() && named == resource),
        // Upstream's rule: `pods/*` also means `pods`.
        Some((of, "*")) => of == resource,
        Some((of, sub)) => !subresource.is_empty() && sub == subresource && (of == "*" || of == resource),
    }
}

impl Rule {
    fn matches(&self, request: &Attributes<'_>) -> bool {
        let user = request.user;
        if !self.users.is_empty() && !has(&self.users, &user.name) {
            return false;
        }
        if !self.groups.is_empty() && !user.groups.iter().any(|group| has(&self.groups, group)) {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, request.verb) {
            return false;
        }
        if !(self.namespaces.is_empty() && self.resources.is_empty()) {
            return request.is_resource
                && (self.namespaces.is_empty() || has(&self.namespaces, request.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|r| r.matches(request)));
        }
        self.paths.is_empty()
            || (!request.is_resource && self.paths.iter().any(|p| means_path(p, request.path)))
    }
}

fn means_path(named: &str, path: &str) -> bool {
    named == "*" || named == path || (named.ends_with('*') && path.starts_with(named.trim_end_matches('*')))
}

fn has(list: &[String], text: &str) -> bool {
    list.iter().any(|item| item == text)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
