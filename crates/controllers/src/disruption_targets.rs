//! Pods that were about to be disrupted and were not: after two minutes their condition says so.
//!
//! Behaviour: the stale-disruption part of `pkg/controller/disruption`.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::core::Pod;
use gantry_api::meta::MetaExt;
use gantry_api::metav1::Time;
use gantry_api::time::{system_time, time};
use gantry_api::{Object, ObjectKey, conditions};
use gantry_client::{Delta, Informer, InformerSet, PatchKind, Projection};
use serde_json::json;

use crate::engine::{Controller, Moment, Plan, Watch, Write};

/// How long a disruption may take to become a deletion.
const STALE_AFTER: Duration = Duration::from_secs(120);
const TARGET: &str = "DisruptionTarget";
/// The kubelet takes its time.
const BY_KUBELET: &str = "TerminationByKubelet";

/// What is kept of a pod: since when it is about to be disrupted.
pub struct Targeted {
    key: ObjectKey,
    revision: u64,
    uid: Box<str>,
    generation: i64,
    since: Option<Time>,
}

impl Projection for Targeted {
    type Object = Pod;

    fn project(pod: Arc<Pod>) -> Arc<Self> {
        let status = pod.status.as_ref();
        let condition = conditions::find(status.and_then(|s| s.conditions.as_ref()), TARGET);
        let over = matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
        let waits = condition
            .filter(|c| c.status == "True" && c.reason.as_deref() != Some(BY_KUBELET))
            .filter(|_| !over && !pod.is_terminating());
        Arc::new(Self {
            key: pod.key(),
            revision: MetaExt::revision(&*pod),
            uid: pod.uid().into(),
            generation: pod.generation(),
            since: waits.and_then(|c| c.last_transition_time.clone()),
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }

    fn is_wanted(&self) -> bool {
        self.since.is_some()
    }
}

/// The controller of such pods.
pub struct DisruptionTargets {
    pods: Informer<Targeted>,
}

impl DisruptionTargets {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { pods: informers.of() }
    }
}

impl Controller for DisruptionTargets {
    const NAME: &'static str = "disruption-target-controller";
    const ACCOUNT: &'static str = "disruption-controller";
    const COMPONENT: &'static str = "controllermanager";
    type Seen = Arc<Targeted>;

    fn watches(&self) -> Vec<Watch> {
        let targeted = |delta: &Delta<Targeted>| {
            let waits = delta.new.as_ref().is_some_and(|pod| pod.since.is_some());
            if waits { vec![delta.key.clone()] } else { Vec::new() }
        };
        vec![Watch::on(&self.pods, targeted)]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Arc<Targeted>> {
        self.pods.get(key).filter(|pod| pod.since.is_some())
    }

    fn plan(pod: &Arc<Targeted>, moment: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let Some(since) = &pod.since else { return plan };
        match (system_time(&since.0) + STALE_AFTER).duration_since(moment.now) {
            Ok(left) if !left.is_zero() => plan.requeue_after(left),
            _ => {
                let condition = json!({"type": TARGET, "status": "False", "reason": null, "message": null,
                    "observedGeneration": pod.generation, "lastTransitionTime": time(moment.now)});
                let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
                let write =
                    Write::patch(Pod::RESOURCE, pod.key.clone(), "status", PatchKind::Strategic, &patch);
                plan.push(write.tolerating("NotFound"));
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    #[test]
    fn a_pod_that_stayed_is_told_so_after_two_minutes() {
        let mut model = Model::default();
        let controller = DisruptionTargets { pods: Informer::detached() };
        model.feed(&controller.pods);
        let make = |model: &mut Model, name: &str, reason: &str| {
            let condition = json!({"type": TARGET, "status": "True", "reason": reason, "lastTransitionTime": time(model.now)});
            let value =
                json!({"metadata": {"name": name, "namespace": "a"}, "status": {"conditions": [condition]}});
            model.create(&Pod::decode_value(&value).expect("a pod")).key()
        };
        let (stayed, going) =
            (make(&mut model, "p", "EvictionByEvictionAPI"), make(&mut model, "q", BY_KUBELET));
        assert!(controller.observe(&going).is_none());
        let seen = controller.observe(&stayed).expect("a pod");
        let plan = DisruptionTargets::plan(&seen, &Moment::at(model.now));
        assert_eq!((plan.is_empty(), plan.requeue()), (true, Some(STALE_AFTER)));
        let plan = DisruptionTargets::plan(&seen, &Moment::at(model.now + STALE_AFTER));
        let body = String::from_utf8(plan.writes().next().expect("a write").payload.bytes.to_vec());
        assert!(body.expect("text").contains(r#""status":"False""#));
    }
}
