//! What controllers need to know of a node, and which pods fit it.

use std::sync::Arc;

use gantry_api::ObjectKey;
use gantry_api::core::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};
use gantry_api::meta::MetaExt;
use gantry_api::selector::{Labels, Operator, Requirement};
use gantry_client::Projection;

/// A node without its status.
#[derive(Debug)]
pub struct NodeView {
    /// Its name.
    pub key: ObjectKey,
    revision: u64,
    /// `metadata.labels`
    pub labels: Option<Labels>,
    /// `spec.taints`
    pub taints: Vec<Taint>,
    /// `spec.podCIDRs`
    pub pod_cidrs: Vec<String>,
    /// `metadata.uid`
    pub uid: String,
}

impl Projection for NodeView {
    type Object = Node;

    fn project(node: Arc<Node>) -> Arc<Self> {
        Arc::new(Self {
            key: node.key(),
            revision: MetaExt::revision(&*node),
            labels: node.metadata.labels.clone(),
            taints: node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default(),
            pod_cidrs: node.spec.as_ref().and_then(|s| s.pod_cidrs.clone()).unwrap_or_default(),
            uid: node.uid().to_owned(),
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}

impl NodeView {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.key.name
    }

    /// Whether anything but its revision differs.
    pub fn differs(&self, other: &Self) -> bool {
        self.labels != other.labels || self.taints != other.taints
    }
}

/// Whether a node fits a selector of nodes. A term without requirements fits none.
pub fn matches_selector(selector: &NodeSelector, name: &str, labels: Option<&Labels>) -> bool {
    selector.node_selector_terms.iter().any(|term| matches_term(term, name, labels))
}

fn matches_term(term: &NodeSelectorTerm, name: &str, labels: Option<&Labels>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let value = |key: &str| labels.and_then(|l| l.get(key)).map(String::as_str);
    expressions.iter().all(|r| matches_requirement(r, value(&r.key)))
        && fields.iter().all(|r| r.key == "metadata.name" && matches_requirement(r, Some(name)))
}

fn matches_requirement(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let operator = match requirement.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return false,
    };
    let values = requirement.values.clone().unwrap_or_default();
    Requirement { key: requirement.key.clone(), operator, values }.matches_value(value)
}

/// Whether a pod's node selector and required affinity fit a node.
pub fn affinity_fits(spec: &PodSpec, node: &NodeView) -> bool {
    let label = |key: &String| node.labels.as_ref().and_then(|l| l.get(key));
    let selector = spec.node_selector.iter().flatten();
    let selected = selector.into_iter().all(|(key, value)| label(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|r| matches_selector(r, node.name(), node.labels.as_ref()))
}

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let filled = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    if filled(&toleration.effect).is_some_and(|effect| effect != taint.effect) {
        return false;
    }
    if filled(&toleration.key).is_some_and(|key| key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            filled(&toleration.key).is_some()
                && toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("")
        }
        Some(_) => false,
    }
}

/// Whether all of a node's taints of the given effects are tolerated.
pub fn taints_fit(taints: &[Taint], tolerations: &[Toleration], effects: &[&str]) -> bool {
    let mut concerned = taints.iter().filter(|taint| effects.contains(&taint.effect.as_str()));
    concerned.all(|taint| tolerations.iter().any(|t| tolerates(t, taint)))
}
