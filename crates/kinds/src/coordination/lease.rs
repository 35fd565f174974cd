//! Lease: who holds something, and until when. Heartbeats of nodes, locks of leaders.

use std::time::SystemTime;

use gantry_api::coordination::Lease;
use gantry_api::field::{Error, Path};
use serde_json::Value;

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
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Holder",
                "string",
                "holderIdentity contains the identity of the holder of a current lease.",
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
