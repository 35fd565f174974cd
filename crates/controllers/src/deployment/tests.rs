//! Rollouts on a model: a Deployment, and ReplicaSets whose status follows their spec a step at a time.

use std::time::Duration;

use gantry_api::apps::{DeploymentStrategy, ReplicaSetStatus, RollingUpdateDeployment};
use gantry_api::core::{Container, PodSpec, PodTemplateSpec};
use gantry_api::{IntOrString, metav1};
use proptest::prelude::*;

use super::*;
use crate::model::Model;

fn deployment(replicas: i32, image: &str) -> Deployment {
    let labels = std::collections::BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let container = Container { name: "c".into(), image: Some(image.into()), ..Container::default() };
    let template = PodTemplateSpec {
        metadata: Some(metav1::ObjectMeta { labels: Some(labels.clone()), ..Default::default() }),
        spec: Some(PodSpec { containers: vec![container], ..PodSpec::default() }),
    };
    let mut deployment = Deployment {
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            selector: metav1::LabelSelector { match_labels: Some(labels), ..Default::default() },
            template,
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::String("25%".into())),
                    max_unavailable: Some(IntOrString::String("25%".into())),
                }),
            }),
            progress_deadline_seconds: Some(600),
            revision_history_limit: Some(1),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    };
    deployment.metadata.name = Some("web".into());
    deployment.metadata.namespace = Some("a".into());
    deployment
}

fn fixture(replicas: i32) -> (Model, Deployments, ObjectKey) {
    let mut model = Model::default();
    let controller = Deployments {
        deployments: Informer::detached(),
        sets: Informer::detached(),
        pods: Informer::detached(),
    };
    model.feed(&controller.deployments);
    model.feed(&controller.sets);
    model.feed(&controller.pods);
    let key = model.create(&deployment(replicas, "one")).key();
    (model, controller, key)
}

/// Every set has what it wants, all of it available.
fn fulfil(model: &mut Model) {
    for set in model.all::<ReplicaSet>() {
        let n = replicas(&set);
        model.edit::<ReplicaSet>(&set.key(), |set| {
            set.status = Some(ReplicaSetStatus {
                replicas: n,
                ready_replicas: Some(n),
                available_replicas: Some(n),
                terminating_replicas: Some(0),
                observed_generation: set.metadata.generation,
                ..ReplicaSetStatus::default()
            });
        });
    }
}

fn roll(model: &mut Model, controller: &Deployments, key: &ObjectKey) {
    for _ in 0..50 {
        let before = sizes(model);
        model.settle(controller, key);
        fulfil(model);
        model.settle(controller, key);
        if sizes(model) == before {
            return;
        }
    }
    panic!("the rollout does not end: {:?}", sizes(model));
}

fn sizes(model: &Model) -> Vec<(String, i32)> {
    model.all::<ReplicaSet>().iter().map(|s| (s.name().to_owned(), replicas(s))).collect()
}

fn set_image(model: &mut Model, key: &ObjectKey, image: &str) {
    model.edit::<Deployment>(key, |d| {
        let spec = d.spec.get_or_insert_default().template.spec.get_or_insert_default();
        spec.containers[0].image = Some(image.into());
    });
}

fn condition(model: &Model, key: &ObjectKey, kind: &str) -> (String, String) {
    let deployment = model.get::<Deployment>(key).expect("it is there");
    let list = deployment.status.and_then(|s| s.conditions);
    let found = gantry_api::conditions::find(list.as_ref(), kind).cloned();
    found.map(|c| (c.status, c.reason.unwrap_or_default())).unwrap_or_default()
}

fn revisions(model: &Model) -> Vec<(i32, i64)> {
    let mut list: Vec<_> =
        model.all::<ReplicaSet>().iter().map(|s| (replicas(s), revision::revision(s))).collect();
    list.sort_by_key(|(_, revision)| *revision);
    list
}

