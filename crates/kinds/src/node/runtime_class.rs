//! RuntimeClass: which runtime runs a pod's containers, what that costs, and where it is to be had.

use std::collections::BTreeSet;
use std::time::SystemTime;

use gantry_api::field::{Error, Path};
use gantry_api::names;
use gantry_api::node::{RuntimeClass, Scheduling};
use serde_json::{Value, json};

use crate::common::at::{At, items};
use crate::common::pod_spec::{Options, check_overhead, check_tolerations};
use crate::common::{check, metadata, node_labels};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

/// The kind.
pub struct RuntimeClassKind;

impl Kind for RuntimeClassKind {
    type Object = RuntimeClass;
    const NAMES: Names =
        Names { singular: "runtimeclass", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const UNCONDITIONAL_UPDATE: bool = false;
    const CREATE_ON_UPDATE: bool = true;

    fn validate(class: &RuntimeClass) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("handler");
        if class.handler.is_empty() {
            errors.push(Error::required(&path, ""));
        } else {
            check::name(&path, &class.handler, names::dns1123_label(&class.handler), &mut errors);
        }
        if let Some(overhead) = &class.overhead {
            let at = At::root("overhead");
            check_overhead(overhead.pod_fixed.as_ref(), &Options::default(), &at, &mut errors);
        }
        if let Some(scheduling) = &class.scheduling {
            validate_scheduling(scheduling, &Path::new("scheduling"), &mut errors);
        }
        errors
    }

    fn validate_update(new: &RuntimeClass, old: &RuntimeClass) -> Errors {
        let mut errors = Errors::new();
        check::immutable(&Path::new("handler"), &new.handler, &old.handler, &mut errors);
        errors
    }

    fn warnings(class: &RuntimeClass) -> Vec<String> {
        let labels = class.scheduling.iter().flat_map(|s| s.node_selector.iter().flatten());
        labels
            .filter_map(|(key, _)| node_labels::deprecation(key))
            .map(|why| format!("scheduling.nodeSelector: {why}"))
            .collect()
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[Column::new("Handler", "string", ""), AGE];
        COLUMNS
    }

    fn cells(class: &RuntimeClass, now: SystemTime) -> Vec<Value> {
        vec![class.handler.as_str().into(), age(&class.metadata, now)]
    }
}

fn validate_scheduling(scheduling: &Scheduling, path: &Path, errors: &mut Errors) {
    if let Some(labels) = &scheduling.node_selector {
        metadata::validate_labels(labels, &path.child("nodeSelector"), errors);
    }
    let at = path.child("tolerations");
    let mut seen = BTreeSet::new();
    check_tolerations(items(&scheduling.tolerations), false, &At::of(&at), errors);
    for (i, toleration) in scheduling.tolerations.iter().flatten().enumerate() {
        let key = [&toleration.key, &toleration.operator, &toleration.value, &toleration.effect];
        if !seen.insert(key.map(|part| part.as_deref().unwrap_or(""))) {
            errors.push(Error::duplicate(&at.index(i), json!(toleration)));
        }
    }
}
