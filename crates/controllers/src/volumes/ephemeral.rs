//! Claims of generic ephemeral volumes: made for the pod, owned by it, gone with it.
//!
//! Behaviour: `pkg/controller/volume/ephemeral`.

use std::sync::Arc;

use gantry_api::core::{ObjectReference, PersistentVolumeClaim, PersistentVolumeClaimTemplate, Pod};
use gantry_api::meta::MetaExt;
use gantry_api::metav1::OwnerReference;
use gantry_api::{Object, ObjectKey};
use gantry_client::{Delta, Informer, InformerSet, Projection};

use crate::engine::{Controller, Event, Moment, Plan, Watch, Write};

/// What is kept of a pod: its ephemeral volumes.
pub struct Wanting {
    key: ObjectKey,
    revision: u64,
    uid: Box<str>,
    deleting: bool,
    /// Names and templates.
    volumes: Box<[(String, Option<PersistentVolumeClaimTemplate>)]>,
}

impl Projection for Wanting {
    type Object = Pod;

    fn project(pod: Arc<Pod>) -> Arc<Self> {
        let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        let ephemeral = volumes
            .filter_map(|v| Some((v.name.clone(), v.ephemeral.as_ref()?.volume_claim_template.clone())));
        Arc::new(Self {
            key: pod.key(),
            revision: MetaExt::revision(&*pod),
            uid: pod.uid().into(),
            deleting: pod.is_terminating(),
            volumes: ephemeral.collect(),
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }

    fn is_wanted(&self) -> bool {
        !self.volumes.is_empty()
    }
}

/// The ephemeral-volume controller.
pub struct EphemeralVolumes {
    pods: Informer<Wanting>,
    claims: Informer<PersistentVolumeClaim>,
}

impl EphemeralVolumes {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { pods: informers.of(), claims: informers.of() }
    }
}

/// What the controller sees of a pod: each volume's claim, if it is there.
pub struct Seen {
    pod: Arc<Wanting>,
    claims: Vec<Option<Arc<PersistentVolumeClaim>>>,
}

fn claim_name(pod: &Wanting, volume: &str) -> String {
    format!("{}-{volume}", pod.key.name)
}

impl Controller for EphemeralVolumes {
    const NAME: &'static str = "ephemeral-volume-controller";
    const ACCOUNT: &'static str = "ephemeral-volume-controller";
    const COMPONENT: &'static str = "ephemeral_volume";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let wanting = |delta: &Delta<Wanting>| {
            let wants = delta.new.as_ref().is_some_and(|pod| !pod.volumes.is_empty() && !pod.deleting);
            if wants { vec![delta.key.clone()] } else { Vec::new() }
        };
        let lost = |delta: &Delta<PersistentVolumeClaim>| {
            let gone = delta.old.as_ref().filter(|_| delta.new.is_none());
            let owner = gone.and_then(|claim| claim.controller().filter(|o| o.kind == "Pod").cloned());
            owner.map(|o| ObjectKey::new(delta.key.namespace.clone(), o.name.as_str())).into_iter().collect()
        };
        vec![Watch::on(&self.pods, wanting), Watch::on(&self.claims, lost)]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let pod = self.pods.get(key).filter(|pod| !pod.deleting)?;
        let names = pod.volumes.iter().map(|(volume, _)| claim_name(&pod, volume));
        let claims =
            names.map(|name| self.claims.get(&ObjectKey::new(key.namespace.clone(), name))).collect();
        Some(Seen { claims, pod })
    }

    fn plan(seen: &Seen, _: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let pod = &*seen.pod;
        for ((volume, template), claim) in pod.volumes.iter().zip(&seen.claims) {
            match claim {
                Some(claim) if claim.is_controlled_by(&pod.uid) => {}
                Some(claim) => {
                    let (namespace, name) = (&pod.key.namespace, &pod.key.name);
                    let why = format!(
                        "PVC {namespace}/{} was not created for pod {namespace}/{name} (pod is not owner)",
                        claim.name()
                    );
                    plan.event(failed(pod, volume, &why));
                    plan.failed_because(format!("pod {}, ephemeral volume {volume}: {why}", pod.key));
                    return plan;
                }
                None => {
                    let name = claim_name(pod, volume);
                    let lament = failed(pod, volume, &format!("create PVC {name}: {{error}}"));
                    let claim = claim_of(pod, name, template.clone().unwrap_or_default());
                    plan.push(Write::create(&claim).lamenting(lament));
                }
            }
        }
        plan
    }
}

fn failed(pod: &Wanting, volume: &str, why: &str) -> Event {
    let regarding = ObjectReference {
        api_version: Some(Pod::RESOURCE.api_version()),
        kind: Some(Pod::RESOURCE.kind.to_string()),
        namespace: Some(pod.key.namespace.to_string()),
        name: Some(pod.key.name.to_string()),
        uid: Some(pod.uid.to_string()),
        ..ObjectReference::default()
    };
    Event {
        regarding,
        warning: true,
        reason: "FailedBinding",
        message: format!("ephemeral volume {volume}: {why}"),
    }
}

fn claim_of(pod: &Wanting, name: String, template: PersistentVolumeClaimTemplate) -> PersistentVolumeClaim {
    let meta = template.metadata.unwrap_or_default();
    let mut claim = PersistentVolumeClaim { spec: Some(template.spec), ..PersistentVolumeClaim::default() };
    claim.metadata.name = Some(name);
    claim.metadata.namespace = Some(pod.key.namespace.to_string());
    claim.metadata.labels = meta.labels;
    claim.metadata.annotations = meta.annotations;
    claim.metadata.owner_references = Some(vec![OwnerReference {
        api_version: Pod::RESOURCE.api_version(),
        kind: Pod::RESOURCE.kind.to_string(),
        name: pod.key.name.to_string(),
        uid: pod.uid.to_string(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }]);
    claim
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use serde_json::json;

    #[test]
    fn a_pod_gets_the_claims_of_its_volumes_and_none_of_others() {
        let mut model = Model::default();
        let controller = EphemeralVolumes { pods: Informer::detached(), claims: Informer::detached() };
        model.feed(&controller.pods);
        model.feed(&controller.claims);
        let template = json!({"metadata": {"labels": {"l": "1"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        let volumes = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}, {"name": "e", "emptyDir": {}}]);
        let value = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"containers": [], "volumes": volumes}});
        let pod = model.create(&Pod::decode_value(&value).expect("a pod"));
        model.settle(&controller, &pod.key());
        let claims = model.all::<PersistentVolumeClaim>();
        assert_eq!(claims.len(), 1);
        assert_eq!((claims[0].name(), claims[0].label("l")), ("p-v", Some("1")));
        assert!(claims[0].is_controlled_by(pod.uid()));
        model.edit::<PersistentVolumeClaim>(&claims[0].key(), |claim| claim.metadata.owner_references = None);
        let seen = controller.observe(&pod.key()).expect("a pod");
        let plan = EphemeralVolumes::plan(&seen, &Moment::at(model.now));
        assert!(plan.writes().next().is_none());
        let failure = model.perform_plan(&plan).expect("not its claim");
        assert!(failure.message.ends_with("PVC a/p-v was not created for pod a/p (pod is not owner)"));
    }
}
