//! What `/metrics` says of the audit log, under upstream's names.

use std::sync::LazyLock;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::stage::Level;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PluginLabel {
    plugin: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LevelLabel {
    level: &'static str,
}

#[derive(Default)]
struct Metrics {
    events: Counter,
    errors: Family<PluginLabel, Counter>,
    levels: Family<LevelLabel, Counter>,
    rejected: Counter,
    /// The levels' counters, found once.
    of_level: [Counter; 4],
}

fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
        let mut metrics = Metrics::default();
        metrics.of_level =
            Level::ALL.map(|level| metrics.levels.get_or_create(&LevelLabel { level: level.name() }).clone());
        let registry = gantry_base::telemetry::metrics();
        let mut registry = registry.lock();
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(format!("apiserver_audit_{name}"), help, counter.clone());
        };
        counter("event", "Counter of audit events generated and sent to the audit backend", &metrics.events);
        counter(
            "requests_rejected",
            "Counter of apiserver requests rejected due to an error in audit logging backend",
            &metrics.rejected,
        );
        registry.register(
            "apiserver_audit_error",
            "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error",
            metrics.errors.clone(),
        );
        registry.register(
            "apiserver_audit_level",
            "Counter of policy levels for audit events (1 per request)",
            metrics.levels.clone(),
        );
        metrics
    });
    &METRICS
}

pub(super) fn event() {
    metrics().events.inc();
}

pub(super) fn level(level: Level) {
    metrics().of_level[level as usize].inc();
}

pub(super) fn rejected() {
    metrics().rejected.inc();
}

/// Events that were not told, and by whom.
pub(super) fn failed(plugin: &'static str, events: usize, why: &str) {
    let events_lost = u64::try_from(events).unwrap_or(u64::MAX);
    metrics().errors.get_or_create(&PluginLabel { plugin }).inc_by(events_lost);
    // Which events these are is not said: they may hold what is for no other log.
    tracing::error!("Error in audit plugin '{plugin}' affecting {events} audit events: {why}");
}
