//! What a request leaves behind for the audit log while it is served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_api::metav1::Status;
use parking_lot::Mutex;

use super::event::{Impersonated, ObjectRef, Outcome};
use super::latency::go_duration;
use super::stage::Level;

/// Most annotations of one request.
const MAX_ANNOTATIONS: usize = 64;
const LATENCY: &str = "apiserver.latency.k8s.io/";

/// The notes of one request.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// With the level from which on they are told.
    annotations: BTreeMap<String, (String, Level)>,
    latencies: BTreeMap<&'static str, Duration>,
    impersonated: Option<Arc<Impersonated>>,
    object: ObjectRef,
    request: Option<Bytes>,
    response: Option<Bytes>,
    outcome: Option<Outcome>,
}

/// How latencies of one sort add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    /// They come one after the other.
    Sum,
    /// They come at the same time: the longest counts.
    Longest,
}

/// What an event tells of the notes.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) impersonated: Option<Arc<Impersonated>>,
    pub(super) object: ObjectRef,
    pub(super) request: Option<Bytes>,
    pub(super) response: Option<Bytes>,
    pub(super) outcome: Option<Outcome>,
}

impl Notes {
    /// The first value of a key stays, as upstream has it.
    pub(crate) fn annotate(&self, key: String, value: String, from: Level) {
        let annotations = &mut self.inner.lock().annotations;
        if annotations.len() < MAX_ANNOTATIONS || annotations.contains_key(&key) {
            annotations.entry(key).or_insert((value, from));
        }
    }

    /// All annotations so far.
    pub(crate) fn annotations(&self) -> BTreeMap<String, String> {
        let inner = self.inner.lock();
        inner.annotations.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect()
    }

    /// How long a part of the work took: `authorization`, `mutating-webhook`.
    pub(crate) fn took(&self, part: &'static str, time: Duration, tally: Tally) {
        let latencies = &mut self.inner.lock().latencies;
        let so_far = latencies.entry(part).or_default();
        *so_far = match tally {
            Tally::Sum => *so_far + time,
            Tally::Longest => time.max(*so_far),
        };
    }

    /// Tells how long the parts took of a request that took `total`.
    pub(super) fn annotate_latencies(&self, total: Duration) {
        let mut inner = self.inner.lock();
        let latencies = std::mem::take(&mut inner.latencies);
        let parts = latencies.into_iter().filter(|(_, took)| !took.is_zero());
        for (part, took) in parts.chain([("total", total)]) {
            let told = (go_duration(took), Level::Metadata);
            inner.annotations.entry(format!("{LATENCY}{part}")).or_insert(told);
        }
    }

    pub(crate) fn impersonates(&self, impersonated: Impersonated) {
        self.inner.lock().impersonated = Some(Arc::new(impersonated));
    }

    /// What the request's object says of itself; the first to say something is believed.
    pub(crate) fn names(&self, named: ObjectRef) {
        let object = &mut self.inner.lock().object;
        let fill = |place: &mut String, text: String| {
            if place.is_empty() {
                *place = text;
            }
        };
        fill(&mut object.namespace, named.namespace);
        fill(&mut object.name, named.name);
        fill(&mut object.uid, named.uid);
        fill(&mut object.resource_version, named.resource_version);
    }

    /// The request's object: JSON on one line.
    pub(crate) fn request(&self, json: Bytes) {
        self.inner.lock().request.get_or_insert(json);
    }

    /// The response's object: JSON on one line.
    pub(crate) fn response(&self, json: Bytes) {
        self.inner.lock().response = Some(json);
    }

    /// The response is a Status.
    pub(crate) fn status(&self, status: &Status) {
        self.inner.lock().outcome = Some(Outcome::of(status));
    }

    /// What an event of `level` tells.
    pub(super) fn told(&self, level: Level) -> Told {
        let inner = self.inner.lock();
        let annotations = inner.annotations.iter().filter(|(_, (_, from))| *from <= level);
        Told {
            annotations: annotations.map(|(key, (value, _))| (key.clone(), value.clone())).collect(),
            impersonated: inner.impersonated.clone(),
            object: inner.object.clone(),
            request: inner.request.clone(),
            response: inner.response.clone(),
            outcome: inner.outcome.clone(),
        }
    }
}

impl Outcome {
    /// Nothing but a code.
    pub(super) fn code(code: u16) -> Self {
        Self { code, ..Self::default() }
    }

    pub(super) fn of(status: &Status) -> Self {
        Self {
            status: status.status.clone(),
            message: status.message.clone(),
            reason: status.reason.clone(),
            details: status.details.clone(),
            code: status.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(0),
            ..Self::default()
        }
    }
}
