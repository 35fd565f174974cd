//! What the scheduler does to the API: bindings, conditions, events, and the hint to the volume provisioner.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::core::{Binding, Event, EventSource, ObjectReference, PersistentVolumeClaim, Pod};
use gantry_api::metav1::ObjectMeta;
use gantry_api::status::Result;
use gantry_api::{ApiError, ObjectKey, time};
use gantry_base::{Clock, Tasks};
use gantry_client::{Api, Informer, PatchKind, Transport};
use serde_json::json;
use tokio::sync::mpsc;

use crate::metrics;
use crate::plugins::volume_binding::{ClaimView, SELECTED_NODE};
use crate::pod::SchedulingPod;

/// Attempts that may be under way at a time.
const MAX_IN_FLIGHT: usize = 512;
/// How long a volume may take to be provisioned before the pod is tried anew, perhaps elsewhere.
const PROVISION_TIMEOUT: Duration = Duration::from_secs(600);

/// How something that was begun has ended.
pub(super) enum Outcome {
    /// The pod is bound.
    Bound {
        /// Its UID.
        uid: Arc<str>,
    },
    /// The pod could not be bound.
    Failed {
        /// Its UID.
        uid: Arc<str>,
    },
    /// A refusal was reported.
    Reported,
}

/// Performs what was decided.
pub(super) struct Actor {
    hands: Arc<Hands>,
    outcomes: mpsc::UnboundedSender<Outcome>,
    tasks: Tasks,
    in_flight: usize,
}

struct Hands {
    pods: Api<Pod>,
    events: Api<Event>,
    claims: Api<PersistentVolumeClaim>,
    seen_claims: Informer<ClaimView>,
    clock: Arc<dyn Clock>,
    name: String,
}

impl Actor {
    pub(super) fn new(
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        name: String,
        seen_claims: Informer<ClaimView>,
        outcomes: mpsc::UnboundedSender<Outcome>,
        tasks: Tasks,
    ) -> Self {
        const MANAGER: &str = "kube-scheduler";
        let hands = Hands {
            pods: Api::new(Arc::clone(&transport), MANAGER),
            events: Api::new(Arc::clone(&transport), MANAGER),
            claims: Api::new(transport, MANAGER),
            seen_claims,
            clock,
            name,
        };
        Self { hands: Arc::new(hands), outcomes, tasks, in_flight: 0 }
    }

    /// Whether one more attempt may begin.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight < MAX_IN_FLIGHT
    }

    /// Notes that an attempt has ended.
    pub(super) fn done(&mut self) {
        self.in_flight -= 1;
    }

    /// Binds a pod, after its volumes are there.
    pub(super) fn bind(&mut self, pod: Arc<SchedulingPod>, node: Arc<str>, to_provision: Vec<ObjectKey>) {
        let hands = Arc::clone(&self.hands);
        self.begin("bind", async move {
            let uid = pod.uid.clone();
            let since = hands.clock.monotonic();
            let bound = hands.bind(&pod, &node, &to_provision).await;
            let took = hands.clock.monotonic().saturating_sub(since);
            metrics::bound(bound.is_ok(), &hands.name, took);
            match bound {
                Ok(()) => {
                    let text = format!("Successfully assigned {} to {node}", pod.key);
                    hands.record(&pod, "Normal", "Scheduled", &text).await;
                    Outcome::Bound { uid }
                }
                // The pod went away meanwhile: the informer says so too.
                Err(error) if error.is_not_found() => Outcome::Failed { uid },
                Err(error) => {
                    tracing::warn!(pod = %pod.key, %node, %error, "cannot bind");
                    hands
                        .record(&pod, "Warning", "FailedScheduling", &format!("binding rejected: {error}"))
                        .await;
                    Outcome::Failed { uid }
                }
            }
        });
    }

    /// Says in the pod's condition and in an event why it fits nowhere, unless that is said already.
    pub(super) fn report_unschedulable(&mut self, pod: Arc<SchedulingPod>, message: String) {
        let complaint = format!("Unschedulable: {message}");
        if pod.complaint.as_deref() == Some(complaint.as_str()) {
            return;
        }
        let hands = Arc::clone(&self.hands);
        self.begin("report", async move {
            hands.record(&pod, "Warning", "FailedScheduling", &message).await;
            if let Err(error) = hands.mark_unschedulable(&pod, &message).await
                && !error.is_not_found()
            {
                tracing::warn!(pod = %pod.key, %error, "cannot set condition PodScheduled");
            }
            Outcome::Reported
        });
    }

    fn begin(&mut self, name: &'static str, work: impl Future<Output = Outcome> + Send + 'static) {
        self.in_flight += 1;
        let outcomes = self.outcomes.clone();
        self.tasks.spawn(name, async move {
            // The engine is gone if nobody listens: then nothing is left to tell.
            outcomes.send(work.await).ok();
        });
    }
}

