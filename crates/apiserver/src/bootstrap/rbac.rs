//! The default roles and bindings. Upstream reconciles them at every start: what an administrator took away from an
//! object comes back, unless its annotation `rbac.authorization.kubernetes.io/autoupdate` is `false`.

use std::collections::BTreeMap;

use gantry_api::meta::MetaExt;
use gantry_api::metav1::{LabelSelector, ObjectMeta};
use gantry_api::rbac::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use gantry_api::status::Result;

use super::named;
use super::write::Writer;
use crate::authorize::rules::uncovered;

const TABLE: &str = include_str!("rbac_defaults.txt");
const GROUP: &str = "rbac.authorization.k8s.io";
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// The default objects.
#[derive(Default)]
pub(crate) struct Defaults {
    pub(crate) cluster_roles: Vec<ClusterRole>,
    pub(crate) cluster_bindings: Vec<ClusterRoleBinding>,
    pub(crate) roles: Vec<Role>,
    pub(crate) bindings: Vec<RoleBinding>,
}

/// What all nodes may do alike (the role `system:node`, which upstream binds to nobody): for the node authorizer.
pub(crate) fn node_rules() -> Vec<PolicyRule> {
    let roles = Defaults::read().cluster_roles.into_iter();
    roles
        .filter(|role| role.name() == "system:node")
        .flat_map(|role| role.rules.unwrap_or_default())
        .collect()
}

/// Writes what is missing of them.
pub(super) async fn run(writer: &Writer) -> Result<()> {
    let defaults = Defaults::read();
    // What a binding refers to cannot be changed: one that refers to something else makes room.
    let another = |new: &RoleRef, old: &RoleRef| (&new.kind, &new.name) != (&old.kind, &old.name);
    let (a, b) = tokio::join!(
        writer.remove(&defaults.cluster_bindings, |new, old| {
            another(&new.role_ref, &old.role_ref) && !is_protected(old)
        }),
        writer.remove(&defaults.bindings, |new, old| {
            another(&new.role_ref, &old.role_ref) && !is_protected(old)
        }),
    );
    a.and(b)?;
    let (a, b, c, d) = tokio::join!(
        writer.reconcile(defaults.cluster_roles, cluster_role_change),
        writer.reconcile(defaults.roles, role_change),
        writer.reconcile(defaults.cluster_bindings, cluster_binding_change),
        writer.reconcile(defaults.bindings, binding_change),
    );
    a.and(b).and(c).and(d)
}

fn is_protected(existing: &impl MetaExt) -> bool {
    existing.annotation(AUTO_UPDATE) == Some("false")
}

/// The existing rules and those that are missing.
fn complete(wanted: Option<&Vec<PolicyRule>>, existing: Option<&Vec<PolicyRule>>) -> Option<Vec<PolicyRule>> {
    let slice = |rules: Option<&Vec<PolicyRule>>| rules.cloned().unwrap_or_default();
    let missing: Vec<PolicyRule> = slice(wanted)
        .into_iter()
        .filter(|rule| !uncovered(&slice(existing), std::slice::from_ref(rule)).is_empty())
        .collect();
    (!missing.is_empty()).then(|| [slice(existing), missing].concat())
}

/// Labels and annotations with those that are missing; `None` if none is.
fn metadata_change(new: &ObjectMeta, old: &ObjectMeta) -> Option<ObjectMeta> {
    let mut merged = old.clone();
    let add = |into: &mut Option<BTreeMap<String, String>>, from: &Option<BTreeMap<String, String>>| {
        for (key, value) in from.iter().flatten() {
            into.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
        }
    };
    add(&mut merged.labels, &new.labels);
    add(&mut merged.annotations, &new.annotations);
    (merged != *old).then_some(merged)
}

/// The existing selectors and those that are missing.
fn aggregate_change(new: &ClusterRole, old: &ClusterRole) -> Option<AggregationRule> {
    let wanted = new.aggregation_rule.as_ref()?.cluster_role_selectors.as_ref()?;
    let mut all = old.aggregation_rule.as_ref()?.cluster_role_selectors.clone().unwrap_or_default();
    let before = all.len();
    for selector in wanted {
        if !all.contains(selector) {
            all.push(selector.clone());
        }
    }
    (all.len() > before).then_some(AggregationRule { cluster_role_selectors: Some(all) })
}

