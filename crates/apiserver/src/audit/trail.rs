//! One request on its way, as the audit log sees it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use gantry_api::metav1::Status;
use http::HeaderMap;
use parking_lot::Mutex;

use super::event::{Event, Facts, ObjectRef, Outcome};
use super::notes::Notes;
use super::policy::Plan;
use super::stage::{Level, Stage};
use super::{Auditor, metrics};
use crate::identify::User;
use crate::pipeline::header;
use crate::route::RequestInfo;
use crate::warnings::Warnings;

/// Longer names of clients are cut off, and it is said so (upstream's `maxUserAgentLength`).
const MAX_AGENT: usize = 1024;
const CUT_OFF: &str = "...TRUNCATED";
/// A request that took no longer is not asked where its time went.
const SLOW: Duration = Duration::from_millis(500);

/// How a request came in.
pub(crate) struct Came {
    /// The `Audit-ID`.
    pub(crate) id: String,
    /// What was asked for, as the client wrote it.
    pub(crate) uri: String,
    /// From where, by way of whom.
    pub(crate) source_ips: Vec<String>,
    /// What the client calls itself.
    pub(crate) agent: String,
    /// When.
    pub(crate) received: SystemTime,
    /// The same by the monotonic clock.
    pub(crate) since: Duration,
}

/// A request that is audited. If nobody says how it ended, it says so itself when it goes.
pub(crate) struct Trail {
    auditor: Arc<Auditor>,
    plan: Plan,
    facts: Arc<Facts>,
    since: Duration,
    object: Option<ObjectRef>,
    notes: Arc<Notes>,
    outcome: Mutex<Option<Outcome>>,
    long: bool,
    ended: AtomicBool,
}

impl Auditor {
    /// Decides how much of a request is audited; `came` is asked only where something is. `user` is `None` if
    /// the credentials are no good.
    pub(crate) fn trail(
        self: &Arc<Self>,
        user: Option<&User>,
        info: &RequestInfo,
        warnings: &Warnings,
        came: impl FnOnce() -> Came,
    ) -> Option<Arc<Trail>> {
        let policy = self.policy.as_ref()?;
        let plan = match user {
            Some(user) => policy.evaluate(&info.attributes(user)),
            None => policy.evaluate(&info.attributes(&User::new("", []))),
        };
        metrics::level(plan.level);
        warnings.audited_at(plan.level, plan.omit_managed_fields);
        if plan.level == Level::None {
            return None;
        }
        self.open.fetch_add(1, Ordering::AcqRel);
        let came = came();
        let facts = Facts {
            id: came.id,
            uri: came.uri,
            verb: info.verb,
            user: user.cloned(),
            source_ips: came.source_ips,
            agent: shortened(came.agent),
            received: came.received,
        };
        Some(Arc::new(Trail {
            auditor: Arc::clone(self),
            plan,
            facts: Arc::new(facts),
            since: came.since,
            object: info.is_resource.then(|| about(info)),
            notes: warnings.notes(),
            outcome: Mutex::new(None),
            long: info.is_long_running(),
            ended: AtomicBool::new(false),
        }))
    }
}

impl Trail {
    /// The request has arrived. False if it must not be served, because that cannot be told.
    pub(crate) async fn received(&self) -> bool {
        if self.plan.omit.has(Stage::RequestReceived) {
            return true;
        }
        let event = self.event(Stage::RequestReceived, self.facts.received);
        let stored = self.auditor.emit(event).await;
        if !stored {
            metrics::rejected();
            self.ended.store(true, Ordering::Release);
        }
        stored
    }

    /// Nobody knows whose the request is; that is told as soon as the answer starts, and nothing after it.
    pub(crate) async fn unknown(&self, status: &Status) {
        self.ended.store(true, Ordering::Release);
        self.notes.status(status);
        self.settle(401);
        self.tell(Stage::ResponseStarted).await;
    }

    /// The answer is there. A request that runs long goes on until the last one lets go of its trail.
    pub(crate) async fn answered(&self, code: u16) {
        self.settle(code);
        if self.long {
            self.tell(Stage::ResponseStarted).await;
        } else {
            self.ended.store(true, Ordering::Release);
            self.note_latency();
            self.tell(Stage::ResponseComplete).await;
        }
    }

    /// Serving it failed by a fault of the server.
    pub(crate) async fn panicked(&self, what: &str) {
        self.ended.store(true, Ordering::Release);
        *self.outcome.lock() = Some(Outcome {
            status: Some("Failure".to_owned()),
            message: Some(format!("APIServer panic'd: {what}")),
            reason: Some("InternalError".to_owned()),
            code: 500,
            ..Outcome::default()
        });
        self.tell(Stage::Panic).await;
    }

