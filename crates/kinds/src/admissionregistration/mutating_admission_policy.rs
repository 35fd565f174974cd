//! MutatingAdmissionPolicy: changes of requests, written in CEL.

use std::collections::BTreeSet;
use std::time::SystemTime;

use gantry_api::admissionregistration::{MutatingAdmissionPolicy, Mutation};
use gantry_api::field::{Error, Path};
use serde_json::Value;

use super::match_resources;
use super::policies::{self, Common};
use crate::common::cel::{self, Context, Site};
use crate::common::check;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::{AGE, Column, age};

/// The kind.
pub struct MutatingAdmissionPolicyKind;

impl Kind for MutatingAdmissionPolicyKind {
    type Object = MutatingAdmissionPolicy;
    const NAMES: Names = Names {
        singular: "mutatingadmissionpolicy",
        short: &[],
        categories: &["api-extensions"],
        rule: NameRule::Subdomain,
    };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const UNCONDITIONAL_UPDATE: bool = false;

    fn defaults(policy: &mut MutatingAdmissionPolicy) {
        let spec = policy.spec.get_or_insert_default();
        spec.failure_policy.get_or_insert_with(|| "Fail".into());
        spec.match_constraints.iter_mut().for_each(match_resources::defaults);
    }

    fn prepare_create(policy: &mut MutatingAdmissionPolicy) {
        policy.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut MutatingAdmissionPolicy, old: &MutatingAdmissionPolicy) {
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn validate(policy: &MutatingAdmissionPolicy) -> Errors {
        validate_policy(policy, None)
    }

    fn validate_replacement(new: &MutatingAdmissionPolicy, old: &MutatingAdmissionPolicy) -> Errors {
        validate_policy(new, Some(old))
    }

    fn warnings(policy: &MutatingAdmissionPolicy) -> Vec<String> {
        super::name_warnings(&policy.metadata)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Mutations",
                "integer",
                "Mutation indicates the number of mutations rules defined in this configuration",
            ),
            policies::PARAM_KIND_COLUMN,
            AGE,
        ];
        COLUMNS
    }

    fn cells(policy: &MutatingAdmissionPolicy, now: SystemTime) -> Vec<Value> {
        let spec = policy.spec.as_ref();
        let count = spec.and_then(|s| s.mutations.as_ref()).map_or(0, Vec::len);
        let kind = policies::param_kind_cell(spec.and_then(|s| s.param_kind.as_ref()));
        vec![count.into(), kind, age(&policy.metadata, now)]
    }
}

/// Where a mutation's expression is, if it has one of this sort.
fn expression(mutation: &Mutation, site: Site) -> Option<&str> {
    match site {
        Site::JsonPatch => mutation.json_patch.as_ref().map(|p| p.expression.as_deref().unwrap_or("")),
        _ => mutation.apply_configuration.as_ref().map(|c| c.expression.as_deref().unwrap_or("")),
    }
}

fn validate_policy(policy: &MutatingAdmissionPolicy, old: Option<&MutatingAdmissionPolicy>) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let spec = policy.spec.clone().unwrap_or_default();
    let old = old.and_then(|o| o.spec.as_ref());
    let same_conditions =
        old.is_some_and(|o| o.param_kind == spec.param_kind && o.match_conditions == spec.match_conditions);
    let old_conditions = old.into_iter().flat_map(|o| o.match_conditions.iter().flatten());
    let old_conditions: BTreeSet<&str> = old_conditions.map(|c| c.expression.as_str()).collect();
    let old_mutations = old.into_iter().flat_map(|o| o.mutations.iter().flatten());
    let old_mutations: BTreeSet<&str> =
        old_mutations.filter_map(|m| expression(m, Site::ApplyConfiguration)).collect();
    let common = Common {
        failure_policy: spec.failure_policy.as_deref(),
        param_kind: spec.param_kind.as_ref(),
        match_constraints: spec.match_constraints.as_ref(),
        match_conditions: (!same_conditions).then(|| spec.match_conditions.as_deref().unwrap_or_default()),
    };
    policies::validate_common(&common, &|e| old_conditions.contains(e), &path, &mut errors);
    let rules = spec.match_constraints.iter().flat_map(|c| c.resource_rules.iter().flatten());
    for operation in rules.flat_map(|r| r.operations.iter().flatten()) {
        let at = path.child("matchConstraints").child("resourceRules").child("operations");
        check::supported(&at, operation, &["*", "CONNECT", "CREATE", "UPDATE"], &mut errors);
    }
    let has_params = spec.param_kind.is_some();
    let variables = spec.variables.as_deref().unwrap_or_default();
    let known = policies::validate_variables(
        variables,
        has_params,
        &|_| false,
        &path.child("variables"),
        &mut errors,
    );
    let mutations = spec.mutations.as_deref().unwrap_or_default();
    if mutations.is_empty() {
        let why = "mutations must contain at least one item";
        errors.push(Error::required(&path.child("mutations"), why));
    }
    for (i, mutation) in mutations.iter().enumerate() {
        let context = |e: &str| Context { has_params, variables: &known, stored: old_mutations.contains(e) };
        validate_mutation(mutation, &context, &path.child("mutations").index(i), &mut errors);
    }
    let at = path.child("reinvocationPolicy");
    match spec.reinvocation_policy.as_deref().unwrap_or("") {
        "" => errors.push(Error::required(&at, "")),
        policy => check::supported(&at, policy, &["IfNeeded", "Never"], &mut errors),
    }
    errors
}

fn validate_mutation<'a>(
    mutation: &Mutation,
    context: &dyn Fn(&str) -> Context<'a>,
    path: &Path,
    errors: &mut Errors,
) {
    let types = [("JSONPatch", "jsonPatch"), ("ApplyConfiguration", "applyConfiguration")];
    let (site, field, other_site, other) = match mutation.patch_type.as_str() {
        "" => {
            errors.push(Error::required(&path.child("patchType"), ""));
            return;
        }
        "JSONPatch" => (Site::JsonPatch, types[0].1, Site::ApplyConfiguration, types[1].1),
        "ApplyConfiguration" => (Site::ApplyConfiguration, types[1].1, Site::JsonPatch, types[0].1),
        unknown => {
            let allowed = [types[1].0, types[0].0];
            errors.push(Error::not_supported(&path.child("patchType"), unknown, &allowed));
            return;
        }
    };
    let kind = &mutation.patch_type;
    let at = path.child(field);
    match expression(mutation, site) {
        None => errors.push(Error::required(&at, format!("must be specified when patchType is {kind}"))),
        Some(text) if text.trim().is_empty() => errors.push(Error::required(&at.child("expression"), "")),
        Some(text) => cel::check(site, text.trim(), context(text), &at.child("expression"), errors),
    }
    if expression(mutation, other_site).is_some() {
        let why = format!("must not be specified when patchType is {kind}");
        errors.push(Error::invalid(&path.child(other), format!("{{{other}}}"), why));
    }
}
