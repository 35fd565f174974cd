//! Kinds of admissionregistration.k8s.io.

mod match_resources;
pub mod mutating_admission_policy;
pub mod mutating_admission_policy_binding;
pub mod mutating_webhook_configuration;
mod policies;
mod rules;
pub mod validating_admission_policy;
pub mod validating_admission_policy_binding;
pub mod validating_webhook_configuration;
pub(crate) mod webhooks;

/// The end of names that are for configurations in files of the server.
const STATIC_SUFFIX: &str = ".static.k8s.io";

/// A warning about a name that may become reserved.
fn name_warnings(meta: &gantry_api::metav1::ObjectMeta) -> Vec<String> {
    if !meta.name.as_deref().unwrap_or("").ends_with(STATIC_SUFFIX) {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: names ending with \"{STATIC_SUFFIX}\" are reserved for static manifest-based configurations and cannot be managed via the API"
    )]
}
