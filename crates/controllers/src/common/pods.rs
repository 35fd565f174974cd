//! Pods of workloads: making them from a template, telling whether they are available, choosing which to remove.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_api::core::{Pod, PodTemplateSpec};
use gantry_api::meta::{MetaExt, controller_reference};
use gantry_api::metav1::Time;
use gantry_api::time::system_time;
use gantry_api::{LabelSelector, Object, ObjectKey};
use gantry_client::Informer;
use gantry_client::views::{Phase, PodView};

use super::claim::Candidates;

/// A pod as `template` describes it, controlled by `owner`, in its namespace, still without a name.
pub fn from_template<K: Object>(template: &PodTemplateSpec, owner: &K) -> Pod {
    let mut pod = Pod { spec: template.spec.clone(), ..Pod::default() };
    let from = template.metadata.as_ref();
    let meta = &mut pod.metadata;
    meta.labels = from.and_then(|m| m.labels.clone());
    meta.annotations = from.and_then(|m| m.annotations.clone());
    meta.finalizers = from.and_then(|m| m.finalizers.clone());
    meta.namespace = owner.metadata().namespace.clone();
    meta.owner_references = Some(vec![controller_reference(owner)]);
    pod
}

/// The `generateName` of the pods of `owner`.
pub fn name_prefix<K: Object>(owner: &K) -> String {
    let prefix = format!("{}-", owner.name());
    // A prefix that can begin no pod name: fall back to the name itself.
    if prefix.len() <= 253 { prefix } else { owner.name().to_owned() }
}

/// The pods that a workload of this UID looks at.
pub fn candidates(
    pods: &Informer<PodView>,
    uid: &str,
    namespace: &str,
    selector: &LabelSelector,
) -> Candidates {
    let orphans = pods.by_index("orphans", namespace);
    Candidates {
        owned: pods.by_index("owner", uid),
        orphans: orphans.into_iter().filter(|pod| selector.matches(pod.labels.as_deref())).collect(),
    }
}

/// When a ready pod has been ready for `min_ready`; `None` if it is not ready.
pub fn available_at(pod: &PodView, min_ready: i32) -> Option<SystemTime> {
    if !pod.ready {
        return None;
    }
    if min_ready <= 0 {
        return Some(SystemTime::UNIX_EPOCH);
    }
    let since = system_time(&pod.ready_since.as_ref()?.0);
    Some(since + Duration::from_secs(u64::from(min_ready.unsigned_abs())))
}

/// Whether a pod has been ready for `min_ready` seconds.
pub fn is_available(pod: &PodView, min_ready: i32, now: SystemTime) -> bool {
    available_at(pod, min_ready).is_some_and(|at| at <= now)
}

/// How long until the next ready pod becomes available; `None` if none is about to.
pub fn next_availability<'a>(
    pods: impl IntoIterator<Item = &'a Arc<PodView>>,
    min_ready: i32,
    now: SystemTime,
) -> Option<Duration> {
    let waits = pods.into_iter().filter_map(|pod| available_at(pod, min_ready)?.duration_since(now).ok());
    waits.filter(|wait| !wait.is_zero()).min()
}

/// Orders pods by how readily they are removed, the first to go first. `crowd` says how many pods of the same
/// kind share each node.
pub fn removal_order(
    mut pods: Vec<Arc<PodView>>,
    crowd: &HashMap<Arc<str>, usize>,
    now: SystemTime,
) -> Vec<Arc<PodView>> {
    let rank = |pod: &PodView| crowd.get(&pod.node).copied().unwrap_or(0);
    pods.sort_by(|a, b| {
        let assigned = |p: &PodView| !p.node.is_empty();
        assigned(a)
            .cmp(&assigned(b))
            .then_with(|| phase_rank(a.phase).cmp(&phase_rank(b.phase)))
            .then_with(|| a.ready.cmp(&b.ready))
            .then_with(|| a.deletion_cost.cmp(&b.deletion_cost))
            .then_with(|| rank(b).cmp(&rank(a)))
            .then_with(|| match a.ready && b.ready {
                true => younger_first(a.ready_since.as_ref(), b.ready_since.as_ref(), a, b, now),
                false => Ordering::Equal,
            })
            .then_with(|| b.restarts.cmp(&a.restarts))
            .then_with(|| younger_first(a.created.as_ref(), b.created.as_ref(), a, b, now))
    });
    pods
}

