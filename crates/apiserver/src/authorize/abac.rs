//! Policies in a file (`--authorization-policy-file`): one JSON object a line, `abac.authorization.kubernetes.io/v1beta1`
//! or of the older form without a version. The file is read when the server starts.

use std::path::Path;

use gantry_base::{Error, Result};
use serde::Deserialize;

use super::{Asked, Attributes, Authorizer, Decision, ResourceRule, Rules};
use crate::identify::User;

const VERSION: &str = "abac.authorization.kubernetes.io/v1beta1";
const AUTHENTICATED: &str = "system:authenticated";
/// The verbs of policies that are `readonly`.
const READING: [&str; 3] = ["get", "list", "watch"];

/// The policies: the first that fits allows.
#[derive(Debug)]
pub(super) struct Abac {
    policies: Vec<Policy>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    #[serde(rename = "apiGroup")]
    api_group: String,
    resource: String,
    namespace: String,
    non_resource_path: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Line {
    api_version: String,
    kind: String,
    spec: Policy,
}

impl Policy {
    /// Reads a line.
    fn read(line: &str) -> Result<Self, String> {
        let head: Line = serde_json::from_str(line).map_err(|why| why.to_string())?;
        match (head.api_version.as_str(), head.kind.as_str()) {
            (VERSION, "Policy") => Ok(head.spec.normal()),
            ("" | "v0", "" | "Policy") => {
                let old: Self = serde_json::from_str(line).map_err(|why| why.to_string())?;
                Ok(old.of_old())
            }
            (version, kind) => Err(format!("no kind {kind:?} is registered for version {version:?}")),
        }
    }

    /// `*` for users and groups stands for everybody who is known.
    fn normal(mut self) -> Self {
        if self.user == "*" || self.group == "*" {
            AUTHENTICATED.clone_into(&mut self.group);
            self.user.clear();
        }
        self
    }

    /// In the older form what is not said is everything.
    fn of_old(mut self) -> Self {
        if self.user.is_empty() && self.group.is_empty() {
            AUTHENTICATED.clone_into(&mut self.group);
        }
        "*".clone_into(&mut self.api_group);
        self.non_resource_path.clear();
        if self.namespace.is_empty() && self.resource.is_empty() {
            "*".clone_into(&mut self.non_resource_path);
        }
        for part in [&mut self.namespace, &mut self.resource] {
            if part.is_empty() {
                "*".clone_into(part);
            }
        }
        self.normal()
    }

    fn is_for(&self, user: &User) -> bool {
        let known = !(self.user.is_empty() && self.group.is_empty());
        known
            && (self.user.is_empty() || self.user == *user.name)
            && (self.group.is_empty() || user.is_in(&self.group))
    }

    fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let fits = |rule: &str, value: &str| rule == "*" || rule == value;
        if self.readonly && !READING.contains(&attributes.verb) {
            return false;
        }
        if attributes.is_resource {
            return fits(&self.namespace, attributes.namespace)
                && fits(&self.resource, attributes.resource)
                && fits(&self.api_group, attributes.group);
        }
        let path = &self.non_resource_path;
        let below = path.ends_with('*') && attributes.path.starts_with(path.trim_end_matches('*'));
        below || fits(path, attributes.path)
    }

    fn verbs(&self) -> Vec<String> {
        let all: &[&str] = if self.readonly { &READING } else { &["*"] };
        all.iter().map(|verb| (*verb).to_owned()).collect()
    }
}

impl Abac {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or a line of it is no policy; names file and line.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::from(e).while_doing(format!("reading policy file {}", path.display())))?;
        let mut policies = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let policy = Policy::read(trimmed).map_err(|why| {
                let (path, number) = (path.display(), i + 1);
                Error::invalid(format!("error reading policy file {path}, line {number}: {line}: {why}"))
            })?;
            policies.push(policy);
        }
        Ok(Self { policies })
    }
}

