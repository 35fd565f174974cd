//! PodDisruptionBudget: how many pods of an application may be evicted at one time.

use std::time::SystemTime;

use gantry_api::IntOrString;
use gantry_api::field::{Error, Path};
use gantry_api::policy::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use serde_json::{Value, json};

use crate::common::at::At;
use crate::common::{check, conditions, selectors, workload};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::{AGE, Column, age};

/// The kind.
pub struct PodDisruptionBudgetKind;

impl Kind for PodDisruptionBudgetKind {
    type Object = PodDisruptionBudget;
    const NAMES: Names = Names {
        singular: "poddisruptionbudget",
        short: &["pdb"],
        categories: &[],
        rule: NameRule::Subdomain,
    };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };
    const UNCONDITIONAL_UPDATE: bool = false;

    fn defaults(budget: &mut PodDisruptionBudget) {
        budget.spec.get_or_insert_default();
        status_defaults(budget.status.get_or_insert_default());
    }

    fn prepare_create(budget: &mut PodDisruptionBudget) {
        budget.status = Some(PodDisruptionBudgetStatus::default());
        budget.status.iter_mut().for_each(status_defaults);
        budget.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut PodDisruptionBudget, old: &PodDisruptionBudget) {
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn prepare_status_update(new: &mut PodDisruptionBudget, old: &PodDisruptionBudget) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(budget: &PodDisruptionBudget) -> Errors {
        validate_budget(budget, false)
    }

    fn validate_replacement(new: &PodDisruptionBudget, old: &PodDisruptionBudget) -> Errors {
        let mut errors = Errors::new();
        let selector = old.spec.as_ref().and_then(|s| s.selector.as_ref());
        selectors::validate(selector, false, &Path::root(), &mut errors);
        validate_budget(new, !errors.is_empty())
    }

    fn validate_status_update(new: &PodDisruptionBudget, _old: &PodDisruptionBudget) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("status");
        let Some(status) = &new.status else { return errors };
        conditions::validate(status.conditions.as_ref(), &path.child("conditions"), &mut errors);
        for (field, count) in [
            ("disruptionsAllowed", status.disruptions_allowed),
            ("currentHealthy", status.current_healthy),
            ("desiredHealthy", status.desired_healthy),
            ("expectedPods", status.expected_pods),
        ] {
            check::non_negative(&path.child(field), count.unwrap_or(0), &mut errors);
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Min Available", "string", "The minimum number of pods that must be available."),
            Column::new("Max Unavailable", "string", "The maximum number of pods that may be unavailable."),
            Column::new(
                "Allowed Disruptions",
                "integer",
                "Calculated number of pods that may be disrupted at this time.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(budget: &PodDisruptionBudget, now: SystemTime) -> Vec<Value> {
        let spec = budget.spec.clone().unwrap_or_default();
        let text = |amount: Option<IntOrString>| -> Value {
            match amount {
                None => "N/A".into(),
                Some(IntOrString::Int(number)) => number.to_string().into(),
                Some(IntOrString::String(text)) => text.into(),
            }
        };
        let allowed = budget.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0);
        vec![text(spec.min_available), text(spec.max_unavailable), allowed.into(), age(&budget.metadata, now)]
    }
}

/// The counts are always written.
fn status_defaults(status: &mut PodDisruptionBudgetStatus) {
    status.disruptions_allowed.get_or_insert(0);
    status.current_healthy.get_or_insert(0);
    status.desired_healthy.get_or_insert(0);
    status.expected_pods.get_or_insert(0);
}

fn validate_budget(budget: &PodDisruptionBudget, lenient: bool) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let spec = budget.spec.clone().unwrap_or_default();
    if spec.min_available.is_some() && spec.max_unavailable.is_some() {
        let value = gantry_api::field::ordered(&[
            ("MinAvailable", json!(spec.min_available)),
            ("Selector", json!(spec.selector)),
            ("MaxUnavailable", json!(spec.max_unavailable)),
            ("UnhealthyPodEvictionPolicy", json!(spec.unhealthy_pod_eviction_policy)),
        ]);
        errors.push(Error::invalid(&path, value, "minAvailable and maxUnavailable cannot be both set"));
    }
    for (field, amount) in [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)]
    {
        if let Some(amount) = amount {
            let at = At::root("spec");
            workload::check_int_or_percent(amount, &at.child(field), &mut errors);
            workload::check_at_most_100_percent(amount, &at.child(field), &mut errors);
        }
    }
    selectors::validate(spec.selector.as_ref(), lenient, &path.child("selector"), &mut errors);
    let at = path.child("unhealthyPodEvictionPolicy");
    let policy = spec.unhealthy_pod_eviction_policy.as_deref();
    check::supported_if_set(&at, policy, &["AlwaysAllow", "IfHealthyBudget"], &mut errors);
    errors
}
