//! Subresources with bodies of their own: `scale`, `binding`, `eviction`, `token`.

use async_trait::async_trait;
use gantry_api::core::{Binding, Pod, ServiceAccount};
use gantry_api::k8s_openapi::api::authentication::v1::TokenRequest;
use gantry_api::metav1::{ObjectMeta, Status};
use gantry_api::status::Result;
use gantry_api::{ApiError, conditions, time};
use gantry_kinds::AnyObject;
use serde_json::{Value, json};

use super::lifecycle;
use super::patch::Patch;
use super::write::{Change, Current, Mutate, modify};
use super::{Answer, Call, Input, decode, delete, get};
use crate::admission::{Body, Operation, VerbOptions};
use crate::limits::{PATCH_ATTEMPTS, UPDATE_ATTEMPTS};
use crate::managed;
use crate::query::{Query, WriteOptions};

/// A POST on a subresource.
///
/// # Errors
/// 404 if there is no such subresource.
pub(crate) async fn create(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    let resource = call.served.resource();
    match (&*resource.group, &*resource.plural, call.subresource) {
        ("", "pods", "binding") => {
            let body = decode::tree(input, "Binding")?;
            bind(call, body, options).await
        }
        ("", "pods", "eviction") => evict(call, input, options).await,
        ("", "serviceaccounts", "token") => issue(call, input, options).await,
        _ => Err(ApiError::no_such_path()),
    }
}

// ---- scale ----

fn scale_of(call: &Call<'_>, object: &dyn AnyObject) -> Result<Value> {
    let scale = call.served.kind.scale(object).ok_or_else(ApiError::no_such_path)?;
    let meta = object.metadata();
    let mut status = json!({"replicas": scale.current});
    if !scale.selector.is_empty() {
        status["selector"] = scale.selector.into();
    }
    let mut metadata = json!({"name": meta.name, "uid": meta.uid, "resourceVersion": meta.resource_version});
    if let Some(namespace) = &meta.namespace {
        metadata["namespace"] = namespace.as_str().into();
    }
    metadata["creationTimestamp"] = json!(meta.creation_timestamp);
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": scale.replicas}, "status": status,
    }))
}

/// GET of `scale`.
///
/// # Errors
/// 404
pub(crate) async fn get_scale(call: &Call<'_>) -> Result<Answer> {
    if !call.served.kind.verbs().scale {
        return Err(ApiError::no_such_path());
    }
    let encoded = get::get(call).await?;
    let decoded = call.served.kind.decode(encoded.bytes(), false).map_err(ApiError::internal)?;
    Ok(Answer::other(200, &scale_of(call, &*decoded.object)?, encoded.revision()))
}

/// PUT of `scale`.
///
/// # Errors
/// 400, 404, 409, 422
pub(crate) async fn put_scale(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    let body = decode::tree(input, "Scale")?;
    write_scale(call, Wanted::Scale(body), UPDATE_ATTEMPTS, options).await
}

/// PATCH of `scale`.
///
/// # Errors
/// 400, 404, 409, 415, 422
pub(crate) async fn patch_scale(
    call: &Call<'_>,
    input: &Input<'_>,
    options: &WriteOptions,
) -> Result<Answer> {
    let patch = Patch::read(call, input, options)?;
    write_scale(call, Wanted::Patch(patch), PATCH_ATTEMPTS, options).await
}

async fn write_scale(
    call: &Call<'_>,
    wanted: Wanted,
    attempts: usize,
    options: &WriteOptions,
) -> Result<Answer> {
    if !call.served.kind.verbs().scale {
        return Err(ApiError::no_such_path());
    }
    let written = modify(call, attempts, options.dry_run, &mut Scaling { call, wanted, options }).await?;
    let decoded = call.served.kind.decode(written.object.bytes(), false).map_err(ApiError::internal)?;
    Ok(Answer::other(200, &scale_of(call, &*decoded.object)?, written.object.revision()))
}

enum Wanted {
    Scale(Value),
    Patch(Patch),
}

struct Scaling<'a> {
    call: &'a Call<'a>,
    wanted: Wanted,
    options: &'a WriteOptions,
}

#[async_trait]
impl Mutate for Scaling<'_> {
    async fn mutate(&mut self, current: Option<&Current>) -> Result<Change> {
        let call = self.call;
        let Some(current) = current else {
            return Err(ApiError::not_found(call.served.resource(), call.name));
        };
        let old = &*current.object;
        let wanted = match &self.wanted {
            Wanted::Scale(scale) => scale.clone(),
            Wanted::Patch(Patch::Apply(scale)) => scale.clone(),
            Wanted::Patch(patch) => {
                let node = gantry_api::schema::lookup("io.k8s.api.autoscaling.v1.Scale");
                let node = node.map_or(gantry_api::schema::Node::ANY, |d| d.node());
                patch.apply_to(scale_of(call, old)?, node)?
            }
        };
        let mut body = Body::new("autoscaling", "v1", "Scale", wanted);
        body.old = Some(scale_of(call, old)?);
        lifecycle::admit_body(call, Operation::Update, VerbOptions::Write(self.options), &mut body).await?;
        let replicas = read_scale(call, &body.value, old.metadata(), current.revision)?;
        let mut new = old.clone_box();
        call.served.kind.set_replicas(&mut *new, replicas);
        match lifecycle::update_admitted(call, new, old)? {
            Change::Put(mut object) => {
                managed::track(call, &mut *object, Some(old), self.options)?;
                Ok(Change::Put(object))
            }
            other => Ok(other),
        }
    }
}

