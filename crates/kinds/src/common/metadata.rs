//! Validation of the metadata of any object.
//!
//! Rules and texts as `apimachinery/pkg/api/validation/objectmeta.go`.

use gantry_api::field::{Path, quote};
use gantry_api::metav1::{ManagedFieldsEntry, ObjectMeta, OwnerReference};
use gantry_api::{Resource, names};
use serde_json::{Value, json};

use super::at::{At, Complaints, items, text};
use super::labels;
use crate::kind::{Errors, NameRule};

/// Longest name of a field manager, in bytes.
const MAX_MANAGER: usize = 128;
/// Longest name of a subresource in `managedFields`, in bytes.
const MAX_SUBRESOURCE: usize = 256;

/// The metadata of a new object, after its name was generated.
pub fn validate_metadata(meta: &ObjectMeta, resource: &Resource, rule: NameRule) -> Errors {
    let at = At::root("metadata");
    let mut errors = Errors::new();
    let base = text(&meta.generate_name);
    if !base.is_empty()
        && let Err(why) = check_name(&masked(base), rule)
    {
        errors.invalid(&at.child("generateName"), base, why);
    }
    let name = text(&meta.name);
    if name.is_empty() {
        errors.required(&at.child("name"), "name or generateName is required");
    } else {
        errors.check(&at.child("name"), name, check_name(name, rule));
    }
    let namespace = text(&meta.namespace);
    let namespace_at = at.child("namespace");
    match (resource.namespaced, namespace) {
        (true, "") => errors.required(&namespace_at, ""),
        (true, name) => errors.check(&namespace_at, name, names::dns1123_label(name)),
        (false, "") => {}
        (false, _) => errors.forbidden(&namespace_at, "not allowed on this type"),
    }
    errors.non_negative(&at.child("generation"), meta.generation.unwrap_or(0));
    check_maps(meta, &at, &mut errors);
    check_finalizers(items(&meta.finalizers), &at.child("finalizers"), &mut errors);
    check_managed(items(&meta.managed_fields), &at.child("managedFields"), &mut errors);
    if is_core(resource) {
        check_standard_finalizers(meta, &at, &mut errors);
    }
    errors
}

/// The base of a generated name may end in a dash.
fn masked(base: &str) -> String {
    match base.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let mut rest = rest.to_owned();
            rest.pop();
            rest.push('a');
            rest
        }
        _ => base.to_owned(),
    }
}

/// The kinds of upstream's own code know finalizers without a domain.
fn is_core(resource: &Resource) -> bool {
    let group = &*resource.group;
    // Webhooks, policies and definitions are checked by the library's rules alone.
    let is_library = matches!(group, "admissionregistration.k8s.io" | "apiextensions.k8s.io");
    group.is_empty() || !group.contains('.') || (group.ends_with(".k8s.io") && !is_library)
}

/// What is wrong with the finalizers of an updated object: most kinds of upstream's own code check the whole of it
/// again.
pub fn validate_updated_finalizers(meta: &ObjectMeta, resource: &Resource) -> Errors {
    let mut errors = Errors::new();
    let is_left_alone =
        matches!(&*resource.plural, "leases" | "events" | "runtimeclasses" | "poddisruptionbudgets");
    if is_core(resource) && !is_left_alone {
        check_standard_finalizers(meta, &At::root("metadata"), &mut errors);
    }
    errors
}

fn check_standard_finalizers(meta: &ObjectMeta, at: &At<'_>, errors: &mut Errors) {
    let list = at.child("finalizers");
    for (i, finalizer) in items(&meta.finalizers).iter().enumerate() {
        check_standard_finalizer(finalizer, &list.index(i), errors);
    }
}

/// Whether it is one of the finalizers that need no domain.
pub fn is_standard_finalizer(finalizer: &str) -> bool {
    matches!(finalizer, "kubernetes" | "orphan" | "foregroundDeletion")
}

/// A finalizer without a domain must be one of the known.
pub fn check_standard_finalizer(finalizer: &str, at: &At<'_>, errors: &mut Errors) {
    if !finalizer.contains('/') && !is_standard_finalizer(finalizer) {
        let why = "name is neither a standard finalizer name nor is it fully qualified";
        errors.invalid(at, finalizer, why);
    }
}

