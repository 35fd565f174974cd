//! `matchConstraints` and `matchResources`: which requests a policy, or a binding of one, is about.

use gantry_api::admissionregistration::MatchResources;
use gantry_api::field::{Error, Path};
use gantry_api::metav1::LabelSelector;

use super::rules;
use crate::common::{check, selectors};
use crate::kind::Errors;

pub(super) fn defaults(resources: &mut MatchResources) {
    resources.match_policy.get_or_insert_with(|| "Equivalent".into());
    resources.namespace_selector.get_or_insert_default();
    resources.object_selector.get_or_insert_default();
    rules::named_defaults(&mut resources.resource_rules);
    rules::named_defaults(&mut resources.exclude_resource_rules);
}

pub(super) fn validate(resources: &MatchResources, path: &Path, errors: &mut Errors) {
    let at = path.child("matchPolicy");
    match &resources.match_policy {
        None => errors.push(Error::required(&at, "")),
        Some(policy) => check::supported(&at, policy, &["Equivalent", "Exact"], errors),
    }
    validate_selector(resources.namespace_selector.as_ref(), &path.child("namespaceSelector"), errors);
    validate_selector(resources.object_selector.as_ref(), &path.child("objectSelector"), errors);
    rules::validate_named(&resources.resource_rules, &path.child("resourceRules"), errors);
    rules::validate_named(&resources.exclude_resource_rules, &path.child("excludeResourceRules"), errors);
}

fn validate_selector(selector: Option<&LabelSelector>, path: &Path, errors: &mut Errors) {
    if selector.is_none() {
        errors.push(Error::required(path, ""));
    }
    selectors::validate(selector, false, path, errors);
}
