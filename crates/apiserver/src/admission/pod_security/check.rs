//! The list of checks, which of them a level has as of a version, and what they say together.

use gantry_api::core::{Container, ContainerPort, Lifecycle, PodSpec, Probe, SecurityContext};
use gantry_api::metav1::ObjectMeta;

use super::levels::{Level, LevelVersion};
use super::{baseline, restricted};

/// Why a check refuses a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Forbidden {
    pub(super) reason: String,
    pub(super) detail: String,
}

/// A pod's metadata and spec; finds nothing if the pod may pass.
pub(super) type Look = fn(&ObjectMeta, &PodSpec) -> Option<Forbidden>;

/// A check with its versions.
pub(super) struct Check {
    /// From which minor version on which function holds, ascending.
    pub(super) versions: &'static [(u32, Look)],
    /// Baseline checks that this one takes the place of, by their place in [`baseline::CHECKS`].
    pub(super) overrides: &'static [usize],
}

impl Check {
    fn at(&self, minor: u32) -> Option<Look> {
        self.versions.iter().rev().find(|(from, _)| *from <= minor).map(|(_, look)| *look)
    }
}

/// What the checks of a level find, in upstream's order.
pub(super) fn evaluate(policy: LevelVersion, meta: &ObjectMeta, spec: &PodSpec) -> Vec<Forbidden> {
    let minor = policy.version.minor();
    let strict = match policy.level {
        Level::Privileged => return Vec::new(),
        Level::Baseline => &[][..],
        Level::Restricted => restricted::CHECKS,
    };
    let replaced =
        |place: &usize| strict.iter().any(|c| c.overrides.contains(place) && c.at(minor).is_some());
    let base = baseline::CHECKS.iter().enumerate().filter(|(place, _)| !replaced(place)).map(|(_, c)| c);
    let looks = base.chain(strict).filter_map(|check| check.at(minor));
    looks.filter_map(|look| look(meta, spec)).collect()
}

/// `hostPort, privileged`
pub(super) fn reasons(found: &[Forbidden]) -> String {
    found.iter().map(|f| f.reason.as_str()).collect::<Vec<_>>().join(", ")
}

/// `hostPort (container "a" uses hostPort 80), privileged (…)`
pub(super) fn details(found: &[Forbidden]) -> String {
    let text = |f: &Forbidden| match f.detail.as_str() {
        "" => f.reason.clone(),
        detail => format!("{} ({detail})", f.reason),
    };
    found.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// What the checks look at in a container of any sort.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) name: &'a str,
    pub(super) security: Option<&'a SecurityContext>,
    pub(super) ports: &'a [ContainerPort],
    pub(super) probes: [Option<&'a Probe>; 3],
    pub(super) lifecycle: Option<&'a Lifecycle>,
}

impl<'a> View<'a> {
    fn of(c: &'a Container) -> Self {
        Self {
            name: &c.name,
            security: c.security_context.as_ref(),
            ports: c.ports.as_deref().unwrap_or_default(),
            probes: [c.liveness_probe.as_ref(), c.readiness_probe.as_ref(), c.startup_probe.as_ref()],
            lifecycle: c.lifecycle.as_ref(),
        }
    }
}

/// Init containers, containers, ephemeral containers.
pub(super) fn containers(spec: &PodSpec) -> impl Iterator<Item = View<'_>> {
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| View {
        name: &c.name,
        security: c.security_context.as_ref(),
        ports: c.ports.as_deref().unwrap_or_default(),
        probes: [c.liveness_probe.as_ref(), c.readiness_probe.as_ref(), c.startup_probe.as_ref()],
        lifecycle: c.lifecycle.as_ref(),
    });
    spec.init_containers.iter().flatten().chain(&spec.containers).map(View::of).chain(ephemeral)
}

/// The names of the containers that `bad` picks.
pub(super) fn names<'a>(spec: &'a PodSpec, mut bad: impl FnMut(&View<'a>) -> bool) -> Vec<&'a str> {
    containers(spec).filter(|c| bad(c)).map(|c| c.name).collect()
}

/// `"a", "b"`
pub(super) fn quoted<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    items.into_iter().map(|i| format!("\"{}\"", i.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `one` for a single item.
pub(super) fn plural(one: &'static str, many: &'static str, n: usize) -> &'static str {
    if n == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`
pub(super) fn which(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// `pod and container "a"`; nothing if neither is meant.
pub(super) fn setters(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".to_owned()),
        (false, false) => Some(which(names)),
        (true, false) => Some(format!("pod and {}", which(names))),
    }
}

pub(super) fn forbidden(reason: impl Into<String>, detail: impl Into<String>) -> Option<Forbidden> {
    Some(Forbidden { reason: reason.into(), detail: detail.into() })
}
