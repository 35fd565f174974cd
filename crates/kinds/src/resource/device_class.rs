//! DeviceClass: a sort of devices that claims can name.

use gantry_api::dynamic_resource::DeviceClass;
use gantry_api::field::{Error, Path};

use super::{names, requests};
use crate::common::resource_names;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};

/// The kind.
pub struct DeviceClassKind;

impl Kind for DeviceClassKind {
    type Object = DeviceClass;
    const NAMES: Names =
        Names { singular: "deviceclass", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };

    fn prepare_create(class: &mut DeviceClass) {
        class.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut DeviceClass, old: &DeviceClass) {
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn validate(class: &DeviceClass) -> Errors {
        validate_class(class, None)
    }

    fn validate_replacement(new: &DeviceClass, old: &DeviceClass) -> Errors {
        validate_class(new, Some(old))
    }
}

fn validate_class(class: &DeviceClass, old: Option<&DeviceClass>) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let spec = &class.spec;
    let stored = old.is_some_and(|o| o.spec.selectors == spec.selectors);
    let selectors = spec.selectors.as_deref().unwrap_or_default();
    requests::validate_selectors(selectors, stored, &path.child("selectors"), &mut errors);
    let configs = spec.config.as_deref().unwrap_or_default();
    let at = path.child("config");
    if names::fits(configs.len(), requests::MAX_CONFIGS, &at, &mut errors) {
        for (i, config) in configs.iter().enumerate() {
            requests::validate_opaque(config.opaque.as_ref(), &at.index(i).child("opaque"), &mut errors);
        }
    }
    if let Some(name) = spec.extended_resource_name.as_deref().filter(|n| !resource_names::is_extended(n)) {
        let why = "must be a valid extended resource name";
        errors.push(Error::invalid(&path.child("extendedResourceName"), name, why));
    }
    errors
}
