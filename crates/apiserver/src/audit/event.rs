//! An audit event (`audit.k8s.io/v1`), and its one JSON form, which all backends share.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use gantry_api::field::quote;
use gantry_api::metav1::StatusDetails;
use gantry_api::time::micro_time;
use serde::Serialize;

use super::stage::{Level, Stage};
use crate::identify::{User, to_user_info};

/// How the JSON form of every event begins. In a list there is no such thing.
const HEAD: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#;
/// Says that an event was too large to be told whole.
const TRUNCATED: &str = "audit.k8s.io/truncated";
/// What an event takes in memory besides the objects in it, roughly.
const OVERHEAD: usize = 1 << 10;

/// What is known of a request when it arrives.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) id: String,
    pub(super) uri: String,
    pub(super) verb: &'static str,
    /// Nobody, if the credentials were no good.
    pub(super) user: Option<User>,
    pub(super) source_ips: Vec<String>,
    pub(super) agent: String,
    pub(super) received: SystemTime,
}

/// Somebody in whose name the request is served.
#[derive(Debug)]
pub(crate) struct Impersonated {
    pub(crate) user: User,
    /// The verb that allowed it; empty if that was the unconstrained one.
    pub(crate) constraint: String,
}

/// What a request is about.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) subresource: String,
}

/// What came of a request.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outcome {
    pub(super) metadata: Empty,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) details: Option<StatusDetails>,
    pub(crate) code: u16,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Empty {}

/// One stage of one request.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) level: Level,
    pub(super) stage: Stage,
    pub(super) facts: Arc<Facts>,
    pub(super) at: SystemTime,
    pub(super) impersonated: Option<Arc<Impersonated>>,
    pub(super) object: Option<ObjectRef>,
    pub(super) outcome: Option<Outcome>,
    /// JSON on one line.
    pub(super) request: Option<Bytes>,
    /// Likewise.
    pub(super) response: Option<Bytes>,
    pub(super) annotations: BTreeMap<String, String>,
    json: OnceLock<Bytes>,
}

impl Event {
    /// Without anything but what was known at the beginning.
    pub(super) fn new(level: Level, stage: Stage, facts: Arc<Facts>, at: SystemTime) -> Self {
        Self {
            level,
            stage,
            facts,
            at,
            impersonated: None,
            object: None,
            outcome: None,
            request: None,
            response: None,
            annotations: BTreeMap::new(),
            json: OnceLock::new(),
        }
    }

    /// About how many bytes it takes in memory.
    pub(super) fn weight(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        OVERHEAD + length(&self.request) + length(&self.response)
    }

    /// The JSON form, written when it is asked for first.
    pub(super) fn json(&self) -> &Bytes {
        self.json.get_or_init(|| Bytes::from(self.encode()))
    }

    /// The JSON form as an item of an EventList: in two parts.
    pub(super) fn item(&self) -> (&'static [u8], Bytes) {
        (b"{", self.json().slice(HEAD.len()..))
    }

    /// Without the objects, and with a note that says so.
    pub(super) fn truncated(&self) -> Self {
        let mut annotations = self.annotations.clone();
        annotations.insert(TRUNCATED.to_owned(), "true".to_owned());
        Self {
            impersonated: self.impersonated.clone(),
            object: self.object.clone(),
            outcome: self.outcome.clone(),
            annotations,
            ..Self::new(self.level, self.stage, Arc::clone(&self.facts), self.at)
        }
    }

    fn encode(&self) -> Vec<u8> {
        let facts = &*self.facts;
        let mut out = Vec::with_capacity(self.weight());
        out.extend_from_slice(HEAD);
        let mut writer = Writer { out: &mut out };
        writer.text("level", self.level.name());
        writer.text("auditID", &facts.id);
        writer.text("stage", self.stage.name());
        writer.text("requestURI", &facts.uri);
        writer.text("verb", facts.verb);
        match &facts.user {
            Some(user) => writer.value("user", &to_user_info(user)),
            None => writer.raw("user", b"{}"),
        }
        if let Some(impersonated) = &self.impersonated {
            writer.value("impersonatedUser", &to_user_info(&impersonated.user));
            if !impersonated.constraint.is_empty() {
                let constraint: BTreeMap<_, _> =
                    [("impersonationConstraint", &impersonated.constraint)].into();
                writer.value("authenticationMetadata", &constraint);
            }
        }
        if !facts.source_ips.is_empty() {
            writer.value("sourceIPs", &facts.source_ips);
        }
        if !facts.agent.is_empty() {
            writer.text("userAgent", &facts.agent);
        }
        if let Some(object) = &self.object {
            writer.value("objectRef", object);
        }
        if let Some(outcome) = &self.outcome {
            writer.value("responseStatus", outcome);
        }
        if let Some(request) = &self.request {
            writer.raw("requestObject", request);
        }
        if let Some(response) = &self.response {
            writer.raw("responseObject", response);
        }
        writer.time("requestReceivedTimestamp", facts.received);
        writer.time("stageTimestamp", self.at);
        if !self.annotations.is_empty() {
            writer.value("annotations", &self.annotations);
        }
        // Every field ends with a comma.
        out.pop();
        out.push(b'}');
        out
    }

    /// The older form: one line of text.
    pub(super) fn legacy(&self) -> String {
        let facts = &*self.facts;
        let list = |groups: &[Arc<str>]| groups.iter().map(|g| quote(g)).collect::<Vec<_>>().join(",");
        let none = || "<none>".to_owned();
        let user = facts.user.as_ref().filter(|user| !user.name.is_empty());
        let groups = user.filter(|user| !user.groups.is_empty()).map_or_else(none, |user| list(&user.groups));
        let other = self.impersonated.as_ref().map(|i| &i.user);
        let other_groups =
            other.filter(|o| !o.groups.is_empty()).map_or_else(|| "<lookup>".to_owned(), |o| list(&o.groups));
        let namespace = self.object.as_ref().map_or("", |object| &object.namespace);
        let response =
            self.outcome.as_ref().map_or_else(|| "<deferred>".to_owned(), |outcome| outcome.code.to_string());
        let received = micro_time(facts.received).0;
        format!(
            "{received} AUDIT: id={} stage={} ip={} method={} user={} groups={} as={} asgroups={} user-agent={} namespace={} uri={} response=\"{response}\"",
            quote(&facts.id),
            quote(self.stage.name()),
            quote(facts.source_ips.first().map_or("<unknown>", String::as_str)),
            quote(facts.verb),
            quote(user.map_or("<none>", |user| &user.name)),
            quote(&groups),
            quote(other.map_or("<self>", |other| &other.name)),
            quote(&other_groups),
            quote(&facts.agent),
            quote(if namespace.is_empty() { "<none>" } else { namespace }),
            quote(&facts.uri),
        )
    }
}

/// Writes fields, each followed by a comma.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn text(&mut self, key: &str, text: &str) {
        self.value(key, text);
    }

    fn time(&mut self, key: &str, at: SystemTime) {
        self.value(key, &micro_time(at));
    }

    fn raw(&mut self, key: &str, json: &[u8]) {
        self.key(key);
        self.out.extend_from_slice(json);
        self.out.push(b',');
    }

    fn value<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) {
        self.key(key);
        let before = self.out.len();
        if let Err(error) = serde_json::to_writer(&mut *self.out, value) {
            // Maps of texts, texts and times can always be written.
            tracing::error!(%error, key, "a field of an audit event cannot be written");
            self.out.truncate(before);
            self.out.extend_from_slice(b"null");
        }
        self.out.push(b',');
    }

    fn key(&mut self, key: &str) {
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}
