//! Jobs on a model.

use gantry_api::core::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use gantry_api::metav1;

use super::*;
use crate::model::Model;

fn fixture(spec: serde_json::Value) -> (Model, Jobs, ObjectKey) {
    let mut model = Model::default();
    let controller = Jobs { jobs: Informer::detached(), pods: Informer::detached() };
    model.feed(&controller.jobs);
    model.feed(&controller.pods);
    let mut job = Job::default();
    job.metadata.name = Some("sum".into());
    job.metadata.namespace = Some("a".into());
    let labels = std::collections::BTreeMap::from([("job-name".to_owned(), "sum".to_owned())]);
    let mut spec: JobSpec = {
        let mut value = spec;
        value["template"] =
            serde_json::json!({"spec": {"containers": [{"name": "c"}], "restartPolicy": "Never"}});
        serde_json::from_value(value).expect("a job's spec")
    };
    spec.selector = Some(metav1::LabelSelector { match_labels: Some(labels.clone()), ..Default::default() });
    spec.template.metadata.get_or_insert_default().labels = Some(labels);
    job.spec = Some(spec);
    let key = model.create(&job).key();
    (model, controller, key)
}

fn end_pods(model: &mut Model, n: usize, code: i32) {
    let now = time(model.now);
    let running = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()).is_none();
    let pods: Vec<_> = model.all::<Pod>().into_iter().filter(running).take(n).collect();
    for pod in pods {
        model.edit::<Pod>(&pod.key(), |pod| {
            let terminated = ContainerStateTerminated {
                exit_code: code,
                finished_at: Some(now.clone()),
                ..ContainerStateTerminated::default()
            };
            let state = ContainerState { terminated: Some(terminated), ..ContainerState::default() };
            let container =
                ContainerStatus { name: "c".into(), state: Some(state), ..ContainerStatus::default() };
            pod.status = Some(PodStatus {
                phase: Some(if code == 0 { "Succeeded" } else { "Failed" }.into()),
                container_statuses: Some(vec![container]),
                ..PodStatus::default()
            });
        });
    }
}

fn status(model: &Model, key: &ObjectKey) -> JobStatus {
    model.get::<Job>(key).and_then(|job| job.status).expect("a status")
}

fn is(model: &Model, key: &ObjectKey, kind: &str) -> Option<String> {
    let status = status(model, key);
    let list = status.conditions.as_ref();
    conditions::find(list, kind).filter(|c| c.status == "True").and_then(|c| c.reason.clone())
}

#[test]
fn a_job_runs_its_pods_and_counts_each_once() {
    let (mut model, controller, key) =
        fixture(serde_json::json!({"completions": 4, "parallelism": 2, "backoffLimit": 6}));
    for round in 0..2 {
        model.settle(&controller, &key);
        assert_eq!(status(&model, &key).active, Some(2), "round {round}");
        end_pods(&mut model, 2, 0);
    }
    model.settle(&controller, &key);
    let status = status(&model, &key);
    assert_eq!((status.succeeded, status.failed, status.active), (Some(4), None, None));
    assert_eq!(is(&model, &key, "Complete").as_deref(), Some("CompletionsReached"));
    assert_eq!(is(&model, &key, "SuccessCriteriaMet").as_deref(), Some("CompletionsReached"));
    assert!(model.all::<Pod>().iter().all(|pod| !pod.has_finalizer(TRACKING)));
}

#[test]
fn orphans_of_a_job_that_is_gone_are_let_go() {
    let (mut model, controller, key) =
        fixture(serde_json::json!({"completions": 1, "parallelism": 1, "backoffLimit": 6}));
    model.settle(&controller, &key);
    let pod = model.all::<Pod>().remove(0);
    model.edit::<Pod>(&pod.key(), |pod| {
        pod.metadata.owner_references = None;
        pod.metadata.labels.get_or_insert_default().insert(JOB_NAME.into(), key.name.to_string());
    });
    model.remove::<Job>(&key);
    model.settle(&controller, &key);
    assert!(!model.all::<Pod>()[0].has_finalizer(TRACKING));
}

#[test]
fn failures_delay_and_then_end_the_job() {
    let (mut model, controller, key) =
        fixture(serde_json::json!({"completions": 1, "parallelism": 1, "backoffLimit": 1}));
    model.settle(&controller, &key);
    end_pods(&mut model, 1, 1);
    model.settle(&controller, &key);
    assert_eq!(model.all::<Pod>().len(), 1, "the next pod waits");
    model.now += Duration::from_secs(10);
    model.settle(&controller, &key);
    assert_eq!(model.all::<Pod>().len(), 2);
    end_pods(&mut model, 1, 1);
    model.settle(&controller, &key);
    assert_eq!(is(&model, &key, "Failed").as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(status(&model, &key).failed, Some(2));
}

#[test]
fn an_indexed_job_completes_each_index() {
    let (mut model, controller, key) = fixture(
        serde_json::json!({"completions": 3, "parallelism": 3, "backoffLimit": 6, "completionMode": "Indexed"}),
    );
    model.settle(&controller, &key);
    let mut indexes: Vec<_> =
        model.all::<Pod>().iter().filter_map(|p| p.label(INDEX).map(str::to_owned)).collect();
    indexes.sort();
    assert_eq!(indexes, ["0", "1", "2"]);
    end_pods(&mut model, 3, 0);
    model.settle(&controller, &key);
    assert_eq!(status(&model, &key).completed_indexes.as_deref(), Some("0-2"));
    assert!(is(&model, &key, "Complete").is_some());
}

#[test]
fn a_suspended_job_has_no_pods_and_resumes() {
    let (mut model, controller, key) =
        fixture(serde_json::json!({"completions": 2, "parallelism": 2, "backoffLimit": 6, "suspend": true}));
    model.settle(&controller, &key);
    assert!(model.all::<Pod>().is_empty());
    assert_eq!(is(&model, &key, "Suspended").as_deref(), Some("JobSuspended"));
    model.edit::<Job>(&key, |job| job.spec.get_or_insert_default().suspend = Some(false));
    model.settle(&controller, &key);
    assert_eq!(model.all::<Pod>().len(), 2);
    assert_eq!(is(&model, &key, "Suspended"), None);
}

#[test]
fn a_deadline_ends_the_job() {
    let (mut model, controller, key) = fixture(
        serde_json::json!({"completions": 1, "parallelism": 1, "backoffLimit": 6, "activeDeadlineSeconds": 5}),
    );
    model.settle(&controller, &key);
    model.now += Duration::from_secs(5);
    model.settle(&controller, &key);
    assert_eq!(is(&model, &key, "FailureTarget").as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn a_failure_policy_can_fail_the_job_at_once_or_let_a_failure_pass() {
    let rules = serde_json::json!({"rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}},
    ]});
    let (mut model, controller, key) = fixture(serde_json::json!({
        "completions": 1, "parallelism": 1, "backoffLimit": 0, "podFailurePolicy": rules}));
    model.settle(&controller, &key);
    end_pods(&mut model, 1, 7);
    model.now += Duration::from_secs(60);
    model.settle(&controller, &key);
    assert_eq!(status(&model, &key).failed, None);
    end_pods(&mut model, 1, 42);
    model.settle(&controller, &key);
    assert_eq!(is(&model, &key, "Failed").as_deref(), Some("PodFailurePolicy"));
}
