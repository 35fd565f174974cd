//! How failures count: the failure policy, the success policy, back-off limits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use gantry_api::batch::{JobSpec, PodFailurePolicyRule};
use gantry_api::time::system_time;
use gantry_client::views::{Phase, PodView};

use super::{Sync, indexes};

/// The first rule of the failure policy that a failed pod matches, and what it matched.
fn matched<'a>(spec: &'a JobSpec, pod: &PodView) -> Option<(usize, &'a PodFailurePolicyRule, String)> {
    let failure = pod.failure.as_ref()?;
    let rules = spec.pod_failure_policy.as_ref()?.rules.iter().enumerate();
    rules.into_iter().find_map(|(at, rule)| {
        let what = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(codes), _) => {
                let named = |name: &String| codes.container_name.as_ref().is_none_or(|n| n == name);
                let listed = |code: &i32| match codes.operator.as_str() {
                    "In" => codes.values.contains(code),
                    "NotIn" => !codes.values.contains(code),
                    _ => false,
                };
                let hit = failure.exits.iter().find(|(n, code)| *code != 0 && named(n) && listed(code))?;
                let who = format!("{}/{}", pod.namespace(), pod.name());
                format!("Container {} for pod {who} failed with exit code {}", hit.0, hit.1)
            }
            (None, Some(patterns)) => {
                let holds = |kind: &str, status: &str| {
                    failure.conditions.iter().any(|(k, s)| k == kind && s == status)
                };
                let hit = patterns.iter().find(|p| holds(&p.type_, p.status.as_deref().unwrap_or("True")))?;
                format!("Pod {}/{} has condition {}", pod.namespace(), pod.name(), hit.type_)
            }
            (None, None) => return None,
        };
        Some((at, rule, what))
    })
}

/// Whether the failure policy lets this failure pass.
pub(super) fn is_ignored(spec: &JobSpec, pod: &PodView) -> bool {
    matched(spec, pod).is_some_and(|(_, rule, _)| rule.action == "Ignore")
}

/// The message of the first failure that fails the whole Job.
pub(super) fn fatal_failure(spec: &JobSpec, pods: &[Arc<PodView>]) -> Option<String> {
    pods.iter().filter(|pod| pod.phase == Phase::Failed).find_map(|pod| {
        let (at, _, what) = matched(spec, pod).filter(|(_, rule, _)| rule.action == "FailJob")?;
        Some(format!("{what} matching FailJob rule at index {at}"))
    })
}

/// Whether containers that are restarted in place have failed too often.
pub(super) fn restarts_exceed(spec: &JobSpec, limit: i32, active: &[Arc<PodView>]) -> bool {
    let policy = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let restarts: i32 = active.iter().map(|pod| pod.restarts).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// The failures of one completion index.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IndexFailures {
    pub count: i32,
    pub fatal: bool,
    pub last: Option<SystemTime>,
}

/// The failures by index, as far as their pods are still there.
pub(super) fn failures_by_index(sync: &Sync<'_>) -> BTreeMap<i32, IndexFailures> {
    let mut failures: BTreeMap<i32, IndexFailures> = BTreeMap::new();
    for pod in sync.pods.iter().filter(|pod| sync.has_failed(pod)) {
        let Some(index) = sync.index_of(pod) else { continue };
        let rule = matched(sync.spec, pod).map(|(_, rule, _)| rule.action.as_str());
        let before = pod.failure.as_ref().map_or(0, |f| f.index_failures);
        let entry = failures.entry(index).or_default();
        entry.count = entry.count.max(before + i32::from(rule != Some("Ignore")));
        entry.fatal |= rule == Some("FailIndex");
        entry.last = entry.last.max(Some(ended_at(pod)));
    }
    failures
}

/// When a pod ended, as well as can be told.
pub(super) fn ended_at(pod: &PodView) -> SystemTime {
    let at = pod.finished.as_ref().or(pod.deleted.as_ref()).or(pod.ready_since.as_ref());
    at.or(pod.created.as_ref()).map_or(SystemTime::UNIX_EPOCH, |t| system_time(&t.0))
}

/// The first rule of the success policy that is met.
pub(super) fn success_rule(spec: &JobSpec, succeeded: &BTreeSet<i32>) -> Option<usize> {
    let rules = &spec.success_policy.as_ref()?.rules;
    rules.iter().position(|rule| {
        let listed = rule.succeeded_indexes.as_deref().map(indexes::parse);
        let matching = match &listed {
            Some(listed) => succeeded.intersection(listed).count(),
            None => succeeded.len(),
        };
        match (rule.succeeded_count, &listed) {
            (Some(n), _) => matching >= usize::try_from(n).unwrap_or(0),
            (None, Some(listed)) => matching == listed.len(),
            (None, None) => false,
        }
    })
}

/// A failure's reason as the event carries it.
pub(super) fn event_reason(reason: &str) -> &'static str {
    const KNOWN: [&str; 5] = [
        "PodFailurePolicy",
        "BackoffLimitExceeded",
        "DeadlineExceeded",
        "MaxFailedIndexesExceeded",
        "FailedIndexes",
    ];
    KNOWN.into_iter().find(|known| *known == reason).unwrap_or("Failed")
}
