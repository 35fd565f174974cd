//! Performs plans: the only place of this crate where anything happens.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use gantry_api::core::{Pod, Secret};
use gantry_api::k8s_openapi::ByteString;
use gantry_api::meta::MetaExt;
use gantry_api::{ApiError, Encoded, Object, ObjectKey, Resource};
use gantry_base::Class;
use gantry_client::{Api, ListParams, Mutation, Payload, Target, Transport, Verb, WriteOptions};
use serde::Deserialize;
use serde_json::{Value, json};

use super::events::Recorder;
use super::plan::{Action, Attempt, Check, Event, Failure, Plan, Write};
use super::ports::{Effect, Ports, Question};
use super::scales;
use super::watch::Source;

/// Actions of one plan that run at once.
const CONCURRENCY: usize = 64;
/// How long a write may take to show in an informer before the key is looked at regardless.
const VISIBLE_WITHIN: Duration = Duration::from_secs(5);
/// The field manager that all controllers write as, as upstream's.
pub const FIELD_MANAGER: &str = "kube-controller-manager";

/// Performs the plans of one controller.
pub(super) struct Actor {
    pub transport: Arc<dyn Transport>,
    pub recorder: Recorder,
    pub component: &'static str,
    pub ports: Ports,
    pub sources: Vec<Arc<dyn Source>>,
}

/// Where a write is to show before the key is observed again.
enum Shown {
    Reached(Arc<dyn Source>, Resource, u64),
    Moved(Arc<dyn Source>, Resource, ObjectKey, u64),
}

#[derive(Deserialize)]
struct NamedMetadata {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Named {
    metadata: NamedMetadata,
}

impl Actor {
    /// Performs `plan` and waits until its writes show. `cautious`: begin with one action at a time, as the last
    /// attempt failed.
    pub async fn perform(&self, plan: Plan, cautious: bool) -> Result<(), Failure> {
        let mut shown = Vec::new();
        let mut outcome = Ok(());
        for stage in plan.stages {
            outcome = self.stage(stage, cautious, &mut shown).await;
            if outcome.is_err() {
                break;
            }
        }
        self.wait_until_shown(shown).await;
        match plan.failure {
            Some(message) if outcome.is_ok() => Err(failure(Attempt::Other, "", "", message)),
            _ => outcome,
        }
    }

    async fn stage(
        &self,
        actions: Vec<Action>,
        cautious: bool,
        shown: &mut Vec<Shown>,
    ) -> Result<(), Failure> {
        let mut waiting = actions.into_iter();
        let mut running = FuturesUnordered::new();
        // Slow start: each success lets one more run at once, which doubles them each round.
        let mut limit = if cautious { 1 } else { CONCURRENCY };
        let mut outcome = Ok(());
        loop {
            while running.len() < limit && outcome.is_ok() {
                let Some(action) = waiting.next() else { break };
                running.push(self.one(action));
            }
            match running.next().await {
                None => return outcome,
                Some(Ok(visible)) => {
                    shown.extend(visible);
                    limit = (limit + 1).min(CONCURRENCY);
                }
                Some(Err(failure)) => outcome = outcome.and(Err(failure)),
            }
        }
    }

    async fn one(&self, action: Action) -> Result<Option<Shown>, Failure> {
        match action {
            Action::Event(event) => {
                self.recorder.record(self.component, event);
                Ok(None)
            }
            Action::Write(write) => self.write(*write).await,
            Action::Check(check) => self.check(check).await.map(|()| None),
            Action::Effect(effect) => self.effect(*effect).await,
        }
    }

    async fn write(&self, write: Write) -> Result<Option<Shown>, Failure> {
        let source = self.sources.iter().find(|s| s.shows(&write.resource)).cloned();
        let before = match write.verb {
            Verb::Delete => source.as_ref().and_then(|s| s.revision_of(&write.resource, &write.key)),
            _ => None,
        };
        let mutation = Mutation {
            target: target(&write.resource, &write.key, write.subresource),
            verb: write.verb,
            payload: write.payload.clone(),
            options: WriteOptions { field_manager: FIELD_MANAGER.into(), ..WriteOptions::default() },
            select: write.select(),
        };
        match self.transport.mutate(mutation).await {
            Ok(stored) => {
                self.announce(write.on_success, &stored);
                Ok(source.and_then(|s| show(s, write.verb, write.resource, write.key, before, &stored)))
            }
            Err(error) if write.tolerate.contains(&error.reason()) => Ok(None),
            // Nothing will be created there any more.
            Err(error) if write.verb == Verb::Create && namespace_is_terminating(&error) => Ok(None),
            Err(error) => {
                self.lament(write.on_failure, &error);
                Err(api_failure(attempt(write.verb), &write.resource, &error))
            }
        }
    }

    fn announce(&self, event: Option<Event>, stored: &Encoded) {
        let Some(mut event) = event else { return };
        if event.message.contains("{name}") {
            let name = serde_json::from_slice::<Named>(stored.bytes()).map(|n| n.metadata.name);
            event.message = event.message.replace("{name}", &name.unwrap_or_default());
        }
        self.recorder.record(self.component, event);
    }

