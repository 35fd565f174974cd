//! Claims and volumes on a model.

use std::sync::Arc;

use gantry_api::Object;
use gantry_api::core::{Node, PersistentVolume, PersistentVolumeClaim};
use gantry_api::meta::MetaExt;
use gantry_api::storage::StorageClass;
use serde_json::{Value, json};

use super::claims::Claims;
use super::pvs::Volumes;
use crate::engine::{VolumeDirectory, VolumeHost};
use crate::model::Model;

struct Host;

#[async_trait::async_trait]
impl VolumeHost for Host {
    fn path(&self, _: &str, volume: &str) -> String {
        format!("/data/volumes/{volume}")
    }

    async fn make(&self, _: &VolumeDirectory) -> gantry_base::Result<()> {
        Ok(())
    }

    async fn remove(&self, _: &VolumeDirectory) -> gantry_base::Result<()> {
        Ok(())
    }
}

struct Fixture {
    model: Model,
    claims: Claims,
    volumes: Volumes,
}

impl Fixture {
    fn new(objects: Vec<Value>) -> Self {
        let mut model = Model::default();
        let claims = Claims::for_test(&mut model, Arc::new(Host));
        let volumes = Volumes::for_test(&mut model);
        let mut fixture = Self { model, claims, volumes };
        for value in objects {
            match value["kind"].as_str() {
                Some("PersistentVolume") => fixture.put::<PersistentVolume>(&value),
                Some("PersistentVolumeClaim") => fixture.put::<PersistentVolumeClaim>(&value),
                Some("StorageClass") => fixture.put::<StorageClass>(&value),
                _ => fixture.put::<Node>(&value),
            }
        }
        fixture.settle();
        fixture
    }

    fn put<K: Object>(&mut self, value: &Value) {
        self.model.create(&K::decode_value(value).expect("an object"));
    }

    fn settle(&mut self) {
        for _ in 0..6 {
            for volume in self.model.all::<PersistentVolume>() {
                self.model.settle(&self.volumes, &volume.key());
            }
            for claim in self.model.all::<PersistentVolumeClaim>() {
                // Events about waiting are repeated, so a claim's plan need not become empty.
                for _ in 0..6 {
                    self.model.reconcile(&self.claims, &claim.key());
                }
            }
        }
    }

    fn claim_phase(&self) -> Option<String> {
        self.model.all::<PersistentVolumeClaim>()[0].status.as_ref().and_then(|s| s.phase.clone())
    }

    fn volumes(&self) -> Vec<String> {
        let phase = |v: &PersistentVolume| v.status.as_ref().and_then(|s| s.phase.clone());
        let volumes = self.model.all::<PersistentVolume>();
        volumes.iter().map(|v| format!("{} {}", v.name(), phase(v).unwrap_or_default())).collect()
    }
}

fn volume(name: &str, size: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
                 "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/x"}}})
}

fn claim(class: &str, annotations: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "a", "annotations": annotations},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
                 "resources": {"requests": {"storage": "2Gi"}}}})
}

fn class() -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "local-path"},
        "provisioner": super::LOCAL_PATH, "volumeBindingMode": "WaitForFirstConsumer"})
}

#[test]
fn a_claim_takes_the_smallest_volume_that_fits_and_leaves_it_released() {
    let objects =
        vec![volume("big", "9Gi"), volume("fits", "3Gi"), volume("small", "1Gi"), claim("", json!({}))];
    let mut fixture = Fixture::new(objects);
    assert_eq!(fixture.claim_phase().as_deref(), Some("Bound"));
    assert_eq!(fixture.volumes(), ["big Available", "fits Bound", "small Available"]);
    let key = fixture.model.all::<PersistentVolumeClaim>()[0].key();
    fixture.model.remove::<PersistentVolumeClaim>(&key);
    fixture.settle();
    assert_eq!(fixture.volumes(), ["big Available", "fits Released", "small Available"]);
}

#[test]
fn a_local_volume_is_made_on_the_node_that_the_scheduler_chose_and_goes_with_its_claim() {
    let node = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n", "labels": {"kubernetes.io/hostname": "n"}}});
    let mut waiting = Fixture::new(vec![class(), node.clone(), claim("local-path", json!({}))]);
    assert_eq!(waiting.claim_phase().as_deref(), Some("Pending"));
    assert!(
        waiting.volumes().is_empty() && waiting.model.events.contains(&"WaitForFirstConsumer".to_owned())
    );
    let key = waiting.model.all::<PersistentVolumeClaim>()[0].key();
    waiting.model.edit::<PersistentVolumeClaim>(&key, |claim| {
        let annotations = claim.metadata.annotations.get_or_insert_default();
        annotations.insert(super::SELECTED_NODE.into(), "n".into());
    });
    waiting.settle();
    assert_eq!(waiting.claim_phase().as_deref(), Some("Bound"));
    let made = waiting.model.all::<PersistentVolume>().remove(0);
    assert_eq!(super::claims::hostname_of(&made), Some("n"));
    waiting.model.remove::<PersistentVolumeClaim>(&key);
    waiting.settle();
    assert!(waiting.volumes().is_empty());
}
