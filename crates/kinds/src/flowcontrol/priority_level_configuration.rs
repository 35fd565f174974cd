//! PriorityLevelConfiguration: how many requests of a level run at one time, and what becomes of the others.

use std::time::SystemTime;

use gantry_api::field::{Error, Path};
use gantry_api::flowcontrol::{
    LimitResponse, LimitedPriorityLevelConfiguration, PriorityLevelConfiguration,
    PriorityLevelConfigurationSpec, PriorityLevelConfigurationStatus, QueuingConfiguration,
};
use serde_json::{Value, json};

use super::flow_schema::validate_condition_types;
use super::mandatory;
use crate::common::status;
use crate::kind::{
    Errors, FieldPaths, Kind, NameRule, Names, SPEC_AND_METADATA, STATUS, Verbs, bump_generation,
};
use crate::table::{AGE, Column, age};

const DEFAULT_SHARES: i32 = 30;
const DEFAULT_QUEUES: i32 = 64;
const DEFAULT_HAND: i32 = 8;
const DEFAULT_LENGTH: i32 = 50;
const MAX_QUEUES: i32 = 10_000_000;
/// What a hash of a flow offers for dealing hands of queues.
const MAX_HASH_BITS: i64 = 60;

/// The kind.
pub struct PriorityLevelConfigurationKind;