#[test]
fn a_new_deployment_makes_one_set_and_becomes_complete() {
    let (mut model, controller, key) = fixture(3);
    roll(&mut model, &controller, &key);
    assert_eq!(revisions(&model), [(3, 1)]);
    let stored = model.get::<Deployment>(&key).expect("it is there");
    assert_eq!(stored.annotation(revision::REVISION), Some("1"));
    let set = &model.all::<ReplicaSet>()[0];
    assert_eq!(set.annotation(revision::DESIRED), Some("3"));
    assert_eq!(set.annotation(revision::MAXIMUM), Some("4"));
    assert_eq!(condition(&model, &key, "Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    assert_eq!(condition(&model, &key, "Available"), ("True".into(), "MinimumReplicasAvailable".into()));
    assert_eq!(model.events, ["ScalingReplicaSet"]);
}

#[test]
fn a_rollback_reuses_the_old_set_under_a_new_revision() {
    let (mut model, controller, key) = fixture(2);
    roll(&mut model, &controller, &key);
    set_image(&mut model, &key, "two");
    roll(&mut model, &controller, &key);
    assert_eq!(revisions(&model), [(0, 1), (2, 2)]);
    set_image(&mut model, &key, "one");
    roll(&mut model, &controller, &key);
    assert_eq!(revisions(&model), [(0, 2), (2, 3)]);
    let newest = model.all::<ReplicaSet>().into_iter().find(|s| replicas(s) == 2).expect("the active one");
    assert_eq!(newest.annotation("deployment.kubernetes.io/revision-history"), Some("1"));
}

#[test]
fn old_sets_beyond_the_history_limit_go() {
    let (mut model, controller, key) = fixture(1);
    for image in ["one", "two", "three", "four"] {
        set_image(&mut model, &key, image);
        roll(&mut model, &controller, &key);
    }
    assert_eq!(revisions(&model), [(0, 3), (1, 4)]);
}

#[test]
fn a_recreating_deployment_empties_the_old_set_first() {
    let (mut model, controller, key) = fixture(2);
    roll(&mut model, &controller, &key);
    model.edit::<Deployment>(&key, |d| {
        let strategy = DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None };
        d.spec.get_or_insert_default().strategy = Some(strategy);
    });
    set_image(&mut model, &key, "two");
    model.settle(&controller, &key);
    assert_eq!(revisions(&model), [(0, 1)], "the new set waits for the old pods");
    roll(&mut model, &controller, &key);
    assert_eq!(revisions(&model), [(0, 1), (2, 2)]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let (mut model, controller, key) = fixture(2);
    roll(&mut model, &controller, &key);
    model.edit::<Deployment>(&key, |d| {
        let spec = d.spec.get_or_insert_default();
        spec.paused = Some(true);
        spec.replicas = Some(5);
    });
    set_image(&mut model, &key, "two");
    roll(&mut model, &controller, &key);
    assert_eq!(revisions(&model), [(5, 1)]);
    assert_eq!(condition(&model, &key, "Progressing"), ("Unknown".into(), "DeploymentPaused".into()));
}

#[test]
fn a_rollout_that_does_not_move_times_out() {
    let (mut model, controller, key) = fixture(2);
    model.settle(&controller, &key);
    let seen = controller.observe(&key).expect("it is there");
    let plan = Deployments::plan(&seen, &Moment::at(model.now));
    assert_eq!(plan.requeue(), Some(Duration::from_secs(601)));
    model.now += Duration::from_secs(601);
    model.settle(&controller, &key);
    assert_eq!(condition(&model, &key, "Progressing"), ("False".into(), "ProgressDeadlineExceeded".into()));
}

#[test]
fn a_name_that_is_taken_raises_the_collision_count() {
    let (mut model, controller, key) = fixture(1);
    let taken = revision::next_name(&deployment(1, "one"));
    let mut stranger = ReplicaSet::default();
    stranger.metadata.name = Some(taken.clone());
    stranger.metadata.namespace = Some("a".into());
    model.create(&stranger);
    roll(&mut model, &controller, &key);
    let status = model.get::<Deployment>(&key).and_then(|d| d.status).expect("a status");
    assert_eq!(status.collision_count, Some(1));
    assert!(model.all::<ReplicaSet>().iter().any(|set| set.name() != taken && replicas(set) == 1));
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_shared_in_proportion() {
    let (mut model, controller, key) = fixture(10);
    model.edit::<Deployment>(&key, |d| {
        let rolling = RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(3)),
            max_unavailable: Some(IntOrString::Int(2)),
        };
        let strategy = d.spec.get_or_insert_default().strategy.get_or_insert_default();
        strategy.rolling_update = Some(rolling);
    });
    roll(&mut model, &controller, &key);
    set_image(&mut model, &key, "two");
    model.settle(&controller, &key);
    assert_eq!(revisions(&model), [(8, 1), (5, 2)]);
    model.edit::<Deployment>(&key, |d| d.spec.get_or_insert_default().replicas = Some(15));
    model.settle(&controller, &key);
    assert_eq!(revisions(&model), [(11, 1), (7, 2)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_rollout_converges_and_keeps_its_bounds(
        steps in proptest::collection::vec((0..9_i32, 0..3_u8), 1..5),
        surge in 0..4_i32,
        unavailable in 0..4_i32,
    ) {
        let (mut model, controller, key) = fixture(3);
        model.edit::<Deployment>(&key, |d| {
            d.spec.get_or_insert_default().strategy.get_or_insert_default().rolling_update =
                Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(surge)),
                    max_unavailable: Some(IntOrString::Int(unavailable)),
                });
        });
        for (size, image) in steps {
            model.edit::<Deployment>(&key, |d| d.spec.get_or_insert_default().replicas = Some(size));
            set_image(&mut model, &key, &image.to_string());
            roll(&mut model, &controller, &key);
            let total: i32 = model.all::<ReplicaSet>().iter().map(replicas).sum();
            prop_assert_eq!(total, size);
            let active = model.all::<ReplicaSet>().iter().filter(|s| replicas(s) > 0).count();
            prop_assert_eq!(active, usize::from(size > 0));
        }
    }
}
