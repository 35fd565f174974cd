//! What `/metrics` says of the audit log, under upstream's names.

use std::sync::LazyLock;

use gantry_base::metrics::{Count, Counter, CounterVec, Family, Handle, Stability};

use super::stage::Level;

static EVENTS: Counter = Counter::new(
    "apiserver_audit_event_total",
    "Counter of audit events generated and sent to the audit backend.",
    Stability::Alpha,
);
static ERRORS: CounterVec = CounterVec::new(
    "apiserver_audit_error_total",
    "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.",
    Stability::Alpha,
    &["plugin"],
);
static LEVELS: CounterVec = CounterVec::new(
    "apiserver_audit_level_total",
    "Counter of policy levels for audit events (1 per request).",
    Stability::Alpha,
    &["level"],
);
static REJECTED: Counter = Counter::new(
    "apiserver_audit_requests_rejected_total",
    "Counter of apiserver requests rejected due to an error in audit logging backend.",
    Stability::Alpha,
);

/// The levels' counters, found once: each request counts.
static EVERY_LEVEL: LazyLock<[Handle<Count>; 4]> =
    LazyLock::new(|| Level::ALL.map(|level| LEVELS.handle(&[level.name()])));

pub(crate) static FAMILIES: &[&dyn Family] = &[&EVENTS, &ERRORS, &LEVELS, &REJECTED];

pub(super) fn event() {
    EVENTS.inc();
}

pub(super) fn level(level: Level) {
    EVERY_LEVEL[level as usize].inc();
}

pub(super) fn rejected() {
    REJECTED.inc();
}

/// Events that were not told, and by whom.
pub(super) fn failed(plugin: &'static str, events: usize, why: &str) {
    ERRORS.with(&[plugin], |n| n.add(u64::try_from(events).unwrap_or(u64::MAX)));
    // Which events these are is not said: they may hold what is for no other log.
    tracing::error!("Error in audit plugin '{plugin}' affecting {events} audit events: {why}");
}
