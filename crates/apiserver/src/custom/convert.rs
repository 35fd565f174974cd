//! Conversion between the versions of a custom resource: by changing `apiVersion` alone, or by a webhook.
//!
//! As upstream's `apiextensions-apiserver/pkg/apiserver/conversion`. What a webhook makes of the metadata counts only
//! for labels and annotations.

use std::time::Duration;

use bytes::Bytes;
use gantry_api::ApiError;
use gantry_api::apiextensions::CustomResourceDefinition;
use gantry_api::field::{self, Path, quote};
use gantry_api::metav1::ObjectMeta;
use gantry_api::status::Result;
use gantry_kinds::rules;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::go_type;
use crate::callout::{Callout, Config, Place};
use crate::limits::CONVERSION_BATCH;
use crate::verbs::lifecycle::new_uid;

/// How long a conversion webhook may take (upstream: whatever is left of the request's time).
const TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_PORT: u16 = 443;

/// Calls the conversion webhook of one definition.
#[derive(Debug)]
pub(crate) struct Converter {
    kind: String,
    crd: String,
    config: Config,
    versions: Vec<String>,
}

impl Converter {
    /// That of `crd`; `None` if versions differ in `apiVersion` only.
    pub(super) fn new(crd: &CustomResourceDefinition) -> Option<Self> {
        let conversion = crd.spec.conversion.as_ref().filter(|c| c.strategy == "Webhook")?;
        let webhook = conversion.webhook.as_ref()?;
        let client = webhook.client_config.as_ref()?;
        let place = match (&client.service, &client.url) {
            (Some(service), _) => Place::Service {
                namespace: service.namespace.clone(),
                name: service.name.clone(),
                port: service.port.and_then(|p| u16::try_from(p).ok()).unwrap_or(DEFAULT_PORT),
                path: service.path.clone().unwrap_or_default(),
            },
            (None, url) => Place::Url(url.clone()?),
        };
        let bundle = client.ca_bundle.as_ref().map(|b| b.0.as_slice()).unwrap_or_default();
        let bundle =
            if bundle.trim_ascii().is_empty() { Bytes::new() } else { Bytes::copy_from_slice(bundle) };
        Some(Self {
            kind: crd.spec.names.kind.clone(),
            crd: format!("{}.{}", crd.spec.names.plural, crd.spec.group),
            config: Config::new(place, bundle),
            versions: webhook.conversion_review_versions.clone(),
        })
    }

    /// `objects`, those that are not yet, in the version `to` (`group/version`).
    ///
    /// # Errors
    /// The webhook cannot be called, or its answer is not what it should be.
    pub(crate) async fn convert(
        &self,
        callout: &Callout,
        objects: Vec<Value>,
        to: &str,
    ) -> Result<Vec<Value>> {
        let mut objects = objects;
        let other: Vec<usize> = (0..objects.len()).filter(|i| objects[*i]["apiVersion"] != *to).collect();
        for batch in other.chunks(CONVERSION_BATCH) {
            let from: Vec<Value> = batch.iter().map(|i| objects[*i].clone()).collect();
            let what = format!("{}, Kind={}", from[0]["apiVersion"].as_str().unwrap_or(""), self.kind);
            let failed = |why: String| ApiError::new(500, "", format!("conversion webhook for {what} {why}"));
            let since = Instant::now();
            let asked = self.ask(callout, &from, to).await;
            let failure = if asked.is_ok() { "" } else { "conversion_webhook_call_failure" };
            let took = since.elapsed();
            crate::metrics::exclude(took);
            let was = from[0]["apiVersion"].as_str().unwrap_or("");
            super::metrics::converted(&self.crd, was, to, failure, took);
            let converted = asked.map_err(|e| failed(format!("failed: {e}")))?;
            if converted.len() != from.len() {
                return Err(failed(format!("returned {} objects, expected {}", converted.len(), from.len())));
            }
            for (index, (original, converted)) in from.iter().zip(converted).enumerate() {
                let checked = self.check(original, converted, to);
                objects[batch[index]] = checked.map_err(|complaint| match complaint {
                    // Upstream converts one by one, whatever it is for.
                    Complaint::Type(why) => failed(format!("returned invalid object at index 0: {why}")),
                    Complaint::Object(why) => failed(format!("returned invalid object: {why}")),
                    Complaint::Metadata(why) => failed(format!("returned invalid metadata: {why}")),
                })?;
            }
        }
        Ok(objects)
    }

