//! What a claim asks for.
//!
//! As `pkg/apis/resource/validation`.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::dynamic_resource::{
    DeviceClaim, DeviceConstraint, DeviceRequest, DeviceSelector, DeviceToleration,
    OpaqueDeviceConfiguration, ResourceClaimSpec,
};
use gantry_api::field::{Error, Path};
use gantry_api::k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use gantry_api::names as api_names;
use serde_json::Value;

use super::names;
use crate::common::cel::{self, Context, Site};
use crate::common::check;
use crate::kind::Errors;

pub(super) const MAX_REQUESTS: usize = 32;
const MAX_CONSTRAINTS: usize = 32;
pub(super) const MAX_CONFIGS: usize = 32;
const MAX_SELECTORS: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
const MAX_EXPRESSION: usize = 10 * 1024;
const MAX_PARAMETERS: usize = 10 * 1024;
pub(super) const TAINT_EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const BAD_REFERENCE: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// Fills in how many devices are asked for.
pub(super) fn defaults(spec: &mut ResourceClaimSpec) {
    let requests = spec.devices.iter_mut().flat_map(|d| d.requests.iter_mut().flatten());
    for request in requests {
        if let Some(exactly) = &mut request.exactly {
            count_defaults(&mut exactly.allocation_mode, &mut exactly.count);
            toleration_defaults(exactly.tolerations.as_mut());
        }
        for alternative in request.first_available.iter_mut().flatten() {
            count_defaults(&mut alternative.allocation_mode, &mut alternative.count);
            toleration_defaults(alternative.tolerations.as_mut());
        }
    }
}

fn toleration_defaults(tolerations: Option<&mut Vec<DeviceToleration>>) {
    for toleration in tolerations.into_iter().flatten() {
        if toleration.operator.as_deref().unwrap_or("").is_empty() {
            toleration.operator = Some("Equal".into());
        }
    }
}

fn count_defaults(mode: &mut Option<String>, count: &mut Option<i64>) {
    if mode.as_deref().unwrap_or("").is_empty() {
        *mode = Some("ExactCount".into());
    }
    if mode.as_deref() == Some("ExactCount") && count.unwrap_or(0) == 0 {
        *count = Some(1);
    }
}

/// The requests of a claim, and the alternatives of each.
pub(super) struct RequestNames<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> RequestNames<'a> {
    pub(super) fn of(claim: Option<&'a DeviceClaim>) -> Self {
        let requests = claim.into_iter().flat_map(|c| c.requests.iter().flatten());
        Self(
            requests
                .map(|r| {
                    let inner = r.first_available.iter().flatten().map(|a| a.name.as_str());
                    (r.name.as_str(), inner.collect())
                })
                .collect(),
        )
    }

    fn has(&self, reference: &str) -> bool {
        match reference.split_once('/') {
            None => self.0.contains_key(reference),
            Some((outer, inner)) => self.0.get(outer).is_some_and(|names| names.contains(inner)),
        }
    }

    /// A reference to a request.
    pub(super) fn validate(&self, reference: &str, path: &Path, errors: &mut Errors) {
        if reference.matches('/').count() > 1 {
            errors.push(Error::invalid(path, reference, BAD_REFERENCE));
            return;
        }
        for part in reference.split('/') {
            names::validate_label(part, path, errors);
        }
        if !self.has(reference) {
            errors.push(Error::invalid(path, reference, BAD_REFERENCE));
        }
    }

    /// References, each its own.
    pub(super) fn validate_list(&self, list: Option<&Vec<String>>, path: &Path, errors: &mut Errors) {
        let list = list.map(Vec::as_slice).unwrap_or_default();
        if !names::fits(list.len(), MAX_REQUESTS, path, errors) {
            return;
        }
        for (i, reference) in list.iter().enumerate() {
            self.validate(reference, &path.index(i), errors);
        }
        names::validate_unique(list.iter().map(String::as_str), path, errors);
    }
}

