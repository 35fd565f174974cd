//! MutatingAdmissionPolicyBinding: where a policy holds, with which parameters.

use std::time::SystemTime;

use gantry_api::admissionregistration::MutatingAdmissionPolicyBinding;
use gantry_api::field::Path;
use serde_json::Value;

use super::{match_resources, policies};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::{Column, age};

/// The kind.
pub struct MutatingAdmissionPolicyBindingKind;

impl Kind for MutatingAdmissionPolicyBindingKind {
    type Object = MutatingAdmissionPolicyBinding;
    const NAMES: Names = Names {
        singular: "mutatingadmissionpolicybinding",
        short: &[],
        categories: &["api-extensions"],
        rule: NameRule::Subdomain,
    };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const UNCONDITIONAL_UPDATE: bool = false;

    fn defaults(binding: &mut MutatingAdmissionPolicyBinding) {
        let resources = binding.spec.as_mut().and_then(|s| s.match_resources.as_mut());
        resources.into_iter().for_each(match_resources::defaults);
    }

    fn prepare_create(binding: &mut MutatingAdmissionPolicyBinding) {
        binding.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut MutatingAdmissionPolicyBinding, old: &MutatingAdmissionPolicyBinding) {
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn validate(binding: &MutatingAdmissionPolicyBinding) -> Errors {
        let mut errors = Errors::new();
        let spec = binding.spec.clone().unwrap_or_default();
        let (param, resources) = (spec.param_ref.as_ref(), spec.match_resources.as_ref());
        let policy = spec.policy_name.as_deref().unwrap_or("");
        policies::validate_binding(policy, param, resources, &Path::new("spec"), &mut errors);
        errors
    }

    fn warnings(binding: &MutatingAdmissionPolicyBinding) -> Vec<String> {
        super::name_warnings(&binding.metadata)
    }

    fn columns() -> &'static [Column] {
        policies::BINDING_COLUMNS
    }

    fn cells(binding: &MutatingAdmissionPolicyBinding, now: SystemTime) -> Vec<Value> {
        let spec = binding.spec.as_ref();
        let policy = spec.and_then(|s| s.policy_name.clone()).unwrap_or_default();
        let param = policies::param_ref_cell(spec.and_then(|s| s.param_ref.as_ref()));
        vec![policy.into(), param, age(&binding.metadata, now)]
    }
}
