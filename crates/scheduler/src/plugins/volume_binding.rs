//! VolumeBinding: a pod goes where its volumes are, and volumes are made where it goes.
//!
//! What a pod's claims ask for is resolved once per attempt ([`resolve`]); then each node is checked against the
//! affinity of the volumes that are bound already ([`VolumeNeeds::filter`]). Claims of a class that waits for its
//! first consumer are handed to the provisioner by an annotation that names the chosen node.

use std::sync::Arc;

use gantry_api::core::{PersistentVolume, PersistentVolumeClaim};
use gantry_api::meta::MetaExt;
use gantry_api::storage::StorageClass;
use gantry_api::{Object, ObjectKey};
use gantry_client::{Informer, Projection};

use super::Refusal;
use crate::engine::snapshot::NodeState;
use crate::pod::{NodeTerm, SchedulingPod};

/// The annotation by which the chosen node is told to the provisioner.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

const CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";

/// A claim as the scheduler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimView {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.resourceVersion`
    pub revision: u64,
    /// `spec.volumeName`; empty if not bound.
    pub volume: Arc<str>,
    /// `spec.storageClassName`
    pub class: Option<Arc<str>>,
    /// Whether deletion has begun.
    pub is_terminating: bool,
    /// Whether it is bound for good (`status.phase`).
    pub is_bound: bool,
    /// Whether its volume is lost.
    pub is_lost: bool,
}

impl Projection for ClaimView {
    type Object = PersistentVolumeClaim;

    fn project(claim: Arc<PersistentVolumeClaim>) -> Arc<Self> {
        let spec = claim.spec.as_ref();
        let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("");
        Arc::new(Self {
            key: MetaExt::key(&*claim),
            revision: MetaExt::revision(&*claim),
            volume: spec.and_then(|s| s.volume_name.as_deref()).unwrap_or("").into(),
            class: spec.and_then(|s| s.storage_class_name.as_deref()).map(Arc::from),
            is_terminating: claim.metadata().deletion_timestamp.is_some(),
            is_bound: phase == "Bound",
            is_lost: phase == "Lost",
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}

/// A volume as the scheduler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeView {
    /// Its name.
    pub name: Arc<str>,
    /// `metadata.resourceVersion`
    pub revision: u64,
    /// Terms of which the node must meet one; `None` if it is everywhere.
    pub required: Option<Vec<NodeTerm>>,
}

impl Projection for VolumeView {
    type Object = PersistentVolume;

    fn project(volume: Arc<PersistentVolume>) -> Arc<Self> {
        let affinity =
            volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()).and_then(|a| a.required.as_ref());
        Arc::new(Self {
            name: volume.name().into(),
            revision: MetaExt::revision(&*volume),
            required: affinity.map(|a| a.node_selector_terms.iter().map(NodeTerm::read).collect()),
        })
    }

    fn object_key(&self) -> ObjectKey {
        ObjectKey::cluster(self.name.clone())
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}

/// What the scheduler knows of storage.
#[derive(Clone)]
pub struct Storage {
    /// All claims.
    pub claims: Informer<ClaimView>,
    /// All volumes.
    pub volumes: Informer<VolumeView>,
    /// All classes.
    pub classes: Informer<StorageClass>,
}

/// What a pod's volumes ask of its node.
#[derive(Clone, Debug, Default)]
pub struct VolumeNeeds {
    bound: Vec<Arc<VolumeView>>,
    /// Claims that wait for their first consumer.
    pub to_provision: Vec<ObjectKey>,
}

impl VolumeNeeds {
    /// May the pod run there?
    ///
    /// # Errors
    /// Why not.
    pub fn filter(&self, node: &NodeState) -> Result<(), Refusal> {
        let reachable = |volume: &Arc<VolumeView>| {
            volume
                .required
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|t| t.matches(&node.view.name, &node.view.labels)))
        };
        if self.bound.iter().all(reachable) { Ok(()) } else { Err(Refusal::final_for_now(CONFLICT)) }
    }
}