impl Kind for PriorityLevelConfigurationKind {
    type Object = PriorityLevelConfiguration;
    const NAMES: Names = Names {
        singular: "prioritylevelconfiguration",
        short: &[],
        categories: &[],
        rule: NameRule::Subdomain,
    };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };

    fn reset_fields(subresource: &str) -> FieldPaths {
        if subresource == "status" { SPEC_AND_METADATA } else { STATUS }
    }

    fn defaults(level: &mut PriorityLevelConfiguration) {
        let spec = level.spec.get_or_insert_default();
        if let Some(exempt) = &mut spec.exempt {
            exempt.nominal_concurrency_shares.get_or_insert(0);
            exempt.lendable_percent.get_or_insert(0);
        }
        let Some(limited) = &mut spec.limited else { return };
        limited.nominal_concurrency_shares.get_or_insert(DEFAULT_SHARES);
        limited.lendable_percent.get_or_insert(0);
        if let Some(queuing) = limited.limit_response.as_mut().and_then(|r| r.queuing.as_mut()) {
            let fill = |slot: &mut Option<i32>, default| {
                if slot.unwrap_or(0) == 0 {
                    *slot = Some(default);
                }
            };
            fill(&mut queuing.hand_size, DEFAULT_HAND);
            fill(&mut queuing.queues, DEFAULT_QUEUES);
            fill(&mut queuing.queue_length_limit, DEFAULT_LENGTH);
        }
    }

    fn prepare_create(level: &mut PriorityLevelConfiguration) {
        level.status = Some(PriorityLevelConfigurationStatus::default());
        level.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut PriorityLevelConfiguration, old: &PriorityLevelConfiguration) {
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn prepare_status_update(new: &mut PriorityLevelConfiguration, old: &PriorityLevelConfiguration) {
        new.spec.clone_from(&old.spec);
        status::keep_metadata(&mut new.metadata, &old.metadata);
    }

    fn validate(level: &PriorityLevelConfiguration) -> Errors {
        const ROUND_TRIP: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";
        let mut errors = Errors::new();
        if level.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(ROUND_TRIP)) {
            let why = format!("annotation '{ROUND_TRIP}' is forbidden");
            errors.push(Error::forbidden(&Path::new("metadata").child("annotations"), why));
        }
        let spec = level.spec.clone().unwrap_or_default();
        let name = level.metadata.name.as_deref().unwrap_or("");
        validate_spec(&spec, name, &Path::new("spec"), &mut errors);
        validate_mandatory(&spec, name, &mut errors);
        errors
    }

    fn validate_status_update(new: &PriorityLevelConfiguration, _old: &PriorityLevelConfiguration) -> Errors {
        let conditions = new.status.iter().flat_map(|s| s.conditions.iter().flatten());
        validate_condition_types(conditions.map(|c| c.type_.as_deref().unwrap_or("")))
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Type",
                "string",
                "`type` indicates whether this priority level is subject to limitation on request execution.  A value of `\"Exempt\"` means that requests of this priority level are not subject to a limit (and thus are never queued) and do not detract from the capacity made available to other priority levels.  A value of `\"Limited\"` means that (a) requests of this priority level _are_ subject to limits and (b) some of the server's limited capacity is made available exclusively to this priority level. Required.",
            ),
            Column::new(
                "NominalConcurrencyShares",
                "string",
                "`nominalConcurrencyShares` (NCS) contributes to the computation of the NominalConcurrencyLimit (NominalCL) of this level. This is the number of execution seats available at this priority level. This is used both for requests dispatched from this priority level as well as requests dispatched from other priority levels borrowing seats from this level. The server's concurrency limit (ServerCL) is divided among the Limited priority levels in proportion to their NCS values:\n\nNominalCL(i)  = ceil( ServerCL * NCS(i) / sum_ncs ) sum_ncs = sum[priority level k] NCS(k)\n\nBigger numbers mean a larger nominal concurrency limit, at the expense of every other priority level.\n\nIf not specified, this field defaults to a value of 30.\n\nSetting this field to zero supports the construction of a \"jail\" for this priority level that is used to hold some request(s)",
            ),
            Column::new(
                "Queues",
                "string",
                "`queues` is the number of queues for this priority level. The queues exist independently at each apiserver. The value must be positive.  Setting it to 1 effectively precludes shufflesharding and thus makes the distinguisher method of associated flow schemas irrelevant.  This field has a default value of 64.",
            ),
            Column::new(
                "HandSize",
                "string",
                "`handSize` is a small positive number that configures the shuffle sharding of requests into queues.  When enqueuing a request at this priority level the request's flow identifier (a string pair) is hashed and the hash value is used to shuffle the list of queues and deal a hand of the size specified here.  The request is put into one of the shortest queues in that hand. `handSize` must be no larger than `queues`, and should be significantly smaller (so that a few heavy flows do not saturate most of the queues).  See the user-facing documentation for more extensive guidance on setting this field.  This field has a default value of 8.",
            ),
            Column::new(
                "QueueLengthLimit",
                "string",
                "`queueLengthLimit` is the maximum number of requests allowed to be waiting in a given queue of this priority level at a time; excess requests are rejected.  This value must be positive.  If not specified, it will be defaulted to 50.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(level: &PriorityLevelConfiguration, now: SystemTime) -> Vec<Value> {
        let spec = level.spec.clone().unwrap_or_default();
        let limited = spec.limited.as_ref();
        let queuing = limited.and_then(|l| l.limit_response.as_ref()).and_then(|r| r.queuing.as_ref());
        let number = |n: Option<i32>| n.map_or_else(|| Value::from("<none>"), Value::from);
        vec![
            spec.type_.as_str().into(),
            number(limited.map(|l| l.nominal_concurrency_shares.unwrap_or(0))),
            number(queuing.and_then(|q| q.queues)),
            number(queuing.and_then(|q| q.hand_size)),
            number(queuing.and_then(|q| q.queue_length_limit)),
            age(&level.metadata, now),
        ]
    }
}

fn validate_mandatory(spec: &PriorityLevelConfigurationSpec, name: &str, errors: &mut Errors) {
    let Some(fixed) = mandatory::priority_level(name) else { return };
    let exempt = name == mandatory::EXEMPT;
    let mut found = spec.clone();
    if exempt {
        found.exempt.clone_from(&fixed.exempt);
    }
    if found != fixed {
        let but = if exempt { " except the 'spec.exempt' field" } else { "" };
        let why = format!("spec of '{name}'{but} must equal the fixed value");
        errors.push(Error::invalid(&Path::new("spec"), json!(spec), why));
    }
}

