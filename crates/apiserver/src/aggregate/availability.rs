//! Whether a remote server is there: the condition `Available`.

use std::sync::Arc;

use gantry_api::apiregistration::APIServiceCondition;
use gantry_api::core::Service;
use gantry_api::discovery::EndpointSlice;
use gantry_api::field::quote;
use gantry_api::{ObjectKey, time};
use gantry_client::{Api, Transport};
use serde_json::Value;

use super::remote::Remote;
use crate::reach::slices;

/// What a check found.
pub(super) struct Checked {
    /// `True`, `False` or `Unknown`.
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// Its `APIResourceList`, if it answered.
    pub(super) resources: Option<Vec<Value>>,
}

impl Checked {
    fn no(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message, resources: None }
    }

    fn unknown(reason: &'static str, message: String) -> Self {
        Self { status: "Unknown", reason, message, resources: None }
    }

    pub(super) fn condition(&self, now: std::time::SystemTime) -> APIServiceCondition {
        APIServiceCondition {
            type_: "Available".into(),
            status: self.status.into(),
            reason: Some(self.reason.into()),
            message: Some(self.message.clone()),
            last_transition_time: Some(time::time(now)),
        }
    }
}

/// Looks at the service, its endpoints, and asks for the discovery document.
pub(super) async fn check(remote: &Remote, transport: &Arc<dyn Transport>) -> Checked {
    let (namespace, name, port) = &remote.service;
    let what = format!("service/{name} in {}", quote(namespace));
    let services = Api::<Service>::new(Arc::clone(transport), "kube-aggregator");
    let service = match services.find(&ObjectKey::new(namespace.as_str(), name.as_str())).await {
        Ok(Some(service)) => service,
        Ok(None) => return Checked::no("ServiceNotFound", format!("{what} is not present")),
        Err(error) => {
            let why = error.message();
            return Checked::unknown("ServiceAccessError", format!("{what} cannot be checked due to: {why}"));
        }
    };
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref().unwrap_or("ClusterIP") == "ClusterIP" {
        let mut ports = spec.ports.iter().flatten();
        let Some(found) = ports.find(|p| p.port == i32::from(*port)) else {
            return Checked::no("ServicePortError", format!("{what} is not listening on port {port}"));
        };
        let port_name = found.name.clone().unwrap_or_default();
        let slices = match slices(transport, namespace, name).await {
            Ok(slices) => slices,
            Err(error) => {
                let why = error.message();
                return Checked::unknown(
                    "EndpointsAccessError",
                    format!("{what} cannot be checked due to: {why}"),
                );
            }
        };
        if slices.is_empty() {
            return Checked::no("EndpointsNotFound", format!("cannot find endpointslices for {what}"));
        }
        if !slices.iter().any(|slice| has_endpoint(slice, &port_name)) {
            return Checked::no(
                "MissingEndpoints",
                format!("endpointslices for {what} have no addresses with port name {}", quote(&port_name)),
            );
        }
    }
    discover(remote).await
}

fn has_endpoint(slice: &EndpointSlice, port: &str) -> bool {
    let mut endpoints = slice.endpoints.iter().flatten();
    let ready = endpoints.any(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
    let mut ports = slice.ports.iter().flatten();
    ready && ports.any(|p| p.name.as_deref().unwrap_or("") == port && p.port.is_some())
}

async fn discover(remote: &Remote) -> Checked {
    let path = remote.root();
    let url = match &remote.caller {
        Ok(caller) => format!("{}{path}", caller.url()),
        Err(why) => return Checked::no("FailedDiscoveryCheck", why.clone()),
    };
    let failed = |why: String| {
        let message = format!("failing or missing response from {url}: {why}");
        Checked::no("FailedDiscoveryCheck", message)
    };
    let answer = match remote.get(&path, "application/json").await {
        Ok(answer) => answer,
        Err(error) => return failed(error.to_string()),
    };
    if !answer.status.is_success() {
        return failed(format!("bad status from {url}: {}", answer.status.as_u16()));
    }
    let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    Checked {
        status: "True",
        reason: "Passed",
        message: "all checks passed".to_owned(),
        resources: document.get("resources").and_then(Value::as_array).cloned(),
    }
}
