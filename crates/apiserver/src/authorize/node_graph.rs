//! Which node has a pod that refers to what: a few words for each pod that is on a node, found by the node.
//!
//! A node has some hundred pods, so a question is a walk over some thousand hashes. The hashes are keyed anew in each
//! process: nobody can choose names that collide.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

use gantry_api::core::{PersistentVolume, Pod};
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_api::{FieldSelector, ObjectKey, Resource};
use gantry_client::{Api, Index, Informer, InformerSet, ListParams, Projection, Transport};

use super::Attributes;
pub(super) use super::references::What;
use super::references::{claim_of, of_pod, secrets_of};
use crate::lookup::Lookup;

static HASH: LazyLock<RandomState> = LazyLock::new(RandomState::new);

fn hash(what: What, namespace: &str, name: &str) -> u64 {
    HASH.hash_one((what, namespace, name))
}

const BY_NODE: &str = "node";
const BY_SECRET: &str = "secret";

/// What is kept of a pod.
#[derive(Debug)]
pub(super) struct PodRefs {
    key: ObjectKey,
    revision: u64,
    node: Option<Arc<str>>,
    refs: Box<[u64]>,
}

impl Projection for PodRefs {
    type Object = Pod;

    fn project(pod: Arc<Pod>) -> Arc<Self> {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty());
        let mut refs = Vec::new();
        if node.is_some() {
            of_pod(&pod, &mut |what, name| refs.push(hash(what, pod.namespace(), name)));
            refs.sort_unstable();
            refs.dedup();
        }
        Arc::new(Self {
            key: pod.key(),
            revision: MetaExt::revision(&*pod),
            node: node.map(Arc::from),
            refs: refs.into(),
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }

    fn indexes() -> &'static [Index<Self>] {
        &[Index { name: BY_NODE, values: |pod| pod.node.iter().cloned().collect() }]
    }
}

impl PodRefs {
    fn has(&self, wanted: u64) -> bool {
        self.refs.binary_search(&wanted).is_ok()
    }
}

/// What is kept of a volume.
#[derive(Debug)]
pub(super) struct VolumeRefs {
    key: ObjectKey,
    revision: u64,
    claim: Option<ObjectKey>,
    /// `NAMESPACE/NAME`
    secrets: Vec<Arc<str>>,
}

impl Projection for VolumeRefs {
    type Object = PersistentVolume;

    fn project(volume: Arc<PersistentVolume>) -> Arc<Self> {
        let claim = claim_of(&volume).map(|(namespace, name)| ObjectKey::new(namespace, name));
        let mut secrets = Vec::new();
        if claim.is_some() {
            secrets_of(&volume, &mut |namespace, name| secrets.push(format!("{namespace}/{name}").into()));
        }
        Arc::new(Self { key: volume.key(), revision: MetaExt::revision(&*volume), claim, secrets })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }

    fn indexes() -> &'static [Index<Self>] {
        &[Index { name: BY_SECRET, values: |volume| volume.secrets.clone() }]
    }
}

/// Knows what belongs to which node.
pub(super) struct Graph {
    pods: Informer<PodRefs>,
    volumes: Informer<VolumeRefs>,
    /// For what the informers do not have (yet).
    transport: Option<Arc<dyn Transport>>,
}

impl Graph {
    pub(super) fn new(informers: &InformerSet, transport: Arc<dyn Transport>) -> Self {
        Self { pods: informers.of(), volumes: informers.of(), transport: Some(transport) }
    }

    #[cfg(test)]
    pub(super) fn detached() -> Self {
        Self { pods: Informer::detached(), volumes: Informer::detached(), transport: None }
    }

    pub(super) fn has_synced(&self) -> bool {
        self.pods.has_synced() && self.volumes.has_synced()
    }

    /// Whether a pod on `node` refers to the object, as far as the informers know.
    pub(super) fn is_related(&self, node: &str, what: What, namespace: &str, name: &str) -> bool {
        related(&self.pods.by_index(BY_NODE, node), &self.volumes, what, namespace, name)
    }

    /// The same by what is stored.
    pub(super) async fn is_related_now(
        &self,
        node: &str,
        what: What,
        namespace: &str,
        name: &str,
    ) -> Result<bool> {
        let Some(transport) = &self.transport else { return Ok(false) };
        let params =
            ListParams { fields: FieldSelector::equals("spec.nodeName", node), ..ListParams::default() };
        let (pods, _) = Api::<Pod>::new(Arc::clone(transport), "gantry-apiserver").list("", &params).await?;
        let pods: Vec<Arc<PodRefs>> = pods.into_iter().map(PodRefs::project).collect();
        if pods.is_empty() {
            return Ok(false);
        }
        if what == What::Volume {
            let key = ObjectKey::cluster(name);
            let api = Api::<PersistentVolume>::new(Arc::clone(transport), "gantry-apiserver");
            let claim = api.find(&key).await?.and_then(|volume| VolumeRefs::project(volume).claim.clone());
            return Ok(claim.is_some_and(|c| has_claim(&pods, &c)));
        }
        Ok(related(&pods, &self.volumes, what, namespace, name))
    }

