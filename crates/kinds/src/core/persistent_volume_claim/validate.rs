//! Validation of claims: in themselves, and what an update may change.

use std::collections::BTreeMap;

use gantry_api::core::{PersistentVolumeClaim, PersistentVolumeClaimSpec};
use gantry_api::names;
use gantry_api::quantity::{Quantity, WireQuantity};

use super::super::persistent_volume::check_access_modes;
use super::BETA_CLASS;
use crate::common::at::{At, Complaints, items, text};
use crate::common::quantities::{self, check_value, is_native};
use crate::common::{internal, labels};
use crate::kind::Errors;

/// What an update may keep although a new claim could not have it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClaimOptions {
    selector_values: bool,
    api_group: bool,
}

impl ClaimOptions {
    fn of(old: &PersistentVolumeClaimSpec) -> Self {
        let mut errors = Errors::new();
        labels::check_selector(old.selector.as_ref(), false, &At::root(""), &mut errors);
        let group = old.data_source.as_ref().is_some_and(|s| s.api_group.is_some())
            || old.data_source_ref.as_ref().is_some_and(|s| s.api_group.is_some());
        Self { selector_values: !errors.is_empty(), api_group: group }
    }
}

pub(super) fn create(claim: &PersistentVolumeClaim) -> Errors {
    let mut errors = Errors::new();
    if let Some(spec) = &claim.spec {
        check_claim_spec(spec, ClaimOptions::default(), &At::root("spec"), &mut errors);
    }
    errors
}

