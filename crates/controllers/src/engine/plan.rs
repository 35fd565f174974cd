//! What a controller decides: writes, checks, events and effects in stages. Nothing here does anything.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use gantry_api::core::ObjectReference;
use gantry_api::meta::MetaExt;
use gantry_api::{Object, ObjectKey, Resource};
use gantry_client::api::delete_body;
use gantry_client::{DeleteOptions, ListParams, PatchKind, Payload, Verb};
use serde_json::Value;

use super::ports::Effect;

/// When, and after which failure, a plan is made.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Wall-clock time.
    pub now: SystemTime,
    /// Why the last attempt on this key failed; `None` after a success.
    pub failure: Option<Failure>,
}

impl Moment {
    /// A moment with no failure behind it.
    pub fn at(now: SystemTime) -> Self {
        Self { now, failure: None }
    }
}

/// A failed action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was tried.
    pub attempt: Attempt,
    /// The kind it was tried on.
    pub kind: String,
    /// The API's reason (`Forbidden`, `AlreadyExists`); empty if there was none.
    pub reason: String,
    /// The message for people.
    pub message: String,
}

/// What kind of action failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// A creation.
    Create,
    /// A deletion.
    Delete,
    /// Any other write, check or effect.
    Other,
}

/// What is to be done. Actions of one stage run side by side; a stage starts only if the one before succeeded.
#[derive(Debug, Default)]
pub struct Plan {
    pub(crate) stages: Vec<Vec<Action>>,
    pub(crate) requeue_after: Option<Duration>,
    pub(crate) failure: Option<String>,
}

impl Plan {
    /// Nothing is to be done.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// The attempt failed before anything could be decided: try again with back-off.
    pub fn fail(message: impl Into<String>) -> Self {
        Self { failure: Some(message.into()), ..Self::default() }
    }

    /// Adds an action to the current stage.
    pub fn push(&mut self, action: impl Into<Action>) {
        match self.stages.last_mut() {
            Some(stage) => stage.push(action.into()),
            None => self.stages.push(vec![action.into()]),
        }
    }

    /// Adds actions to the current stage.
    pub fn extend<A: Into<Action>>(&mut self, actions: impl IntoIterator<Item = A>) {
        for action in actions {
            self.push(action);
        }
    }

    /// What follows waits for what was planned so far.
    pub fn next_stage(&mut self) {
        if self.stages.last().is_none_or(|stage| !stage.is_empty()) {
            self.stages.push(Vec::new());
        }
    }

    /// Records an event.
    pub fn event(&mut self, event: Event) {
        self.push(Action::Event(event));
    }

    /// Look at the key again after this long at the latest.
    pub fn requeue_after(&mut self, delay: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(delay, |d| d.min(delay)));
    }

    /// Marks the attempt as failed, so that it is tried again with back-off after the actions were performed.
    pub fn failed_because(&mut self, message: impl Into<String>) {
        self.failure.get_or_insert(message.into());
    }

    /// The same, looked at again after this long at the latest.
    pub fn again_after(mut self, delay: Duration) -> Self {
        self.requeue_after(delay);
        self
    }

    /// Whether no action is planned.
    pub fn is_empty(&self) -> bool {
        self.stages.iter().all(Vec::is_empty)
    }

    /// The planned actions in order.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.stages.iter().flatten()
    }

    /// The planned writes in order.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.actions().filter_map(|action| match action {
            Action::Write(write) => Some(&**write),
            _ => None,
        })
    }

    /// When the key is to be looked at again without a change.
    pub fn requeue(&self) -> Option<Duration> {
        self.requeue_after
    }

    /// Appends another plan's stages after this one's.
    pub fn append(&mut self, other: Self) {
        self.next_stage();
        self.stages.extend(other.stages);
        if let Some(delay) = other.requeue_after {
            self.requeue_after(delay);
        }
        if let Some(failure) = other.failure {
            self.failed_because(failure);
        }
    }
}

/// One thing to do.
#[derive(Debug)]
pub enum Action {
    /// A write through the API.
    Write(Box<Write>),
    /// An event to record.
    Event(Event),
    /// Something that must hold now, on the server rather than in an informer, or the plan ends here.
    Check(Check),
    /// An effect outside the API, through a port.
    Effect(Box<Effect>),
}

impl From<Write> for Action {
    fn from(write: Write) -> Self {
        Self::Write(Box::new(write))
    }
}

impl From<Event> for Action {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

impl From<Check> for Action {
    fn from(check: Check) -> Self {
        Self::Check(check)
    }
}

impl From<Effect> for Action {
    fn from(effect: Effect) -> Self {
        Self::Effect(Box::new(effect))
    }
}

/// A condition read from the server itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// The object exists with this UID and is not being deleted.
    Alive(Resource, ObjectKey, String),
    /// No object of this UID has that name.
    Absent(Resource, ObjectKey, String),
    /// No object has that name.
    Missing(Resource, ObjectKey),
    /// No pod of its namespace refers to this secret.
    Unmounted(ObjectKey),
    /// The namespace holds no object of this resource.
    Empty(Resource, String),
}

