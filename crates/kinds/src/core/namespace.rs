//! Namespace: a scope for names.

use std::time::SystemTime;

use gantry_api::core::{Namespace, NamespaceStatus};
use serde_json::Value;

use crate::common::at::{At, Complaints, items};
use crate::common::metadata::check_standard_finalizer;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

/// The kind.
pub struct NamespaceKind;

impl Kind for NamespaceKind {
    type Object = Namespace;
    const NAMES: Names =
        Names { singular: "namespace", short: &["ns"], categories: &[], rule: NameRule::Label };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &["finalize"] };

    fn defaults(namespace: &mut Namespace) {
        if let Some(name) = namespace.metadata.name.clone().filter(|n| !n.is_empty()) {
            let labels = namespace.metadata.labels.get_or_insert_default();
            labels.insert("kubernetes.io/metadata.name".into(), name);
        }
        namespace.status.get_or_insert_default().phase.get_or_insert_with(|| "Active".into());
    }

    fn prepare_create(namespace: &mut Namespace) {
        namespace.status = Some(NamespaceStatus { phase: Some("Active".into()), conditions: None });
        let finalizers = namespace.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == "kubernetes") {
            finalizers.push("kubernetes".into());
        }
    }

    fn prepare_update(new: &mut Namespace, old: &Namespace) {
        // Its finalizers change through the `finalize` subresource only.
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(new: &mut Namespace, old: &Namespace) {
        new.spec.clone_from(&old.spec);
    }

    fn prepare_part_update(_part: &str, new: &mut Namespace, old: &Namespace) {
        new.status.clone_from(&old.status);
    }

    /// The only part is `finalize`.
    fn validate_part_update(_part: &str, new: &Namespace, _old: &Namespace) -> Errors {
        let mut errors = Errors::new();
        let at = At::root("spec.finalizers");
        for (i, finalizer) in finalizers(new).iter().enumerate() {
            check_finalizer(finalizer, &at.index(i), &mut errors);
        }
        errors
    }

    fn validate(namespace: &Namespace) -> Errors {
        let mut errors = Errors::new();
        for finalizer in finalizers(namespace) {
            check_finalizer(finalizer, &At::root("spec.finalizers"), &mut errors);
        }
        errors
    }

    fn validate_status_update(new: &Namespace, _old: &Namespace) -> Errors {
        let mut errors = Errors::new();
        let phase = new.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("");
        let (wanted, why) = match new.metadata.deletion_timestamp {
            None => ("Active", "may only be 'Active' if `deletionTimestamp` is empty"),
            Some(_) => ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty"),
        };
        if phase != wanted {
            errors.invalid(&At::root("status.Phase"), phase, why);
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[Column::new("Status", "string", "The status of the namespace"), AGE];
        COLUMNS
    }

    fn cells(namespace: &Namespace, now: SystemTime) -> Vec<Value> {
        let phase = namespace.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
        vec![phase.into(), age(&namespace.metadata, now)]
    }

    fn selectable() -> &'static [&'static str] {
        &["status.phase"]
    }

    fn selectable_values(namespace: &Namespace) -> Vec<String> {
        vec![namespace.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default()]
    }
}

fn finalizers(namespace: &Namespace) -> &[String] {
    namespace.spec.as_ref().map(|s| items(&s.finalizers)).unwrap_or_default()
}

fn check_finalizer(finalizer: &str, at: &At<'_>, errors: &mut Errors) {
    errors.qualified(at, finalizer);
    check_standard_finalizer(finalizer, at, errors);
}