/// A claim's spec: of claims and of claim templates.
pub(crate) fn check_claim_spec(
    spec: &PersistentVolumeClaimSpec,
    options: ClaimOptions,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let modes = items(&spec.access_modes);
    if modes.is_empty() {
        errors.required(&at.child("accessModes"), "at least 1 access mode is required");
    }
    let selector = spec.selector.as_ref();
    labels::check_selector(selector, options.selector_values, &at.child("selector"), errors);
    check_access_modes(modes, &at.child("accessModes"), errors);
    check_size(spec, at, errors);
    let class = text(&spec.storage_class_name);
    if !class.is_empty() {
        errors.check(&at.child("storageClassName"), class, names::dns1123_subdomain(class));
    }
    if let Some(mode) = &spec.volume_mode {
        errors.among(&at.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
    check_sources(spec, options, at, errors);
    let class = text(&spec.volume_attributes_class_name);
    if !class.is_empty() {
        errors.check(&at.child("volumeAttributesClassName"), class, names::dns1123_subdomain(class));
    }
}

fn check_size(spec: &PersistentVolumeClaimSpec, at: &At<'_>, errors: &mut Errors) {
    let resources = at.child("resources");
    let at = resources.key("storage");
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let Some(wire) = requests.and_then(|r| r.get("storage")) else {
        errors.required(&at, "");
        return;
    };
    let Some(size) = quantities::read(wire, &at, errors) else { return };
    if size.sign() <= 0 {
        errors.invalid(&at, size.to_string(), "must be greater than zero");
    }
}

fn check_sources(spec: &PersistentVolumeClaimSpec, options: ClaimOptions, at: &At<'_>, errors: &mut Errors) {
    let check = |field: &str, group: &Option<String>, kind: &str, name: &str, errors: &mut Errors| {
        let at = at.child(field);
        errors.needed(&at.child("name"), name);
        errors.needed(&at.child("kind"), kind);
        let group = text(group);
        if group.is_empty() && kind != "PersistentVolumeClaim" {
            let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.invalid(&at, kind, why);
        }
        if !group.is_empty() && !options.api_group {
            errors.check(&at.child("apiGroup"), group, names::dns1123_subdomain(group));
        }
    };
    if let Some(source) = &spec.data_source {
        check("dataSource", &source.api_group, &source.kind, &source.name, errors);
    }
    let Some(reference) = &spec.data_source_ref else { return };
    check("dataSourceRef", &reference.api_group, &reference.kind, &reference.name, errors);
    let namespace = text(&reference.namespace);
    if !namespace.is_empty() {
        let at = at.child("dataSourceRef.namespace");
        errors.check(&at, namespace, names::dns1123_label(namespace));
    }
    let Some(source) = &spec.data_source else { return };
    let same = (&source.api_group, &source.kind, &source.name)
        == (&reference.api_group, &reference.kind, &reference.name);
    // Upstream shows the path where the value belongs: an object without fields.
    let shown = serde_json::json!({});
    if !namespace.is_empty() {
        errors.invalid(at, shown, "may not be specified when dataSourceRef.namespace is specified");
    } else if !same {
        errors.invalid(at, shown, "must match dataSourceRef");
    }
}

type List = Option<BTreeMap<String, WireQuantity>>;

fn size(list: &List) -> Quantity {
    quantities::get(list.as_ref(), "storage").unwrap_or_default()
}

pub(super) fn update(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> Errors {
    let mut errors = Errors::new();
    let (Some(spec), Some(old_spec)) = (&new.spec, &old.spec) else { return create(new) };
    check_claim_spec(spec, ClaimOptions::of(old_spec), &At::root("spec"), &mut errors);
    check_immutable(new, old, &mut errors);
    let requests = |spec: &PersistentVolumeClaimSpec| {
        spec.resources.as_ref().map(|r| size(&r.requests)).unwrap_or_default()
    };
    let capacity = old.status.as_ref().map(|s| size(&s.capacity)).unwrap_or_default();
    if requests(spec) < requests(old_spec) && requests(spec) <= capacity {
        let why = "field can not be less than status.capacity";
        errors.forbidden(&At::root("spec.resources.requests.storage"), why);
    }
    errors.immutable(&At::root("volumeMode"), &spec.volume_mode, &old_spec.volume_mode);
    let current = old.status.as_ref().and_then(|s| s.current_volume_attributes_class_name.as_ref());
    let class = &spec.volume_attributes_class_name;
    if *class != old_spec.volume_attributes_class_name && current.is_some() {
        let at = At::root("spec.volumeAttributesClassName");
        let what = match class.as_deref() {
            None => "nil",
            Some("") => "empty string",
            Some(_) => return errors,
        };
        let why =
            format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
        errors.forbidden(&at, why);
    }
    errors
}

/// A claim's spec is immutable but for the volume that binds it, its first class, and its size while it is bound.
fn check_immutable(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim, errors: &mut Errors) {
    const WHY: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    let (Some(spec), Some(old_spec)) = (&new.spec, &old.spec) else { return };
    let (mut spec, mut old_spec) = (spec.clone(), old_spec.clone());
    super::level_sources(&mut old_spec);
    if text(&old_spec.volume_name).is_empty() {
        old_spec.volume_name.clone_from(&spec.volume_name);
    }
    let annotation = |claim: &PersistentVolumeClaim| {
        claim.metadata.annotations.as_ref().and_then(|a| a.get(BETA_CLASS)).cloned()
    };
    let (class, was) = (annotation(new), annotation(old));
    let upgraded = was.is_some()
        && old_spec.storage_class_name.is_none()
        && spec.storage_class_name == was
        && (class.is_none() || class == was);
    if upgraded {
        spec.storage_class_name = None;
    } else {
        if class != was {
            let path = format!("metadata.annotations.{BETA_CLASS}");
            errors.invalid(&At::root(&path), class.unwrap_or_default(), "field is immutable");
        }
        let first = spec.storage_class_name.is_some() && old_spec.storage_class_name.is_none();
        if first && (was.is_none() || spec.storage_class_name == was) {
            spec.storage_class_name.clone_from(&old_spec.storage_class_name);
        }
    }
    if new.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound") {
        let old_size = old_spec.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage").cloned());
        if let Some(requests) = spec.resources.as_mut().and_then(|r| r.requests.as_mut()) {
            requests.insert("storage".into(), old_size.unwrap_or_else(|| WireQuantity("0".into())));
        }
        spec.volume_attributes_class_name.clone_from(&old_spec.volume_attributes_class_name);
    }
    if !internal::same(&spec, &old_spec) {
        let difference = internal::difference("PersistentVolumeClaimSpec", &old_spec, &spec);
        errors.forbidden(&At::root("spec"), format!("{WHY}\n{difference}"));
    }
}

pub(super) fn status(claim: &PersistentVolumeClaim) -> Errors {
    const RESIZE: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    let mut errors = Errors::new();
    if claim.spec.as_ref().is_none_or(|s| items(&s.access_modes).is_empty()) {
        errors.required(&At::root("Spec.accessModes"), "");
    }
    let Some(status) = &claim.status else { return errors };
    let at = At::root("status.capacity");
    for (name, wire) in status.capacity.iter().flatten() {
        check_basic(wire, &at.key(name), &mut errors);
    }
    let at = At::root("status.allocatedResourceStatuses");
    for (name, state) in status.allocated_resource_statuses.iter().flatten() {
        check_key(name, &at, &mut errors);
        if !RESIZE.contains(&state.as_str()) {
            errors.unsupported(&at, name, &RESIZE);
        }
    }
    let at = At::root("status.allocatedResources");
    for (name, wire) in status.allocated_resources.iter().flatten() {
        if check_key(name, &at, &mut errors) && check_basic(wire, &at.key(name), &mut errors) {
            check_value("storage", wire, &at.key(name), &mut errors);
        }
    }
    errors
}

fn check_key(name: &str, at: &At<'_>, errors: &mut Errors) -> bool {
    let before = errors.len();
    errors.qualified(at, name);
    if errors.len() == before && is_native(name) && name != "storage" {
        errors.unsupported(at, name, &["storage"]);
    }
    errors.len() == before
}

/// A quantity that is not negative, in the words for volumes.
pub(crate) fn check_basic(wire: &WireQuantity, at: &At<'_>, errors: &mut Errors) -> bool {
    let Some(quantity) = quantities::read(wire, at, errors) else { return false };
    if quantity.value() < 0 {
        errors.invalid(at, quantity.value(), "must be a valid resource quantity");
    }
    quantity.value() >= 0
}
