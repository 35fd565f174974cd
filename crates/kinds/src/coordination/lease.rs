//! Lease: who holds something, and until when. Heartbeats of nodes, locks of leaders.

use std::time::SystemTime;

use gantry_api::coordination::Lease;
use gantry_api::field::{Error, Path};
use gantry_api::names;
use serde_json::Value;

use crate::common::at::{At, Complaints};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

/// The kind.
pub struct LeaseKind;

impl Kind for LeaseKind {
    type Object = Lease;
    const NAMES: Names = Names { singular: "lease", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const UNCONDITIONAL_UPDATE: bool = false;
    const CREATE_ON_UPDATE: bool = true;
    const LAZY: bool = true;

    /// `CoordinatedLeaderElection` is beta and off: its fields are dropped.
    fn prepare_create(lease: &mut Lease) {
        if let Some(spec) = &mut lease.spec {
            (spec.strategy, spec.preferred_holder) = (None, None);
        }
    }

    fn prepare_update(new: &mut Lease, old: &Lease) {
        let is_used = old.spec.as_ref().is_some_and(|s| s.strategy.is_some() || s.preferred_holder.is_some());
        if !is_used {
            Self::prepare_create(new);
        }
    }

    fn validate(lease: &Lease) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let Some(spec) = &lease.spec else { return errors };
        if let Some(seconds) = spec.lease_duration_seconds.filter(|s| *s <= 0) {
            errors.push(Error::invalid(
                &path.child("leaseDurationSeconds"),
                seconds,
                "must be greater than 0",
            ));
        }
        if let Some(count) = spec.lease_transitions.filter(|c| *c < 0) {
            let why = gantry_api::names::NON_NEGATIVE;
            errors.push(Error::invalid(&path.child("leaseTransitions"), count, why));
        }
        let strategy = spec.strategy.as_deref();
        if let Some(name) = strategy {
            check_strategy(name, &path.child("strategy"), &mut errors);
        }
        let preferred = spec.preferred_holder.as_deref().unwrap_or("");
        if !preferred.is_empty() && strategy.unwrap_or("").is_empty() {
            let why = "may only be specified if `strategy` is defined";
            errors.push(Error::forbidden(&path.child("preferredHolder"), why));
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Holder",
                "string",
                "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is used, the holder identity must be equal to the elected LeaseCandidate.metadata.name field.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(lease: &Lease, now: SystemTime) -> Vec<Value> {
        let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.clone()).unwrap_or_default();
        vec![holder.into(), age(&lease.metadata, now)]
    }
}

/// A strategy that is not the project's own has a domain.
fn check_strategy(name: &str, path: &Path, errors: &mut Errors) {
    const KNOWN: &str = "OldestEmulationVersion";
    if name == KNOWN || name.contains('/') {
        let at = At::of(path);
        for why in names::qualified_name_complaints(name) {
            errors.invalid(&at, name, why);
        }
    } else {
        errors.push(Error::not_supported(path, name, &[KNOWN]));
    }
}
