//! The `scale` subresource: the replicas of an object in a body of one form for all kinds.

use async_trait::async_trait;
use gantry_api::field::{Error, Path};
use gantry_api::metav1::ObjectMeta;
use gantry_api::schema::Node;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_kinds::AnyObject;
use serde_json::{Value, json};

use super::lifecycle;
use super::patch::{Form, Patch};
use super::write::{Change, Current, Mutate, modify};
use super::{Answer, Call, Input, decode, get, preconditions, update};
use crate::admission::{Body, Operation, VerbOptions};
use crate::apply::{self, OneVersion, ScaleMapping, Writer};
use crate::limits::{PATCH_ATTEMPTS, UPDATE_ATTEMPTS};
use crate::managed;
use crate::query::{FieldValidation, WriteOptions};

const SCALE: Resource = Resource::fixed("autoscaling", "v1", "Scale", "scales", true);

fn schema() -> Node<'static> {
    gantry_api::schema::lookup("io.k8s.api.autoscaling.v1.Scale").map_or(Node::ANY, |def| def.node())
}

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
    // None is what is not said.
    let spec = if scale.replicas == 0 { json!({}) } else { json!({"replicas": scale.replicas}) };
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": spec, "status": status,
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
    if call.served.entry.custom {
        let tree: Value = serde_json::from_slice(encoded.bytes()).map_err(ApiError::internal)?;
        if says_nothing(call, &tree) {
            let path = gantry_api::field::quote(&replicas_path(call));
            return Err(ApiError::internal(format!("the spec replicas field {path} does not exist")));
        }
    }
    let decoded = call.served.kind.decode(encoded.bytes(), false).map_err(ApiError::internal)?;
    Ok(Answer::other(200, &scale_of(call, &*decoded.object)?, encoded.revision()))
}

/// PUT of `scale`.
///
/// # Errors
/// 400, 404, 409, 422
pub(crate) async fn put_scale(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    let body = decode::body(call.warnings, input, &SCALE, options.validation)?;
    check_names(call, &body)?;
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
        let mut before = scale_of(call, old)?;
        let mappings = mappings(call);
        let parent = current.tree()?.pointer("/metadata/managedFields").cloned().unwrap_or_default();
        let entries = apply::scale_entries(parent.clone(), &mappings).map_err(ApiError::internal)?;
        if entries.is_array() {
            before["metadata"]["managedFields"] = entries;
        }
        let wanted = self.wanted(&before, old.metadata())?;
        let mut body = Body::new("autoscaling", "v1", "Scale", wanted);
        body.old = Some(before);
        lifecycle::admit_body(call, Operation::Update, VerbOptions::Write(self.options), &mut body).await?;
        let scale = body.value;
        let mut new = old.clone_box();
        let must_say = matches!(self.wanted, Wanted::Patch(_)) && says_nothing(call, current.tree()?);
        call.served.kind.set_replicas(&mut *new, replicas(call, &scale, must_say)?);
        let meta = new.metadata_mut();
        meta.resource_version = text(&scale, "/metadata/resourceVersion");
        if meta.resource_version.is_none() && call.served.entry.custom {
            meta.resource_version.clone_from(&old.metadata().resource_version);
        }
        let entries = scale.pointer("/metadata/managedFields").cloned().unwrap_or_default();
        let api_version = call.served.resource().api_version();
        let entries = apply::with_scale_entries(parent, entries, &api_version, &mappings);
        meta.managed_fields = managed::read_entries(entries.map_err(ApiError::internal)?)?;
        lifecycle::update_admitted(call, new, current)
    }
}

