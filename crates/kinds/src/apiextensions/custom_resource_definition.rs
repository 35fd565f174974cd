//! CustomResourceDefinition: a kind that a user defines.
//!
//! Whether its schemas are structural is checked by the API server, which also serves the kind.

use std::time::SystemTime;

use gantry_api::apiextensions::{CustomResourceConversion, CustomResourceDefinition};
use serde_json::Value;

use super::{formats, validate};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::{self, Column};

/// The kind.
pub struct CustomResourceDefinitionKind;

impl Kind for CustomResourceDefinitionKind {
    type Object = CustomResourceDefinition;
    const NAMES: Names = Names {
        singular: "customresourcedefinition",
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        rule: NameRule::Subdomain,
    };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };
    const UNCONDITIONAL_UPDATE: bool = false;

    fn defaults(crd: &mut CustomResourceDefinition) {
        let names = &mut crd.spec.names;
        if names.singular.as_deref().unwrap_or("").is_empty() {
            names.singular = Some(names.kind.to_lowercase());
        }
        if names.list_kind.as_deref().unwrap_or("").is_empty() && !names.kind.is_empty() {
            names.list_kind = Some(format!("{}List", names.kind));
        }
        crd.spec.conversion.get_or_insert_with(|| CustomResourceConversion {
            strategy: "None".into(),
            ..CustomResourceConversion::default()
        });
        let webhook = crd.spec.conversion.as_mut().and_then(|c| c.webhook.as_mut());
        let client = webhook.and_then(|w| w.client_config.as_mut());
        if let Some(service) = client.and_then(|c| c.service.as_mut()) {
            service.port.get_or_insert(443);
        }
    }

    fn prepare_create(crd: &mut CustomResourceDefinition) {
        crd.status = Some(Default::default());
        crd.metadata.generation = Some(1);
        let stored = crd.spec.versions.iter().filter(|v| v.storage).map(|v| v.name.clone()).collect();
        crd.status.get_or_insert_default().stored_versions = Some(stored);
    }

    fn prepare_update(new: &mut CustomResourceDefinition, old: &CustomResourceDefinition) {
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
        let stored = new.status.get_or_insert_default().stored_versions.get_or_insert_default();
        for version in new.spec.versions.iter().filter(|v| v.storage) {
            if !stored.contains(&version.name) {
                stored.push(version.name.clone());
            }
        }
    }

    fn prepare_status_update(new: &mut CustomResourceDefinition, old: &CustomResourceDefinition) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(crd: &CustomResourceDefinition) -> Errors {
        validate::definition(crd, None)
    }

    fn validate_update(new: &CustomResourceDefinition, old: &CustomResourceDefinition) -> Errors {
        validate::change(new, old)
    }

    fn validate_replacement(new: &CustomResourceDefinition, old: &CustomResourceDefinition) -> Errors {
        let mut errors = validate::definition(new, Some(old));
        errors.extend(validate::change(new, old));
        errors
    }

    fn validate_status_update(new: &CustomResourceDefinition, _old: &CustomResourceDefinition) -> Errors {
        validate::status(new)
    }

    fn warnings(crd: &CustomResourceDefinition) -> Vec<String> {
        formats::unrecognized(crd).iter().map(|format| formats::warning(format)).collect()
    }

    fn update_warnings(new: &CustomResourceDefinition, old: &CustomResourceDefinition) -> Vec<String> {
        let before = formats::unrecognized(old);
        let mut found = formats::unrecognized(new);
        found.retain(|format| !before.contains(format));
        found.iter().map(|format| formats::warning(format)).collect()
    }

    fn columns() -> &'static [Column] {
        table::CREATED_AT
    }

    fn cells(crd: &CustomResourceDefinition, _now: SystemTime) -> Vec<Value> {
        vec![table::created_at(&crd.metadata)]
    }
}