impl Hands {
    async fn bind(&self, pod: &SchedulingPod, node: &str, to_provision: &[ObjectKey]) -> Result<()> {
        for claim in to_provision {
            self.select_node(claim, node).await?;
        }
        for claim in to_provision {
            self.wait_until_bound(claim).await?;
        }
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(pod.key.name.to_string()),
                namespace: Some(pod.key.namespace.to_string()),
                uid: Some(pod.uid.to_string()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".into()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        self.pods.create_subresource(&pod.key, "binding", &json!(binding)).await?;
        Ok(())
    }

    async fn select_node(&self, claim: &ObjectKey, node: &str) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
        self.claims.patch(claim, "", PatchKind::Merge, &patch).await?;
        Ok(())
    }

    async fn wait_until_bound(&self, claim: &ObjectKey) -> Result<()> {
        let bound = async {
            loop {
                let mut changes = self.seen_claims.subscribe();
                while let Some(change) = changes.next().await {
                    if change.key == *claim {
                        match change.new {
                            Some(view) if view.is_bound => return Ok(()),
                            Some(_) => {}
                            None if change.old.is_some() => {
                                return Err(ApiError::unavailable(format!("claim {claim} was deleted")));
                            }
                            None => {}
                        }
                    }
                }
            }
        };
        let timeout = ApiError::timeout(format!("claim {claim} is not bound after {PROVISION_TIMEOUT:?}"), 1);
        tokio::time::timeout(PROVISION_TIMEOUT, bound).await.unwrap_or(Err(timeout))
    }

    async fn mark_unschedulable(&self, pod: &SchedulingPod, message: &str) -> Result<()> {
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": null,
            "lastTransitionTime": time::time(self.clock.now()),
        });
        let patch = json!({"metadata": {"uid": &*pod.uid}, "status": {"conditions": [condition]}});
        self.pods.patch(&pod.key, "status", PatchKind::Strategic, &patch).await?;
        Ok(())
    }

    /// Writes an event. One that cannot be written is only logged: it is a courtesy, not a fact that others need.
    async fn record(&self, pod: &SchedulingPod, kind: &str, reason: &str, message: &str) {
        let now = self.clock.now();
        let stamp = time::time(now);
        let nanos = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{nanos:x}", pod.key.name)),
                namespace: Some(pod.key.namespace.to_string()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(pod.key.name.to_string()),
                namespace: Some(pod.key.namespace.to_string()),
                uid: Some(pod.uid.to_string()),
                ..ObjectReference::default()
            },
            type_: Some(kind.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            source: Some(EventSource { component: Some(self.name.clone()), host: None }),
            reporting_component: Some(self.name.clone()),
            first_timestamp: Some(stamp.clone()),
            last_timestamp: Some(stamp),
            count: Some(1),
            ..Event::default()
        };
        if let Err(error) = self.events.create(&event).await {
            tracing::debug!(pod = %pod.key, reason, %error, "cannot write an event");
        }
    }
}
