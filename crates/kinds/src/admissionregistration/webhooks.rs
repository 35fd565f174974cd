//! What mutating and validating webhooks have in common.
//!
//! As `pkg/apis/admissionregistration/validation` and `apiserver/pkg/util/webhook`.

use std::collections::BTreeSet;

use gantry_api::admissionregistration::{
    MatchCondition, RuleWithOperations, ServiceReference, WebhookClientConfig,
};
use gantry_api::field::{Error, Path};
use gantry_api::metav1::LabelSelector;
use gantry_api::names;
use serde_json::json;

use super::{policies, rules};
use crate::common::cel::Context;
use crate::common::{check, selectors};
use crate::kind::Errors;

/// Versions of AdmissionReview that this server speaks.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const DEFAULT_PORT: i32 = 443;
const DEFAULT_TIMEOUT_SECONDS: i32 = 10;
const TIMEOUT_SECONDS: std::ops::RangeInclusive<i32> = 1..=30;

/// A webhook, mutating or validating.
pub(super) struct Webhook<'a> {
    pub(super) name: &'a str,
    pub(super) client: &'a WebhookClientConfig,
    pub(super) rules: &'a Option<Vec<RuleWithOperations>>,
    pub(super) failure_policy: Option<&'a str>,
    pub(super) match_policy: Option<&'a str>,
    pub(super) namespace_selector: Option<&'a LabelSelector>,
    pub(super) object_selector: Option<&'a LabelSelector>,
    pub(super) side_effects: &'a str,
    pub(super) timeout_seconds: Option<i32>,
    pub(super) review_versions: &'a [String],
    pub(super) match_conditions: &'a [MatchCondition],
    /// Mutating webhooks only.
    pub(super) reinvocation_policy: Option<&'a str>,
}

macro_rules! webhook_view {
    ($hook:expr, $reinvocation:expr) => {
        $crate::admissionregistration::webhooks::Webhook {
            name: &$hook.name,
            client: &$hook.client_config,
            rules: &$hook.rules,
            failure_policy: $hook.failure_policy.as_deref(),
            match_policy: $hook.match_policy.as_deref(),
            namespace_selector: $hook.namespace_selector.as_ref(),
            object_selector: $hook.object_selector.as_ref(),
            side_effects: &$hook.side_effects,
            timeout_seconds: $hook.timeout_seconds,
            review_versions: &$hook.admission_review_versions,
            match_conditions: $hook.match_conditions.as_deref().unwrap_or_default(),
            reinvocation_policy: $reinvocation,
        }
    };
}
pub(super) use webhook_view;

macro_rules! webhook_defaults {
    ($hook:expr) => {
        $hook.failure_policy.get_or_insert_with(|| "Fail".into());
        $hook.match_policy.get_or_insert_with(|| "Equivalent".into());
        $hook.namespace_selector.get_or_insert_default();
        $hook.object_selector.get_or_insert_default();
        $hook.timeout_seconds.get_or_insert(super::webhooks::DEFAULT_TIMEOUT);
        super::rules::defaults(&mut $hook.rules);
        super::webhooks::client_defaults(&mut $hook.client_config);
    };
}
pub(super) use webhook_defaults;

/// Seconds until a webhook's answer is no longer awaited, if it does not say.
pub(super) const DEFAULT_TIMEOUT: i32 = DEFAULT_TIMEOUT_SECONDS;

pub(super) fn client_defaults(client: &mut WebhookClientConfig) {
    if let Some(service) = &mut client.service {
        service.port.get_or_insert(DEFAULT_PORT);
    }
}

