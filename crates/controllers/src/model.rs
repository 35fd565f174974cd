//! A model of the API for tests: objects as JSON trees, writes applied at once, informers fed with the result.
//!
//! Plans are applied to it until nothing is left to do; [`InMemory`] puts it behind a transport for the engine's own
//! tests. It knows no validation and no admission.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use gantry_api::status::Result as ApiResult;
use gantry_api::time::time;
use gantry_api::{ApiError, Encoded, FieldSelector, Object, ObjectKey, Resource};
use gantry_client::{
    Informer, List, ListParams, Mutation, Projection, Target, Transport, Verb, WatchEvent, WatchKind,
    WatchParams, WatchStream,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::engine::{Action, Attempt, Check, Controller, Failure, Moment, Plan, Write};

type Feed = Box<dyn Fn(&Model) + Send>;

/// The objects.
pub struct Model {
    objects: BTreeMap<(String, ObjectKey), Value>,
    revision: u64,
    /// What the objects' creation times and the plans' clock say.
    pub now: SystemTime,
    feeds: Vec<Feed>,
    /// The reasons of all events that plans recorded, in order.
    pub events: Vec<String>,
    changes: broadcast::Sender<(String, WatchEvent)>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            revision: 1,
            now: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            feeds: Vec::new(),
            events: Vec::new(),
            changes: broadcast::Sender::new(10_000),
        }
    }
}

