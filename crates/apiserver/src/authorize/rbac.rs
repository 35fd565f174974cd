//! RBAC: who is bound to a role may do what its rules say.
//!
//! The informers' index by subject is the decision table: a decision looks up the user and each of their groups,
//! and costs nothing for the bindings of others.

use std::sync::Arc;

use gantry_api::ObjectKey;
use gantry_api::rbac::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef};
use gantry_client::{Informer, InformerSet};

use super::views::{BindingView, Binds, RoleView, SUBJECT, group_key, user_key};
use super::{Asked, Attributes, Authorizer, Decision, ResourceRule, Rules, rules};
use crate::identify::{MASTERS, User};

/// Decides by roles and bindings; members of `system:masters` may do everything.
pub struct Rbac {
    roles: Informer<RoleView<Role>>,
    cluster_roles: Informer<RoleView<ClusterRole>>,
    bindings: Informer<BindingView<RoleBinding>>,
    cluster_bindings: Informer<BindingView<ClusterRoleBinding>>,
}

impl Rbac {
    /// Follows the four kinds.
    pub fn new(informers: &InformerSet) -> Self {
        Self {
            roles: informers.of(),
            cluster_roles: informers.of(),
            bindings: informers.of(),
            cluster_bindings: informers.of(),
        }
    }

    /// Whether the roles and bindings are known; before that, only `system:masters` may do anything.
    pub fn has_synced(&self) -> bool {
        self.roles.has_synced()
            && self.cluster_roles.has_synced()
            && self.bindings.has_synced()
            && self.cluster_bindings.has_synced()
    }

    /// The rules that a binding in `namespace` (empty: a cluster binding) refers to.
    ///
    /// # Errors
    /// There is no such role.
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<Arc<[PolicyRule]>, String> {
        let found = match role.kind.as_str() {
            "Role" => {
                self.roles.get(&ObjectKey::new(namespace, role.name.as_str())).map(|r| Arc::clone(&r.rules))
            }
            "ClusterRole" => {
                self.cluster_roles.get(&ObjectKey::cluster(role.name.as_str())).map(|r| Arc::clone(&r.rules))
            }
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        found.ok_or_else(|| {
            let kind = role.kind.to_lowercase();
            format!("{kind}.rbac.authorization.k8s.io {:?} not found", role.name)
        })
    }

    /// All rules of `user`, in a namespace (and the cluster) or in the cluster only; and the roles that are missing.
    pub fn rules_of_user(&self, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let mut visit = Visit::new(self, user, namespace);
        let mut all = Vec::new();
        visit.run(&mut |_, rules| {
            all.extend(rules.iter().cloned());
            None
        });
        (all, visit.missing)
    }
}

/// A walk over what one user is bound to. The callback ends it by returning something.
struct Visit<'a> {
    rbac: &'a Rbac,
    user: &'a User,
    namespace: &'a str,
    missing: Vec<String>,
}

/// Describes the binding, given the callback's wish to know.
type Describe<'a> = &'a dyn Fn() -> String;
type Callback<'a> = &'a mut dyn FnMut(Describe<'_>, &[PolicyRule]) -> Option<String>;

impl<'a> Visit<'a> {
    fn new(rbac: &'a Rbac, user: &'a User, namespace: &'a str) -> Self {
        Self { rbac, user, namespace, missing: Vec::new() }
    }

    fn run(&mut self, callback: Callback<'_>) -> Option<String> {
        let rbac = self.rbac;
        let found = self.bindings(&rbac.cluster_bindings, "ClusterRoleBinding", "", callback);
        if found.is_some() || self.namespace.is_empty() {
            return found;
        }
        self.bindings(&rbac.bindings, "RoleBinding", self.namespace, callback)
    }

    fn bindings<K: Binds>(
        &mut self,
        informer: &Informer<BindingView<K>>,
        kind: &str,
        namespace: &str,
        callback: Callback<'_>,
    ) -> Option<String> {
        let of_groups = self.user.groups.iter().map(|group| group_key(namespace, group));
        for subject in std::iter::once(user_key(namespace, &self.user.name)).chain(of_groups) {
            for binding in informer.by_index(SUBJECT, &subject) {
                let rules = match self.rbac.rules_of(&binding.role, namespace) {
                    Ok(rules) => rules,
                    Err(missing) => {
                        if !self.missing.contains(&missing) {
                            self.missing.push(missing);
                        }
                        continue;
                    }
                };
                let describe = || {
                    let whom = binding.subjects.iter().find(|(key, _)| *key == subject);
                    let whom = whom.map_or("", |(_, text)| text.as_str());
                    let name = match namespace {
                        "" => binding.key.name.to_string(),
                        _ => format!("{}/{namespace}", binding.key.name),
                    };
                    format!("{kind} {name:?} of {} {:?} to {whom}", binding.role.kind, binding.role.name)
                };
                if let Some(found) = callback(&describe, &rules) {
                    return Some(found);
                }
            }
        }
        None
    }
}

impl Authorizer for Rbac {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> Asked<'a> {
        self.decide(attributes).into()
    }

    fn rules_for(&self, user: &User, namespace: &str) -> Rules {
        let (list, missing) = self.rules_of_user(user, namespace);
        let mut answer = Rules { incomplete: !missing.is_empty(), errors: missing, ..Rules::default() };
        for rule in list {
            if let Some(resources) = rule.resources.filter(|r| !r.is_empty()) {
                answer.resources.push(ResourceRule {
                    verbs: rule.verbs.clone(),
                    groups: rule.api_groups.unwrap_or_default(),
                    resources,
                    names: rule.resource_names.unwrap_or_default(),
                });
            }
            if let Some(urls) = rule.non_resource_urls.filter(|u| !u.is_empty()) {
                answer.paths.push((rule.verbs, urls));
            }
        }
        answer
    }
}

impl Rbac {
    /// The decision, at once.
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.is_in(MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut visit = Visit::new(self, attributes.user, attributes.namespace);
        let found = visit.run(&mut |describe, list| {
            list.iter()
                .any(|rule| rules::allows(rule, attributes))
                .then(|| format!("RBAC: allowed by {}", describe()))
        });
        match (found, visit.missing.as_slice()) {
            (Some(by), _) => Decision::Allow(by),
            (None, []) => Decision::NoOpinion(String::new()),
            (None, [one]) => Decision::NoOpinion(format!("RBAC: {one}")),
            (None, several) => Decision::NoOpinion(format!("RBAC: [{}]", several.join(", "))),
        }
    }
}

#[cfg(test)]
impl Rbac {
    /// An authorizer that knows these roles and bindings and nothing more.
    pub(crate) fn of(
        roles: Vec<Role>,
        cluster_roles: Vec<ClusterRole>,
        bindings: Vec<RoleBinding>,
        cluster_bindings: Vec<ClusterRoleBinding>,
    ) -> Self {
        fn filled<P: gantry_client::Projection>(objects: Vec<P::Object>) -> Informer<P> {
            let informer = Informer::detached();
            informer.replace(objects.into_iter().map(|o| P::project(Arc::new(o))).collect(), 1);
            informer
        }
        Self {
            roles: filled(roles),
            cluster_roles: filled(cluster_roles),
            bindings: filled(bindings),
            cluster_bindings: filled(cluster_bindings),
        }
    }
}
