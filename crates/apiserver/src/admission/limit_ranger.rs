//! LimitRanges: default requests and limits of containers, and what containers, pods and claims must stay within.
//!
//! Behaviour and texts: `plugin/pkg/admission/limitranger`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::core::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod};
use gantry_api::quantity::WireQuantity;
use gantry_api::status::Result;
use gantry_api::{Quantity, Resource};
use gantry_base::Clock;
use gantry_client::{Api, Informer, ListParams};
use gantry_kinds::AnyObject;
use gantry_kinds::resources::{Amounts, Basis, amounts, pod_limits, pod_requests};
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::common::{aggregate, forbidden, is_core};
use super::registry::PluginDeps;
use super::{AdmissionPlugin, AdmissionRequest, Operation};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// How long the informer is not believed in a namespace whose ranges were written here.
const DISTRUST: Duration = Duration::from_secs(5);
/// Namespaces whose writes are remembered at one time.
const MAX_REMEMBERED: usize = 10_000;

/// The plugin.
pub(super) struct LimitRanger {
    ranges: Informer<LimitRange>,
    api: Api<LimitRange>,
    clock: Arc<dyn Clock>,
    /// Where ranges were written lately, until when the informer may be behind.
    written: Mutex<HashMap<String, Duration>>,
}

type WireList = BTreeMap<String, WireQuantity>;

impl LimitRanger {
    pub(super) fn new(deps: &PluginDeps) -> Self {
        Self {
            ranges: deps.informers.of(),
            api: Api::new(Arc::clone(&deps.transport), "gantry-apiserver"),
            clock: deps.clock(),
            written: Mutex::default(),
        }
    }

    fn remember(&self, namespace: &str) {
        let now = self.clock.monotonic();
        let mut written = self.written.lock();
        if written.len() >= MAX_REMEMBERED {
            written.retain(|_, until| now < *until);
        }
        if written.len() < MAX_REMEMBERED {
            written.insert(namespace.to_owned(), now + DISTRUST);
        }
    }

    fn was_written(&self, namespace: &str) -> bool {
        self.written.lock().get(namespace).is_some_and(|until| self.clock.monotonic() < *until)
    }

    /// What holds in the request's namespace; nothing for what is being deleted.
    async fn ranges(
        &self,
        request: &AdmissionRequest<'_>,
        old: Option<&dyn AnyObject>,
    ) -> Result<Vec<Arc<LimitRange>>> {
        if old.is_some_and(|o| o.metadata().deletion_timestamp.is_some()) {
            return Ok(Vec::new());
        }
        if self.was_written(request.namespace) {
            return Ok(self.api.list(request.namespace, &ListParams::default()).await?.0);
        }
        Ok(self.ranges.in_namespace(request.namespace))
    }
}

fn items(range: &LimitRange) -> &[LimitRangeItem] {
    range.spec.as_ref().map(|s| s.limits.as_slice()).unwrap_or_default()
}

#[async_trait]
impl AdmissionPlugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        if is_core(resource, "limitranges") {
            return operation != Operation::Connect;
        }
        match operation {
            Operation::Create => {
                subresource.is_empty()
                    && (is_core(resource, "pods") || is_core(resource, "persistentvolumeclaims"))
            }
            Operation::Update => {
                (is_core(resource, "pods") && subresource == "resize")
                    || (is_core(resource, "persistentvolumeclaims") && subresource.is_empty())
            }
            _ => false,
        }
    }

    async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(pod) = object.downcast_mut::<Pod>() else { return Ok(()) };
        for range in self.ranges(request, old).await? {
            fill_in(pod, items(&range));
        }
        Ok(())
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        if is_core(request.resource, "limitranges") {
            self.remember(request.namespace);
            return Ok(());
        }
        let Some(object) = object else { return Ok(()) };
        for range in self.ranges(request, old).await? {
            let errors = if let Some(pod) = object.downcast::<Pod>() {
                check_pod(pod, items(&range))
            } else if let Some(claim) = object.downcast::<PersistentVolumeClaim>() {
                check_claim(claim, items(&range))
            } else {
                Vec::new()
            };
            if let Some(why) = aggregate(errors) {
                return Err(forbidden(request, Some(object), why));
            }
        }
        Ok(())
    }
}

/// Gives containers what a range says of those that say nothing.
fn fill_in(pod: &mut Pod, items: &[LimitRangeItem]) {
    let (mut requests, mut limits) = (WireList::new(), WireList::new());
    for item in items.iter().filter(|i| i.type_ == "Container") {
        requests.extend(item.default_request.clone().unwrap_or_default());
        limits.extend(item.default.clone().unwrap_or_default());
    }
    let mut told = Vec::new();
    let spec = pod.spec.get_or_insert_default();
    for container in &mut spec.containers {
        merge(container, "container", &requests, &limits, &mut told);
    }
    for container in spec.init_containers.iter_mut().flatten() {
        merge(container, "init container", &requests, &limits, &mut told);
    }
    if !told.is_empty() {
        let text = format!("LimitRanger plugin set: {}", told.join("; "));
        pod.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), text);
    }
}

