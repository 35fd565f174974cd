//! What an update may keep although a new object could not have it.
//!
//! As `GetValidationOptionsFromPodSpecAndMeta`: rules that came later do not hold for what was stored before them.

use std::collections::BTreeMap;

use gantry_api::core::PodSpec;

use super::super::at::{At, items};
use super::super::labels;
use super::super::quantities::{get, is_divisible, is_huge_pages};
use super::{affinity, annotations, is_sidecar, scheduling, security, visit_containers, volumes};
use crate::kind::Errors;

/// How strict the validation of a pod spec is. The default is that of a template that is created.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A pod rather than a template.
    pub is_pod: bool,
    pub(super) bad_deletion_cost: bool,
    pub(super) bad_selector_values: bool,
    pub(super) bad_node_affinity_values: bool,
    pub(super) indivisible_huge_pages: bool,
    pub(super) bad_spread_selector: bool,
    pub(super) bad_spread_label_keys: bool,
    pub(super) distant_token_path: bool,
    pub(super) host_sysctls: bool,
    pub(super) restarting_init_resize: bool,
    pub(super) user_namespace_devices: bool,
    pub(super) comparing_tolerations: bool,
    pub(super) user_namespace_host_network: bool,
}

impl Options {
    /// For a pod.
    #[must_use]
    pub fn pod(self) -> Self {
        Self { is_pod: true, ..self }
    }

    /// For an update of what is stored as `old`, with these annotations.
    pub fn update(old: &PodSpec, old_annotations: Option<&BTreeMap<String, String>>) -> Self {
        Self {
            is_pod: false,
            bad_deletion_cost: !annotations::has_valid_deletion_cost(old_annotations),
            bad_selector_values: affinity::has_invalid_selector_value(old),
            bad_node_affinity_values: affinity::has_invalid_required_value(old),
            indivisible_huge_pages: has_indivisible_huge_pages(old),
            bad_spread_selector: has_bad_spread_selector(old),
            bad_spread_label_keys: scheduling::has_bad_label_keys(old),
            distant_token_path: volumes::has_distant_token_path(old),
            host_sysctls: security::has_host_sysctls(old),
            restarting_init_resize: restarts_init_on_resize(old),
            user_namespace_devices: has_user_namespace_devices(old),
            comparing_tolerations: items(&old.tolerations)
                .iter()
                .any(|t| matches!(t.operator.as_deref(), Some("Lt" | "Gt"))),
            user_namespace_host_network: old.host_users == Some(false) && old.host_network == Some(true),
        }
    }
}

fn has_indivisible_huge_pages(spec: &PodSpec) -> bool {
    let mut found = false;
    visit_containers(spec, &At::root(""), |container, _| {
        let Some(resources) = &container.resources else { return };
        for list in [resources.limits.as_ref(), resources.requests.as_ref()] {
            let names = list.into_iter().flat_map(BTreeMap::keys).filter(|name| is_huge_pages(name));
            found |= names.into_iter().any(|name| get(list, name).is_some_and(|q| !is_divisible(name, q)));
        }
    });
    found
}

fn has_bad_spread_selector(spec: &PodSpec) -> bool {
    items(&spec.topology_spread_constraints).iter().any(|constraint| {
        let mut errors = Errors::new();
        labels::check_selector(constraint.label_selector.as_ref(), false, &At::root(""), &mut errors);
        !errors.is_empty()
    })
}

fn restarts_init_on_resize(spec: &PodSpec) -> bool {
    items(&spec.init_containers).iter().any(|container| {
        !is_sidecar(container)
            && items(&container.resize_policy).iter().any(|p| p.restart_policy == "RestartContainer")
    })
}

fn has_user_namespace_devices(spec: &PodSpec) -> bool {
    let mut devices = false;
    visit_containers(spec, &At::root(""), |container, _| {
        devices |= !items(&container.volume_devices).is_empty();
    });
    spec.host_users == Some(false) && devices
}