/// The metadata of an update.
pub fn validate_metadata_update(new: &ObjectMeta, old: &ObjectMeta) -> Errors {
    let at = At::root("metadata");
    let mut errors = Errors::new();
    if old.deletion_timestamp.is_some() {
        check_no_new_finalizers(new, old, &at.child("finalizers"), &mut errors);
    }
    let generation = new.generation.unwrap_or(0);
    if generation < old.generation.unwrap_or(0) {
        errors.invalid(&at.child("generation"), generation, "must not be decremented");
    }
    let mut fixed = |field: &str, new: Value, old: Value| errors.immutable(&at.child(field), &new, &old);
    let word = |value: &Option<String>| json!(text(value));
    fixed("name", word(&new.name), word(&old.name));
    fixed("namespace", word(&new.namespace), word(&old.namespace));
    fixed("uid", word(&new.uid), word(&old.uid));
    fixed("creationTimestamp", json!(new.creation_timestamp), json!(old.creation_timestamp));
    fixed("deletionTimestamp", json!(new.deletion_timestamp), json!(old.deletion_timestamp));
    fixed(
        "deletionGracePeriodSeconds",
        json!(new.deletion_grace_period_seconds),
        json!(old.deletion_grace_period_seconds),
    );
    check_maps(new, &at, &mut errors);
    check_managed(items(&new.managed_fields), &at.child("managedFields"), &mut errors);
    // Not in upstream's function for updates, but in those of all kinds that validate the whole object again.
    check_finalizers(items(&new.finalizers), &at.child("finalizers"), &mut errors);
    errors
}

fn check_no_new_finalizers(new: &ObjectMeta, old: &ObjectMeta, at: &At<'_>, errors: &mut Errors) {
    let before = items(&old.finalizers);
    let mut added: Vec<&String> = items(&new.finalizers).iter().filter(|f| !before.contains(f)).collect();
    if added.is_empty() {
        return;
    }
    added.sort();
    let quoted: Vec<String> = added.iter().map(|f| quote(f)).collect();
    let found = format!("[]string{{{}}}", quoted.join(", "));
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers {found}"
    );
    errors.forbidden(at, why);
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

fn check_maps(meta: &ObjectMeta, at: &At<'_>, errors: &mut Errors) {
    labels::check_labels(meta.labels.as_ref(), &at.child("labels"), errors);
    labels::check_annotations(meta.annotations.as_ref(), &at.child("annotations"), errors);
    if let Some(owners) = &meta.owner_references {
        check_owners(owners, &at.child("ownerReferences"), errors);
    }
}

/// Labels: of an object, or of a template.
pub(crate) fn validate_labels(labels: &gantry_api::selector::Labels, path: &Path, errors: &mut Errors) {
    labels::validate_labels(labels, path, errors);
}

fn check_owners(owners: &[OwnerReference], at: &At<'_>, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in owners {
        let version = owner.api_version.rsplit_once('/').map_or(&*owner.api_version, |(_, version)| version);
        if version.is_empty() {
            errors.invalid(&at.child("apiVersion"), owner.api_version.as_str(), "version must not be empty");
        }
        let mut required_text = |name: &str, value: &str| {
            if value.is_empty() {
                errors.invalid(&at.child(name), value, "must not be empty");
            }
        };
        required_text("kind", &owner.kind);
        required_text("name", &owner.name);
        required_text("uid", &owner.uid);
        if owner.kind == "Event" && owner.api_version == "v1" {
            errors.invalid(at, shown(owner), "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.controller == Some(true) {
            let name = format!("{}/{}", owner.kind, owner.name);
            match &controller {
                None => controller = Some(name),
                Some(first) => {
                    let list = gantry_api::field::ordered_list(owners.iter().map(shown));
                    let why = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                    );
                    errors.invalid(at, list, why);
                }
            }
        }
    }
}

/// An owner with its fields in upstream's order.
fn shown(owner: &OwnerReference) -> Value {
    let mut fields = vec![
        ("apiVersion", json!(owner.api_version)),
        ("kind", json!(owner.kind)),
        ("name", json!(owner.name)),
        ("uid", json!(owner.uid)),
    ];
    if let Some(controller) = owner.controller {
        fields.push(("controller", json!(controller)));
    }
    if let Some(block) = owner.block_owner_deletion {
        fields.push(("blockOwnerDeletion", json!(block)));
    }
    gantry_api::field::ordered(&fields)
}

fn check_finalizers(finalizers: &[String], at: &At<'_>, errors: &mut Errors) {
    for finalizer in finalizers {
        errors.qualified(at, finalizer);
    }
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(at, finalizers.to_vec(), why);
    }
}