fn merge(
    container: &mut Container,
    what: &str,
    requests: &WireList,
    limits: &WireList,
    told: &mut Vec<String>,
) {
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let resources = container.resources.get_or_insert_default();
    let name = &container.name;
    let mut fill = |target: &mut Option<WireList>, from: &WireList, kind: &str| {
        let missing: Vec<_> =
            from.iter().filter(|(k, _)| target.as_ref().is_none_or(|t| !t.contains_key(*k))).collect();
        if missing.is_empty() {
            return;
        }
        let names: Vec<&str> = missing.iter().map(|(k, _)| k.as_str()).collect();
        told.push(format!("{} {kind} for {what} {name}", names.join(", ")));
        target.get_or_insert_default().extend(missing.into_iter().map(|(k, v)| (k.clone(), v.clone())));
    };
    fill(&mut resources.requests, requests, "request");
    fill(&mut resources.limits, limits, "limit");
}

fn check_pod(pod: &Pod, items: &[LimitRangeItem]) -> Vec<String> {
    let mut errors = Vec::new();
    let Some(spec) = &pod.spec else { return errors };
    for item in items {
        if item.type_ == "Container" {
            for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                let resources = container.resources.as_ref();
                let asked = amounts(resources.and_then(|r| r.requests.as_ref()));
                let limited = amounts(resources.and_then(|r| r.limits.as_ref()));
                check(item, &asked, &limited, &mut errors);
            }
        }
        if item.type_ == "Pod" {
            let basis = Basis { without_overhead: true, ..Basis::default() };
            check(item, &pod_requests(pod, basis), &pod_limits(pod, basis), &mut errors);
        }
    }
    errors
}

fn check(item: &LimitRangeItem, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
    let kind = &item.type_;
    let complaints = amounts(item.min.as_ref())
        .iter()
        .filter_map(|(name, min)| below(kind, name, *min, requests, limits))
        .chain(
            amounts(item.max.as_ref()).iter().filter_map(|(n, max)| above(kind, n, *max, requests, limits)),
        )
        .chain(
            amounts(item.max_limit_request_ratio.as_ref())
                .iter()
                .filter_map(|(n, ratio)| apart(kind, n, *ratio, requests, limits)),
        )
        .collect::<Vec<_>>();
    errors.extend(complaints);
}

fn check_claim(claim: &PersistentVolumeClaim, items: &[LimitRangeItem]) -> Vec<String> {
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    let requests = amounts(resources.and_then(|r| r.requests.as_ref()));
    let mut errors = Vec::new();
    for item in items.iter().filter(|i| i.type_ == "PersistentVolumeClaim") {
        let kind = &item.type_;
        for (name, min) in amounts(item.min.as_ref()) {
            errors.extend(below(kind, &name, min, &requests, &Amounts::new()));
        }
        for (name, max) in amounts(item.max.as_ref()) {
            errors.extend(match requests.get(&name) {
                None => Some(format!("maximum {name} usage per {kind} is {max}.  No request is specified")),
                Some(asked) if *asked > max => {
                    Some(format!("maximum {name} usage per {kind} is {max}, but request is {asked}"))
                }
                Some(_) => None,
            });
        }
    }
    errors
}

fn below(kind: &str, name: &str, min: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let rule = format!("minimum {name} usage per {kind} is {min}");
    match (requests.get(name), limits.get(name)) {
        (None, _) => Some(format!("{rule}.  No request is specified")),
        (Some(asked), _) if *asked < min => Some(format!("{rule}, but request is {asked}")),
        (_, Some(limit)) if *limit < min => Some(format!("{rule}, but limit is {limit}")),
        _ => None,
    }
}

fn above(kind: &str, name: &str, max: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let rule = format!("maximum {name} usage per {kind} is {max}");
    match (requests.get(name), limits.get(name)) {
        (_, None) => Some(format!("{rule}.  No limit is specified")),
        (_, Some(limit)) if *limit > max => Some(format!("{rule}, but limit is {limit}")),
        (Some(asked), _) if *asked > max => Some(format!("{rule}, but request is {asked}")),
        _ => None,
    }
}

fn apart(kind: &str, name: &str, max: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let rule = format!("{name} max limit to request ratio per {kind} is {max}");
    let set = |list: &Amounts| list.get(name).copied().filter(|q| !q.is_zero());
    let Some(asked) = set(requests) else {
        return Some(format!("{rule}, but no request is specified or request is 0"));
    };
    let Some(limit) = set(limits) else {
        return Some(format!("{rule}, but no limit is specified or limit is 0"));
    };
    let ratio = limit.as_f64() / asked.as_f64();
    (ratio > max.as_f64()).then(|| format!("{rule}, but provided ratio is {ratio:.6}"))
}
