//! Admission webhooks: `MutatingAdmissionWebhook` and `ValidatingAdmissionWebhook`.
//!
//! Configurations are compiled once when they change, and kept sorted by name. A write that no rule is about pays for
//! a look at two lists. Texts and rules are those of upstream's `admission/plugin/webhook`.

mod call;
mod conditions;
mod hooks;
mod mutating;
mod review;
mod validating;
mod wire;

pub(super) use call::objects;
pub(super) use mutating::{MutatingWebhooks, Subject, take};
pub(super) use review::{Objects, user as user_info};
pub(super) use validating::ValidatingWebhooks;

use std::sync::Arc;
use std::time::Duration;

use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_client::{Informer, Projection};

use super::AdmissionRequest;

use crate::authorize::Authorizer;
use crate::callout::Callout;
use crate::lookup::Namespaces;
use hooks::Hook;

/// How long a write waits for the configurations to be read after a start.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// What both plugins are made of.
pub(super) struct Deps {
    pub(super) callout: Callout,
    pub(super) namespaces: Namespaces,
    pub(super) authorizer: Arc<dyn Authorizer>,
}

/// The configurations of one kind.
struct Source<P: Projection> {
    informer: Informer<P>,
}

impl<P: Projection + AsRef<[Hook]>> Source<P> {
    fn is_empty(&self) -> bool {
        self.informer.has_synced() && self.informer.is_empty()
    }

    /// All configurations, by name.
    async fn all(&self, request: &AdmissionRequest<'_>) -> Result<Vec<Arc<P>>> {
        if !self.informer.has_synced() {
            let synced = tokio::time::timeout(READY_TIMEOUT, self.informer.synced()).await;
            if synced.is_err() {
                let why = "not yet ready to handle request";
                return Err(ApiError::forbidden(request.resource, request.name, why));
            }
        }
        Ok(self.informer.list())
    }
}

/// Configurations of admission: whoever breaks them must be able to mend them.
fn is_exempt(resource: &Resource) -> bool {
    resource.group == "admissionregistration.k8s.io"
        && matches!(
            &*resource.plural,
            "validatingwebhookconfigurations"
                | "mutatingwebhookconfigurations"
                | "validatingadmissionpolicies"
                | "validatingadmissionpolicybindings"
                | "mutatingadmissionpolicies"
                | "mutatingadmissionpolicybindings"
        )
}
