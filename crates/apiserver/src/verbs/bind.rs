//! POST of a Binding: a pod gets its node.

use async_trait::async_trait;
use gantry_api::core::{Binding, Pod};
use gantry_api::field::{Error, Path};
use gantry_api::metav1::{ObjectMeta, Status};
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource, conditions, time};
use serde_json::Value;

use super::write::{Change, Current, Mutate, modify};
use super::{Answer, Call, lifecycle, preconditions};
use crate::admission::{Body, Operation, VerbOptions};
use crate::limits::UPDATE_ATTEMPTS;
use crate::query::WriteOptions;

/// The names of a Binding's kind.
pub(crate) const BINDING: Resource = Resource::fixed("", "v1", "Binding", "bindings", true);

/// Assigns a pod to a node.
///
/// # Errors
/// 400, 404, 409
pub(crate) async fn bind(call: &Call<'_>, body: Value, options: &WriteOptions) -> Result<Answer> {
    let read = |body: &Value| -> Result<Binding> {
        serde_json::from_value(body.clone()).map_err(|e| ApiError::bad_request(e.to_string()))
    };
    let mut binding = read(&body)?;
    lifecycle::ensure_namespace(call, &mut binding.metadata)?;
    if binding.metadata.name.as_deref().unwrap_or("") != call.name {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    check_target(&binding)?;
    let mut body = Body::new("", "v1", "Binding", body);
    lifecycle::admit_body(call, Operation::Create, VerbOptions::Write(options), &mut body).await?;
    let binding = read(&body.value)?;
    modify(call, UPDATE_ATTEMPTS, options.dry_run, &mut Binds { call, binding }).await?;
    let status = Status { status: Some("Success".into()), code: Some(201), ..Status::default() };
    Ok(Answer::status(201, &status))
}

fn check_target(binding: &Binding) -> Result<()> {
    let target = Path::new("target");
    let kind = binding.target.kind.as_deref().unwrap_or("");
    let mut errors = Vec::new();
    if !kind.is_empty() && kind != "Node" {
        errors.push(Error::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if binding.target.name.as_deref().unwrap_or("").is_empty() {
        errors.push(Error::required(&target.child("name"), ""));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::new(500, "", gantry_api::field::aggregate(&errors)))
    }
}

struct Binds<'a> {
    call: &'a Call<'a>,
    binding: Binding,
}

#[async_trait]
impl Mutate for Binds<'_> {
    async fn mutate(&mut self, current: Option<&Current>) -> Result<Change> {
        let call = self.call;
        let Some(current) = current else {
            return Err(ApiError::not_found(call.served.resource(), call.name));
        };
        let wanted = ObjectMeta {
            uid: self.binding.metadata.uid.clone(),
            resource_version: self.binding.metadata.resource_version.clone(),
            ..ObjectMeta::default()
        };
        preconditions::check_both(call, &wanted, current.object.metadata(), current.revision)?;
        let mut new = current.object.clone_box();
        let pod = new.downcast_mut::<Pod>().ok_or_else(|| ApiError::internal("a pod that is no pod"))?;
        assign(call, pod, &self.binding)?;
        Ok(Change::Put(new))
    }
}

/// Nobody comes to own what a binding sets.
fn assign(call: &Call<'_>, pod: &mut Pod, binding: &Binding) -> Result<()> {
    let resource = Resource { plural: "pods/binding".into(), ..call.served.resource().clone() };
    let conflict = |why: String| Err(ApiError::conflict(&resource, call.name, why));
    if pod.metadata.deletion_timestamp.is_some() {
        return conflict(format!("pod {} is being deleted, cannot be assigned to a host", call.name));
    }
    let spec = pod.spec.get_or_insert_default();
    if let Some(node) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        return conflict(format!(
            "pod {} is already assigned to node {}",
            call.name,
            gantry_api::field::quote(node)
        ));
    }
    if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {} has non-empty .spec.schedulingGates", call.name));
    }
    spec.node_name.clone_from(&binding.target.name);
    if let Some(annotations) = &binding.metadata.annotations {
        pod.metadata.annotations.get_or_insert_default().extend(annotations.clone());
    }
    if let Some(labels) = &binding.metadata.labels {
        pod.metadata.labels.get_or_insert_default().extend(labels.clone());
    }
    let status = pod.status.get_or_insert_default();
    status.nominated_node_name = None;
    let scheduled = gantry_api::core::PodCondition {
        type_: "PodScheduled".into(),
        status: "True".into(),
        last_transition_time: Some(time::time(call.core.now())),
        ..Default::default()
    };
    conditions::set(&mut status.conditions, scheduled);
    Ok(())
}