/// Checks the spec of a claim.
pub(super) fn validate(spec: &ResourceClaimSpec, path: &Path, errors: &mut Errors) {
    let path = path.child("devices");
    let Some(claim) = &spec.devices else { return };
    let known = RequestNames::of(Some(claim));
    let requests = claim.requests.as_deref().unwrap_or_default();
    let at = path.child("requests");
    if names::fits(requests.len(), MAX_REQUESTS, &at, errors) {
        for (i, request) in requests.iter().enumerate() {
            validate_request(request, &at.index(i), errors);
        }
        names::validate_unique(requests.iter().map(|r| r.name.as_str()), &at, errors);
    }
    let constraints = claim.constraints.as_deref().unwrap_or_default();
    let at = path.child("constraints");
    if names::fits(constraints.len(), MAX_CONSTRAINTS, &at, errors) {
        for (i, constraint) in constraints.iter().enumerate() {
            validate_constraint(constraint, &known, &at.index(i), errors);
        }
    }
    let configs = claim.config.as_deref().unwrap_or_default();
    let at = path.child("config");
    if names::fits(configs.len(), MAX_CONFIGS, &at, errors) {
        for (i, config) in configs.iter().enumerate() {
            let at = at.index(i);
            known.validate_list(config.requests.as_ref(), &at.child("requests"), errors);
            validate_opaque(config.opaque.as_ref(), &at.child("opaque"), errors);
        }
    }
}

fn validate_request(request: &DeviceRequest, path: &Path, errors: &mut Errors) {
    const ONE: &str = "exactly one of `exactly` or `firstAvailable` is required";
    names::validate_label(&request.name, &path.child("name"), errors);
    let alternatives = request.first_available.as_deref().unwrap_or_default();
    match (&request.exactly, alternatives.is_empty()) {
        (None, true) => errors.push(Error::required(path, ONE)),
        (Some(_), false) => {
            errors.push(Error::invalid(path, Value::Null, format!("{ONE}, but multiple fields are set")));
        }
        (Some(exactly), true) => {
            let wish = Wish {
                class: &exactly.device_class_name,
                selectors: exactly.selectors.as_deref().unwrap_or_default(),
                mode: exactly.allocation_mode.as_deref().unwrap_or(""),
                count: exactly.count.unwrap_or(0),
                tolerations: exactly.tolerations.as_deref().unwrap_or_default(),
            };
            wish.validate(&path.child("exactly"), errors);
        }
        (None, false) => {
            let at = path.child("firstAvailable");
            if !names::fits(alternatives.len(), MAX_ALTERNATIVES, &at, errors) {
                return;
            }
            for (i, alternative) in alternatives.iter().enumerate() {
                let at = at.index(i);
                names::validate_label(&alternative.name, &at.child("name"), errors);
                let wish = Wish {
                    class: &alternative.device_class_name,
                    selectors: alternative.selectors.as_deref().unwrap_or_default(),
                    mode: alternative.allocation_mode.as_deref().unwrap_or(""),
                    count: alternative.count.unwrap_or(0),
                    tolerations: alternative.tolerations.as_deref().unwrap_or_default(),
                };
                wish.validate(&at, errors);
            }
            names::validate_unique(alternatives.iter().map(|a| a.name.as_str()), &at, errors);
        }
    }
}

/// What exact requests and alternatives have in common.
struct Wish<'a> {
    class: &'a str,
    selectors: &'a [DeviceSelector],
    mode: &'a str,
    count: i64,
    tolerations: &'a [DeviceToleration],
}