fn read_scale(call: &Call<'_>, scale: &Value, current: &ObjectMeta, revision: u64) -> Result<i32> {
    let text = |pointer: &str| scale.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    let name = text("/metadata/name");
    if !name.is_empty() && name != call.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        )));
    }
    let owned = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let wanted = ObjectMeta {
        uid: owned(text("/metadata/uid")),
        resource_version: owned(text("/metadata/resourceVersion")),
        ..ObjectMeta::default()
    };
    lifecycle::check_preconditions(call, &wanted, current, revision)?;
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    match i32::try_from(replicas) {
        Ok(replicas) if replicas >= 0 => Ok(replicas),
        _ => {
            let path = gantry_api::field::Path::new("spec").child("replicas");
            let error = gantry_api::field::Error::invalid(&path, replicas, gantry_api::names::NON_NEGATIVE);
            let resource = gantry_api::Resource::fixed("autoscaling", "v1", "Scale", "scales", true);
            Err(ApiError::invalid(&resource, call.name, &[error]))
        }
    }
}

// ---- binding ----

/// Assigns a pod to a node.
///
/// # Errors
/// 400, 404, 409
pub(crate) async fn bind(call: &Call<'_>, body: Value, options: &WriteOptions) -> Result<Answer> {
    let mut body = Body::new("", "v1", "Binding", body);
    lifecycle::admit_body(call, Operation::Create, VerbOptions::Write(options), &mut body).await?;
    let binding: Binding =
        serde_json::from_value(body.value).map_err(|e| ApiError::bad_request(e.to_string()))?;
    if binding.metadata.name.as_deref().is_some_and(|name| name != call.name) {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    check_target(&binding)?;
    modify(call, UPDATE_ATTEMPTS, options.dry_run, &mut Binds { call, binding, options }).await?;
    let status = Status { status: Some("Success".into()), code: Some(201), ..Status::default() };
    Ok(Answer::status(201, &status))
}

fn check_target(binding: &Binding) -> Result<()> {
    use gantry_api::field::{Error, Path};
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
    options: &'a WriteOptions,
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
        lifecycle::check_preconditions(call, &wanted, current.object.metadata(), current.revision)?;
        let mut new = current.object.clone_box();
        let pod = new.downcast_mut::<Pod>().ok_or_else(|| ApiError::internal("a pod that is no pod"))?;
        assign(call, pod, &self.binding)?;
        managed::track(call, &mut *new, Some(&*current.object), self.options)?;
        Ok(Change::Put(new))
    }
}

fn assign(call: &Call<'_>, pod: &mut Pod, binding: &Binding) -> Result<()> {
    let resource = gantry_api::Resource { plural: "pods/binding".into(), ..call.served.resource().clone() };
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

// ---- eviction ----

/// Deletes a pod on behalf of whoever empties a node.
async fn evict(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    let body = decode::tree(input, "Eviction")?;
    let name = body.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("");
    if !name.is_empty() && name != call.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut body = Body::new("policy", "v1", "Eviction", body);
    lifecycle::admit_body(call, Operation::Create, VerbOptions::Write(options), &mut body).await?;
    let body = body.value;
    let inner =
        body.get("deleteOptions").filter(|o| o.is_object()).map(|o| o.to_string()).unwrap_or_default();
    let input = Input { content_type: "application/json", bytes: inner.into() };
    let mut delete_options = delete::Options::read(&input, &Query::default())?;
    delete_options.dry_run |= options.dry_run;
    delete::delete(&Call { subresource: "", ..call.clone() }, &delete_options).await?;
    let status = Status { status: Some("Success".into()), code: Some(201), ..Status::default() };
    Ok(Answer::status(201, &status))
}

// ---- token ----

async fn issue(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    let issuer = call.core.parts.tokens.as_ref().ok_or_else(ApiError::no_such_path)?;
    let body = decode::tree(input, "TokenRequest")?;
    let mut body = Body::new("authentication.k8s.io", "v1", "TokenRequest", body);
    lifecycle::admit_body(call, Operation::Create, VerbOptions::Write(options), &mut body).await?;
    let mut request: TokenRequest =
        serde_json::from_value(body.value).map_err(|e| ApiError::bad_request(e.to_string()))?;
    let account = get::get(&Call { subresource: "", ..call.clone() }).await?;
    let account = account.typed::<ServiceAccount>().map_err(ApiError::internal)?;
    request.metadata.name = Some(call.name.to_owned());
    request.metadata.namespace = Some(call.namespace.to_owned());
    request.metadata.creation_timestamp = Some(time::time(call.core.now()));
    let answer = issuer.issue(call.user, &account, request, call.warnings).await?;
    Ok(Answer::other(201, &serde_json::to_value(&answer).map_err(ApiError::internal)?, 0))
}
