//! ResourceClaim: devices that are asked for, and what came of it.

use std::time::SystemTime;

use gantry_api::dynamic_resource::{ResourceClaim, ResourceClaimStatus};
use gantry_api::field::Path;
use serde_json::Value;

use super::{allocation, requests};
use crate::common::{check, status};
use crate::kind::{Errors, FieldPaths, Kind, NameRule, Names, SPEC_AND_METADATA, STATUS, Verbs};
use crate::table::{AGE, Column, age};

/// The kind.
pub struct ResourceClaimKind;

impl Kind for ResourceClaimKind {
    type Object = ResourceClaim;
    const NAMES: Names =
        Names { singular: "resourceclaim", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };

    fn reset_fields(subresource: &str) -> FieldPaths {
        if subresource == "status" { SPEC_AND_METADATA } else { STATUS }
    }

    fn defaults(claim: &mut ResourceClaim) {
        requests::defaults(&mut claim.spec);
    }

    fn prepare_create(claim: &mut ResourceClaim) {
        claim.status = Some(ResourceClaimStatus::default());
    }

    fn prepare_update(new: &mut ResourceClaim, old: &ResourceClaim) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(new: &mut ResourceClaim, old: &ResourceClaim) {
        new.spec.clone_from(&old.spec);
        status::keep_metadata(&mut new.metadata, &old.metadata);
        // What is taken back has no status any more.
        let kept = allocation::allocated(new.status.as_ref());
        let before = allocation::allocated(old.status.as_ref());
        if let Some(devices) = new.status.as_mut().and_then(|s| s.devices.as_mut()) {
            devices.retain(|d| {
                let id = allocation::id_of(d);
                kept.contains(&id) || !before.contains(&id)
            });
        }
        if let Some(status) = &mut new.status {
            status.devices.take_if(|devices| devices.is_empty());
        }
    }

    fn validate(claim: &ResourceClaim) -> Errors {
        let mut errors = Errors::new();
        requests::validate(&claim.spec, &Path::new("spec"), &mut errors);
        errors
    }

    fn validate_replacement(new: &ResourceClaim, old: &ResourceClaim) -> Errors {
        let mut errors = Errors::new();
        check::immutable_internal(&Path::new("spec"), "ResourceClaimSpec", &new.spec, &old.spec, &mut errors);
        errors
    }

    fn validate_status_update(new: &ResourceClaim, old: &ResourceClaim) -> Errors {
        allocation::validate(new, old)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "State",
                "string",
                "A summary of the current state (allocated, pending, reserved, etc.).",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(claim: &ResourceClaim, now: SystemTime) -> Vec<Value> {
        let status = claim.status.clone().unwrap_or_default();
        let deleted = claim.metadata.deletion_timestamp.is_some();
        let mut states = Vec::new();
        if deleted {
            states.push("deleted");
        }
        match status.allocation {
            None if !deleted => states.push("pending"),
            None => {}
            Some(_) => {
                states.push("allocated");
                if status.reserved_for.is_some_and(|list| !list.is_empty()) {
                    states.push("reserved");
                }
            }
        }
        vec![states.join(",").into(), age(&claim.metadata, now)]
    }
}