impl Wish<'_> {
    fn validate(&self, path: &Path, errors: &mut Errors) {
        let at = path.child("deviceClassName");
        if self.class.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            check::name(&at, self.class, api_names::dns1123_subdomain(self.class), errors);
        }
        validate_selectors(self.selectors, false, &path.child("selectors"), errors);
        let at = path.child("count");
        match self.mode {
            "All" if self.count != 0 => {
                let why = "must not be specified when allocationMode is 'All'";
                errors.push(Error::invalid(&at, self.count, why));
            }
            "ExactCount" if self.count <= 0 => {
                errors.push(Error::invalid(&at, self.count, "must be greater than zero"));
            }
            "All" | "ExactCount" => {}
            other => {
                let modes = ["All", "ExactCount"];
                errors.push(Error::not_supported(&path.child("allocationMode"), other, &modes));
            }
        }
        for (i, toleration) in self.tolerations.iter().enumerate() {
            validate_toleration(toleration, &path.child("tolerations").index(i), errors);
        }
    }
}

fn validate_toleration(toleration: &DeviceToleration, path: &Path, errors: &mut Errors) {
    let key = toleration.key.as_deref().unwrap_or("");
    if !key.is_empty() {
        check::qualified_name(&path.child("key"), key, errors);
    }
    let value = toleration.value.as_deref().unwrap_or("");
    let at = path.child("value");
    match toleration.operator.as_deref().unwrap_or("") {
        "Exists" if !value.is_empty() => {
            errors.push(Error::invalid(&at, value, "must be empty for operator `Exists`"));
        }
        "Exists" => {}
        "Equal" => check::name(&at, value, api_names::label_value(value), errors),
        "" => errors.push(Error::required(&path.child("operator"), "")),
        other => errors.push(Error::not_supported(&path.child("operator"), other, &["Equal", "Exists"])),
    }
    if let Some(effect) = toleration.effect.as_deref().filter(|e| !e.is_empty()) {
        check::supported(&path.child("effect"), effect, &TAINT_EFFECTS, errors);
    }
}

/// Checks selectors of devices; `stored` ones were accepted before.
pub(super) fn validate_selectors(
    selectors: &[DeviceSelector],
    stored: bool,
    path: &Path,
    errors: &mut Errors,
) {
    if !names::fits(selectors.len(), MAX_SELECTORS, path, errors) {
        return;
    }
    for (i, selector) in selectors.iter().enumerate() {
        let at = path.index(i).child("cel");
        match &selector.cel {
            None => errors.push(Error::required(&at, "")),
            Some(cel) if cel.expression.len() > MAX_EXPRESSION => {
                errors.push(Error::too_long(&at.child("expression"), MAX_EXPRESSION));
            }
            Some(found) => {
                let context = Context { stored, ..Context::default() };
                let at = at.child("expression");
                cel::check(Site::DeviceSelector, &found.expression, context, &at, errors);
            }
        }
    }
}

fn validate_constraint(
    constraint: &DeviceConstraint,
    known: &RequestNames<'_>,
    path: &Path,
    errors: &mut Errors,
) {
    known.validate_list(constraint.requests.as_ref(), &path.child("requests"), errors);
    match (&constraint.match_attribute, &constraint.distinct_attribute) {
        (Some(name), _) => names::validate_fully_qualified(name, &path.child("matchAttribute"), errors),
        (None, Some(name)) => names::validate_fully_qualified(name, &path.child("distinctAttribute"), errors),
        (None, None) => {
            let why = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            errors.push(Error::required(path, why));
        }
    }
}

/// What a driver is told; only it knows what that means.
pub(super) fn validate_opaque(opaque: Option<&OpaqueDeviceConfiguration>, path: &Path, errors: &mut Errors) {
    let Some(opaque) = opaque else {
        errors.push(Error::required(path, ""));
        return;
    };
    names::validate_driver(&opaque.driver, &path.child("driver"), errors);
    validate_raw(&opaque.parameters, MAX_PARAMETERS, &path.child("parameters"), errors);
}

/// Any JSON object.
pub(super) fn validate_raw(raw: &RawExtension, max: usize, path: &Path, errors: &mut Errors) {
    match &raw.0 {
        Value::Null => errors.push(Error::required(path, "")),
        value if value.to_string().len() > max => errors.push(Error::too_long(path, max)),
        Value::Object(_) => {}
        _ => errors.push(Error::invalid(path, "<value omitted>", "must be a valid JSON object")),
    }
}
