//! `MutatingAdmissionWebhook`: one webhook after the other changes the object.

use std::collections::BTreeSet;

use async_trait::async_trait;
use gantry_api::field::quote;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_client::InformerSet;
use gantry_kinds::AnyObject;
use serde_json::{Value, json};

use super::call::{self, Failure};
use super::hooks::{Hook, Mutating};
use super::review::JSON_PATCH;
use super::{Deps, Source, conditions, is_exempt};
use crate::admission::matching::{self, Matched, Sight};
use crate::admission::{AdmissionPlugin, AdmissionRequest, Body, Operation};
use crate::apply;
use crate::audit::Level;

const NAME: &str = "MutatingAdmissionWebhook";

/// The plugin.
pub(in crate::admission) struct MutatingWebhooks {
    source: Source<Mutating>,
    deps: Deps,
}

/// What is remembered from the first pass to the second.
#[derive(Default)]
struct Notes {
    last_output: Option<Value>,
    /// Were called and want to be called again after a change.
    previous: BTreeSet<String>,
    /// Are to be called again.
    again: BTreeSet<String>,
}

impl Notes {
    fn changed(&mut self) {
        self.again.append(&mut self.previous);
    }
}

/// What webhooks and policies change.
pub(in crate::admission) enum Subject<'a> {
    Object {
        new: &'a mut dyn AnyObject,
        old: Option<&'a dyn AnyObject>,
    },
    Body(&'a mut Body),
    /// A deletion: there is nothing to change.
    Deletion(Option<&'a dyn AnyObject>),
}

impl Subject<'_> {
    pub(in crate::admission) fn sight(&self) -> Sight<'_> {
        match self {
            Self::Object { new, old } => Sight::Object { new: Some(&**new), old: *old },
            Self::Body(body) => Sight::Body(body),
            Self::Deletion(old) => Sight::Object { new: None, old: *old },
        }
    }

    pub(in crate::admission) fn value(&self) -> Option<Value> {
        match self {
            Self::Object { new, .. } => Some(new.to_value()),
            Self::Body(body) => Some(body.value.clone()),
            Self::Deletion(_) => None,
        }
    }
}

impl MutatingWebhooks {
    pub(in crate::admission) fn new(informers: &InformerSet, deps: Deps) -> Self {
        Self { source: Source { informer: informers.of() }, deps }
    }

    async fn admit(&self, request: &AdmissionRequest<'_>, mut subject: Subject<'_>) -> Result<()> {
        let configurations = self.source.all(request).await?;
        if configurations.is_empty() {
            return Ok(());
        }
        let second = request.passes.is_second();
        if second {
            let now = subject.value();
            request.passes.notes(NAME, |notes: &mut Notes| {
                if notes.last_output != now {
                    notes.changed();
                }
            });
        }
        let hooks = configurations.iter().flat_map(|c| c.as_ref().as_ref());
        for (index, hook) in hooks.enumerate() {
            self.pass(request, &mut subject, hook, index).await?;
        }
        let output = subject.value();
        request.passes.notes(NAME, |notes: &mut Notes| notes.last_output = output);
        Ok(())
    }

    async fn pass(
        &self,
        request: &AdmissionRequest<'_>,
        subject: &mut Subject<'_>,
        hook: &Hook,
        index: usize,
    ) -> Result<()> {
        let sight = subject.sight();
        let Some(matched) =
            matching::matches(&hook.selection, request, &sight, &self.deps.namespaces).await?
        else {
            return Ok(());
        };
        if !conditions::hold(&self.deps, hook, request, &sight, &matched, true).await? {
            return Ok(());
        }
        let second = request.passes.is_second();
        if second && !request.passes.notes(NAME, |notes: &mut Notes| notes.again.contains(&hook.uid)) {
            return Ok(());
        }
        let key = format!("round_{}_index_{index}", u8::from(second));
        let outcome = self.ask(request, subject, hook, &matched, &key).await;
        let mutated = matches!(outcome, Ok(true));
        let note = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": mutated});
        request.warnings.annotate(format!("mutation.webhook.admission.k8s.io/{key}"), note.to_string());
        if mutated {
            request.passes.notes(NAME, Notes::changed);
            request.passes.ask_for_second();
        }
        if hook.reinvoked {
            request.passes.notes(NAME, |notes: &mut Notes| notes.previous.insert(hook.uid.clone()));
        }
        match outcome {
            Ok(_) => Ok(()),
            Err(Failure::Calling(why)) if hook.fails_open => {
                tracing::warn!(webhook = hook.name, why, "a webhook failed and is passed over");
                let key = format!("failed-open.mutation.webhook.admission.k8s.io/{key}");
                request.warnings.annotate(key, hook.name.clone());
                Ok(())
            }
            Err(failure) => Err(failure.into_error(hook)),
        }
    }