fn check_managed(entries: &[ManagedFieldsEntry], at: &At<'_>, errors: &mut Errors) {
    for (i, entry) in entries.iter().enumerate() {
        let at = at.index(i);
        let operation = text(&entry.operation);
        if !matches!(operation, "Apply" | "Update") {
            errors.invalid(&at.child("operation"), operation, "must be `Apply` or `Update`");
        }
        let kind = text(&entry.fields_type);
        if !kind.is_empty() && kind != "FieldsV1" {
            errors.invalid(&at.child("fieldsType"), kind, "must be `FieldsV1`");
        }
        let manager = text(&entry.manager);
        if manager.len() > MAX_MANAGER {
            errors.too_long(&at.child("manager"), MAX_MANAGER);
        }
        for (position, c) in manager.char_indices().filter(|(_, c)| c.is_control()) {
            let why = format!("invalid character U+{:04X} (at position {position})", u32::from(c));
            errors.invalid(&at.child("manager"), manager, why);
        }
        if text(&entry.subresource).len() > MAX_SUBRESOURCE {
            errors.too_long(&at.child("subresource"), MAX_SUBRESOURCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::labels::MAX_ANNOTATION_BYTES;
    use super::*;
    use gantry_api::Object;
    use gantry_api::core::ConfigMap;
    use std::collections::BTreeMap;

    fn meta(name: &str) -> ObjectMeta {
        ObjectMeta { name: Some(name.into()), namespace: Some("default".into()), ..ObjectMeta::default() }
    }

    fn owner(kind: &str, controller: bool) -> OwnerReference {
        OwnerReference {
            api_version: "v1".into(),
            kind: kind.into(),
            name: "o".into(),
            uid: "u".into(),
            controller: Some(controller),
            ..OwnerReference::default()
        }
    }

    /// What a change of sound metadata is told.
    fn told(change: impl FnOnce(&mut ObjectMeta)) -> Vec<String> {
        let mut meta = meta("web");
        change(&mut meta);
        let errors = validate_metadata(&meta, &ConfigMap::RESOURCE, NameRule::Subdomain);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn new_metadata_is_checked_field_by_field() {
        assert_eq!(told(|_| {}), Vec::<String>::new());
        let map = |key: &str, value: &str| Some(BTreeMap::from([(key.to_owned(), value.to_owned())]));
        assert_eq!(
            told(|m| m.name = None),
            ["metadata.name: Required value: name or generateName is required"]
        );
        assert!(
            told(|m| m.name = Some("Web".into()))[0].starts_with("metadata.name: Invalid value: \"Web\"")
        );
        assert!(told(|m| m.generate_name = Some("web-".into())).is_empty());
        assert!(
            told(|m| m.generate_name = Some("WEB-".into()))[0]
                .starts_with("metadata.generateName: Invalid value: \"WEB-\": a lowercase RFC 1123")
        );
        assert_eq!(told(|m| m.namespace = None), ["metadata.namespace: Required value"]);
        assert_eq!(
            told(|m| m.generation = Some(-1)),
            ["metadata.generation: Invalid value: -1: must be greater than or equal to 0"]
        );
        let empty = told(|m| m.labels = map("", "x"));
        assert_eq!(empty[0], "metadata.labels: Invalid value: \"\": name part must be non-empty");
        assert!(empty[1].starts_with("metadata.labels: Invalid value: \"\": name part must consist of"));
        assert!(
            told(|m| m.labels = map("a", "-x"))[0]
                .starts_with("metadata.labels: Invalid value: \"-x\": a valid label must be an empty string")
        );
        assert!(told(|m| m.annotations = map("A/b", "")).is_empty(), "annotations' keys are of either case");
        assert_eq!(
            told(|m| m.annotations = map("a", &"x".repeat(MAX_ANNOTATION_BYTES))),
            ["metadata.annotations: Too long: may not be more than 262144 bytes"]
        );
        assert_eq!(
            told(|m| m.finalizers = Some(vec!["mine".into()])),
            [
                "metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified"
            ]
        );
        assert_eq!(
            told(|m| m.finalizers = Some(vec!["orphan".into(), "foregroundDeletion".into()])),
            [
                "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set"
            ]
        );
        assert!(told(|m| m.owner_references = Some(vec![owner("ReplicaSet", true)])).is_empty());
        assert_eq!(
            told(|m| m.owner_references = Some(vec![owner("Event", false)])),
            [
                r#"metadata.ownerReferences: Invalid value: {"apiVersion":"v1","kind":"Event","name":"o","uid":"u","controller":false}: /v1, Kind=Event is disallowed from being an owner"#
            ]
        );
        assert!(
            told(|m| m.owner_references = Some(vec![owner("A", true), owner("B", true)]))[0].ends_with(
                r#"Only one reference can have Controller set to true. Found "true" in references for A/o and B/o"#
            )
        );
        assert_eq!(
            told(|m| m.owner_references = Some(vec![OwnerReference::default()])),
            [
                r#"metadata.ownerReferences.apiVersion: Invalid value: "": version must not be empty"#,
                r#"metadata.ownerReferences.kind: Invalid value: "": must not be empty"#,
                r#"metadata.ownerReferences.name: Invalid value: "": must not be empty"#,
                r#"metadata.ownerReferences.uid: Invalid value: "": must not be empty"#,
            ]
        );
        assert_eq!(
            told(|m| m.managed_fields =
                Some(vec![ManagedFieldsEntry { operation: Some("Patch".into()), ..Default::default() }])),
            [r#"metadata.managedFields[0].operation: Invalid value: "Patch": must be `Apply` or `Update`"#]
        );
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

    #[test]
    fn what_the_server_gave_stays() {
        let old = ObjectMeta { uid: Some("u".into()), generation: Some(2), ..meta("web") };
        let new = ObjectMeta { uid: Some("v".into()), generation: Some(1), ..meta("other") };
        let texts: Vec<String> =
            validate_metadata_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "metadata.generation: Invalid value: 1: must not be decremented",
                "metadata.name: Invalid value: \"other\": field is immutable",
                "metadata.uid: Invalid value: \"v\": field is immutable",
            ]
        );
    }
}
