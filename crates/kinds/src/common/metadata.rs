//! Validation of the metadata of any object.
//!
//! Rules and texts as `apimachinery/pkg/api/validation/objectmeta.go`.

use gantry_api::field::{Error, Path};
use gantry_api::metav1::{ObjectMeta, OwnerReference};
use gantry_api::{Resource, names};
use serde_json::json;

use crate::kind::{Errors, NameRule};

/// Largest total size of an object's annotations, in bytes.
pub const MAX_ANNOTATION_BYTES: usize = 256 * 1024;
const IMMUTABLE: &str = "field is immutable";

/// The metadata of a new object, after its name was generated.
pub fn validate_metadata(meta: &ObjectMeta, resource: &Resource, rule: NameRule) -> Errors {
    let root = Path::new("metadata");
    let mut errors = Errors::new();
    match meta.name.as_deref() {
        None | Some("") => {
            errors.push(Error::required(&root.child("name"), "name or generateName is required"))
        }
        Some(name) => {
            if let Err(why) = check_name(name, rule) {
                errors.push(Error::invalid(&root.child("name"), name, why));
            }
        }
    }
    let namespace = meta.namespace.as_deref().unwrap_or("");
    let path = root.child("namespace");
    match (resource.namespaced, namespace) {
        (true, "") => errors.push(Error::required(&path, "")),
        (true, name) => {
            if let Err(why) = names::dns1123_label(name) {
                errors.push(Error::invalid(&path, name, why));
            }
        }
        (false, "") => {}
        (false, _) => errors.push(Error::forbidden(&path, "not allowed on this type")),
    }
    if meta.generation.is_some_and(|g| g < 0) {
        errors.push(Error::invalid(
            &root.child("generation"),
            meta.generation.unwrap_or(0),
            names::NON_NEGATIVE,
        ));
    }
    validate_maps(meta, &root, &mut errors);
    validate_finalizers(
        meta.finalizers.as_deref().unwrap_or_default(),
        &root.child("finalizers"),
        &mut errors,
    );
    errors
}

/// The metadata of an update.
pub fn validate_metadata_update(new: &ObjectMeta, old: &ObjectMeta) -> Errors {
    let root = Path::new("metadata");
    let mut errors = Errors::new();
    let list = |meta: &ObjectMeta| meta.finalizers.clone().unwrap_or_default();
    if old.deletion_timestamp.is_some() {
        let before = list(old);
        let mut added: Vec<String> = list(new).into_iter().filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            added.sort();
            let quoted: Vec<String> = added.iter().map(|f| gantry_api::field::quote(f)).collect();
            let found = format!("[]string{{{}}}", quoted.join(", "));
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {found}"
            );
            errors.push(Error::forbidden(&root.child("finalizers"), why));
        }
    }
    if new.generation.unwrap_or(0) < old.generation.unwrap_or(0) {
        errors.push(Error::invalid(
            &root.child("generation"),
            new.generation.unwrap_or(0),
            "must not be decremented",
        ));
    }
    let mut fixed = |name: &str, new: serde_json::Value, old: serde_json::Value| {
        if new != old {
            errors.push(Error::invalid(&root.child(name), new, IMMUTABLE));
        }
    };
    fixed("name", json!(new.name), json!(old.name));
    fixed("namespace", json!(new.namespace), json!(old.namespace));
    fixed("uid", json!(new.uid), json!(old.uid));
    fixed("creationTimestamp", json!(new.creation_timestamp), json!(old.creation_timestamp));
    fixed("deletionTimestamp", json!(new.deletion_timestamp), json!(old.deletion_timestamp));
    fixed(
        "deletionGracePeriodSeconds",
        json!(new.deletion_grace_period_seconds),
        json!(old.deletion_grace_period_seconds),
    );
    validate_maps(new, &root, &mut errors);
    validate_finalizers(&list(new), &root.child("finalizers"), &mut errors);
    errors
}

/// Is this a name for an object of such a kind?
///
/// # Errors
/// The complaint.
pub fn check_name(name: &str, rule: NameRule) -> Result<(), String> {
    match rule {
        NameRule::Subdomain => names::dns1123_subdomain(name),
        NameRule::Label => names::dns1123_label(name),
        NameRule::ServiceLabel => names::dns1035_label(name),
        NameRule::PathSegment => names::path_segment(name),
    }
}