fn phase_rank(phase: Phase) -> u8 {
    match phase {
        Phase::Pending => 0,
        Phase::Unknown => 1,
        _ => 2,
    }
}

/// By age on a logarithmic scale, so that pods of about the same age go in random order (by UID).
fn younger_first(a: Option<&Time>, b: Option<&Time>, x: &PodView, y: &PodView, now: SystemTime) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(a), Some(b)) if a == b => Ordering::Equal,
        (Some(a), Some(b)) => age_rank(a, now).cmp(&age_rank(b, now)).then_with(|| x.uid.cmp(&y.uid)),
    }
}

fn age_rank(at: &Time, now: SystemTime) -> i64 {
    let age = now.duration_since(system_time(&at.0)).unwrap_or_default().as_nanos();
    age.checked_ilog2().map_or(-1, i64::from)
}

/// The workload that a pod's controller reference names, for wake-ups.
pub fn owner_keys(pod: &PodView, kind: &str) -> Option<ObjectKey> {
    pod.owner_of_kind(kind)
}

/// Whether an orphan appeared or changed what selectors see of it.
pub fn is_new_orphan(old: Option<&PodView>, new: Option<&PodView>) -> bool {
    new.is_some_and(|new| {
        new.owner_uid.is_empty()
            && old.is_none_or(|old| old.labels != new.labels || old.owner_uid != new.owner_uid)
    })
}

/// Whether a pod refers to a secret of this name, in a volume, the environment or for pulling images.
pub(crate) fn mentions_secret(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    // References to secrets are many and of many shapes; all of them are written down in the pod.
    fn mentions(value: &serde_json::Value, name: &str) -> bool {
        match value {
            serde_json::Value::Object(map) => map.iter().any(|(key, value)| match key.as_str() {
                "secretName" => value == name,
                "secretRef" | "secretKeyRef" | "nodePublishSecretRef" | "secret" => {
                    value["name"] == name || mentions(value, name)
                }
                "imagePullSecrets" => {
                    value.as_array().is_some_and(|list| list.iter().any(|one| one["name"] == name))
                }
                _ => mentions(value, name),
            }),
            serde_json::Value::Array(list) => list.iter().any(|value| mentions(value, name)),
            _ => false,
        }
    }
    // A spec that cannot be written down is no reason to delete anything.
    serde_json::to_value(spec).map_or(true, |spec| mentions(&spec, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::time::time;

    fn pod(uid: &str) -> PodView {
        PodView {
            uid: uid.into(),
            node: "n".into(),
            phase: Phase::Running,
            ready: true,
            ..PodView::default()
        }
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let ago = |s: u64| Some(time(now - Duration::from_secs(s)));
        let old = PodView { ready_since: ago(90_000), ..pod("old") };
        let young = PodView { ready_since: ago(10), ..pod("young") };
        let restarted = PodView { ready_since: ago(90_000), restarts: 3, ..pod("restarted") };
        let cheap = PodView { ready_since: ago(90_000), deletion_cost: -1, ..pod("cheap") };
        let unready = PodView { ready: false, ..pod("unready") };
        let pending = PodView { phase: Phase::Pending, ready: false, ..pod("pending") };
        let unbound = PodView { node: "".into(), ..pod("unbound") };
        let crowded = PodView { node: "crowded".into(), ready_since: ago(90_000), ..pod("crowded") };
        let pods = [old, young, restarted, cheap, unready, pending, unbound, crowded].map(Arc::new);
        let crowd = HashMap::from([("n".into(), 1), ("crowded".into(), 2)]);
        let order = removal_order(pods.to_vec(), &crowd, now);
        let uids: Vec<&str> = order.iter().map(|p| &*p.uid).collect();
        assert_eq!(uids, ["unbound", "pending", "unready", "cheap", "crowded", "young", "restarted", "old"]);
    }
}
