//! The pods that a namespace has when its policy becomes stricter: they stay, and are warned about.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use gantry_api::Object;
use gantry_api::core::Pod;
use gantry_api::meta::MetaExt;
use gantry_base::Clock;
use gantry_client::{ListParams, Target, Transport};

use super::check;
use super::config::Config;
use super::levels::LevelVersion;

/// Most pods that are looked at.
const MAX_PODS: usize = 3000;
/// Most time that looking takes.
const MAX_TIME: Duration = Duration::from_secs(1);

/// Pods with the same complaint: the first by name, and how many.
struct Same {
    name: String,
    count: usize,
}

/// What is said of the pods in a namespace by a new policy.
pub(super) async fn violations(
    transport: &dyn Transport,
    clock: &dyn Clock,
    config: &Config,
    namespace: &str,
    policy: LevelVersion,
) -> Vec<String> {
    let deadline = clock.monotonic() + MAX_TIME;
    let target =
        Target { resource: Pod::RESOURCE, namespace: namespace.into(), name: "".into(), subresource: "" };
    let listed = transport.list(&target, &ListParams::default()).await;
    let pods = listed.and_then(|list| {
        let pods = list.items.iter().map(|item| item.typed::<Pod>());
        pods.collect::<Result<Vec<_>, _>>().map_err(gantry_api::ApiError::internal)
    });
    let Ok(pods) = pods else {
        return vec!["failed to list pods while checking new PodSecurity enforce level".to_owned()];
    };
    let pods = prioritized(&pods, config);
    let mut found: BTreeMap<String, Same> = BTreeMap::new();
    let mut checked = 0;
    for pod in pods.iter().take(MAX_PODS) {
        checked += 1;
        note(&mut found, pod, policy);
        if clock.monotonic() >= deadline {
            break;
        }
    }
    tell(namespace, policy, found, checked, pods.len())
}

fn note(found: &mut BTreeMap<String, Same>, pod: &Pod, policy: LevelVersion) {
    let Some(spec) = &pod.spec else { return };
    let violations = check::evaluate(policy, &pod.metadata, spec);
    if violations.is_empty() {
        return;
    }
    let same = found
        .entry(check::reasons(&violations))
        .or_insert_with(|| Same { name: pod.name().to_owned(), count: 0 });
    if pod.name() < same.name.as_str() {
        same.name = pod.name().to_owned();
    }
    same.count += 1;
}

/// One pod of each owner first.
fn prioritized<'a>(pods: &'a [std::sync::Arc<Pod>], config: &Config) -> Vec<&'a Pod> {
    let mut seen = HashSet::new();
    let class = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.runtime_class_name.clone());
    let counted = pods.iter().map(|p| &**p).filter(|p| !config.exempts_runtime_class(class(p).as_deref()));
    let (mut first, rest): (Vec<&Pod>, Vec<&Pod>) =
        counted.partition(|pod| pod.controller().is_none_or(|owner| seen.insert(owner.uid.clone())));
    first.extend(rest);
    first
}

fn tell(
    namespace: &str,
    policy: LevelVersion,
    found: BTreeMap<String, Same>,
    checked: usize,
    total: usize,
) -> Vec<String> {
    let mut texts = Vec::new();
    if checked < total {
        texts.push(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {total} existing pods"
        ));
    }
    if !found.is_empty() {
        texts.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{policy}\""
        ));
    }
    let mut complaints: Vec<String> = found
        .into_iter()
        .map(|(what, same)| match same.count {
            1 => format!("{}: {what}", same.name),
            2 => format!("{} (and 1 other pod): {what}", same.name),
            n => format!("{} (and {} other pods): {what}", same.name, n - 1),
        })
        .collect();
    complaints.sort();
    texts.extend(complaints);
    texts
}