    /// Calls the webhook and applies its patch; whether something changed.
    async fn ask(
        &self,
        request: &AdmissionRequest<'_>,
        subject: &mut Subject<'_>,
        hook: &Hook,
        matched: &Matched,
        key: &str,
    ) -> Result<bool, Failure> {
        let objects = call::objects(request, &subject.sight(), matched).await;
        let objects = objects.map_err(|e| Failure::Refused(ApiError::internal(e.message())))?;
        let verdict = call::ask(&self.deps.callout, hook, request, matched, &objects, true).await?;
        if verdict.patch.is_empty() {
            return Ok(false);
        }
        let patch: Value = serde_json::from_slice(&verdict.patch).map_err(|e| {
            let why = gantry_api::go_json::unreadable(&verdict.patch, &e);
            Failure::Calling(format!("received undecodable patch in webhook response: {why}"))
        })?;
        if !patch.is_array() && !patch.is_null() {
            let kind = if patch.is_object() { "object" } else { "value" };
            return Err(Failure::Calling(format!(
                "received undecodable patch in webhook response: json: cannot unmarshal {kind} into Go value of type jsonpatch.Patch"
            )));
        }
        if patch.as_array().is_none_or(Vec::is_empty) {
            return Ok(false);
        }
        let internal = |why: String| Failure::Refused(ApiError::internal(why));
        if objects.new.is_null() {
            return Err(internal(format!(
                "admission webhook {} attempted to modify the object, which is not supported for this operation",
                quote(&hook.name)
            )));
        }
        if verdict.patch_type != JSON_PATCH {
            return Err(Failure::Calling(format!("unsupported patch type {}", quote(&verdict.patch_type))));
        }
        let patched = apply::json_patch_explained(objects.new, &patch).map_err(internal)?;
        let before = subject.value();
        take(request, subject, matched, patched).await.map_err(Failure::Refused)?;
        let note = json!({"configuration": hook.configuration, "webhook": hook.name, "patch": patch, "patchType": "JSONPatch"});
        let key = format!("patch.webhook.admission.k8s.io/{key}");
        request.warnings.annotate_from(Level::Request, key, note.to_string());
        Ok(subject.value() != before)
    }
}

/// Makes the patched tree the subject.
pub(in crate::admission) async fn take(
    request: &AdmissionRequest<'_>,
    subject: &mut Subject<'_>,
    matched: &Matched,
    patched: Value,
) -> Result<()> {
    match subject {
        Subject::Deletion(_) => Ok(()),
        Subject::Body(body) => {
            body.value = patched;
            Ok(())
        }
        Subject::Object { new, .. } => {
            let patched = match &matched.other {
                None => patched,
                Some(other) => request.call.converted(patched, other, &request.call.served).await?,
            };
            if let Some(misfit) = apply::misfit(&patched, request.kind.schema()) {
                return Err(ApiError::internal(misfit.0));
            }
            let mut decoded = request.kind.decode_value(patched).map_err(ApiError::internal)?;
            request.kind.defaults(&mut *decoded);
            new.take_over(decoded);
            Ok(())
        }
    }
}

#[async_trait]
impl AdmissionPlugin for MutatingWebhooks {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, _operation: Operation, resource: &Resource, _subresource: &str) -> bool {
        !self.source.is_empty() && !is_exempt(resource)
    }

    async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        self.admit(request, Subject::Object { new: object, old }).await
    }

    async fn mutate_body(&self, request: &AdmissionRequest<'_>, body: &mut Body) -> Result<()> {
        self.admit(request, Subject::Body(body)).await
    }

    /// Deletions are not mutated, but mutating webhooks are asked about them all the same.
    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        _object: Option<&dyn AnyObject>,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        match request.operation {
            Operation::Delete => self.admit(request, Subject::Deletion(old)).await,
            _ => Ok(()),
        }
    }

    async fn validate_body(&self, _request: &AdmissionRequest<'_>, _body: &Body) -> Result<()> {
        Ok(())
    }
}