/// Checks all webhooks of a configuration; what `old` ones did wrong may stay wrong.
pub(super) fn validate(hooks: &[Webhook<'_>], old: Option<&[Webhook<'_>]>) -> Errors {
    let mut errors = Errors::new();
    let lenience = Lenience::of(hooks, old);
    let mut seen = BTreeSet::new();
    for (i, hook) in hooks.iter().enumerate() {
        let at = Path::new("webhooks").index(i);
        validate_one(hook, &lenience, &at, &mut errors);
        let path = at.child("admissionReviewVersions");
        validate_review_versions(hook.review_versions, lenience.review_versions, &path, &mut errors);
        if !lenience.same_names && !hook.name.is_empty() && !seen.insert(hook.name) {
            errors.push(Error::duplicate(&at.child("name"), hook.name));
        }
    }
    errors
}

/// What the old webhooks did wrong already.
#[derive(Default)]
struct Lenience<'a> {
    match_conditions: bool,
    side_effects: bool,
    review_versions: bool,
    same_names: bool,
    label_values: bool,
    expressions: BTreeSet<&'a str>,
}

impl<'a> Lenience<'a> {
    fn of(new: &[Webhook<'_>], old: Option<&'a [Webhook<'a>]>) -> Self {
        let Some(old) = old else { return Self::default() };
        let pairs = || new.iter().zip(old);
        let mut names = BTreeSet::new();
        Self {
            match_conditions: new.len() == old.len()
                && pairs().all(|(n, o)| n.match_conditions == o.match_conditions),
            side_effects: old.iter().any(|h| !NO_SIDE_EFFECTS.contains(&h.side_effects)),
            review_versions: old.iter().any(|h| {
                !h.review_versions.is_empty()
                    && !h.review_versions.iter().any(|v| REVIEW_VERSIONS.contains(&v.as_str()))
            }),
            same_names: old.iter().any(|h| !names.insert(h.name)),
            label_values: old.iter().any(has_bad_selector),
            expressions: old
                .iter()
                .flat_map(|h| h.match_conditions.iter().map(|c| c.expression.as_str()))
                .collect(),
        }
    }
}

const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];

fn has_bad_selector(hook: &Webhook<'_>) -> bool {
    let mut errors = Errors::new();
    selectors::validate(hook.namespace_selector, false, &Path::root(), &mut errors);
    selectors::validate(hook.object_selector, false, &Path::root(), &mut errors);
    !errors.is_empty()
}

fn validate_one(hook: &Webhook<'_>, lenience: &Lenience<'_>, path: &Path, errors: &mut Errors) {
    validate_name(hook.name, &path.child("name"), errors);
    rules::validate(hook.rules, &path.child("rules"), errors);
    let policies = ["Fail", "Ignore"];
    check::supported_if_set(&path.child("failurePolicy"), hook.failure_policy, &policies, errors);
    let policies = ["Equivalent", "Exact"];
    check::supported_if_set(&path.child("matchPolicy"), hook.match_policy, &policies, errors);
    let allowed: &[&str] = if lenience.side_effects { &SIDE_EFFECTS } else { &NO_SIDE_EFFECTS };
    let at = path.child("sideEffects");
    if hook.side_effects.is_empty() {
        errors.push(Error::required(&at, format!("must specify one of {}", allowed.join(", "))));
    } else {
        check::supported(&at, hook.side_effects, allowed, errors);
    }
    if let Some(seconds) = hook.timeout_seconds.filter(|s| !TIMEOUT_SECONDS.contains(s)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        errors.push(Error::invalid(&path.child("timeoutSeconds"), seconds, why));
    }
    let lenient = lenience.label_values;
    selectors::validate(hook.namespace_selector, lenient, &path.child("namespaceSelector"), errors);
    selectors::validate(hook.object_selector, lenient, &path.child("objectSelector"), errors);
    let policies = ["IfNeeded", "Never"];
    check::supported_if_set(&path.child("reinvocationPolicy"), hook.reinvocation_policy, &policies, errors);
    validate_client(hook.client, &path.child("clientConfig"), errors);
    if !lenience.match_conditions {
        let at = path.child("matchConditions");
        let context = |e: &str| Context { stored: lenience.expressions.contains(e), ..Context::default() };
        policies::validate_match_conditions(hook.match_conditions, &context, &at, errors);
    }
}

fn validate_name(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(Error::required(path, ""));
    } else if let Err(why) = names::dns1123_subdomain(name) {
        errors.push(Error::invalid(path, name, why));
    } else if name.split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        errors.push(Error::invalid(path, name, why));
    }
}

