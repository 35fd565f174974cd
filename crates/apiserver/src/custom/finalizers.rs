//! What is said of the finalizers of custom resources, which other kinds are refused for.

use std::collections::BTreeSet;

use gantry_api::field::quote;
use gantry_api::metav1::ObjectMeta;
use gantry_api::names;
use gantry_kinds::rules;

/// Warnings about those that `old` did not have.
pub(super) fn warnings(new: &ObjectMeta, old: Option<&ObjectMeta>) -> Vec<String> {
    let all = |meta: &ObjectMeta| meta.finalizers.clone().unwrap_or_default();
    let before = old.map(all).unwrap_or_default();
    let added: BTreeSet<String> = all(new).into_iter().filter(|name| !before.contains(name)).collect();
    let mut warnings = Vec::new();
    for name in &added {
        let shown = quote(name);
        let mut warn = |why: &str| warnings.push(format!("metadata.finalizers: {shown}: {why}"));
        names::qualified_name_complaints(name).iter().for_each(|why| warn(why));
        if name.contains('/') || rules::is_standard_finalizer(name) {
            continue;
        }
        let path = if name.contains('.') { " including a path (/)" } else { "" };
        warn(&format!(
            "prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
        ));
    }
    warnings
}