fn cluster_role_change(new: &ClusterRole, old: &ClusterRole) -> Option<ClusterRole> {
    let mut changed = old.clone();
    if let Some(metadata) = metadata_change(&new.metadata, &old.metadata) {
        changed.metadata = metadata;
    }
    if new.aggregation_rule.is_none() || old.aggregation_rule.is_none() {
        if let Some(rules) = complete(new.rules.as_ref(), old.rules.as_ref()) {
            changed.rules = Some(rules);
        }
    } else if let Some(rule) = aggregate_change(new, old) {
        changed.aggregation_rule = Some(rule);
    }
    (changed != *old && !is_protected(old)).then_some(changed)
}

fn role_change(new: &Role, old: &Role) -> Option<Role> {
    let mut changed = old.clone();
    if let Some(metadata) = metadata_change(&new.metadata, &old.metadata) {
        changed.metadata = metadata;
    }
    if let Some(rules) = complete(new.rules.as_ref(), old.rules.as_ref()) {
        changed.rules = Some(rules);
    }
    (changed != *old && !is_protected(old)).then_some(changed)
}

/// The existing subjects and those that are missing.
fn join(wanted: Option<&Vec<Subject>>, existing: Option<&Vec<Subject>>) -> Option<Vec<Subject>> {
    let mut all = existing.cloned().unwrap_or_default();
    let before = all.len();
    for subject in wanted.into_iter().flatten() {
        let same = |s: &Subject| {
            s.kind == subject.kind && s.name == subject.name && s.namespace == subject.namespace
        };
        if !all.iter().any(same) {
            all.push(subject.clone());
        }
    }
    (all.len() > before).then_some(all)
}

fn cluster_binding_change(new: &ClusterRoleBinding, old: &ClusterRoleBinding) -> Option<ClusterRoleBinding> {
    let mut changed = old.clone();
    if let Some(metadata) = metadata_change(&new.metadata, &old.metadata) {
        changed.metadata = metadata;
    }
    if let Some(subjects) = join(new.subjects.as_ref(), old.subjects.as_ref()) {
        changed.subjects = Some(subjects);
    }
    (changed != *old && !is_protected(old)).then_some(changed)
}

fn binding_change(new: &RoleBinding, old: &RoleBinding) -> Option<RoleBinding> {
    let mut changed = old.clone();
    if let Some(metadata) = metadata_change(&new.metadata, &old.metadata) {
        changed.metadata = metadata;
    }
    if let Some(subjects) = join(new.subjects.as_ref(), old.subjects.as_ref()) {
        changed.subjects = Some(subjects);
    }
    (changed != *old && !is_protected(old)).then_some(changed)
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    let one = |key: &str, value: &str| Some(BTreeMap::from([(key.to_owned(), value.to_owned())]));
    ObjectMeta {
        labels: one("kubernetes.io/bootstrapping", "rbac-defaults"),
        annotations: one(AUTO_UPDATE, "true"),
        ..named(namespace, name)
    }
}

fn aggregation_label(role: &str) -> String {
    format!("{GROUP}/aggregate-to-{role}")
}

enum Current {
    ClusterRole,
    ClusterBinding,
    Role,
    Binding,
}