    fn lament(&self, event: Option<Event>, error: &ApiError) {
        let Some(mut event) = event else { return };
        event.message = event.message.replace("{error}", error.message());
        self.recorder.record(self.component, event);
    }

    async fn check(&self, check: Check) -> Result<(), Failure> {
        let unmet = |kind: &str, what: String| Err(failure(Attempt::Other, kind, "Conflict", what));
        match check {
            Check::Alive(resource, key, uid) => match self.identity(&resource, &key).await? {
                Some((found, false)) if found == uid => Ok(()),
                _ => unmet(&resource.kind, format!("{} {key} is gone or being deleted", resource.kind)),
            },
            Check::Absent(resource, key, uid) => match self.identity(&resource, &key).await? {
                Some((found, _)) if found == uid => {
                    unmet(&resource.kind, format!("{} {key} exists", resource.kind))
                }
                _ => Ok(()),
            },
            Check::Missing(resource, key) => match self.identity(&resource, &key).await? {
                None => Ok(()),
                Some(_) => unmet(&resource.kind, format!("{} {key} exists", resource.kind)),
            },
            Check::Unmounted(secret) => {
                let pods = Api::<Pod>::new(Arc::clone(&self.transport), FIELD_MANAGER);
                let (pods, _) = pods
                    .list(&secret.namespace, &ListParams::default())
                    .await
                    .map_err(|e| api_failure(Attempt::Other, &Pod::RESOURCE, &e))?;
                match pods.iter().find(|pod| crate::common::pods::mentions_secret(pod, &secret.name)) {
                    None => Ok(()),
                    Some(pod) => unmet("Secret", format!("pod {} refers to secret {secret}", pod.key())),
                }
            }
            Check::Empty(resource, namespace) => {
                let collection = target(&resource, &ObjectKey::new(namespace.as_str(), ""), "");
                let params = ListParams { limit: 1, ..ListParams::default() };
                match self.transport.list(&collection, &params).await {
                    Ok(list) if list.items.is_empty() => Ok(()),
                    Ok(_) => unmet(&resource.kind, format!("{namespace} still holds {resource}")),
                    Err(error) if error.is_not_found() || error.code() == 405 => Ok(()),
                    Err(error) => Err(api_failure(Attempt::Other, &resource, &error)),
                }
            }
        }
    }

    /// The UID of an object on the server, and whether it is being deleted.
    async fn identity(
        &self,
        resource: &Resource,
        key: &ObjectKey,
    ) -> Result<Option<(String, bool)>, Failure> {
        let found = match self.transport.get(&target(resource, key, "")).await {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(api_failure(Attempt::Other, resource, &error)),
        };
        let value: Value = serde_json::from_slice(found.bytes())
            .map_err(|e| failure(Attempt::Other, &resource.kind, "", e.to_string()))?;
        let meta = &value["metadata"];
        let uid = meta["uid"].as_str().unwrap_or_default().to_owned();
        Ok(Some((uid, meta["deletionTimestamp"].is_string())))
    }

    async fn effect(&self, effect: Effect) -> Result<Option<Shown>, Failure> {
        let ours = |error: gantry_base::Error| {
            let reason = if error.class() == Class::Conflict { "Conflict" } else { "" };
            failure(Attempt::Other, "", reason, error.to_string())
        };
        match effect {
            Effect::TokenSecret { key, secret_uid, account_uid, root_ca, claims } => {
                let token = self.ports.signer().and_then(|s| s.sign(&claims)).map_err(ours)?;
                let fill = |secret: &mut Secret| {
                    let namespace = secret.namespace().to_owned();
                    let data = secret.data.get_or_insert_default();
                    data.insert("token".into(), ByteString(token.into_bytes()));
                    data.insert("ca.crt".into(), ByteString(root_ca.as_bytes().to_vec()));
                    data.insert("namespace".into(), ByteString(namespace.into_bytes()));
                    let annotations = secret.metadata.annotations.get_or_insert_default();
                    annotations.insert("kubernetes.io/service-account.uid".into(), account_uid);
                };
                return self.fill_secret(&key, &secret_uid, fill).await;
            }
            Effect::Certificate { csr, usages, life } => {
                let request = String::from_utf8_lossy(&csr.spec.request.0).into_owned();
                let signer = self.ports.certificates().map_err(ours)?;
                let certificate = signer.sign(&request, &usages, life).map_err(ours)?;
                let mut csr = *csr;
                csr.status.get_or_insert_default().certificate = Some(ByteString(certificate.into_bytes()));
                return self.write(Write::update_status(&csr)).await;
            }
            Effect::FirstAllowed(choices) => {
                for (question, write) in choices {
                    if self.is_allowed(&question).await? {
                        return self.write(write).await;
                    }
                }
                return Err(failure(
                    Attempt::Other,
                    "",
                    "Forbidden",
                    "subject access review was not approved".to_owned(),
                ));
            }
            Effect::ReadScale { of, into } => {
                let found = scales::read(&*self.transport, &of).await;
                into.note(of, found);
            }
            Effect::MakeVolume(directory) => {
                self.ports.volumes().map_err(ours)?.make(&directory).await.map_err(ours)?;
            }
            Effect::RemoveVolume(directory) => {
                self.ports.volumes().map_err(ours)?.remove(&directory).await.map_err(ours)?;
            }
        }
        Ok(None)
    }

