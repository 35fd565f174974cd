//! Which names a definition may have: conditions `NamesAccepted` and `Established`.

use std::collections::BTreeSet;
use std::time::SystemTime;

use gantry_api::apiextensions::{
    CustomResourceDefinition, CustomResourceDefinitionCondition, CustomResourceDefinitionNames,
    CustomResourceDefinitionStatus,
};
use gantry_api::field::quote;
use gantry_api::{conditions, time};
use gantry_kinds::rules::approval::{self, Approval};

/// The names that other definitions of the group have.
#[derive(Debug, Default)]
pub(super) struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    /// The names that the other definitions of the group have.
    pub(super) fn by<'a>(others: impl Iterator<Item = &'a CustomResourceDefinitionNames>) -> Self {
        let mut taken = Self::default();
        for names in others {
            taken.resources.insert(names.plural.clone());
            taken.resources.extend(names.singular.clone());
            taken.resources.extend(names.short_names.clone().unwrap_or_default());
            taken.kinds.insert(names.kind.clone());
            taken.kinds.extend(names.list_kind.clone());
        }
        taken.resources.remove("");
        taken.kinds.remove("");
        taken
    }
}

fn condition(
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
    now: SystemTime,
) -> CustomResourceDefinitionCondition {
    CustomResourceDefinitionCondition {
        type_: kind.into(),
        status: if status { "True" } else { "False" }.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(time::time(now)),
        ..CustomResourceDefinitionCondition::default()
    }
}

/// The status of a definition, given what is taken.
pub(super) fn status(
    crd: &CustomResourceDefinition,
    taken: &Taken,
    now: SystemTime,
) -> CustomResourceDefinitionStatus {
    let mut status = crd.status.clone().unwrap_or_default();
    let wanted = &crd.spec.names;
    let mut accepted = status.accepted_names.clone().unwrap_or_default();
    let conflict = accept(wanted, &mut accepted, taken);
    status.accepted_names = Some(accepted);
    let (ok, reason, message) = match &conflict {
        Some((reason, message)) => (false, *reason, message.as_str()),
        None => (true, "NoConflicts", "no conflicts found"),
    };
    conditions::set(&mut status.conditions, condition("NamesAccepted", ok, reason, message, now));
    if let Some(approved) = approval_condition(crd, now) {
        conditions::set(&mut status.conditions, approved);
    }
    if !conditions::is_true(status.conditions.as_ref(), "Established") {
        let established = if ok {
            condition(
                "Established",
                true,
                "InitialNamesAccepted",
                "the initial names have been accepted",
                now,
            )
        } else {
            condition("Established", false, "NotAccepted", "not all names are accepted", now)
        };
        conditions::set(&mut status.conditions, established);
    }
    status
}

/// Who approved a definition in a group of the Kubernetes community; nothing for other groups.
fn approval_condition(
    crd: &CustomResourceDefinition,
    now: SystemTime,
) -> Option<CustomResourceDefinitionCondition> {
    if !approval::is_protected(&crd.spec.group) {
        return None;
    }
    let (state, message) = approval::state(crd.metadata.annotations.as_ref());
    let (holds, reason) = match state {
        Approval::Approved => (true, "ApprovedAnnotation"),
        Approval::Invalid => (false, "InvalidAnnotation"),
        Approval::Missing => (false, "MissingAnnotation"),
        Approval::Bypassed => (false, "UnapprovedAnnotation"),
    };
    Some(condition("KubernetesAPIApprovalPolicyConformant", holds, reason, &message, now))
}

/// Takes over the names that are free; the last conflict otherwise.
fn accept(
    wanted: &CustomResourceDefinitionNames,
    accepted: &mut CustomResourceDefinitionNames,
    taken: &Taken,
) -> Option<(&'static str, String)> {
    let mut conflict = None;
    let in_use = |name: &str| format!("{} is already in use", quote(name));
    let free = |name: &str, mine: &str, taken: &BTreeSet<String>| name == mine || !taken.contains(name);
    if free(&wanted.plural, &accepted.plural, &taken.resources) {
        accepted.plural.clone_from(&wanted.plural);
    } else {
        conflict = Some(("PluralConflict", in_use(&wanted.plural)));
    }
    let singular = wanted.singular.as_deref().unwrap_or("");
    if free(singular, accepted.singular.as_deref().unwrap_or(""), &taken.resources) {
        accepted.singular.clone_from(&wanted.singular);
    } else {
        conflict = Some(("SingularConflict", in_use(singular)));
    }
    let mine = accepted.short_names.clone().unwrap_or_default();
    let clashes: Vec<String> = wanted
        .short_names
        .iter()
        .flatten()
        .filter(|name| !mine.contains(name) && taken.resources.contains(*name))
        .map(|name| in_use(name))
        .collect();
    match clashes.as_slice() {
        [] => accepted.short_names.clone_from(&wanted.short_names),
        [one] => conflict = Some(("ShortNamesConflict", one.clone())),
        many => conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    }
    if free(&wanted.kind, &accepted.kind, &taken.kinds) {
        accepted.kind.clone_from(&wanted.kind);
    } else {
        conflict = Some(("KindConflict", in_use(&wanted.kind)));
    }
    let list = wanted.list_kind.as_deref().unwrap_or("");
    if free(list, accepted.list_kind.as_deref().unwrap_or(""), &taken.kinds) {
        accepted.list_kind.clone_from(&wanted.list_kind);
    } else {
        conflict = Some(("ListKindConflict", in_use(list)));
    }
    accepted.categories.clone_from(&wanted.categories);
    conflict
}