/// A write through the API.
#[derive(Clone, Debug)]
pub struct Write {
    /// Of which resource.
    pub resource: Resource,
    /// Of which object; the name is empty for creations and collections.
    pub key: ObjectKey,
    /// Of which subresource; empty for the object itself.
    pub subresource: &'static str,
    /// What.
    pub verb: Verb,
    /// With which body.
    pub payload: Payload,
    /// API reasons (`NotFound`, `AlreadyExists`) that count as success.
    pub tolerate: Vec<&'static str>,
    /// Recorded after success; `{name}` stands for the object's name.
    pub on_success: Option<Event>,
    /// Recorded after failure; `{error}` stands for the error.
    pub on_failure: Option<Event>,
}

impl Write {
    fn typed<K: Object>(verb: Verb, object: &K, subresource: &'static str) -> Self {
        let key = match verb {
            Verb::Create => ObjectKey::new(object.namespace(), ""),
            _ => object.key(),
        };
        Self::raw(K::RESOURCE, key, subresource, verb, json_payload(object.encode()))
    }

    fn raw(
        resource: Resource,
        key: ObjectKey,
        subresource: &'static str,
        verb: Verb,
        payload: Payload,
    ) -> Self {
        Self {
            resource,
            key,
            subresource,
            verb,
            payload,
            tolerate: Vec::new(),
            on_success: None,
            on_failure: None,
        }
    }

    /// Creates `object`.
    pub fn create<K: Object>(object: &K) -> Self {
        Self::typed(Verb::Create, object, "")
    }

    /// Replaces `object`, if it is still at its revision.
    pub fn update<K: Object>(object: &K) -> Self {
        Self::typed(Verb::Update, object, "")
    }

    /// Replaces the status of `object`, if it is still at its revision.
    pub fn update_status<K: Object>(object: &K) -> Self {
        Self::typed(Verb::Update, object, "status")
    }

    /// Replaces another subresource of `object`.
    pub fn update_subresource<K: Object>(object: &K, subresource: &'static str) -> Self {
        Self::typed(Verb::Update, object, subresource)
    }

    /// Patches an object or (`subresource` not empty) a part of it.
    pub fn patch(
        resource: Resource,
        key: ObjectKey,
        subresource: &'static str,
        kind: PatchKind,
        patch: &Value,
    ) -> Self {
        let payload = Payload { content_type: kind.content_type(), bytes: Bytes::from(patch.to_string()) };
        Self::raw(resource, key, subresource, Verb::Patch, payload)
    }

    /// Deletes an object. That it is gone already counts as success.
    pub fn delete(resource: Resource, key: ObjectKey, options: &DeleteOptions) -> Self {
        let payload = json_payload(delete_body(options).to_string().into_bytes());
        Self::raw(resource, key, "", Verb::Delete, payload).tolerating("NotFound")
    }

    /// Deletes an object only if it still has this UID.
    pub fn delete_exactly(resource: Resource, key: ObjectKey, uid: &str) -> Self {
        let options = DeleteOptions { uid: Some(uid.to_owned()), ..DeleteOptions::default() };
        Self::delete(resource, key, &options)
    }

    /// Deletes all objects of a namespace.
    pub fn delete_collection(resource: Resource, namespace: &str, options: &DeleteOptions) -> Self {
        let payload = json_payload(delete_body(options).to_string().into_bytes());
        Self::raw(resource, ObjectKey::new(namespace, ""), "", Verb::DeleteCollection, payload)
    }

    /// An error with this API reason counts as success.
    #[must_use]
    pub fn tolerating(mut self, reason: &'static str) -> Self {
        self.tolerate.push(reason);
        self
    }

    /// Records `event` after success.
    #[must_use]
    pub fn announcing(mut self, event: Event) -> Self {
        self.on_success = Some(event);
        self
    }

    /// Records `event` after a failure.
    #[must_use]
    pub fn lamenting(mut self, event: Event) -> Self {
        self.on_failure = Some(event);
        self
    }

    /// The object in the body.
    ///
    /// # Errors
    /// The body is no `K`: a patch, or deletion options.
    pub fn object<K: Object>(&self) -> Result<K, gantry_api::DecodeError> {
        K::decode(&self.payload.bytes)
    }

    /// Which objects a collection deletion picks: all.
    pub(crate) fn select(&self) -> ListParams {
        ListParams::default()
    }
}

fn json_payload(bytes: Vec<u8>) -> Payload {
    Payload { content_type: "application/json", bytes: Bytes::from(bytes) }
}

/// Something worth telling a person about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The object.
    pub regarding: ObjectReference,
    /// `Warning`, or else `Normal`.
    pub warning: bool,
    /// In CamelCase, for machines.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

impl Event {
    /// A `Normal` event about `object`.
    pub fn normal<K: Object>(object: &K, reason: &'static str, message: impl Into<String>) -> Self {
        Self { regarding: reference(object), warning: false, reason, message: message.into() }
    }

    /// A `Warning` event about `object`.
    pub fn warning<K: Object>(object: &K, reason: &'static str, message: impl Into<String>) -> Self {
        Self { regarding: reference(object), warning: true, reason, message: message.into() }
    }
}

/// A reference to `object` as events carry it.
pub fn reference<K: Object>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::RESOURCE.api_version()),
        kind: Some(K::RESOURCE.kind.to_string()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}