impl Scaling<'_> {
    /// The scale that is asked for, with its owners.
    fn wanted(&self, before: &Value, meta: &ObjectMeta) -> Result<Value> {
        let call = self.call;
        let patch = match &self.wanted {
            Wanted::Scale(scale) => {
                let wanted = ObjectMeta { uid: text(scale, "/metadata/uid"), ..ObjectMeta::default() };
                preconditions::check_uid(call, &wanted, meta)?;
                return Ok(self.tracked(before, scale.clone()));
            }
            Wanted::Patch(patch) => patch,
        };
        let patched = if patch.form == Form::Apply {
            let force = self.options.force.unwrap_or(false);
            let applied = self.as_writer(|writer| {
                apply::apply(Some(before), patch.config(), writer, "Scale", force, schema())
            })?;
            patch.check_config(call, self.options.validation)?;
            applied.object.unwrap_or_else(|| before.clone())
        } else {
            let patched = patch.apply_to(before.clone(), schema())?;
            if let Some(misfit) = apply::misfit(&patched, schema()) {
                return Err(decode::invalid_patch(patch.shown(&patched), misfit.0));
            }
            let mut complaints = patch.complaints();
            if self.options.validation != FieldValidation::Ignore {
                complaints.extend(apply::unknown_fields(&patched, schema()));
            }
            let refuse = |why| decode::invalid_patch(patch.shown(&patched), why);
            decode::complain(call.warnings, complaints, self.options.validation, refuse)?;
            self.tracked(before, patched)
        };
        check_names(call, &patched)?;
        let uid = text(&patched, "/metadata/uid");
        if let Some(uid) = uid.filter(|uid| Some(uid) != meta.uid.as_ref()) {
            let stored = meta.uid.as_deref().unwrap_or("");
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {stored}");
            let resource = call.served.resource();
            let scale = Resource { plural: format!("{}/scale", resource.plural).into(), ..resource.clone() };
            return Err(ApiError::conflict(&scale, call.name, why));
        }
        Ok(patched)
    }

    fn tracked(&self, before: &Value, mut scale: Value) -> Value {
        self.as_writer(|writer| apply::update_managed_fields(Some(before), &mut scale, writer, schema()));
        scale
    }

    /// Who writes, in the version of the scale.
    fn as_writer<T>(&self, with: impl FnOnce(&Writer<'_>) -> T) -> T {
        managed::as_writer_among(self.call, self.options, &OneVersion, |writer| {
            with(&Writer { api_version: "autoscaling/v1", ..*writer })
        })
    }
}

/// Where the served versions of the kind keep their replicas.
fn mappings(call: &Call<'_>) -> Vec<ScaleMapping> {
    let versions = call.served.entry.versions.iter();
    versions
        .map(|version| ScaleMapping {
            api_version: version.kind.resource().api_version(),
            path: version.kind.replicas_path(),
        })
        .collect()
}

fn text(scale: &Value, pointer: &str) -> Option<String> {
    scale.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn check_names(call: &Call<'_>, scale: &Value) -> Result<()> {
    let mut meta = ObjectMeta {
        name: text(scale, "/metadata/name"),
        namespace: text(scale, "/metadata/namespace"),
        ..ObjectMeta::default()
    };
    lifecycle::ensure_namespace(call, &mut meta)?;
    update::check_name(call, &meta)
}

/// Whether a custom resource has no number of replicas yet.
fn says_nothing(call: &Call<'_>, object: &Value) -> bool {
    let path = call.served.kind.replicas_path().unwrap_or_default();
    call.served.entry.custom && path.iter().try_fold(object, |value, name| value.get(name)).is_none()
}

/// `.spec.replicas`, or where else the kind has them.
fn replicas_path(call: &Call<'_>) -> String {
    let path = call.served.kind.replicas_path().unwrap_or_default();
    path.iter().map(|name| format!(".{name}")).collect()
}

/// The wanted number; none is zero, unless it has to be said.
fn replicas(call: &Call<'_>, scale: &Value, must_say: bool) -> Result<i32> {
    let wanted = match scale.pointer("/spec/replicas") {
        None | Some(Value::Null) if must_say => {
            return Err(ApiError::bad_request(format!(
                "the spec replicas field {} cannot be empty",
                gantry_api::field::quote(&replicas_path(call))
            )));
        }
        found => found.and_then(Value::as_i64).unwrap_or(0),
    };
    match i32::try_from(wanted) {
        // A custom resource checks its numbers itself.
        Ok(replicas) if replicas >= 0 || call.served.entry.custom => Ok(replicas),
        _ => {
            let path = Path::new("spec").child("replicas");
            let error = Error::invalid(&path, wanted, gantry_api::names::NON_NEGATIVE);
            Err(ApiError::invalid(&SCALE, call.name, &[error]))
        }
    }
}