    async fn ask(&self, callout: &Callout, objects: &[Value], to: &str) -> Result<Vec<Value>, String> {
        let version = self.versions.iter().map(String::as_str).find(|v| matches!(*v, "v1" | "v1beta1"));
        let version = version.ok_or("no supported conversion review versions")?;
        let uid = new_uid();
        let review = json!({
            "kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"),
            "request": {"uid": uid, "desiredAPIVersion": to, "objects": objects},
        });
        let caller = callout.caller(&self.config).map_err(|e| e.to_string())?;
        let answer = caller.ask_json(Bytes::from(review.to_string()), TIMEOUT).await;
        let answer = answer.map_err(|e| e.to_string())?;
        read(&answer, version, &uid)
    }

    fn check(&self, original: &Value, mut converted: Value, to: &str) -> Result<Value, Complaint> {
        let text = |value: &Value, pointer: &str| {
            value.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned()
        };
        let got = text(&converted, "/apiVersion");
        if got != to {
            return Err(Complaint::Type(format!("invalid groupVersion (expected {to}, received {got})")));
        }
        let got = text(&converted, "/kind");
        if got != self.kind {
            return Err(Complaint::Type(format!("invalid kind (expected {}, received {got})", self.kind)));
        }
        for (field, pointer) in
            [("name", "/metadata/name"), ("namespace", "/metadata/namespace"), ("UID", "/metadata/uid")]
        {
            let (was, is) = (text(original, pointer), text(&converted, pointer));
            if was != is {
                return Err(Complaint::Object(format!("must have the same {field}: {was} != {is}")));
            }
        }
        restore_metadata(original, &mut converted).map_err(Complaint::Metadata)?;
        Ok(converted)
    }
}

enum Complaint {
    Type(String),
    Object(String),
    Metadata(String),
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    response: Option<Response>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Response {
    uid: String,
    converted_objects: Vec<Value>,
    result: gantry_api::metav1::Status,
}

fn read(answer: &[u8], version: &str, uid: &str) -> Result<Vec<Value>, String> {
    let review: Review = serde_json::from_value(crate::callout::tree(answer)?).map_err(|e| e.to_string())?;
    let expected = format!("apiextensions.k8s.io/{version}");
    if version == "v1" && (review.api_version != expected || review.kind != "ConversionReview") {
        return Err(format!(
            "expected webhook response of {expected}, Kind=ConversionReview, got {}, Kind={}",
            if review.api_version.is_empty() { "/" } else { &review.api_version },
            review.kind
        ));
    }
    let response = review.response.ok_or("no response provided")?;
    if version == "v1" && response.uid != uid {
        return Err(format!("expected response.uid={}, got {}", quote(uid), quote(&response.uid)));
    }
    match response.result.status.as_deref().unwrap_or("") {
        "Success" => Ok(response.converted_objects),
        other => match response.result.message.filter(|m| !m.is_empty()) {
            Some(message) => Err(message),
            None => Err(format!("response.result.status was '{other}', not 'Success'")),
        },
    }
}

/// The original's metadata, with the labels and annotations of the converted object.
fn restore_metadata(original: &Value, converted: &mut Value) -> Result<(), String> {
    let Some(answered) = converted.get("metadata").cloned() else {
        return Err("missing metadata in converted object".to_owned());
    };
    if !answered.is_object() {
        return Err(format!("invalid metadata of type {} in converted object", go_type(&answered)));
    }
    let mut metadata = original.get("metadata").cloned().unwrap_or_else(|| Value::Object(Map::new()));
    let Value::Object(kept) = &mut metadata else {
        return Err("invalid metadata in input object".to_owned());
    };
    for name in ["labels", "annotations"] {
        match answered.get(name) {
            None | Some(Value::Null) => drop(kept.remove(name)),
            Some(Value::Object(map)) => {
                if let Some((key, value)) = map.iter().find(|(_, v)| !v.is_string()) {
                    return Err(format!(
                        "metadata.{name}[{key}] must be a string, but is {} in converted object",
                        go_type(value)
                    ));
                }
                if kept.get(name).and_then(Value::as_object) != Some(map) {
                    check_texts(name, map)?;
                }
                kept.insert(name.to_owned(), Value::Object(map.clone()));
            }
            Some(other) => {
                return Err(format!(
                    "invalid metadata.{name} of type {} in converted object",
                    go_type(other)
                ));
            }
        }
    }
    converted["metadata"] = metadata;
    Ok(())
}

fn check_texts(name: &str, map: &Map<String, Value>) -> Result<(), String> {
    let meta: ObjectMeta =
        serde_json::from_value(json!({"name": "x", name: map})).map_err(|e| e.to_string())?;
    let resource = gantry_api::Resource::fixed("", "v1", "", "", false);
    let errors = rules::validate_metadata(&meta, &resource, gantry_kinds::NameRule::PathSegment);
    let prefix = Path::new("metadata").child(name).to_string();
    let of_it: Vec<field::Error> =
        errors.into_iter().filter(|e| e.to_string().starts_with(&prefix)).collect();
    if of_it.is_empty() { Ok(()) } else { Err(field::aggregate(&of_it)) }
}
