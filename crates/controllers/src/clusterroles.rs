//! Cluster role aggregation: gathers the rules of the roles that a role selects.
//!
//! Behaviour: `pkg/controller/clusterroleaggregation`.

use std::sync::Arc;

use gantry_api::meta::MetaExt;
use gantry_api::rbac::{ClusterRole, PolicyRule};
use gantry_api::{LabelSelector, ObjectKey};
use gantry_client::{Informer, InformerSet};

use crate::engine::{Controller, Moment, Plan, Watch, Write};

/// The cluster role aggregation controller.
pub struct ClusterRoles {
    roles: Informer<ClusterRole>,
}

impl ClusterRoles {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { roles: informers.of() }
    }
}

/// What the controller sees of an aggregating role.
pub struct Seen {
    role: Arc<ClusterRole>,
    /// All roles, by name.
    roles: Vec<Arc<ClusterRole>>,
}

impl Controller for ClusterRoles {
    const NAME: &'static str = "clusterrole-aggregation-controller";
    const ACCOUNT: &'static str = "clusterrole-aggregation-controller";
    const COMPONENT: &'static str = "clusterrole-aggregation-controller";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let roles = self.roles.clone();
        vec![Watch::on(&self.roles, move |_| {
            // Any role may be selected by any other; there are few that aggregate.
            let roles = roles.list();
            let aggregating = roles.iter().filter(|role| role.aggregation_rule.is_some());
            aggregating.map(|role| role.key()).collect()
        })]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let role = self.roles.get(key).filter(|role| role.aggregation_rule.is_some())?;
        Some(Seen { role, roles: self.roles.list() })
    }

    fn plan(seen: &Seen, _: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let rule = seen.role.aggregation_rule.as_ref();
        let mut rules: Vec<PolicyRule> = Vec::new();
        for selector in rule.iter().flat_map(|r| r.cluster_role_selectors.iter().flatten()) {
            let Ok(selector) = LabelSelector::from_spec(Some(selector)) else { continue };
            let selected = seen.roles.iter().filter(|role| {
                role.name() != seen.role.name() && selector.matches(role.metadata.labels.as_ref())
            });
            for rule in selected.flat_map(|role| role.rules.iter().flatten()) {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
        if rules != *seen.role.rules.as_deref().unwrap_or_default() {
            let mut updated = (*seen.role).clone();
            updated.rules = Some(rules);
            plan.push(Write::update(&updated));
        }
        plan
    }
}