fn validate_review_versions(versions: &[String], lenient: bool, path: &Path, errors: &mut Errors) {
    let known = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        errors.push(Error::required(path, format!("must specify one of {known}")));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, version) in versions.iter().enumerate() {
        if seen.insert(version) {
            check::name(&path.index(i), version, names::dns1035_label(version), errors);
        } else {
            errors.push(Error::invalid(&path.index(i), version.as_str(), "duplicate version"));
        }
    }
    if !lenient && !versions.iter().any(|v| REVIEW_VERSIONS.contains(&v.as_str())) {
        errors.push(Error::invalid(path, json!(versions), format!("must include at least one of {known}")));
    }
}

fn validate_client(client: &WebhookClientConfig, path: &Path, errors: &mut Errors) {
    match (&client.url, &client.service) {
        (Some(url), None) => validate_url(url, &path.child("url"), errors),
        (None, Some(service)) => validate_service(service, &path.child("service"), errors),
        _ => errors.push(Error::required(path, "exactly one of url or service is required")),
    }
}

/// An `https` URL without user, query and fragment.
pub(crate) fn validate_url(url: &str, path: &Path, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    if url.bytes().any(|b| b < 0x20 || b == 0x7f) {
        let why = format!(
            "url must be a valid URL: parse {}: net/url: invalid control character in URL{FORM}",
            gantry_api::field::quote(url)
        );
        errors.push(Error::required(path, why));
        return;
    }
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest
        .split_once(':')
        .filter(|(scheme, _)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        })
        .unwrap_or(("", rest));
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "https" {
        let why = format!("'https' is the only allowed URL scheme{FORM}");
        errors.push(Error::invalid(path, scheme, why));
    }
    let authority = rest.strip_prefix("//").map(|rest| rest.split('/').next().unwrap_or("")).unwrap_or("");
    let (user, host) =
        authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if host.is_empty() {
        errors.push(Error::invalid(path, "", format!("host must be specified{FORM}")));
    }
    if let Some(user) = user {
        errors.push(Error::invalid(path, user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        errors.push(Error::invalid(path, fragment, "fragments are not permitted in the URL"));
    }
    if !query.is_empty() {
        errors.push(Error::invalid(path, query, "query parameters are not permitted in the URL"));
    }
}

/// A service by its names, path and port.
pub(crate) fn validate_service(service: &ServiceReference, path: &Path, errors: &mut Errors) {
    // Upstream's callers give the two names in the wrong order; the paths of the errors show it.
    check::required(&path.child("name"), Some(&service.namespace), errors);
    check::required(&path.child("namespace"), Some(&service.name), errors);
    check::service_port(&path.child("port"), service.port.unwrap_or(0), errors);
    let Some(url_path) = service.path.as_deref().filter(|p| !matches!(*p, "" | "/")) else { return };
    let at = path.child("path");
    if url_path == "//" {
        errors.push(Error::invalid(&at, url_path, "segment[0] may not be empty"));
        return;
    }
    if !url_path.starts_with('/') {
        errors.push(Error::invalid(&at, url_path, "must start with a '/'"));
    }
    let mut skipped = url_path.chars();
    skipped.next();
    let rest = skipped.as_str();
    for (i, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            errors.push(Error::invalid(&at, url_path, format!("segment[{i}] may not be empty")));
        } else if let Err(why) = names::dns1123_subdomain(step) {
            errors.push(Error::invalid(&at, url_path, format!("segment[{i}]: {why}")));
        }
    }
}
