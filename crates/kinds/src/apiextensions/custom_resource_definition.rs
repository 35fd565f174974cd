//! CustomResourceDefinition: a kind that a user defines.
//!
//! Whether its schemas are structural is checked by the API server, which also serves the kind.

use std::time::SystemTime;

use gantry_api::apiextensions::{CustomResourceConversion, CustomResourceDefinition};
use gantry_api::field::{Error, Path};
use gantry_api::names;
use serde_json::{Value, json};

use crate::common::workload::immutable;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::Column;

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
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let spec = &crd.spec;
        let expected = format!("{}.{}", spec.names.plural, spec.group);
        let name = crd.metadata.name.as_deref().unwrap_or("");
        if name != expected {
            let why = "must be spec.names.plural+\".\"+spec.group";
            errors.push(Error::invalid(&Path::new("metadata").child("name"), name, why));
        }
        let group = path.child("group");
        if spec.group.is_empty() {
            errors.push(Error::required(&group, ""));
        } else if let Err(why) = names::dns1123_subdomain(&spec.group) {
            errors.push(Error::invalid(&group, spec.group.as_str(), why));
        } else if !spec.group.contains('.') {
            errors.push(Error::invalid(
                &group,
                spec.group.as_str(),
                "should be a domain with at least one dot",
            ));
        }
        if !["Cluster", "Namespaced"].contains(&spec.scope.as_str()) {
            errors.push(Error::not_supported(
                &path.child("scope"),
                spec.scope.as_str(),
                &["Cluster", "Namespaced"],
            ));
        }
        validate_names(crd, &path.child("names"), &mut errors);
        validate_versions(crd, &path.child("versions"), &mut errors);
        errors
    }

    fn validate_update(new: &CustomResourceDefinition, old: &CustomResourceDefinition) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let conditions = old.status.as_ref().and_then(|s| s.conditions.as_ref());
        if gantry_api::conditions::is_true(conditions, "Established") {
            immutable(&new.spec.scope, &old.spec.scope, &path.child("scope"), &mut errors);
            immutable(
                &new.spec.names.kind,
                &old.spec.names.kind,
                &path.child("names").child("kind"),
                &mut errors,
            );
        }
        immutable(&new.spec.group, &old.spec.group, &path.child("group"), &mut errors);
        let plural = path.child("names").child("plural");
        immutable(&new.spec.names.plural, &old.spec.names.plural, &plural, &mut errors);
        let stored = new.status.as_ref().and_then(|s| s.stored_versions.as_ref());
        for version in stored.into_iter().flatten() {
            if !new.spec.versions.iter().any(|v| v.name == *version) {
                let at = Path::new("status").child("storedVersions").index(0);
                errors.push(Error::invalid(&at, version.as_str(), "missing from spec.versions; must remain in spec.versions until it is removed from status.storedVersions"));
            }
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[Column::new(
            "Created At",
            "date",
            "CreationTimestamp is a timestamp representing the server time when this object was created.",
        )];
        COLUMNS
    }

    fn cells(crd: &CustomResourceDefinition, _now: SystemTime) -> Vec<Value> {
        vec![crd.metadata.creation_timestamp.as_ref().map(|t| t.0.to_string()).unwrap_or_default().into()]
    }
}

fn validate_names(crd: &CustomResourceDefinition, path: &Path, errors: &mut Errors) {
    let spec = &crd.spec.names;
    let singular = spec.singular.as_deref().unwrap_or("");
    for (field, value) in [("plural", spec.plural.as_str()), ("singular", singular)] {
        if value.is_empty() {
            errors.push(Error::required(&path.child(field), ""));
        } else if let Err(why) = names::dns1035_label(value) {
            errors.push(Error::invalid(&path.child(field), value, why));
        }
    }
    let list = spec.list_kind.as_deref().unwrap_or("");
    for (field, value) in [("kind", spec.kind.as_str()), ("listKind", list)] {
        if value.is_empty() {
            errors.push(Error::required(&path.child(field), ""));
        } else if let Err(why) = names::dns1035_label(&value.to_lowercase()) {
            let why = format!("may have mixed case, but should otherwise match: {why}");
            errors.push(Error::invalid(&path.child(field), value, why));
        }
    }
    if !spec.kind.is_empty() && spec.kind == list {
        errors.push(Error::invalid(&path.child("listKind"), list, "kind and listKind may not be the same"));
    }
}

fn validate_versions(crd: &CustomResourceDefinition, path: &Path, errors: &mut Errors) {
    let versions = &crd.spec.versions;
    let mut seen = std::collections::BTreeSet::new();
    for (i, version) in versions.iter().enumerate() {
        let at = path.index(i);
        if let Err(why) = names::dns1035_label(&version.name) {
            errors.push(Error::invalid(&at.child("name"), version.name.as_str(), why));
        }
        if !seen.insert(&version.name) {
            errors.push(Error::invalid(path, json!(version.name), "must contain unique version names"));
        }
        let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
        if schema.is_none() {
            errors
                .push(Error::required(&at.child("schema").child("openAPIV3Schema"), "schemas are required"));
        }
    }
    if versions.iter().filter(|v| v.storage).count() != 1 {
        let list: Vec<&str> = versions.iter().map(|v| v.name.as_str()).collect();
        errors.push(Error::invalid(
            path,
            json!(list),
            "must have exactly one version marked as storage version",
        ));
    }
}