    /// `spec.nodeName` of the object that a request is about; empty if there is no such object.
    pub(super) async fn node_name(&self, a: &Attributes<'_>) -> Result<String> {
        let Some(transport) = &self.transport else { return Ok(String::new()) };
        let resource = Resource {
            group: a.group.to_owned().into(),
            version: a.version.to_owned().into(),
            kind: "".into(),
            plural: a.resource.to_owned().into(),
            namespaced: !a.namespace.is_empty(),
        };
        let found = Lookup::new(Arc::clone(transport)).brief(resource, a.namespace, a.name).await?;
        Ok(found.map(|object| object.spec.node_name).unwrap_or_default())
    }
}

fn has_claim(pods: &[Arc<PodRefs>], claim: &ObjectKey) -> bool {
    let wanted = hash(What::Claim, &claim.namespace, &claim.name);
    pods.iter().any(|pod| pod.has(wanted))
}

fn related(
    pods: &[Arc<PodRefs>],
    volumes: &Informer<VolumeRefs>,
    what: What,
    namespace: &str,
    name: &str,
) -> bool {
    if what == What::Volume {
        let volume = volumes.get(&ObjectKey::cluster(name));
        return volume.and_then(|v| v.claim.clone()).is_some_and(|claim| has_claim(pods, &claim));
    }
    let wanted = hash(what, namespace, name);
    if pods.iter().any(|pod| pod.has(wanted)) {
        return true;
    }
    what == What::Secret
        && volumes
            .by_index(BY_SECRET, &format!("{namespace}/{name}"))
            .iter()
            .any(|volume| volume.claim.as_ref().is_some_and(|claim| has_claim(pods, claim)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn graph(pods: &[Value], volumes: &[Value]) -> Graph {
        let graph = Graph::detached();
        let pods = pods.iter().map(|p| {
            let pod: Pod = serde_json::from_value(p.clone()).expect("a pod");
            PodRefs::project(Arc::new(pod))
        });
        let volumes = volumes.iter().map(|v| {
            let volume: PersistentVolume = serde_json::from_value(v.clone()).expect("a volume");
            VolumeRefs::project(Arc::new(volume))
        });
        graph.pods.replace(pods.collect(), 1);
        graph.volumes.replace(volumes.collect(), 1);
        graph
    }

    #[test]
    fn a_node_is_related_to_what_its_pods_refer_to() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "a"},
            "spec": {
                "nodeName": "n", "serviceAccountName": "builder",
                "imagePullSecrets": [{"name": "pull"}],
                "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}],
                "containers": [{
                    "name": "c",
                    "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}],
                    "envFrom": [{"configMapRef": {"name": "all"}}],
                }],
                "volumes": [
                    {"name": "v1", "persistentVolumeClaim": {"claimName": "data"}},
                    {"name": "v2", "ephemeral": {}},
                    {"name": "v3", "projected": {"sources": [{"configMap": {"name": "ca"}}, {"secret": {"name": "s"}}]}},
                    {"name": "v4", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
                ],
            },
            "status": {"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "p-gpu"}]},
        });
        let waiting = json!({
            "metadata": {"name": "w", "namespace": "a"},
            "spec": {"serviceAccountName": "waiting", "containers": []},
        });
        let mirror = json!({
            "metadata": {"name": "m", "namespace": "a", "annotations": {"kubernetes.io/config.mirror": "x"}},
            "spec": {"nodeName": "n", "containers": [], "imagePullSecrets": [{"name": "stolen"}]},
        });
        let volume = json!({
            "metadata": {"name": "pv"},
            "spec": {
                "claimRef": {"namespace": "a", "name": "data"},
                "csi": {
                    "driver": "d", "volumeHandle": "h",
                    "nodeStageSecretRef": {"namespace": "infra", "name": "stage"},
                    "controllerPublishSecretRef": {"namespace": "infra", "name": "control"},
                },
            },
        });
        let graph =
            graph(&[pod, waiting, mirror], &[volume, json!({"metadata": {"name": "free"}, "spec": {}})]);
        let yes = [
            (What::ServiceAccount, "a", "builder"),
            (What::Secret, "a", "pull"),
            (What::Secret, "a", "env"),
            (What::Secret, "a", "s"),
            (What::Secret, "a", "csi"),
            (What::Secret, "infra", "stage"),
            (What::ConfigMap, "a", "all"),
            (What::ConfigMap, "a", "ca"),
            (What::Claim, "a", "data"),
            (What::Claim, "a", "p-v2"),
            (What::Volume, "", "pv"),
            (What::ResourceClaim, "a", "p-gpu"),
            (What::Pod, "a", "p"),
            (What::Pod, "a", "m"),
        ];
        for (what, namespace, name) in yes {
            assert!(graph.is_related("n", what, namespace, name), "{what:?} {namespace}/{name}");
            assert!(!graph.is_related("other", what, namespace, name), "{what:?} {namespace}/{name}");
        }
        let no = [
            (What::ServiceAccount, "a", "waiting"),
            (What::ServiceAccount, "b", "builder"),
            (What::ConfigMap, "a", "s"),
            (What::Secret, "a", "stolen"),
            (What::Secret, "infra", "control"),
            (What::Volume, "", "free"),
            (What::Volume, "", "none"),
            (What::Pod, "a", "w"),
        ];
        for (what, namespace, name) in no {
            assert!(!graph.is_related("n", what, namespace, name), "{what:?} {namespace}/{name}");
        }
    }
}