fn validate_maps(meta: &ObjectMeta, root: &Path, errors: &mut Errors) {
    if let Some(labels) = &meta.labels {
        validate_labels(labels, &root.child("labels"), errors);
    }
    if let Some(annotations) = &meta.annotations {
        let path = root.child("annotations");
        let mut total = 0;
        for (key, value) in annotations {
            if let Err(why) = names::qualified_name(&key.to_lowercase()) {
                errors.push(Error::invalid(&path, key.as_str(), why));
            }
            total += key.len() + value.len();
        }
        if total > MAX_ANNOTATION_BYTES {
            errors.push(Error::too_long(&path, MAX_ANNOTATION_BYTES));
        }
    }
    if let Some(owners) = &meta.owner_references {
        validate_owners(owners, &root.child("ownerReferences"), errors);
    }
}

/// Labels: of an object, or of a template.
pub(crate) fn validate_labels(labels: &gantry_api::selector::Labels, path: &Path, errors: &mut Errors) {
    for (key, value) in labels {
        if let Err(why) = names::qualified_name(key) {
            errors.push(Error::invalid(path, key.as_str(), why));
        }
        if let Err(why) = names::label_value(value) {
            errors.push(Error::invalid(&path.key(key), value.as_str(), why));
        }
    }
}

fn validate_owners(owners: &[OwnerReference], path: &Path, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in owners {
        let mut required = |name: &str, value: &str, why: &str| {
            if value.is_empty() {
                errors.push(Error::invalid(&path.child(name), value, why));
            }
        };
        required("apiVersion", &owner.api_version, "version must not be empty");
        required("kind", &owner.kind, "must not be empty");
        required("name", &owner.name, "must not be empty");
        required("uid", &owner.uid, "must not be empty");
        if owner.kind == "Event" && matches!(owner.api_version.as_str(), "v1" | "events.k8s.io/v1") {
            let (group, version) = owner.api_version.rsplit_once('/').unwrap_or(("", &owner.api_version));
            let why = format!("{group}/{version}, Kind=Event is disallowed from being an owner");
            errors.push(Error::invalid(path, json!(owner), why));
        }
        if owner.controller == Some(true) {
            let name = format!("{}/{}", owner.kind, owner.name);
            match &controller {
                None => controller = Some(name),
                Some(first) => {
                    let why = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                    );
                    errors.push(Error::invalid(path, json!(owners), why));
                }
            }
        }
    }
}

fn validate_finalizers(finalizers: &[String], path: &Path, errors: &mut Errors) {
    for finalizer in finalizers {
        if let Err(why) = names::qualified_name(finalizer) {
            errors.push(Error::invalid(path, finalizer.as_str(), why));
        }
    }
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(Error::invalid(path, json!(finalizers), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::Object;
    use gantry_api::core::ConfigMap;

    fn meta(name: &str) -> ObjectMeta {
        ObjectMeta { name: Some(name.into()), namespace: Some("default".into()), ..ObjectMeta::default() }
    }

    #[test]
    fn new_objects_need_a_valid_name() {
        let check = |m: &ObjectMeta| validate_metadata(m, &ConfigMap::RESOURCE, NameRule::Subdomain);
        assert!(check(&meta("web")).is_empty());
        assert_eq!(check(&meta("")).len(), 1);
        assert!(check(&meta("Web"))[0].to_string().starts_with("metadata.name: Invalid value: \"Web\""));
    }

    #[test]
    fn no_finalizer_joins_an_object_that_is_being_deleted() {
        let old = ObjectMeta {
            deletion_timestamp: Some(gantry_api::time::time(std::time::UNIX_EPOCH)),
            finalizers: Some(vec!["a/b".into()]),
            ..meta("web")
        };
        let mut new = old.clone();
        new.finalizers = Some(vec!["a/b".into(), "c/d".into()]);
        let errors = validate_metadata_update(&new, &old);
        assert!(errors[0].to_string().ends_with(r#"found new finalizers []string{"c/d"}"#), "{errors:?}");
    }
}
