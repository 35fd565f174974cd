//! Cron jobs in a model.

use std::time::{Duration, SystemTime};

use gantry_api::batch::{CronJob, Job, JobCondition};
use gantry_api::meta::MetaExt;
use gantry_api::time::time;
use gantry_api::{Object, ObjectKey};
use gantry_client::Informer;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{CronJobs, SCHEDULED};
use crate::engine::{Controller, Moment};
use crate::model::Model;

const START: &str = "2026-01-01T00:00:10Z";

fn fixture(spec: Value) -> (Model, CronJobs, ObjectKey) {
    let mut model = Model::default();
    model.now = START.parse::<Timestamp>().expect("a time").into();
    let controller = CronJobs { cron_jobs: Informer::detached(), jobs: Informer::detached() };
    model.feed(&controller.cron_jobs);
    model.feed(&controller.jobs);
    let mut all = json!({"schedule": "* * * * *", "concurrencyPolicy": "Allow",
        "jobTemplate": {"metadata": {"labels": {"l": "1"}}, "spec": {"template": {"spec": {"containers": []}}}}});
    for (key, value) in spec.as_object().expect("a spec") {
        all[key] = value.clone();
    }
    let value = json!({"metadata": {"name": "c", "namespace": "a"}, "spec": all});
    let key = model.create(&CronJob::decode_value(&value).expect("a cron job")).key();
    (model, controller, key)
}

fn pass(model: &mut Model, controller: &CronJobs, key: &ObjectKey, seconds: u64) {
    model.now += Duration::from_secs(seconds);
    for _ in 0..6 {
        if !model.reconcile(controller, key) {
            return;
        }
    }
}

fn names(model: &Model) -> Vec<String> {
    model.all::<Job>().iter().map(|job| job.name().to_owned()).collect()
}

fn active(model: &Model, key: &ObjectKey) -> usize {
    let status = model.get::<CronJob>(key).and_then(|c| c.status).unwrap_or_default();
    status.active.map_or(0, |list| list.len())
}

fn end(model: &mut Model, name: &str, how: &str) {
    let now = time(model.now);
    model.edit::<Job>(&ObjectKey::new("a", name), |job| {
        let status = job.status.get_or_insert_default();
        status.start_time = Some(now.clone());
        status.completion_time = (how == "Complete").then(|| now.clone());
        let condition = JobCondition { type_: how.into(), status: "True".into(), ..JobCondition::default() };
        status.conditions = Some(vec![condition]);
    });
}

/// 2026-01-01T00:00:00Z in minutes.
const MINUTE: u64 = 29_453_760;

fn named(n: u64) -> String {
    format!("c-{}", MINUTE + n)
}

#[test]
fn a_job_is_made_each_minute_and_named_after_it() {
    let (mut model, controller, key) = fixture(json!({}));
    pass(&mut model, &controller, &key, 0);
    assert!(names(&model).is_empty());
    let seen = controller.observe(&key).expect("a cron job");
    let plan = CronJobs::plan(&seen, &Moment::at(model.now));
    assert_eq!(plan.requeue(), Some(Duration::from_millis(50_100)));
    pass(&mut model, &controller, &key, 51);
    assert_eq!((names(&model), active(&model, &key)), (vec![named(1)], 1));
    let job = model.get::<Job>(&ObjectKey::new("a", named(1).as_str())).expect("a job");
    assert_eq!(job.annotation(SCHEDULED), Some("2026-01-01T00:01:00Z"));
    assert_eq!(job.label("l"), Some("1"));
    pass(&mut model, &controller, &key, 60);
    assert_eq!((names(&model), active(&model, &key)), (vec![named(1), named(2)], 2));
    end(&mut model, &named(1), "Complete");
    pass(&mut model, &controller, &key, 1);
    let status = model.get::<CronJob>(&key).and_then(|c| c.status).expect("a status");
    assert_eq!(status.active.map(|a| a.len()), Some(1));
    assert!(status.last_successful_time.is_some());
    let last = status.last_schedule_time.map(|t| SystemTime::from(t.0));
    assert_eq!(last, Some(SystemTime::UNIX_EPOCH + Duration::from_secs((MINUTE + 2) * 60)));
    assert_eq!(model.events, ["SuccessfulCreate", "SuccessfulCreate", "SawCompletedJob"]);
}

#[test]
fn policies_decide_what_happens_to_a_job_that_still_runs() {
    for (policy, expected) in
        [("Allow", vec![named(1), named(2)]), ("Forbid", vec![named(1)]), ("Replace", vec![named(2)])]
    {
        let (mut model, controller, key) = fixture(json!({"concurrencyPolicy": policy}));
        pass(&mut model, &controller, &key, 51);
        pass(&mut model, &controller, &key, 60);
        assert_eq!(names(&model), expected, "{policy}");
        assert_eq!(active(&model, &key), expected.len(), "{policy}");
    }
}

#[test]
fn suspended_late_and_misspelt_ones_make_no_jobs() {
    for (spec, event) in [
        (json!({"suspend": true}), None),
        (json!({"startingDeadlineSeconds": 1}), None),
        (json!({"schedule": "* * * *"}), Some("UnparseableSchedule")),
        (json!({"schedule": "59 23 31 2 *"}), Some("InvalidSchedule")),
        (json!({"timeZone": "Nowhere/Land"}), Some("UnknownTimeZone")),
    ] {
        let (mut model, controller, key) = fixture(spec.clone());
        pass(&mut model, &controller, &key, 60);
        assert!(names(&model).is_empty(), "{spec}");
        assert_eq!(model.events.first().map(String::as_str), event, "{spec}");
    }
}

#[test]
fn after_a_long_pause_one_job_is_made_for_the_last_time() {
    let (mut model, controller, key) = fixture(json!({}));
    pass(&mut model, &controller, &key, 200 * 60);
    assert_eq!(names(&model), [named(200)]);
    assert!(model.events.contains(&"TooManyMissedTimes".to_owned()));
}

#[test]
fn only_so_many_that_ended_are_kept() {
    let (mut model, controller, key) =
        fixture(json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0}));
    for n in 1..=3 {
        pass(&mut model, &controller, &key, if n == 1 { 51 } else { 60 });
        end(&mut model, &named(n), if n == 2 { "Failed" } else { "Complete" });
        pass(&mut model, &controller, &key, 0);
    }
    assert_eq!((names(&model), active(&model, &key)), (vec![named(3)], 0));
}
