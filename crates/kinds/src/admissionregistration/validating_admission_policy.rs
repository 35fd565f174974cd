//! ValidatingAdmissionPolicy: rules in CEL that requests must keep.

use std::collections::BTreeSet;
use std::time::SystemTime;

use gantry_api::admissionregistration::{
    AuditAnnotation, ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec, Validation,
};
use gantry_api::field::{Error, Path};
use serde_json::{Value, json};

use super::match_resources;
use super::policies::{self, Common, Stored};
use crate::common::cel::{self, Context, Site};
use crate::common::{check, conditions, status};
use crate::kind::{
    Errors, FieldPaths, Kind, NameRule, Names, SPEC_AND_METADATA, STATUS, Verbs, bump_generation,
};
use crate::table::{AGE, Column, age};

const MAX_AUDIT_ANNOTATIONS: usize = 20;
const MAX_VALUE_EXPRESSION_BYTES: usize = 5 * 1024;

/// The kind.
pub struct ValidatingAdmissionPolicyKind;

impl Kind for ValidatingAdmissionPolicyKind {
    type Object = ValidatingAdmissionPolicy;
    const NAMES: Names = Names {
        singular: "validatingadmissionpolicy",
        short: &[],
        categories: &["api-extensions"],
        rule: NameRule::Subdomain,
    };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };
    const UNCONDITIONAL_UPDATE: bool = false;

    fn reset_fields(subresource: &str) -> FieldPaths {
        if subresource == "status" { SPEC_AND_METADATA } else { STATUS }
    }

    fn defaults(policy: &mut ValidatingAdmissionPolicy) {
        let spec = policy.spec.get_or_insert_default();
        spec.failure_policy.get_or_insert_with(|| "Fail".into());
        spec.match_constraints.iter_mut().for_each(match_resources::defaults);
    }

    fn prepare_create(policy: &mut ValidatingAdmissionPolicy) {
        policy.status = Some(Default::default());
        policy.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut ValidatingAdmissionPolicy, old: &ValidatingAdmissionPolicy) {
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn prepare_status_update(new: &mut ValidatingAdmissionPolicy, old: &ValidatingAdmissionPolicy) {
        new.spec.clone_from(&old.spec);
        status::keep_metadata(&mut new.metadata, &old.metadata);
    }

    fn validate(policy: &ValidatingAdmissionPolicy) -> Errors {
        validate_policy(policy, None)
    }

    fn validate_replacement(new: &ValidatingAdmissionPolicy, old: &ValidatingAdmissionPolicy) -> Errors {
        validate_policy(new, Some(old))
    }

    fn validate_status_update(new: &ValidatingAdmissionPolicy, _old: &ValidatingAdmissionPolicy) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("status");
        let Some(status) = &new.status else { return errors };
        let at = path.child("typeChecking").child("expressionWarnings");
        let warnings = status.type_checking.iter().flat_map(|t| t.expression_warnings.iter().flatten());
        for (i, warning) in warnings.enumerate() {
            let at = at.index(i);
            check::required(&at.child("warning"), Some(&warning.warning), &mut errors);
            check::required(&at.child("fieldRef"), Some(warning.field_ref.trim()), &mut errors);
        }
        conditions::validate(status.conditions.as_ref(), &path.child("conditions"), &mut errors);
        errors
    }

    fn warnings(policy: &ValidatingAdmissionPolicy) -> Vec<String> {
        super::name_warnings(&policy.metadata)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Validations",
                "integer",
                "Validations indicates the number of validation rules defined in this configuration",
            ),
            policies::PARAM_KIND_COLUMN,
            AGE,
        ];
        COLUMNS
    }

    fn cells(policy: &ValidatingAdmissionPolicy, now: SystemTime) -> Vec<Value> {
        let spec = policy.spec.as_ref();
        let count = spec.and_then(|s| s.validations.as_ref()).map_or(0, Vec::len);
        let kind = policies::param_kind_cell(spec.and_then(|s| s.param_kind.as_ref()));
        vec![count.into(), kind, age(&policy.metadata, now)]
    }
}

/// The expressions of the object before an update.
#[derive(Default)]
struct Before<'a> {
    conditions: BTreeSet<&'a str>,
    validations: BTreeSet<&'a str>,
    messages: BTreeSet<&'a str>,
    annotations: BTreeSet<&'a str>,
}

impl<'a> Before<'a> {
    fn of(old: Option<&'a ValidatingAdmissionPolicySpec>) -> Self {
        let Some(old) = old else { return Self::default() };
        let validations = || old.validations.iter().flatten();
        Self {
            conditions: old.match_conditions.iter().flatten().map(|c| c.expression.as_str()).collect(),
            validations: validations().map(|v| v.expression.as_str()).collect(),
            messages: validations().filter_map(|v| v.message_expression.as_deref()).collect(),
            annotations: old
                .audit_annotations
                .iter()
                .flatten()
                .map(|a| a.value_expression.as_str())
                .collect(),
        }
    }
}

