//! `matchLabelKeys` and `mismatchLabelKeys`: a new pod's own values of these labels go into its selectors (KEP-3633,
//! KEP-3243).

use std::collections::BTreeMap;

use gantry_api::core::{Pod, PodAffinityTerm};
use gantry_api::metav1::{LabelSelector, LabelSelectorRequirement};

/// Puts a new pod's labels into the selectors that name them.
pub(super) fn merge(pod: &mut Pod) {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let Some(spec) = &mut pod.spec else { return };
    if let Some(affinity) = &mut spec.affinity {
        if let Some(near) = &mut affinity.pod_affinity {
            let preferred = &mut near.preferred_during_scheduling_ignored_during_execution;
            let terms = preferred.iter_mut().flatten().map(|weighted| &mut weighted.pod_affinity_term);
            let required = near.required_during_scheduling_ignored_during_execution.iter_mut().flatten();
            terms.chain(required).for_each(|term| merge_term(term, &labels));
        }
        if let Some(apart) = &mut affinity.pod_anti_affinity {
            let preferred = &mut apart.preferred_during_scheduling_ignored_during_execution;
            let terms = preferred.iter_mut().flatten().map(|weighted| &mut weighted.pod_affinity_term);
            let required = apart.required_during_scheduling_ignored_during_execution.iter_mut().flatten();
            terms.chain(required).for_each(|term| merge_term(term, &labels));
        }
    }
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        let keys = constraint.match_label_keys.as_deref();
        add(constraint.label_selector.as_mut(), keys, "In", &labels);
    }
}

fn merge_term(term: &mut PodAffinityTerm, labels: &BTreeMap<String, String>) {
    let selector = &mut term.label_selector;
    add(selector.as_mut(), term.match_label_keys.as_deref(), "In", labels);
    add(selector.as_mut(), term.mismatch_label_keys.as_deref(), "NotIn", labels);
}

/// A selector that is not there selects nothing, and stays so.
fn add(
    selector: Option<&mut LabelSelector>,
    keys: Option<&[String]>,
    operator: &str,
    labels: &BTreeMap<String, String>,
) {
    let Some(selector) = selector else { return };
    for (key, value) in keys.into_iter().flatten().filter_map(|key| labels.get_key_value(key)) {
        selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
            key: key.clone(),
            operator: operator.to_owned(),
            values: Some(vec![value.clone()]),
        });
    }
}
