//! StatefulSets on a model.

use gantry_api::core::{Pod, PodCondition, PodStatus};
use gantry_api::metav1;
use gantry_api::time::time;

use super::*;
use crate::model::Model;

fn set(replicas: i32, policy: &str) -> StatefulSet {
    let labels = std::collections::BTreeMap::from([("app".to_owned(), "db".to_owned())]);
    let mut claim = PersistentVolumeClaim::default();
    claim.metadata.name = Some("data".into());
    let mut set = StatefulSet {
        spec: Some(StatefulSetSpec {
            replicas: Some(replicas),
            pod_management_policy: Some(policy.into()),
            selector: metav1::LabelSelector { match_labels: Some(labels.clone()), ..Default::default() },
            template: PodTemplateSpec {
                metadata: Some(metav1::ObjectMeta { labels: Some(labels), ..Default::default() }),
                spec: Some(Default::default()),
            },
            volume_claim_templates: Some(vec![claim]),
            service_name: Some("db".into()),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    };
    set.metadata.name = Some("db".into());
    set.metadata.namespace = Some("a".into());
    set
}

fn fixture(replicas: i32, policy: &str) -> (Model, StatefulSets, ObjectKey) {
    let mut model = Model::default();
    let controller = StatefulSets {
        sets: Informer::detached(),
        pods: Informer::detached(),
        claims: Informer::detached(),
        revisions: Informer::detached(),
    };
    model.feed(&controller.sets);
    model.feed(&controller.pods);
    model.feed(&controller.claims);
    model.feed(&controller.revisions);
    let key = model.create(&set(replicas, policy)).key();
    (model, controller, key)
}

fn names(model: &Model) -> Vec<String> {
    model.all::<Pod>().iter().map(|p| p.name().to_owned()).collect()
}

fn make_ready(model: &mut Model) {
    let now = time(model.now);
    for pod in model.all::<Pod>() {
        model.edit::<Pod>(&pod.key(), |pod| {
            let ready = PodCondition {
                type_: "Ready".into(),
                status: "True".into(),
                last_transition_time: Some(now.clone()),
                ..PodCondition::default()
            };
            let conditions = Some(vec![ready]);
            pod.status =
                Some(PodStatus { phase: Some("Running".into()), conditions, ..PodStatus::default() });
        });
    }
}

fn roll(model: &mut Model, controller: &StatefulSets, key: &ObjectKey) {
    for _ in 0..30 {
        model.settle(controller, key);
        make_ready(model);
    }
    model.settle(controller, key);
}

#[test]
fn pods_are_made_one_after_the_other_with_their_claims() {
    let (mut model, controller, key) = fixture(3, "OrderedReady");
    model.settle(&controller, &key);
    assert_eq!(names(&model), ["db-0"]);
    make_ready(&mut model);
    model.settle(&controller, &key);
    assert_eq!(names(&model), ["db-0", "db-1"]);
    roll(&mut model, &controller, &key);
    assert_eq!(names(&model), ["db-0", "db-1", "db-2"]);
    let claims: Vec<_> = model.all::<PersistentVolumeClaim>().iter().map(|c| c.name().to_owned()).collect();
    assert_eq!(claims, ["data-db-0", "data-db-1", "data-db-2"]);
    let pod = model.get::<Pod>(&ObjectKey::new("a", "db-1")).expect("it is there");
    assert_eq!(pod.label("apps.kubernetes.io/pod-index"), Some("1"));
    assert_eq!(pod.spec.and_then(|s| s.hostname).as_deref(), Some("db-1"));
}

#[test]
fn parallel_pods_are_made_at_once_and_scaled_down_at_once() {
    let (mut model, controller, key) = fixture(4, "Parallel");
    model.settle(&controller, &key);
    assert_eq!(names(&model).len(), 4);
    model.edit::<StatefulSet>(&key, |set| set.spec.get_or_insert_default().replicas = Some(1));
    model.settle(&controller, &key);
    assert_eq!(names(&model), ["db-0"]);
    assert_eq!(model.all::<PersistentVolumeClaim>().len(), 4, "claims are retained");
}

#[test]
fn an_update_goes_from_the_highest_ordinal_down_to_the_partition() {
    let (mut model, controller, key) = fixture(3, "OrderedReady");
    roll(&mut model, &controller, &key);
    model.edit::<StatefulSet>(&key, |set| {
        let spec = set.spec.get_or_insert_default();
        spec.update_strategy = serde_json::from_value(serde_json::json!({
            "type": "RollingUpdate", "rollingUpdate": {"partition": 1}}))
        .ok();
        spec.template.spec.get_or_insert_default().hostname = Some("new".into());
    });
    roll(&mut model, &controller, &key);
    let status = model.get::<StatefulSet>(&key).and_then(|s| s.status).expect("a status");
    assert_eq!((status.current_replicas, status.updated_replicas), (Some(1), Some(2)));
    model.edit::<StatefulSet>(&key, |set| set.spec.get_or_insert_default().update_strategy = None);
    roll(&mut model, &controller, &key);
    let status = model.get::<StatefulSet>(&key).and_then(|s| s.status).expect("a status");
    assert_eq!(status.updated_replicas, Some(3));
    assert_eq!(status.current_revision, status.update_revision);
    assert_eq!(model.all::<ControllerRevision>().len(), 2);
}

#[test]
fn claims_belong_to_the_set_that_deletes_them() {
    let (mut model, controller, key) = fixture(1, "Parallel");
    model.edit::<StatefulSet>(&key, |set| {
        set.spec.get_or_insert_default().persistent_volume_claim_retention_policy =
            serde_json::from_value(serde_json::json!({"whenDeleted": "Delete", "whenScaled": "Retain"})).ok();
    });
    roll(&mut model, &controller, &key);
    let claim = &model.all::<PersistentVolumeClaim>()[0];
    assert_eq!(claim.controller().map(|o| o.kind.as_str()), Some("StatefulSet"));
}