fn validate_policy(policy: &ValidatingAdmissionPolicy, old: Option<&ValidatingAdmissionPolicy>) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let spec = policy.spec.clone().unwrap_or_default();
    let old = old.and_then(|o| o.spec.as_ref());
    let before = Before::of(old);
    let same_conditions =
        old.is_some_and(|o| o.param_kind == spec.param_kind && o.match_conditions == spec.match_conditions);
    let common = Common {
        failure_policy: spec.failure_policy.as_deref(),
        param_kind: spec.param_kind.as_ref(),
        match_constraints: spec.match_constraints.as_ref(),
        match_conditions: (!same_conditions).then(|| spec.match_conditions.as_deref().unwrap_or_default()),
    };
    policies::validate_common(&common, &|e| before.conditions.contains(e), &path, &mut errors);
    let has_params = spec.param_kind.is_some();
    let variables = spec.variables.as_deref().unwrap_or_default();
    let stored: Stored<'_> = &|e| before.validations.contains(e);
    let variables =
        policies::validate_variables(variables, has_params, stored, &path.child("variables"), &mut errors);
    let validations = spec.validations.as_deref().unwrap_or_default();
    let annotations = spec.audit_annotations.as_deref().unwrap_or_default();
    if validations.is_empty() && annotations.is_empty() {
        for field in ["validations", "auditAnnotations"] {
            let why = "validations or auditAnnotations must contain at least one item";
            errors.push(Error::required(&path.child(field), why));
        }
        return errors;
    }
    let scope = Scope { has_params, variables: &variables, before: &before };
    for (i, validation) in validations.iter().enumerate() {
        validate_validation(validation, &scope, &path.child("validations").index(i), &mut errors);
    }
    let name = policy.metadata.name.as_deref().unwrap_or("");
    validate_annotations(annotations, name, &scope, &path.child("auditAnnotations"), &mut errors);
    errors
}

/// What the expressions of a policy see.
struct Scope<'a> {
    has_params: bool,
    variables: &'a [(&'a str, &'a str)],
    before: &'a Before<'a>,
}

impl<'a> Scope<'a> {
    fn context(&self, stored: bool) -> Context<'a> {
        Context { has_params: self.has_params, variables: self.variables, stored }
    }
}

fn validate_validation(validation: &Validation, scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    const BLANK: &str = "must be non-empty if specified";
    let expression = validation.expression.as_str();
    let at = path.child("expression");
    if expression.trim().is_empty() {
        errors.push(Error::required(&at, "expression is not specified"));
    } else {
        let context = scope.context(scope.before.validations.contains(expression));
        cel::check(Site::Validation, expression, context, &at, errors);
    }
    let at = path.child("messageExpression");
    match validation.message_expression.as_deref().unwrap_or("") {
        "" => {}
        blank if blank.trim().is_empty() => errors.push(Error::invalid(&at, blank, BLANK)),
        text => {
            let context = scope.context(scope.before.messages.contains(text));
            cel::check(Site::MessageExpression, text, context, &at, errors);
        }
    }
    let at = path.child("message");
    match validation.message.as_deref().unwrap_or("") {
        "" => {}
        blank if blank.trim().is_empty() => errors.push(Error::invalid(&at, blank, BLANK)),
        text if text.trim().contains(['\n', '\r']) => {
            errors.push(Error::invalid(&at, text, "must not contain line breaks"));
        }
        _ => {}
    }
    let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
    check::supported_if_set(&path.child("reason"), validation.reason.as_deref(), &reasons, errors);
}

fn validate_annotations(
    annotations: &[AuditAnnotation],
    name: &str,
    scope: &Scope<'_>,
    path: &Path,
    errors: &mut Errors,
) {
    if annotations.len() > MAX_AUDIT_ANNOTATIONS {
        let why = format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations");
        errors.push(Error::invalid(path, json!(annotations), why));
    }
    let mut seen = BTreeSet::new();
    for (i, annotation) in annotations.iter().enumerate() {
        let at = path.index(i);
        let key = annotation.key.as_str();
        if name.is_empty() {
            let why = "requires metadata.name be non-empty";
            errors.push(Error::invalid(&at.child("key"), key, why));
        } else {
            let full = format!("{name}/{key}");
            check::qualified_name(&at.child("key"), &full, errors);
        }
        validate_value_expression(annotation, scope, &at.child("valueExpression"), errors);
        if !seen.insert(key) {
            errors.push(Error::duplicate(&at.child("key"), key));
        }
    }
}

fn validate_value_expression(
    annotation: &AuditAnnotation,
    scope: &Scope<'_>,
    path: &Path,
    errors: &mut Errors,
) {
    let expression = annotation.value_expression.trim();
    if expression.is_empty() {
        errors.push(Error::required(path, "valueExpression is not specified"));
    } else if expression.len() > MAX_VALUE_EXPRESSION_BYTES {
        let why = format!("must not exceed {MAX_VALUE_EXPRESSION_BYTES} bytes in length");
        errors.push(Error::required(path, why));
    } else {
        let context = scope.context(scope.before.annotations.contains(annotation.value_expression.as_str()));
        cel::check(Site::AuditAnnotation, expression, context, path, errors);
    }
}
