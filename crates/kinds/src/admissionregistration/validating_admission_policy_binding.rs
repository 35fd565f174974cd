//! ValidatingAdmissionPolicyBinding: where a policy holds, with which parameters, and what breaking it does.

use std::collections::BTreeSet;
use std::time::SystemTime;

use gantry_api::admissionregistration::ValidatingAdmissionPolicyBinding;
use gantry_api::field::{Error, Path};
use serde_json::{Value, json};

use super::{match_resources, policies};
use crate::common::check;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::{Column, age};

/// The kind.
pub struct ValidatingAdmissionPolicyBindingKind;

impl Kind for ValidatingAdmissionPolicyBindingKind {
    type Object = ValidatingAdmissionPolicyBinding;
    const NAMES: Names = Names {
        singular: "validatingadmissionpolicybinding",
        short: &[],
        categories: &["api-extensions"],
        rule: NameRule::Subdomain,
    };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const UNCONDITIONAL_UPDATE: bool = false;

    fn defaults(binding: &mut ValidatingAdmissionPolicyBinding) {
        binding.spec.match_resources.iter_mut().for_each(match_resources::defaults);
    }

    fn prepare_create(binding: &mut ValidatingAdmissionPolicyBinding) {
        binding.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut ValidatingAdmissionPolicyBinding, old: &ValidatingAdmissionPolicyBinding) {
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn validate(binding: &ValidatingAdmissionPolicyBinding) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let spec = &binding.spec;
        let (param, resources) = (spec.param_ref.as_ref(), spec.match_resources.as_ref());
        policies::validate_binding(&spec.policy_name, param, resources, &path, &mut errors);
        validate_actions(&spec.validation_actions, &path.child("validationActions"), &mut errors);
        errors
    }

    fn warnings(binding: &ValidatingAdmissionPolicyBinding) -> Vec<String> {
        super::name_warnings(&binding.metadata)
    }

    fn columns() -> &'static [Column] {
        policies::BINDING_COLUMNS
    }

    fn cells(binding: &ValidatingAdmissionPolicyBinding, now: SystemTime) -> Vec<Value> {
        let spec = &binding.spec;
        let param = policies::param_ref_cell(spec.param_ref.as_ref());
        vec![spec.policy_name.as_str().into(), param, age(&binding.metadata, now)]
    }
}

fn validate_actions(actions: &[String], path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, action) in actions.iter().enumerate() {
        check::supported(&path.index(i), action, &["Audit", "Deny", "Warn"], errors);
        if !seen.insert(action.as_str()) {
            errors.push(Error::duplicate(&path.index(i), action.as_str()));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(Error::invalid(path, json!(actions), why));
    }
    if seen.is_empty() {
        errors.push(Error::required(path, "at least one validation action is required"));
    }
}
