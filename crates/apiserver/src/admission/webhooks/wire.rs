//! What a webhook's answer says that it is, and whether its fields are of the right types.

use gantry_api::field::quote;
use serde_json::Value;

const VERSIONS: [&str; 2] = ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"];

/// Whether it is a review of the version that was asked in; what it does not say is not missed here.
///
/// # Errors
/// What it is instead.
pub(super) fn check_type(tree: &Value, version: &str) -> Result<(), String> {
    let text = |key: &str| tree.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (Some(found), Some(kind)) = (text("apiVersion"), text("kind")) else { return Ok(()) };
    if kind != "AdmissionReview" || !VERSIONS.contains(&found) {
        return Err(format!(
            "no kind {} is registered for version {} in scheme \"pkg/util/webhook/client.go:71\"",
            quote(kind),
            quote(found)
        ));
    }
    let found = found.rsplit('/').next().unwrap_or_default();
    if found != version {
        return Err(format!(
            "converting ({found}.AdmissionReview) to ({version}.AdmissionReview): unknown conversion"
        ));
    }
    Ok(())
}

/// The first field of the answer that is of another type, in the words of Go's reader.
///
/// # Errors
/// Those words.
pub(super) fn check_fields(tree: &Value) -> Result<(), String> {
    let Some(response) = tree.get("response").filter(|r| !r.is_null()) else { return Ok(()) };
    let misfit = |value: &Value, place: &str, wanted: &str| {
        let found = gantry_api::go_json::json_type(value.to_string().as_bytes());
        format!("json: cannot unmarshal {found} into Go {place} of type {wanted}")
    };
    if !response.is_object() {
        return Err(misfit(response, "struct field AdmissionReview.response", "v1.AdmissionResponse"));
    }
    for (name, wanted, fits) in [
        ("uid", "types.UID", Value::is_string as fn(&Value) -> bool),
        ("allowed", "bool", Value::is_boolean),
        ("patch", "[]uint8", Value::is_string),
        ("patchType", "v1.PatchType", Value::is_string),
    ] {
        let Some(value) = response.get(name).filter(|v| !v.is_null()) else { continue };
        if !fits(value) {
            let place = format!("struct field AdmissionResponse.response.{name}");
            return Err(misfit(value, &place, wanted));
        }
    }
    match response.get("patch").and_then(Value::as_str).and_then(crate::apply::base64_error) {
        Some(why) => Err(why),
        None => Ok(()),
    }
}