    fn settle(&self, code: u16) {
        let told = self.notes.told(Level::None).outcome;
        *self.outcome.lock() = Some(Outcome { code, ..told.unwrap_or_default() });
    }

    fn note_latency(&self) {
        let took = self.auditor.clock.monotonic().saturating_sub(self.since);
        if took > SLOW {
            self.notes.annotate_latencies(took);
        }
    }

    async fn tell(&self, stage: Stage) {
        if !self.plan.omit.has(stage) {
            let event = self.event(stage, self.auditor.clock.now());
            // What comes of it is counted; the request has had its way.
            self.auditor.emit(event).await;
        }
    }

    fn event(&self, stage: Stage, at: SystemTime) -> Arc<Event> {
        let level = self.plan.level;
        let told = self.notes.told(level);
        let object = self.object.as_ref().map(|object| ObjectRef {
            namespace: first(&object.namespace, told.object.namespace),
            name: first(&object.name, told.object.name),
            uid: told.object.uid,
            resource_version: told.object.resource_version,
            ..object.clone()
        });
        let mut event = Event::new(level, stage, Arc::clone(&self.facts), at);
        event.impersonated = told.impersonated;
        event.object = object;
        event.outcome.clone_from(&self.outcome.lock());
        event.request = told.request;
        event.response = told.response;
        event.annotations = told.annotations;
        Arc::new(event)
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if !*self.ended.get_mut() {
            let unanswered = self.outcome.get_mut().is_none();
            if unanswered {
                let message = "Connection closed early".to_owned();
                let success = Some("Success".to_owned());
                let early = Outcome::code(200);
                *self.outcome.get_mut() = Some(Outcome { status: success, message: Some(message), ..early });
            }
            let mut stages = vec![Stage::ResponseComplete];
            if unanswered && self.long {
                stages.insert(0, Stage::ResponseStarted);
            }
            self.note_latency();
            stages.retain(|stage| !self.plan.omit.has(*stage));
            let now = self.auditor.clock.now();
            let events = stages.into_iter().map(|stage| self.event(stage, now)).collect();
            self.auditor.emit_later(events);
        }
        self.auditor.open.fetch_sub(1, Ordering::AcqRel);
    }
}

fn first(one: &str, other: String) -> String {
    if one.is_empty() { other } else { one.to_owned() }
}

fn about(info: &RequestInfo) -> ObjectRef {
    ObjectRef {
        resource: info.resource.clone(),
        namespace: info.namespace.clone(),
        name: info.name.clone(),
        api_group: info.group.clone(),
        api_version: info.version.clone(),
        subresource: info.subresource.clone(),
        ..ObjectRef::default()
    }
}

fn shortened(agent: String) -> String {
    if agent.len() <= MAX_AGENT {
        return agent;
    }
    let end = (0..=MAX_AGENT).rev().find(|at| agent.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{CUT_OFF}", &agent[..end])
}

/// Where a request comes from: what proxies say, and who is at the other end of the connection.
pub(crate) fn source_ips(headers: &HeaderMap, remote: Option<IpAddr>) -> Vec<String> {
    let parse = |text: &str| text.trim().parse::<IpAddr>().ok();
    let mut ips: Vec<IpAddr> = header(headers, "x-forwarded-for").split(',').filter_map(parse).collect();
    if let Some(real) = parse(header(headers, "x-real-ip"))
        && !ips.contains(&real)
    {
        ips.push(real);
    }
    if let Some(remote) = remote
        && ips.last() != Some(&remote)
    {
        ips.push(remote);
    }
    ips.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_addresses_are_in_the_order_of_the_way() {
        let ips = |forwarded: &'static str, real: &'static str, remote: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", forwarded.parse().expect("a value"));
            headers.insert("x-real-ip", real.parse().expect("a value"));
            source_ips(&headers, remote.map(|text| text.parse().expect("an address"))).join(" ")
        };
        assert_eq!(
            ips("1.1.1.1, nonsense,2.2.2.2", "3.3.3.3", Some("4.4.4.4")),
            "1.1.1.1 2.2.2.2 3.3.3.3 4.4.4.4"
        );
        assert_eq!(ips("1.1.1.1", "1.1.1.1", Some("1.1.1.1")), "1.1.1.1");
        assert_eq!(ips("", "", Some("::1")), "::1");
        assert_eq!(ips("", "", None), "");
    }

    #[test]
    fn long_names_of_clients_are_cut_off() {
        assert_eq!(shortened("kubectl".to_owned()), "kubectl");
        let long = shortened("x".repeat(2000));
        assert_eq!((long.len(), long.ends_with(CUT_OFF)), (1024 + CUT_OFF.len(), true));
    }
}
