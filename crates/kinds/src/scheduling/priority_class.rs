//! PriorityClass: a name for a priority of pods.

use std::time::SystemTime;

use gantry_api::field::{Error, Path};
use gantry_api::scheduling::PriorityClass;
use serde_json::Value;

use crate::common::check;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

const SYSTEM_PREFIX: &str = "system-";
/// Pods with this priority and above belong to the system.
const HIGHEST_OF_USERS: i32 = 1_000_000_000;
/// The classes that every cluster has: name, value, description.
pub const SYSTEM_CLASSES: [(&str, i32, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

/// The kind.
pub struct PriorityClassKind;

impl Kind for PriorityClassKind {
    type Object = PriorityClass;
    const NAMES: Names =
        Names { singular: "priorityclass", short: &["pc"], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };

    fn defaults(class: &mut PriorityClass) {
        class.value.get_or_insert(0);
        class.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".into());
    }

    fn prepare_create(class: &mut PriorityClass) {
        class.metadata.generation = Some(1);
    }

    fn validate(class: &PriorityClass) -> Errors {
        let mut errors = Errors::new();
        let name = class.metadata.name.as_deref().unwrap_or("");
        let value = class.value.unwrap_or(0);
        if name.starts_with(SYSTEM_PREFIX) {
            if let Err(why) = check_system(name, value, class.global_default.unwrap_or(false)) {
                let why = format!(
                    "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {why}"
                );
                errors.push(Error::forbidden(&Path::new("metadata").child("name"), why));
            }
        } else if value > HIGHEST_OF_USERS {
            let why = format!("maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}");
            errors.push(Error::forbidden(&Path::new("value"), why));
        }
        let path = Path::new("preemptionPolicy");
        match class.preemption_policy.as_deref() {
            None => {}
            Some("") => errors.push(Error::required(&path, "")),
            Some(policy) => check::supported(&path, policy, &["PreemptLowerPriority", "Never"], &mut errors),
        }
        errors
    }

    fn validate_replacement(new: &PriorityClass, old: &PriorityClass) -> Errors {
        let mut errors = Errors::new();
        if new.value != old.value {
            errors.push(Error::forbidden(&Path::new("value"), "may not be changed in an update."));
        }
        let path = Path::new("preemptionPolicy");
        check::immutable(&path, &new.preemption_policy, &old.preemption_policy, &mut errors);
        errors
    }

    fn refuse_deletion(class: &PriorityClass) -> Option<&'static str> {
        let name = class.metadata.name.as_deref().unwrap_or("");
        let system = SYSTEM_CLASSES.iter().any(|(system, ..)| *system == name);
        system.then_some("this is a system priority class and cannot be deleted")
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Value",
                "integer",
                "value represents the integer value of this priority class. This is the actual priority that pods receive when they have the name of this class in their pod spec.",
            ),
            Column::new(
                "Global-Default",
                "boolean",
                "globalDefault specifies whether this PriorityClass should be considered as the default priority for pods that do not have any priority class. Only one PriorityClass can be marked as `globalDefault`. However, if more than one PriorityClasses exists with their `globalDefault` field set to true, the smallest value of such global default PriorityClasses will be used as the default priority.",
            ),
            AGE,
            Column::new(
                "PreemptionPolicy",
                "string",
                "preemptionPolicy is the Policy for preempting pods with lower priority. One of Never, PreemptLowerPriority. Defaults to PreemptLowerPriority if unset.",
            ),
        ];
        COLUMNS
    }

    fn cells(class: &PriorityClass, now: SystemTime) -> Vec<Value> {
        vec![
            class.value.unwrap_or(0).into(),
            class.global_default.unwrap_or(false).into(),
            age(&class.metadata, now),
            class.preemption_policy.clone().unwrap_or_default().into(),
        ]
    }
}

fn check_system(name: &str, value: i32, global: bool) -> Result<(), String> {
    match SYSTEM_CLASSES.iter().find(|(system, ..)| *system == name) {
        None => Err(format!("{name} is not a known system priority class")),
        Some((_, wanted, _)) if *wanted != value => {
            Err(format!("value of {name} PriorityClass must be {wanted}"))
        }
        Some(_) if global => Err(format!("globalDefault of {name} PriorityClass must be false")),
        Some(_) => Ok(()),
    }
}
