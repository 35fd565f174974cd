//! When a job has failed, and when it has succeeded: its policies.

use std::collections::BTreeSet;

use gantry_api::batch::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicyRule,
};
use gantry_api::field::Error;
use serde_json::json;

use super::indexes;
use super::validate::is_indexed;
use crate::common::at::{At, Complaints, items, text};
use crate::kind::Errors;

/// Most rules of a policy.
const MAX_RULES: usize = 20;
/// Most exit codes of a rule.
const MAX_CODES: usize = 255;
/// Most patterns of conditions of a rule.
const MAX_PATTERNS: usize = 20;
/// Longest list of indexes, in bytes.
const MAX_INDEX_BYTES: usize = 64 * 1024;

pub(super) fn check(spec: &JobSpec, at: &At<'_>, errors: &mut Errors) {
    if let Some(policy) = &spec.pod_failure_policy {
        let at = at.child("podFailurePolicy");
        let list = at.child("rules");
        if policy.rules.len() > MAX_RULES {
            errors.too_many(&list, policy.rules.len(), MAX_RULES);
        }
        for (i, rule) in policy.rules.iter().enumerate() {
            check_failure_rule(spec, rule, &list.index(i), errors);
        }
    }
    if let Some(policy) = &spec.success_policy {
        let at = at.child("successPolicy");
        if is_indexed(spec) {
            let list = at.child("rules");
            if policy.rules.is_empty() {
                let why = "at least one rules must be specified when the successPolicy is specified";
                errors.required(&list, why);
            }
            if policy.rules.len() > MAX_RULES {
                errors.too_many(&list, policy.rules.len(), MAX_RULES);
            }
            for (i, rule) in policy.rules.iter().enumerate() {
                check_success_rule(spec, rule, &list.index(i), errors);
            }
        } else {
            let rules: Vec<String> = policy.rules.iter().map(shown_success).collect();
            let rules = if rules.is_empty() { "null".to_owned() } else { format!("[{}]", rules.join(",")) };
            let shown = gantry_api::field::verbatim(format!("{{\"Rules\":{rules}}}"));
            errors.invalid(&at, shown, "requires indexed completion mode");
        }
    }
    if let Some(policy) = &spec.pod_replacement_policy {
        let allowed: &[&str] =
            if spec.pod_failure_policy.is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        errors.among(&at.child("podReplacementPolicy"), policy, allowed);
    }
}

fn shown_success(rule: &SuccessPolicyRule) -> String {
    format!(
        "{{\"SucceededIndexes\":{},\"SucceededCount\":{}}}",
        json!(rule.succeeded_indexes),
        json!(rule.succeeded_count)
    )
}

fn omitted(at: &At<'_>, why: &str) -> Error {
    Error { value: None, ..Error::invalid(&at.path(), json!(null), why) }
}

fn check_failure_rule(spec: &JobSpec, rule: &PodFailurePolicyRule, at: &At<'_>, errors: &mut Errors) {
    const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
    let action = at.child("action");
    match rule.action.as_str() {
        "" => {
            errors.required(&action, r#"valid values: ["Count" "FailIndex" "FailJob" "Ignore"]"#);
        }
        "FailIndex" if spec.backoff_limit_per_index.is_none() => {
            errors.invalid(&action, "FailIndex", "requires the backoffLimitPerIndex to be set");
        }
        other => errors.among(&action, other, &ACTIONS),
    }
    let patterns = items(&rule.on_pod_conditions);
    if let Some(on) = &rule.on_exit_codes {
        check_codes(spec, on, &at.child("onExitCodes"), errors);
    }
    check_patterns(patterns, &at.child("onPodConditions"), errors);
    match (rule.on_exit_codes.is_some(), patterns.is_empty()) {
        (true, false) => {
            errors.push(omitted(at, "specifying both OnExitCodes and OnPodConditions is not supported"));
        }
        (false, true) => {
            errors.push(omitted(at, "specifying one of OnExitCodes and OnPodConditions is required"));
        }
        _ => {}
    }
}

fn check_patterns(patterns: &[PodFailurePolicyOnPodConditionsPattern], at: &At<'_>, errors: &mut Errors) {
    if patterns.len() > MAX_PATTERNS {
        errors.too_many(at, patterns.len(), MAX_PATTERNS);
    }
    for (i, pattern) in patterns.iter().enumerate() {
        let at = at.index(i);
        errors.qualified(&at.child("type"), &pattern.type_);
        match text(&pattern.status) {
            "" => errors.required(&at.child("status"), r#"valid values: ["False" "True" "Unknown"]"#),
            status => errors.among(&at.child("status"), status, &["False", "True", "Unknown"]),
        }
    }
}

fn check_codes(
    spec: &JobSpec,
    on: &PodFailurePolicyOnExitCodesRequirement,
    at: &At<'_>,
    errors: &mut Errors,
) {
    match on.operator.as_str() {
        "" => errors.required(&at.child("operator"), r#"valid values: ["In" "NotIn"]"#),
        operator => errors.among(&at.child("operator"), operator, &["In", "NotIn"]),
    }
    if let Some(name) = &on.container_name {
        let pod = spec.template.spec.as_ref();
        let containers = pod.iter().flat_map(|p| p.containers.iter().chain(items(&p.init_containers)));
        if !containers.into_iter().any(|c| c.name == *name) {
            let why = "must be one of the container or initContainer names in the pod template";
            errors.invalid(&at.child("containerName"), name.as_str(), why);
        }
    }
    let list = at.child("values");
    if on.values.is_empty() {
        errors.invalid(&list, json!(null), "at least one value is required");
    } else if on.values.len() > MAX_CODES {
        errors.too_many(&list, on.values.len(), MAX_CODES);
    }
    let mut seen = BTreeSet::new();
    for (i, code) in on.values.iter().enumerate() {
        if on.operator == "In" && *code == 0 {
            errors.invalid(&list.index(i), 0, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            errors.duplicate(&list.index(i), *code);
        }
    }
    if !on.values.is_sorted() {
        errors.invalid(&list, json!(on.values), "must be ordered");
    }
}

fn check_success_rule(spec: &JobSpec, rule: &SuccessPolicyRule, at: &At<'_>, errors: &mut Errors) {
    let completions = spec.completions.unwrap_or(0);
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        errors.required(at, "at least one of succeededCount or succeededIndexes must be specified");
    }
    let mut total = None;
    if let Some(indexes) = &rule.succeeded_indexes {
        let at = at.child("succeededIndexes");
        if indexes.len() > MAX_INDEX_BYTES {
            errors.too_long(&at, MAX_INDEX_BYTES);
        }
        match indexes::count(indexes, completions) {
            Ok(count) => total = Some(count),
            Err(why) => {
                total = Some(0);
                let why = format!("error parsing succeededIndexes: {why}");
                errors.invalid(&at, indexes.as_str(), why);
            }
        }
    }
    let Some(count) = rule.succeeded_count else { return };
    let at = at.child("succeededCount");
    errors.non_negative(&at, count.into());
    if count > completions {
        let why =
            format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.invalid(&at, count, why);
    }
    if let Some(total) = total.filter(|total| count > *total) {
        let why = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.invalid(&at, count, why);
    }
}
