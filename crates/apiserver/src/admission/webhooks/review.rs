//! `AdmissionReview`: what a webhook is asked, and what it says.

use std::collections::BTreeMap;

use gantry_api::Resource;
use gantry_api::field::quote;
use gantry_api::metav1::Status;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::hooks::Hook;
use super::wire;
use crate::admission::AdmissionRequest;
use crate::admission::matching::{Matched, namespace_of};
use crate::callout;
use crate::verbs::lifecycle::new_uid;

/// The objects of a request, in the version that a webhook wants.
pub(in crate::admission) struct Objects {
    /// Group, version and kind of the body in the request's own version.
    pub(in crate::admission) request_kind: (String, String, String),
    /// The same in the webhook's version.
    pub(in crate::admission) kind: (String, String, String),
    pub(in crate::admission) new: Value,
    pub(in crate::admission) old: Value,
}

/// A question.
pub(super) struct Question {
    pub(super) uid: String,
    pub(super) version: &'static str,
    pub(super) body: Value,
}

/// The question in the first version that the webhook understands.
pub(super) fn question(
    hook: &Hook,
    request: &AdmissionRequest<'_>,
    matched: &Matched,
    objects: &Objects,
) -> Result<Question, String> {
    let version = hook.versions.iter().find_map(|v| match v.as_str() {
        "v1" => Some("v1"),
        "v1beta1" => Some("v1beta1"),
        _ => None,
    });
    let version = version.ok_or_else(|| {
        "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)"
            .to_owned()
    })?;
    let uid = new_uid();
    let resource = matched.other.as_ref().map_or(request.resource, |other| other.resource());
    let kind = |(group, version, kind): &(String, String, String)| json!({"group": group, "version": version, "kind": kind});
    let names = |r: &Resource| json!({"group": r.group, "version": r.version, "resource": r.plural});
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    let text = |put: &mut dyn FnMut(&str, Value), key: &str, value: &str| {
        if !value.is_empty() {
            put(key, value.into());
        }
    };
    put("uid", uid.as_str().into());
    put("kind", kind(&objects.kind));
    put("resource", names(resource));
    text(&mut put, "subResource", request.subresource);
    put("requestKind", kind(&objects.request_kind));
    put("requestResource", names(request.resource));
    text(&mut put, "requestSubResource", request.subresource);
    text(&mut put, "name", request.name);
    text(&mut put, "namespace", namespace_of(request));
    put("operation", request.operation.as_str().into());
    put("userInfo", user(request));
    put("object", objects.new.clone());
    put("oldObject", objects.old.clone());
    put("dryRun", request.dry_run.into());
    put("options", request.options.to_value(request.operation));
    let body = json!({
        "kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"), "request": Value::Object(map),
    });
    Ok(Question { uid, version, body })
}

/// The user of a request, as reviews and expressions show one.
pub(in crate::admission) fn user(request: &AdmissionRequest<'_>) -> Value {
    let user = request.user;
    let mut info = Map::new();
    if !user.name.is_empty() {
        info.insert("username".into(), (*user.name).into());
    }
    if !user.uid.is_empty() {
        info.insert("uid".into(), (*user.uid).into());
    }
    if !user.groups.is_empty() {
        info.insert("groups".into(), user.groups.iter().map(|g| &**g).collect::<Vec<_>>().into());
    }
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(*user.extra));
    }
    Value::Object(info)
}

/// An answer that makes sense.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) allowed: bool,
    pub(super) result: Option<Status>,
    /// JSON patch, as text.
    pub(super) patch: Vec<u8>,
    /// What the patch is written in; only JSON patch is understood.
    pub(super) patch_type: String,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Review {
    api_version: String,
    kind: String,
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct Response {
    uid: String,
    allowed: bool,
    status: Option<Status>,
    patch: Option<gantry_api::k8s_openapi::ByteString>,
    patch_type: Option<String>,
    audit_annotations: Option<BTreeMap<String, String>>,
    warnings: Option<Vec<String>>,
}

/// What patches are written in.
pub(super) const JSON_PATCH: &str = "JSONPatch";

/// Why an answer makes no sense.
pub(super) enum Nonsense {
    /// It cannot be read.
    Unreadable(String),
    /// It says what it may not say.
    Invalid(String),
}

/// Reads an answer.
pub(super) fn verdict(question: &Question, mutating: bool, body: &[u8]) -> Result<Verdict, Nonsense> {
    let tree = callout::tree(body).map_err(Nonsense::Unreadable)?;
    wire::check_type(&tree, question.version).map_err(Nonsense::Unreadable)?;
    wire::check_fields(&tree).map_err(Nonsense::Unreadable)?;
    let review: Review = serde_json::from_value(tree).map_err(|e| Nonsense::Unreadable(e.to_string()))?;
    let known = format!("admission.k8s.io/{}", question.version);
    let foreign = (!review.api_version.is_empty() && review.api_version != known)
        || (!review.kind.is_empty() && review.kind != "AdmissionReview");
    let invalid = Nonsense::Invalid;
    let Some(response) = review.response else {
        return Err(invalid("webhook response was absent".to_owned()));
    };
    if question.version == "v1" {
        if response.uid != question.uid {
            return Err(invalid(format!(
                "expected response.uid={}, got {}",
                quote(&question.uid),
                quote(&response.uid)
            )));
        }
        if foreign || review.api_version.is_empty() || review.kind.is_empty() {
            return Err(invalid(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {}, Kind={}",
                if review.api_version.is_empty() { "/" } else { &review.api_version },
                review.kind
            )));
        }
    }
    let patch = response.patch.map(|p| p.0).unwrap_or_default();
    check_patch(question.version == "v1", mutating, &patch, response.patch_type.as_deref())
        .map_err(invalid)?;
    Ok(Verdict {
        allowed: response.allowed,
        result: response.status,
        patch: if mutating { patch } else { Vec::new() },
        patch_type: match response.patch_type {
            Some(kind) if question.version == "v1" => kind,
            // The older version knows no other.
            _ => JSON_PATCH.to_owned(),
        },
        annotations: response.audit_annotations.unwrap_or_default(),
        warnings: response.warnings.unwrap_or_default(),
    })
}

/// Version v1beta1 was never so strict.
fn check_patch(strict: bool, mutating: bool, patch: &[u8], kind: Option<&str>) -> Result<(), String> {
    if !strict {
        return Ok(());
    }
    let complaint = match (mutating, patch.is_empty(), kind) {
        (false, false, _) => "validating webhook may not return response.patch".to_owned(),
        (false, true, Some(_)) => "validating webhook may not return response.patchType".to_owned(),
        (true, false, None) => "webhook returned response.patch but not response.patchType".to_owned(),
        (true, true, Some(_)) => "webhook returned response.patchType but not response.patch".to_owned(),
        (true, false, Some("")) => "webhook returned invalid response.patchType of \"\"".to_owned(),
        _ => return Ok(()),
    };
    Err(complaint)
}
