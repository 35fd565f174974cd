//! Policies in CEL: `MutatingAdmissionPolicy` and `ValidatingAdmissionPolicy`, with their bindings and parameters.
//!
//! Policies are compiled when they change. While there is none, a write pays for a look at two counters. Texts and rules are
//! those of upstream's `admission/plugin/policy` (KEP-3488, KEP-3962).

mod mutating;
mod params;
mod patch;
mod policy;
mod validating;

pub(super) use mutating::MutatingPolicies;
pub(super) use validating::ValidatingPolicies;

use std::sync::Arc;
use std::time::Duration;

use gantry_api::field::quote;
use gantry_api::status::Result;
use gantry_client::{Informer, InformerSet, Projection, Transport};
use serde_json::Value;

use super::matching::{self, Matched, Sight};
use super::{AdmissionRequest, ApiError, Resource};
use crate::authorize::Authorizer;
use crate::lookup::{Lookup, Namespaces};
use policy::{Binding, Policy};

/// How long a write waits for the policies to be read after a start.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// What both plugins are made of.
pub(super) struct Deps {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) namespaces: Namespaces,
    pub(super) lookup: Lookup,
    pub(super) authorizer: Arc<dyn Authorizer>,
}

/// The policies and bindings of one sort.
struct Source<P: Projection, B: Projection> {
    policies: Informer<P>,
    bindings: Informer<B>,
}

impl<P: Projection + AsRef<Policy>, B: Projection + AsRef<Binding>> Source<P, B> {
    fn new(informers: &InformerSet) -> Self {
        Self { policies: informers.of(), bindings: informers.of() }
    }

    fn is_empty(&self) -> bool {
        let none = |synced: bool, empty: bool| synced && empty;
        none(self.policies.has_synced(), self.policies.is_empty())
            || none(self.bindings.has_synced(), self.bindings.is_empty())
    }

    /// Each policy with its bindings, by name.
    async fn all(&self, request: &AdmissionRequest<'_>) -> Result<Vec<(Arc<P>, Vec<Arc<B>>)>> {
        if !self.policies.has_synced() || !self.bindings.has_synced() {
            let both = async { tokio::join!(self.policies.synced(), self.bindings.synced()) };
            if tokio::time::timeout(READY_TIMEOUT, both).await.is_err() {
                let why = "not yet ready to handle request";
                return Err(ApiError::forbidden(request.resource, request.name, why));
            }
        }
        let bindings = self.bindings.list();
        let of = |policy: &P| -> Vec<Arc<B>> {
            let name = &policy.as_ref().name;
            bindings.iter().filter(|b| b.as_ref().as_ref().policy == *name).cloned().collect()
        };
        Ok(self.policies.list().into_iter().map(|policy| (Arc::clone(&policy), of(&policy))).collect())
    }
}

/// Policies themselves: whoever breaks them must be able to mend them.
fn is_exempt(resource: &Resource) -> bool {
    resource.group == "admissionregistration.k8s.io"
        && matches!(
            &*resource.plural,
            "validatingadmissionpolicies"
                | "validatingadmissionpolicybindings"
                | "mutatingadmissionpolicies"
                | "mutatingadmissionpolicybindings"
        )
}

/// A policy that is about a request, by a binding, with one parameter.
struct Invocation<P, B> {
    policy: Arc<P>,
    binding: Arc<B>,
    matched: Matched,
    /// `Null` if the policy takes none.
    param: Arc<Value>,
}

/// A policy that cannot be evaluated as it is configured.
struct Misconfigured<P, B> {
    policy: Arc<P>,
    binding: Option<Arc<B>>,
    why: String,
}

/// What a request is to be asked, in order.
type Found<P, B> = Vec<Result<Invocation<P, B>, Misconfigured<P, B>>>;

impl Deps {
    /// Finds the policies that are about a request.
    async fn find<P: AsRef<Policy>, B: AsRef<Binding>>(
        &self,
        request: &AdmissionRequest<'_>,
        sight: &Sight<'_>,
        all: Vec<(Arc<P>, Vec<Arc<B>>)>,
    ) -> Found<P, B> {
        let mut found = Vec::new();
        for (policy, bindings) in all {
            let own = P::as_ref(&policy);
            let wrong = |binding: Option<&Arc<B>>, why: String| {
                let what = if binding.is_some() { "binding" } else { "policy" };
                let why = format!("failed to configure {what}: {why}");
                Err(Misconfigured { policy: Arc::clone(&policy), binding: binding.cloned(), why })
            };
            let matched = match &own.selection {
                None => {
                    found.push(wrong(
                        None,
                        "policy contained no match constraints, a required field".to_owned(),
                    ));
                    continue;
                }
                Some(selection) => matching::matches(selection, request, sight, &self.namespaces).await,
            };
            let matched = match matched {
                Ok(None) => continue,
                Ok(Some(matched)) => matched,
                Err(why) => {
                    found.push(wrong(None, why.message().to_owned()));
                    continue;
                }
            };
            let kind = match own.param_kind.as_ref().map(|kind| params::resource(request, kind)).transpose() {
                Ok(kind) => kind,
                Err(why) => {
                    found.push(wrong(None, why));
                    continue;
                }
            };
            for binding in &bindings {
                match self.bound(request, sight, B::as_ref(binding), kind.as_ref()).await {
                    Err(why) => found.push(wrong(Some(binding), why)),
                    Ok(params) => found.extend(params.into_iter().map(|param| {
                        Ok(Invocation {
                            policy: Arc::clone(&policy),
                            binding: Arc::clone(binding),
                            matched: matched.clone(),
                            param,
                        })
                    })),
                }
            }
        }
        found
    }

    /// The parameters with which a binding asks for a policy; none if it does not.
    async fn bound(
        &self,
        request: &AdmissionRequest<'_>,
        sight: &Sight<'_>,
        binding: &Binding,
        kind: Option<&Resource>,
    ) -> Result<Vec<Arc<Value>>, String> {
        if let Some(selection) = &binding.selection {
            let matched = matching::matches(selection, request, sight, &self.namespaces).await;
            if matched.map_err(|e| e.message().to_owned())?.is_none() {
                return Ok(Vec::new());
            }
        }
        match (kind, &binding.param) {
            (Some(kind), Some(param)) => params::find(&*self.transport, kind, param, request.namespace).await,
            _ => Ok(vec![Arc::new(Value::Null)]),
        }
    }
}

/// How mutating policies name themselves in a refusal.
fn denied(policy: &str, binding: Option<&str>, why: &str) -> String {
    match binding {
        Some(binding) => format!("policy '{policy}' with binding '{binding}' denied request: {why}"),
        None => format!("policy {} denied request: {why}", quote(policy)),
    }
}