fn encoded(value: &Value) -> Arc<Encoded> {
    let revision = value["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok());
    Arc::new(Encoded::new(Bytes::from(value.to_string()), revision.unwrap_or(0)))
}

impl Model {
    /// Keeps `informer` in step with the model.
    pub fn feed<P: Projection>(&mut self, informer: &Informer<P>) {
        let informer = informer.clone();
        let feed: Feed = Box::new(move |model| {
            let objects = model.all::<P::Object>().into_iter().map(|o| P::project(Arc::new(o))).collect();
            informer.replace(objects, model.revision);
        });
        feed(self);
        self.feeds.push(feed);
    }

    fn fed(&self) {
        self.feeds.iter().for_each(|feed| feed(self));
    }

    /// All objects of a kind.
    pub fn all<K: Object>(&self) -> Vec<K> {
        let plural = K::RESOURCE.qualified();
        let of_kind = self.objects.iter().filter(|((p, _), _)| *p == plural);
        of_kind.map(|(_, value)| K::decode_value(value).expect("a readable object")).collect()
    }

    /// One object.
    pub fn get<K: Object>(&self, key: &ObjectKey) -> Option<K> {
        let value = self.objects.get(&(K::RESOURCE.qualified(), key.clone()))?;
        Some(K::decode_value(value).expect("a readable object"))
    }

    /// Puts an object in as somebody else would, and returns it as stored.
    pub fn create<K: Object>(&mut self, object: &K) -> K {
        let value = self.apply(&Write::create(object)).expect("creation");
        K::decode_value(&value).expect("a readable object")
    }

    /// Changes an object as somebody else would.
    pub fn edit<K: Object>(&mut self, key: &ObjectKey, edit: impl FnOnce(&mut K)) {
        let mut object = self.get::<K>(key).expect("an object to edit");
        edit(&mut object);
        let mut value = object.encode_value();
        let old = &self.objects[&(K::RESOURCE.qualified(), key.clone())];
        if old["spec"] != value["spec"] {
            value["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        self.store(&K::RESOURCE, key.clone(), value);
        self.fed();
    }

    /// Removes an object as somebody else would.
    pub fn remove<K: Object>(&mut self, key: &ObjectKey) {
        self.drop_object(&K::RESOURCE, key);
        self.fed();
    }

    fn drop_object(&mut self, resource: &Resource, key: &ObjectKey) {
        let Some(mut last) = self.objects.remove(&(resource.qualified(), key.clone())) else { return };
        self.revision += 1;
        last["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let event = WatchEvent { kind: WatchKind::Deleted, object: encoded(&last) };
        self.changes.send((resource.qualified(), event)).ok();
    }

    fn store(&mut self, resource: &Resource, key: ObjectKey, mut value: Value) -> Value {
        let id = (resource.qualified(), key);
        if let Some(old) = self.objects.get(&id) {
            value["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
            if *old == value {
                return value;
            }
        }
        self.revision += 1;
        value["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let known = self.objects.insert(id.clone(), value.clone()).is_some();
        let kind = if known { WatchKind::Modified } else { WatchKind::Added };
        self.changes.send((id.0.clone(), WatchEvent { kind, object: encoded(&value) })).ok();
        let meta = &value["metadata"];
        let held = meta["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        if meta["deletionTimestamp"].is_string() && !held {
            self.drop_object(resource, &id.1);
        }
        value
    }

    /// Applies one write.
    pub fn apply(&mut self, write: &Write) -> ApiResult<Value> {
        let outcome = self.perform(write);
        self.fed();
        outcome
    }

    fn perform(&mut self, write: &Write) -> ApiResult<Value> {
        let body: Value = serde_json::from_slice(&write.payload.bytes).unwrap_or(Value::Null);
        if write.verb == Verb::Create {
            return self.perform_create(&write.resource, &write.key, body);
        }
        if write.verb == Verb::DeleteCollection {
            let plural = write.resource.qualified();
            let within = |k: &ObjectKey| k.namespace == write.key.namespace;
            let keys: Vec<_> = self
                .objects
                .keys()
                .filter(|(p, k)| *p == plural && within(k))
                .map(|(_, k)| k.clone())
                .collect();
            for key in keys {
                self.perform_delete(&write.resource, &key, &Value::Null)?;
            }
            return Ok(Value::Null);
        }
        let name = &write.key.name;
        let id = (write.resource.qualified(), write.key.clone());
        let Some(old) = self.objects.get(&id).cloned() else {
            return Err(ApiError::not_found(&write.resource, name));
        };
        if write.verb == Verb::Delete {
            return self.perform_delete(&write.resource, &write.key, &body);
        }
        let expected = &body["metadata"]["resourceVersion"];
        if expected.is_string() && *expected != old["metadata"]["resourceVersion"] {
            return Err(ApiError::stale(&write.resource, name));
        }
        let mut new = old.clone();
        match (write.verb, write.subresource) {
            (Verb::Patch, _) => patch(&mut new, &body),
            (_, "status") => {
                new["status"] = body["status"].clone();
                // The older kinds let annotations through.
                new["metadata"]["annotations"] = body["metadata"]["annotations"].clone();
            }
            (_, "finalize") => new["spec"] = body["spec"].clone(),
            _ => {
                new = body;
                new["status"] = old["status"].clone();
            }
        }
        if old["spec"] != new["spec"] && write.subresource.is_empty() {
            new["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        Ok(self.store(&write.resource, write.key.clone(), new))
    }

    fn perform_create(&mut self, resource: &Resource, key: &ObjectKey, mut body: Value) -> ApiResult<Value> {
        let meta = &mut body["metadata"];
        let unique = self.revision + 1;
        if meta["name"].as_str().is_none_or(str::is_empty) {
            meta["name"] = json!(format!("{}{unique:05}", meta["generateName"].as_str().unwrap_or("")));
        }
        let key = ObjectKey::new(key.namespace.clone(), meta["name"].as_str().unwrap_or(""));
        if meta["uid"].as_str().is_none_or(str::is_empty) {
            meta["uid"] = json!(format!("uid-{unique}"));
        }
        meta["generation"] = json!(1);
        meta["creationTimestamp"] = json!(time(self.now));
        if self.objects.contains_key(&(resource.qualified(), key.clone())) {
            return Err(ApiError::already_exists(resource, &key.name));
        }
        Ok(self.store(resource, key, body))
    }

    fn perform_delete(&mut self, resource: &Resource, key: &ObjectKey, options: &Value) -> ApiResult<Value> {
        let id = (resource.qualified(), key.clone());
        let Some(mut value) = self.objects.get(&id).cloned() else {
            return Err(ApiError::not_found(resource, &key.name));
        };
        let uid = &options["preconditions"]["uid"];
        if uid.is_string() && *uid != value["metadata"]["uid"] {
            return Err(ApiError::stale(resource, &key.name));
        }
        let finalizer = match options["propagationPolicy"].as_str() {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        let meta = &mut value["metadata"];
        if let Some(finalizer) = finalizer {
            let list = meta["finalizers"].as_array().cloned().unwrap_or_default();
            meta["finalizers"] = list.into_iter().chain([json!(finalizer)]).collect();
        }
        if meta["finalizers"].as_array().is_some_and(|list| !list.is_empty()) {
            meta["deletionTimestamp"] = json!(time(self.now));
            return Ok(self.store(resource, key.clone(), value));
        }
        self.drop_object(resource, key);
        Ok(json!({"kind": "Status", "status": "Success"}))
    }

    fn check(&self, check: &Check) -> bool {
        let uid = |resource: &Resource, key: &ObjectKey| {
            let value = self.objects.get(&(resource.qualified(), key.clone()))?;
            Some(value["metadata"]["uid"].as_str().unwrap_or("").to_owned())
        };
        match check {
            Check::Alive(resource, key, expected) => uid(resource, key).as_ref() == Some(expected),
            Check::Absent(resource, key, expected) => uid(resource, key).as_ref() != Some(expected),
            Check::Missing(resource, key) => uid(resource, key).is_none(),
            Check::Unmounted(secret) => !self.objects.iter().any(|((plural, key), pod)| {
                plural == "pods" && key.namespace == secret.namespace && {
                    let pod = serde_json::from_value(pod.clone()).unwrap_or_default();
                    crate::common::pods::mentions_secret(&pod, &secret.name)
                }
            }),
            Check::Empty(resource, namespace) => {
                let plural = resource.qualified();
                !self.objects.keys().any(|(p, k)| *p == plural && *k.namespace == **namespace)
            }
        }
    }

    /// Applies a plan; the failure it met, if any.
    pub fn perform_plan(&mut self, plan: &Plan) -> Option<Failure> {
        for stage in &plan.stages {
            for action in stage {
                let failure = match action {
                    Action::Write(write) => self.perform_write(write),
                    Action::Event(event) => {
                        self.events.push(event.reason.to_owned());
                        None
                    }
                    Action::Check(check) => {
                        (!self.check(check)).then(|| failure(Attempt::Other, "", "unmet"))
                    }
                    Action::Effect(_) => None,
                };
                if failure.is_some() {
                    return failure;
                }
            }
        }
        plan.failure.as_ref().map(|message| failure(Attempt::Other, "", message))
    }

    fn perform_write(&mut self, write: &Write) -> Option<Failure> {
        let (outcome, event) = match self.apply(write) {
            Ok(_) => (None, &write.on_success),
            Err(error) if write.tolerate.contains(&error.reason()) => (None, &None),
            Err(error) => {
                let attempt = match write.verb {
                    Verb::Create => Attempt::Create,
                    Verb::Delete => Attempt::Delete,
                    _ => Attempt::Other,
                };
                (Some(failure(attempt, &write.resource.kind, error.message())), &write.on_failure)
            }
        };
        self.events.extend(event.iter().map(|event| event.reason.to_owned()));
        outcome
    }

    /// Observes, plans and performs once; whether anything was planned.
    pub fn reconcile<C: Controller>(&mut self, controller: &C, key: &ObjectKey) -> bool {
        let Some(seen) = controller.observe(key) else { return false };
        let plan = C::plan(&seen, &Moment::at(self.now));
        self.perform_plan(&plan);
        !plan.is_empty()
    }

    /// Reconciles until nothing is left to do; panics if that does not come to an end.
    pub fn settle<C: Controller>(&mut self, controller: &C, key: &ObjectKey) {
        for _ in 0..100 {
            if !self.reconcile(controller, key) {
                return;
            }
        }
        let plan = controller.observe(key).map(|seen| C::plan(&seen, &Moment::at(self.now)));
        panic!("{} does not settle: {plan:#?}", C::NAME);
    }
}

fn failure(attempt: Attempt, kind: &str, message: &str) -> Failure {
    Failure { attempt, kind: kind.into(), reason: String::new(), message: message.into() }
}

/// A merge patch (RFC 7386), but that owner references merge by UID, as strategic ones do.
fn patch(target: &mut Value, patch_body: &Value) {
    let Value::Object(fields) = patch_body else {
        *target = patch_body.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        match (key.as_str(), value) {
            (_, Value::Null) => {
                target.as_object_mut().expect("made an object above").remove(key);
            }
            ("ownerReferences", Value::Array(references)) => merge_owners(&mut target[key], references),
            ("resourceVersion", _) => {}
            ("$deleteFromPrimitiveList/finalizers", Value::Array(gone)) => {
                if let Some(list) = target["finalizers"].as_array_mut() {
                    list.retain(|finalizer| !gone.contains(finalizer));
                }
            }
            _ => patch(&mut target[key], value),
        }
    }
}

fn merge_owners(target: &mut Value, references: &[Value]) {
    let strategic = references.iter().any(|r| r["$patch"].is_string());
    let mut list = target.as_array().cloned().unwrap_or_default();
    if !strategic && references.len() != 1 {
        *target = Value::Array(references.to_vec());
        return;
    }
    for reference in references {
        list.retain(|old| old["uid"] != reference["uid"]);
        if !reference["$patch"].is_string() {
            list.push(reference.clone());
        }
    }
    *target = Value::Array(list);
}

/// The model behind a transport.
#[derive(Clone, Default)]
pub struct InMemory {
    /// The model.
    pub model: Arc<Mutex<Model>>,
    /// Writes that are refused with this message while it is set.
    pub refusal: Arc<Mutex<Option<String>>>,
    /// The most writes that ran at once, and those that run.
    pub running: Arc<Mutex<(usize, usize)>>,
}

/// Whether a request for `target` with such a selector means the object. (No field that is asked for changes here.)
fn selects(target: &Target, fields: &FieldSelector, value: &Value) -> bool {
    let namespace = value["metadata"]["namespace"].as_str().unwrap_or("");
    let field = |path: &str| path.split('.').try_fold(value, |at, name| at.get(name)).and_then(Value::as_str);
    (target.namespace.is_empty() || *target.namespace == *namespace) && fields.matches(field)
}

#[async_trait]
impl Transport for InMemory {
    async fn get(&self, target: &Target) -> ApiResult<Arc<Encoded>> {
        let key = ObjectKey::new(target.namespace.clone(), target.name.clone());
        let model = self.model.lock();
        let value = model.objects.get(&(target.resource.qualified(), key));
        value.map(encoded).ok_or_else(|| ApiError::not_found(&target.resource, &target.name))
    }

    async fn list(&self, target: &Target, params: &ListParams) -> ApiResult<List> {
        let model = self.model.lock();
        let plural = target.resource.qualified();
        let wanted = |value: &Value| selects(target, &params.fields, value);
        let items = model.objects.iter().filter(|((p, _), value)| *p == plural && wanted(value));
        let items = items.map(|(_, value)| encoded(value)).collect();
        Ok(List { items, revision: model.revision, continue_token: String::new() })
    }

    async fn watch(&self, target: &Target, params: &WatchParams) -> ApiResult<WatchStream> {
        let plural = target.resource.qualified();
        let (target, fields) = (target.clone(), params.fields.clone());
        let receiver = self.model.lock().changes.subscribe();
        let stream = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.ok().map(|change| (change, receiver))
        });
        let own = stream.filter_map(move |(resource, event)| {
            let read = || serde_json::from_slice::<Value>(event.object.bytes()).unwrap_or_default();
            let own = resource == plural && selects(&target, &fields, &read());
            async move { own.then(|| Ok(vec![event])) }
        });
        Ok(own.boxed())
    }

    async fn mutate(&self, mutation: Mutation) -> ApiResult<Arc<Encoded>> {
        {
            let mut running = self.running.lock();
            running.1 += 1;
            running.0 = running.0.max(running.1);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.running.lock().1 -= 1;
        let refusal = self.refusal.lock().clone();
        if let Some(message) = refusal {
            return Err(ApiError::new(403, "Forbidden", message));
        }
        let key = ObjectKey::new(mutation.target.namespace.clone(), mutation.target.name.clone());
        let mut write =
            Write::delete(mutation.target.resource, key, &gantry_client::DeleteOptions::default());
        write.subresource = mutation.target.subresource;
        write.verb = mutation.verb;
        write.payload = mutation.payload;
        let value = self.model.lock().apply(&write)?;
        Ok(encoded(&value))
    }

    async fn raw(&self, path: &str) -> ApiResult<Bytes> {
        Err(ApiError::bad_request(format!("{path} is not served here")))
    }
}