impl Authorizer for Abac {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> Asked<'a> {
        let mut own = self.policies.iter().filter(|policy| policy.is_for(attributes.user));
        if own.any(|policy| policy.allows(attributes)) {
            return Decision::Allow(String::new()).into();
        }
        Decision::NoOpinion("No policy matched.".to_owned()).into()
    }

    fn rules_for(&self, user: &User, namespace: &str) -> Rules {
        let mut rules = Rules::default();
        let own = self.policies.iter().filter(|policy| policy.is_for(user));
        for policy in own.filter(|policy| policy.namespace == "*" || policy.namespace == namespace) {
            if !policy.resource.is_empty() {
                rules.resources.push(ResourceRule {
                    verbs: policy.verbs(),
                    groups: vec![policy.api_group.clone()],
                    resources: vec![policy.resource.clone()],
                    ..ResourceRule::default()
                });
            }
            if !policy.non_resource_path.is_empty() {
                rules.paths.push((policy.verbs(), vec![policy.non_resource_path.clone()]));
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: &str = r##"
# Upstream's own examples.
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "alice", "namespace": "*", "resource": "*", "apiGroup": "*"}}
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "kubelet", "namespace": "*", "resource": "pods", "readonly": true}}
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"group": "team", "namespace": "shop", "resource": "deployments", "apiGroup": "apps"}}
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"group": "*", "nonResourcePath": "/version*", "readonly": true}}
{"user": "old", "namespace": "shop"}
"##;

    fn abac(text: &str) -> Result<Abac> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("policies");
        std::fs::write(&path, text).expect("a file");
        Abac::read(&path)
    }

    fn user(name: &str, groups: &[&str]) -> User {
        User::new(name, groups.iter().copied().chain([AUTHENTICATED]))
    }

    #[tokio::test]
    async fn the_first_policy_that_fits_allows() {
        let abac = abac(POLICIES).expect("policies");
        let cases = [
            ("alice", "", "delete", "apps", "deployments", "any", true),
            ("kubelet", "", "list", "", "pods", "any", true),
            ("kubelet", "", "create", "", "pods", "any", false),
            ("kubelet", "", "list", "apps", "pods", "any", false),
            ("bob", "team", "create", "apps", "deployments", "shop", true),
            ("bob", "team", "create", "apps", "deployments", "other", false),
            ("bob", "", "create", "apps", "deployments", "shop", false),
            ("old", "", "create", "batch", "jobs", "shop", true),
            ("old", "", "create", "batch", "jobs", "other", false),
        ];
        for (name, group, verb, api_group, resource, namespace, expected) in cases {
            let user = user(name, &[group]);
            let attributes =
                Attributes { namespace, ..Attributes::on_resource(&user, verb, api_group, resource) };
            let decision = abac.authorize(&attributes).await;
            assert_eq!(decision.is_allowed(), expected, "{name} {verb} {resource} {namespace}");
        }
        let user = user("bob", &[]);
        for (verb, path, expected) in
            [("get", "/version/x", true), ("post", "/version", false), ("get", "/healthz", false)]
        {
            let decision = abac.authorize(&Attributes::on_path(&user, verb, path)).await;
            assert_eq!(decision.is_allowed(), expected, "{path}");
        }
        let rules = abac.rules_for(&user_of_team(), "shop");
        assert_eq!((rules.resources.len(), rules.resources[0].verbs.as_slice()), (1, &["*".to_owned()][..]));
    }

    fn user_of_team() -> User {
        user("bob", &["team"])
    }

    #[test]
    fn a_line_that_is_no_policy_is_named() {
        let why =
            abac("{\"apiVersion\": \"x/v1\", \"kind\": \"Policy\"}").expect_err("another kind").to_string();
        assert!(
            why.contains("line 1: ") && why.contains("no kind \"Policy\" is registered for version \"x/v1\""),
            "{why}"
        );
        assert!(abac("\n{").expect_err("no JSON").to_string().contains("line 2: {"));
    }
}