    async fn is_allowed(&self, question: &Question) -> Result<bool, Failure> {
        const REVIEW: Resource = Resource::fixed(
            "authorization.k8s.io",
            "v1",
            "SubjectAccessReview",
            "subjectaccessreviews",
            false,
        );
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": question.user, "uid": question.uid, "groups": question.groups, "extra": question.extra,
                "resourceAttributes": {
                    "verb": question.verb, "group": question.group, "version": "*",
                    "resource": question.resource, "subresource": question.subresource,
                },
            },
        });
        let mutation = Mutation {
            target: target(&REVIEW, &ObjectKey::cluster(""), ""),
            verb: Verb::Create,
            payload: Payload { content_type: "application/json", bytes: body.to_string().into() },
            options: WriteOptions { field_manager: FIELD_MANAGER.into(), ..WriteOptions::default() },
            select: ListParams::default(),
        };
        let answer = self.transport.mutate(mutation).await;
        let answer = answer.map_err(|e| api_failure(Attempt::Create, &REVIEW, &e))?;
        let answer: Value = serde_json::from_slice(answer.bytes())
            .map_err(|e| failure(Attempt::Other, "SubjectAccessReview", "", e.to_string()))?;
        Ok(answer["status"]["allowed"] == true)
    }

    async fn fill_secret(
        &self,
        key: &ObjectKey,
        uid: &str,
        fill: impl FnOnce(&mut Secret) + Send,
    ) -> Result<Option<Shown>, Failure> {
        let refused = |error: ApiError| api_failure(Attempt::Other, &Secret::RESOURCE, &error);
        let api = Api::<Secret>::new(Arc::clone(&self.transport), FIELD_MANAGER);
        let found = api.find(key).await.map_err(refused)?;
        let Some(found) = found.filter(|secret| secret.uid() == uid) else { return Ok(None) };
        let mut secret = (*found).clone();
        fill(&mut secret);
        let stored = api.update(&secret).await.map_err(refused)?;
        let source = self.sources.iter().find(|s| s.shows(&Secret::RESOURCE)).cloned();
        Ok(source.map(|s| Shown::Reached(s, Secret::RESOURCE, MetaExt::revision(&*stored))))
    }

    async fn wait_until_shown(&self, shown: Vec<Shown>) {
        if shown.is_empty() {
            return;
        }
        let all = futures::future::join_all(shown.iter().map(|shown| match shown {
            Shown::Reached(source, resource, revision) => source.reached(resource, *revision),
            Shown::Moved(source, resource, key, revision) => {
                source.moved_on(resource, key.clone(), *revision)
            }
        }));
        if tokio::time::timeout(VISIBLE_WITHIN, all).await.is_err() {
            tracing::debug!(component = self.component, "a write took long to show");
        }
    }
}

fn show(
    source: Arc<dyn Source>,
    verb: Verb,
    resource: Resource,
    key: ObjectKey,
    before: Option<u64>,
    stored: &Encoded,
) -> Option<Shown> {
    match (verb, before) {
        (Verb::DeleteCollection, _) => None,
        (Verb::Delete, before) => {
            // An object that was being deleted already comes back as it was.
            let before = before.filter(|b| *b != stored.revision())?;
            Some(Shown::Moved(source, resource, key, before))
        }
        _ => Some(Shown::Reached(source, resource, stored.revision())),
    }
}

fn target(resource: &Resource, key: &ObjectKey, subresource: &'static str) -> Target {
    Target {
        resource: resource.clone(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        subresource,
    }
}

fn attempt(verb: Verb) -> Attempt {
    match verb {
        Verb::Create => Attempt::Create,
        Verb::Delete | Verb::DeleteCollection => Attempt::Delete,
        Verb::Update | Verb::Patch => Attempt::Other,
    }
}

fn failure(attempt: Attempt, kind: &str, reason: &str, message: impl Into<String>) -> Failure {
    Failure { attempt, kind: kind.to_owned(), reason: reason.to_owned(), message: message.into() }
}

fn api_failure(attempt: Attempt, resource: &Resource, error: &ApiError) -> Failure {
    failure(attempt, &resource.kind, error.reason(), error.message())
}

/// Whether a creation failed because its namespace is being deleted: nothing that a person needs to hear of.
fn namespace_is_terminating(error: &ApiError) -> bool {
    let causes = error.status().details.as_ref().and_then(|d| d.causes.as_ref());
    causes.into_iter().flatten().any(|c| c.reason.as_deref() == Some("NamespaceTerminating"))
}