impl Defaults {
    /// Reads the table.
    pub(crate) fn read() -> Self {
        let mut defaults = Self::default();
        let mut current = Current::ClusterRole;
        for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(detail) = line.strip_prefix("  ") {
                defaults.detail(&current, detail);
            } else {
                current = defaults.head(line);
            }
        }
        defaults.aggregate();
        defaults
    }

    fn head(&mut self, line: &str) -> Current {
        let mut words = line.split(' ');
        let (kind, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let (namespace, local) = name.split_once('/').unwrap_or(("", name));
        let rest: Vec<&str> = words.collect();
        let role = |kind: &str, name: &str| RoleRef {
            api_group: Some(GROUP.to_owned()),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        match (kind, rest.as_slice()) {
            ("ClusterRole", options) => {
                self.cluster_roles.push(cluster_role(name, options));
                Current::ClusterRole
            }
            ("ClusterRoleBinding", ["->", target]) => {
                self.cluster_bindings.push(ClusterRoleBinding {
                    metadata: metadata("", name),
                    role_ref: role("ClusterRole", target),
                    subjects: None,
                });
                Current::ClusterBinding
            }
            ("RoleBinding", ["->", kind, target]) => {
                self.bindings.push(RoleBinding {
                    metadata: metadata(namespace, local),
                    role_ref: role(kind, target),
                    subjects: None,
                });
                Current::Binding
            }
            _ => {
                self.roles.push(Role { metadata: metadata(namespace, local), rules: None });
                Current::Role
            }
        }
    }

    fn detail(&mut self, current: &Current, line: &str) {
        match current {
            Current::ClusterRole => {
                if let Some(role) = self.cluster_roles.last_mut() {
                    role.rules.get_or_insert_default().push(rule(line));
                }
            }
            Current::Role => {
                if let Some(role) = self.roles.last_mut() {
                    role.rules.get_or_insert_default().push(rule(line));
                }
            }
            Current::ClusterBinding => {
                if let Some(binding) = self.cluster_bindings.last_mut() {
                    binding.subjects.get_or_insert_default().push(subject(line));
                }
            }
            Current::Binding => {
                if let Some(binding) = self.bindings.last_mut() {
                    binding.subjects.get_or_insert_default().push(subject(line));
                }
            }
        }
    }

    /// Fills in what a controller would aggregate, so that `admin`, `edit` and `view` work at once.
    fn aggregate(&mut self) {
        // `view` first: `edit` takes it in, and `admin` both.
        for name in ["view", "edit", "admin"] {
            let label = aggregation_label(name);
            let parts = self.cluster_roles.iter().filter(|role| role.label(&label) == Some("true"));
            let mut rules: Vec<PolicyRule> = Vec::new();
            for rule in parts.flat_map(|role| role.rules.iter().flatten()) {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
            if let Some(role) = self.cluster_roles.iter_mut().find(|role| role.name() == name) {
                role.rules = Some(rules);
            }
        }
    }
}

fn cluster_role(name: &str, options: &[&str]) -> ClusterRole {
    let mut role = ClusterRole { metadata: metadata("", name), ..ClusterRole::default() };
    for option in options {
        if let Some(target) = option.strip_prefix("to=") {
            role.metadata.labels.get_or_insert_default().insert(aggregation_label(target), "true".to_owned());
        } else if let Some(source) = option.strip_prefix("from=") {
            let labels = BTreeMap::from([(aggregation_label(source), "true".to_owned())]);
            let selector = LabelSelector { match_labels: Some(labels), match_expressions: None };
            role.aggregation_rule = Some(AggregationRule { cluster_role_selectors: Some(vec![selector]) });
        }
    }
    role
}

fn rule(line: &str) -> PolicyRule {
    let mut words = line.split(' ');
    let mut next = || {
        let list =
            words.next()?.split(',').map(|word| if word == "-" { String::new() } else { word.to_owned() });
        Some(list.collect::<Vec<_>>())
    };
    let verbs = next().unwrap_or_default();
    let groups = next();
    let targets = next();
    if groups.as_deref() == Some(&["url".to_owned()]) {
        return PolicyRule { verbs, non_resource_urls: targets, ..PolicyRule::default() };
    }
    PolicyRule {
        verbs,
        api_groups: groups,
        resources: targets,
        resource_names: next(),
        non_resource_urls: None,
    }
}

fn subject(line: &str) -> Subject {
    let (kind, name) = line.split_once(' ').unwrap_or((line, ""));
    if kind == "ServiceAccount" {
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        return Subject {
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace: Some(namespace.to_owned()),
            api_group: None,
        };
    }
    Subject {
        api_group: Some(GROUP.to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorize::{Attributes, Rbac};
    use crate::identify::{AUTHENTICATED, User};

    #[test]
    fn the_table_is_read_whole() {
        let defaults = Defaults::read();
        let heads = |kind: &str| TABLE.lines().filter(|l| l.starts_with(kind)).count();
        assert_eq!(defaults.cluster_roles.len(), heads("ClusterRole "));
        assert_eq!(defaults.cluster_bindings.len(), heads("ClusterRoleBinding "));
        assert_eq!(defaults.roles.len(), heads("Role "));
        assert_eq!(defaults.bindings.len(), heads("RoleBinding "));
        for role in &defaults.cluster_roles {
            assert!(role.rules.as_ref().is_some_and(|r| !r.is_empty()), "{} has no rules", role.name());
        }
        for binding in &defaults.cluster_bindings {
            // Nodes are the node authorizer's business.
            let empty = binding.name() == "system:node";
            assert_eq!(binding.subjects.is_none(), empty, "{} has no subjects", binding.name());
            let known = defaults.cluster_roles.iter().any(|r| r.name() == binding.role_ref.name);
            assert!(known, "{} refers to a role that is not there", binding.name());
        }
    }

    fn rbac() -> Rbac {
        let d = Defaults::read();
        let edit = RoleBinding {
            metadata: named("shop", "editors"),
            role_ref: RoleRef {
                api_group: Some(GROUP.into()),
                kind: "ClusterRole".into(),
                name: "edit".into(),
            },
            subjects: Some(vec![subject("User jane")]),
        };
        Rbac::of(d.roles, d.cluster_roles, [d.bindings, vec![edit]].concat(), d.cluster_bindings)
    }

    /// `VERB GROUP RESOURCE[/SUB] NAMESPACE` (`-` for none), or `VERB PATH`.
    fn may(rbac: &Rbac, user: &User, question: &str) -> bool {
        let words: Vec<&str> = question.split(' ').map(|w| if w == "-" { "" } else { w }).collect();
        let (resource, subresource) = words.get(2).map_or(("", ""), |r| r.split_once('/').unwrap_or((r, "")));
        let is_resource = words.len() == 4;
        rbac.decide(&Attributes {
            is_resource,
            group: if is_resource { words[1] } else { "" },
            resource,
            subresource,
            namespace: words.get(3).copied().unwrap_or(""),
            name: "x",
            ..Attributes::on_path(user, words[0], if is_resource { "" } else { words[1] })
        })
        .is_allowed()
    }

    #[test]
    fn decisions_follow_the_defaults() {
        let rbac = rbac();
        let user =
            |name: &str, groups: &[&str]| User::new(name, groups.iter().copied().chain([AUTHENTICATED]));
        let rows: [(User, &[&str], &[&str]); 6] = [
            (
                User::anonymous(),
                &["get /healthz", "get /version"],
                &["get /api", "get /metrics", "list - pods default"],
            ),
            (
                user("joe", &[]),
                &["get /api", "create authorization.k8s.io selfsubjectaccessreviews -"],
                &["list - pods -"],
            ),
            (
                user("jane", &[]),
                &["create apps deployments shop", "get - pods/log shop", "update - secrets shop"],
                &[
                    "create apps deployments other",
                    "create rbac.authorization.k8s.io roles shop",
                    "list - nodes -",
                ],
            ),
            (user("root", &["system:masters"]), &["delete - nodes -", "get /metrics", "escalate x y z"], &[]),
            (
                user("system:node:a", &["system:nodes"]),
                &["list - services -", "watch discovery.k8s.io endpointslices -"],
                &["get - secrets shop", "update - nodes/status -", "list - pods -"],
            ),
            (
                user("system:serviceaccount:kube-system:deployment-controller", &["system:serviceaccounts"]),
                &["create apps replicasets shop"],
                &["create - secrets shop"],
            ),
        ];
        for (user, yes, no) in rows {
            for question in yes {
                assert!(may(&rbac, &user, question), "{} may {question}", user.name);
            }
            for question in no {
                assert!(!may(&rbac, &user, question), "{} may not {question}", user.name);
            }
        }
    }

    #[test]
    fn each_controller_may_do_its_work() {
        let rbac = rbac();
        let rows: [(&str, &[&str]); 16] = [
            (
                "replicaset-controller",
                &["create - pods a", "patch - pods a", "update apps replicasets/status a"],
            ),
            ("deployment-controller", &["patch apps replicasets a", "update apps deployments/status a"]),
            (
                "statefulset-controller",
                &["create - persistentvolumeclaims a", "update apps statefulsets/status a"],
            ),
            ("daemon-set-controller", &["delete - pods a", "create apps controllerrevisions a"]),
            ("job-controller", &["create - pods a", "patch - pods a", "update batch jobs/status a"]),
            ("ttl-after-finished-controller", &["delete batch jobs a"]),
            ("endpointslice-controller", &["create discovery.k8s.io endpointslices a"]),
            ("endpoint-controller", &["update - endpoints a"]),
            ("generic-garbage-collector", &["delete apps replicasets a", "patch example.com widgets a"]),
            (
                "namespace-controller",
                &["deletecollection example.com widgets a", "update - namespaces/finalize a"],
            ),
            ("node-controller", &["patch - nodes -", "patch - pods/status a", "delete - pods a"]),
            ("pod-garbage-collector", &["delete - pods a", "patch - pods/status a"]),
            ("service-account-controller", &["create - serviceaccounts a"]),
            ("root-ca-cert-publisher", &["create - configmaps a", "update - configmaps a"]),
            (
                "persistent-volume-binder",
                &["create - persistentvolumes -", "update - persistentvolumeclaims/status a"],
            ),
            ("clusterrole-aggregation-controller", &["escalate rbac.authorization.k8s.io clusterroles -"]),
        ];
        for (account, questions) in rows {
            let user = User::new(format!("system:serviceaccount:kube-system:{account}"), [AUTHENTICATED]);
            for question in questions {
                assert!(may(&rbac, &user, question), "{account} may {question}");
            }
            assert!(!may(&rbac, &user, "impersonate - users -"), "{account}");
        }
        let manager = User::new("system:kube-controller-manager", [AUTHENTICATED]);
        assert!(
            may(&rbac, &manager, "watch example.com widgets -") && may(&rbac, &manager, "update - secrets a")
        );
        let node = User::new("system:node:n1", ["system:nodes"]);
        assert!(may(&rbac, &node, "watch discovery.k8s.io endpointslices -"));
    }

    #[test]
    fn a_binding_to_a_missing_role_is_named_in_the_refusal() {
        let mut d = Defaults::read();
        d.cluster_roles.retain(|role| role.name() != "system:kube-dns");
        let rbac = Rbac::of(d.roles, d.cluster_roles, d.bindings, d.cluster_bindings);
        let dns = User::new("system:serviceaccount:kube-system:kube-dns", []);
        let decision = rbac.decide(&Attributes::on_resource(&dns, "list", "", "pods"));
        let why = r#"RBAC: clusterrole.rbac.authorization.k8s.io "system:kube-dns" not found"#;
        assert_eq!(decision, crate::authorize::Decision::NoOpinion(why.into()));
    }

    #[test]
    fn what_was_taken_away_comes_back_and_what_was_added_stays() {
        let defaults = Defaults::read();
        let of =
            |name: &str| defaults.cluster_roles.iter().find(|r| r.name() == name).expect("a role").clone();
        let wanted = of("system:node");
        assert_eq!(cluster_role_change(&wanted, &wanted), None);
        let mut existing = wanted.clone();
        let rules = existing.rules.as_mut().expect("rules");
        rules.remove(0);
        rules.push(rule("get - widgets"));
        let changed = cluster_role_change(&wanted, &existing).expect("a change").rules.expect("rules");
        assert!(
            changed.contains(&rule("get - widgets"))
                && changed.contains(&wanted.rules.as_ref().expect("rules")[0])
        );
        existing.metadata.annotations = Some(BTreeMap::from([(AUTO_UPDATE.to_owned(), "false".to_owned())]));
        assert_eq!(cluster_role_change(&wanted, &existing), None);
        let view = of("view");
        let mut existing = view.clone();
        existing.metadata.labels = Some(BTreeMap::from([("mine".to_owned(), "x".to_owned())]));
        existing.aggregation_rule = Some(AggregationRule { cluster_role_selectors: None });
        let changed = cluster_role_change(&view, &existing).expect("a change");
        assert_eq!(changed.label("mine"), Some("x"));
        assert_eq!(changed.label("kubernetes.io/bootstrapping"), Some("rbac-defaults"));
        assert_eq!(changed.aggregation_rule, view.aggregation_rule);
    }
}