/// Resolves a pod's claims.
///
/// # Errors
/// Why the pod cannot be scheduled anywhere for now.
pub fn resolve(pod: &SchedulingPod, storage: &Storage) -> Result<VolumeNeeds, String> {
    let mut needs = VolumeNeeds::default();
    for name in &pod.claims {
        let key = ObjectKey::new(pod.key.namespace.clone(), name.clone());
        let claim =
            storage.claims.get(&key).ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
        if claim.is_terminating {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        if claim.is_lost {
            return Err(format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{}\"",
                claim.volume
            ));
        }
        if claim.is_bound {
            let volume = storage.volumes.get(&ObjectKey::cluster(claim.volume.clone()));
            needs.bound.push(volume.ok_or_else(|| {
                "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)".to_owned()
            })?);
        } else if waits_for_consumer(&claim, storage) {
            needs.to_provision.push(key);
        } else {
            return Err("pod has unbound immediate PersistentVolumeClaims".into());
        }
    }
    Ok(needs)
}

fn waits_for_consumer(claim: &ClaimView, storage: &Storage) -> bool {
    let class = claim.class.as_ref().and_then(|name| storage.classes.get(&ObjectKey::cluster(name.clone())));
    class.is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::node;
    use super::*;
    use gantry_api::core::Pod;
    use serde_json::json;

    fn storage() -> Storage {
        let storage = Storage {
            claims: Informer::detached(),
            volumes: Informer::detached(),
            classes: Informer::detached(),
        };
        let claim = |name: &str, class: &str, volume: &str, phase: &str| {
            ClaimView::project(Arc::new(
                serde_json::from_value(json!({
                    "metadata": {"name": name, "namespace": "n", "resourceVersion": "1"},
                    "spec": {"storageClassName": class, "volumeName": volume}, "status": {"phase": phase}
                }))
                .expect("a claim"),
            ))
        };
        storage.claims.replace(
            vec![
                claim("bound", "late", "v", "Bound"),
                claim("late", "late", "", "Pending"),
                claim("soon", "soon", "", "Pending"),
            ],
            1,
        );
        let volume = json!({"metadata": {"name": "v"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]}]}
        ]}}}});
        storage.volumes.replace(
            vec![VolumeView::project(Arc::new(serde_json::from_value(volume).expect("a volume")))],
            1,
        );
        let class = |name: &str, mode: &str| {
            let class = json!({"metadata": {"name": name}, "provisioner": "p", "volumeBindingMode": mode});
            Arc::new(serde_json::from_value(class).expect("a class"))
        };
        storage.classes.replace(vec![class("late", "WaitForFirstConsumer"), class("soon", "Immediate")], 1);
        storage
    }

    fn pod(claim: &str) -> Arc<SchedulingPod> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [], "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}
        }))
        .expect("a pod");
        SchedulingPod::project(Arc::new(pod))
    }

    #[test]
    fn a_pod_goes_where_its_volume_is() {
        let needs = resolve(&pod("bound"), &storage()).expect("resolvable");
        let named = |name: &str| {
            node(json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}))
        };
        assert_eq!(needs.filter(&named("a")), Ok(()));
        assert_eq!(needs.filter(&named("b")).expect_err("elsewhere").reasons, [CONFLICT]);
    }

    #[test]
    fn claims_wait_for_their_consumer_or_make_it_wait() {
        assert_eq!(resolve(&pod("late"), &storage()).expect("late").to_provision.len(), 1);
        assert_eq!(
            resolve(&pod("soon"), &storage()).expect_err("soon"),
            "pod has unbound immediate PersistentVolumeClaims"
        );
        assert_eq!(
            resolve(&pod("none"), &storage()).expect_err("none"),
            "persistentvolumeclaim \"none\" not found"
        );
    }
}