fn validate_spec(spec: &PriorityLevelConfigurationSpec, name: &str, path: &Path, errors: &mut Errors) {
    let kind = spec.type_.as_str();
    if (name == mandatory::EXEMPT) != (kind == "Exempt") {
        let why = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(Error::invalid(&path.child("type"), kind, why));
    }
    match (kind, &spec.limited) {
        ("Exempt", limited) => {
            if limited.is_some() {
                errors
                    .push(Error::forbidden(&path.child("limited"), "must be nil if the type is not Limited"));
            }
            if let Some(exempt) = &spec.exempt {
                let at = path.child("exempt");
                validate_shares(exempt.nominal_concurrency_shares, &at, errors);
                validate_lendable(exempt.lendable_percent, &at, errors);
            }
        }
        ("Limited", limited) => {
            if spec.exempt.is_some() {
                errors.push(Error::forbidden(&path.child("exempt"), "must be nil if the type is Limited"));
            }
            let at = path.child("limited");
            match limited {
                None => errors.push(Error::required(&at, "must not be empty when type is Limited")),
                Some(limited) => validate_limited(limited, &at, errors),
            }
        }
        _ => errors.push(Error::not_supported(&path.child("type"), kind, &["Exempt", "Limited"])),
    }
}

fn validate_shares(shares: Option<i32>, path: &Path, errors: &mut Errors) {
    if let Some(shares) = shares.filter(|s| *s < 0) {
        let why = "must be a non-negative integer";
        errors.push(Error::invalid(&path.child("nominalConcurrencyShares"), shares, why));
    }
}

fn validate_lendable(percent: Option<i32>, path: &Path, errors: &mut Errors) {
    if let Some(percent) = percent.filter(|p| !(0..=100).contains(p)) {
        let why = "must be between 0 and 100, inclusive";
        errors.push(Error::invalid(&path.child("lendablePercent"), percent, why));
    }
}

fn validate_limited(limited: &LimitedPriorityLevelConfiguration, path: &Path, errors: &mut Errors) {
    validate_shares(limited.nominal_concurrency_shares, path, errors);
    let response = limited.limit_response.clone().unwrap_or_default();
    validate_response(&response, &path.child("limitResponse"), errors);
    validate_lendable(limited.lendable_percent, path, errors);
    if let Some(percent) = limited.borrowing_limit_percent.filter(|p| *p < 0) {
        let why = "if specified, must be a non-negative integer";
        errors.push(Error::invalid(&path.child("borrowingLimitPercent"), percent, why));
    }
}

fn validate_response(response: &LimitResponse, path: &Path, errors: &mut Errors) {
    let at = path.child("queuing");
    match (response.type_.as_str(), &response.queuing) {
        ("Reject", None) => {}
        ("Reject", Some(_)) => {
            let why = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(Error::forbidden(&at, why));
        }
        ("Queue", None) => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(Error::required(&at, why));
        }
        ("Queue", Some(queuing)) => validate_queuing(queuing, &at, errors),
        (other, _) => errors.push(Error::not_supported(&path.child("type"), other, &["Queue", "Reject"])),
    }
}

fn validate_queuing(queuing: &QueuingConfiguration, path: &Path, errors: &mut Errors) {
    const POSITIVE: &str = "must be positive";
    let length = queuing.queue_length_limit.unwrap_or(0);
    if length <= 0 {
        errors.push(Error::invalid(&path.child("queueLengthLimit"), length, POSITIVE));
    }
    let (at, queues) = (path.child("queues"), queuing.queues.unwrap_or(0));
    if queues <= 0 {
        errors.push(Error::invalid(&at, queues, POSITIVE));
    } else if queues > MAX_QUEUES {
        errors.push(Error::invalid(&at, queues, format!("must not be greater than {MAX_QUEUES}")));
    }
    let (at, hand) = (path.child("handSize"), queuing.hand_size.unwrap_or(0));
    if hand <= 0 {
        errors.push(Error::invalid(&at, hand, POSITIVE));
    } else if hand > queues {
        errors.push(Error::invalid(&at, hand, format!("should not be greater than queues ({queues})")));
    } else if (f64::from(queues).log2() * f64::from(hand)).ceil() as i64 > MAX_HASH_BITS {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
        );
        errors.push(Error::invalid(&at, hand, why));
    }
}
