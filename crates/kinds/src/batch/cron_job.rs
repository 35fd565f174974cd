//! CronJob: a Job at every time of a schedule.

use std::time::SystemTime;

use gantry_api::batch::{CronJob, CronJobSpec, CronJobStatus, JobTemplateSpec};
use gantry_api::field::{Error, Path};
use gantry_api::time::{human_duration, since};
use serde_json::{Value, json};

use super::job::{check_spec, warn_spec};
use crate::common::at::At;
use crate::common::{cells, check, cron, workload};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::{AGE, Column, age};

/// Longest name: those of the jobs are eleven characters longer.
const MAX_NAME: usize = 52;

/// The kind.
pub struct CronJobKind;

impl Kind for CronJobKind {
    type Object = CronJob;
    const NAMES: Names =
        Names { singular: "cronjob", short: &["cj"], categories: &["all"], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };

    fn defaults(cron: &mut CronJob) {
        let spec = &mut cron.spec;
        if spec.concurrency_policy.as_deref().unwrap_or("").is_empty() {
            spec.concurrency_policy = Some("Allow".into());
        }
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        workload::template_defaults(&mut spec.job_template.spec.get_or_insert_default().template);
    }

    fn prepare_create(cron: &mut CronJob) {
        cron.status = Some(CronJobStatus::default());
        cron.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut CronJob, old: &CronJob) {
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn prepare_status_update(new: &mut CronJob, old: &CronJob) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(cron: &CronJob) -> Errors {
        let mut errors = validate_spec(&cron.spec, None);
        if let Some(name) = cron.metadata.name.as_deref().filter(|name| name.len() > MAX_NAME) {
            let why = format!("must be no more than {MAX_NAME} characters");
            errors.push(Error::invalid(&Path::new("metadata").child("name"), name, why));
        }
        errors
    }

    fn validate_replacement(new: &CronJob, old: &CronJob) -> Errors {
        validate_spec(&new.spec, Some(&old.spec))
    }

    fn warnings(cron: &CronJob) -> Vec<String> {
        let mut warnings = Vec::new();
        workload::warn_name(&cron.metadata, &mut warnings);
        warn_template(cron, &mut warnings);
        warnings
    }

    fn update_warnings(new: &CronJob, old: &CronJob) -> Vec<String> {
        let mut warnings = Vec::new();
        if new.metadata.generation != old.metadata.generation {
            warn_template(new, &mut warnings);
        }
        if new.spec.schedule.contains("TZ") {
            warnings.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".into());
        }
        warnings
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Schedule",
                "string",
                "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron.",
            ),
            Column::new(
                "Timezone",
                "string",
                "The time zone name for the given schedule, see https://en.wikipedia.org/wiki/List_of_tz_database_time_zones. If not specified, this will default to the time zone of the kube-controller-manager process. The set of valid time zone names and the time zone offset is loaded from the system-wide time zone database by the API server during CronJob validation and the controller manager during execution. If no system-wide time zone database can be found a bundled version of the database is used instead. If the time zone name becomes invalid during the lifetime of a CronJob or due to a change in host configuration, the controller will stop creating new new Jobs and will create a system event with the reason UnknownTimeZone. More information can be found in https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#time-zones",
            ),
            Column::new(
                "Suspend",
                "boolean",
                "This flag tells the controller to suspend subsequent executions, it does not apply to already started executions.  Defaults to false.",
            ),
            Column::new("Active", "integer", "A list of pointers to currently running jobs."),
            Column::new(
                "Last Schedule",
                "string",
                "Information when was the last time the job was successfully scheduled.",
            ),
            AGE,
            Column::wide("Containers", "string", "Names of each container in the template."),
            Column::wide("Images", "string", "Images referenced by each container in the template."),
            Column::wide(
                "Selector",
                "string",
                "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
            ),
        ];
        COLUMNS
    }

    fn cells(cron: &CronJob, now: SystemTime) -> Vec<Value> {
        let spec = &cron.spec;
        let status = cron.status.clone().unwrap_or_default();
        let job = spec.job_template.spec.as_ref();
        let pod = job.and_then(|j| j.template.spec.as_ref());
        let [names, images] = cells::containers(pod.map(|s| s.containers.as_slice()).unwrap_or_default());
        let last = status.last_schedule_time.as_ref().map(|t| human_duration(since(t, now)));
        vec![
            spec.schedule.as_str().into(),
            spec.time_zone.as_deref().unwrap_or("<none>").into(),
            cells::boolean(spec.suspend),
            status.active.as_ref().map_or(0, Vec::len).into(),
            last.unwrap_or_else(|| "<none>".into()).into(),
            age(&cron.metadata, now),
            names,
            images,
            cells::selector(job.and_then(|j| j.selector.as_ref())),
        ]
    }
}

fn validate_spec(spec: &CronJobSpec, old: Option<&CronJobSpec>) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let at = path.child("schedule");
    if spec.schedule.is_empty() {
        errors.push(Error::required(&at, ""));
    } else {
        let zone_allowed = old.is_some_and(|old| old.schedule.contains("TZ"));
        validate_schedule(spec, zone_allowed, &at, &mut errors);
    }
    let deadline = spec.starting_deadline_seconds.unwrap_or(0);
    check::non_negative(&path.child("startingDeadlineSeconds"), deadline, &mut errors);
    if old.is_none_or(|old| old.time_zone != spec.time_zone)
        && let Some(zone) = &spec.time_zone
    {
        validate_zone(zone, &path.child("timeZone"), &mut errors);
    }
    let at = path.child("concurrencyPolicy");
    match spec.concurrency_policy.as_deref().unwrap_or("") {
        "" => errors.push(Error::required(&at, "")),
        policy => check::supported(&at, policy, &["Allow", "Forbid", "Replace"], &mut errors),
    }
    validate_template(&spec.job_template, old.map(|old| &old.job_template), &mut errors);
    for (field, limit) in [
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ] {
        check::non_negative(&path.child(field), limit.unwrap_or(0), &mut errors);
    }
    errors
}

fn validate_schedule(spec: &CronJobSpec, zone_allowed: bool, path: &Path, errors: &mut Errors) {
    let schedule = spec.schedule.as_str();
    if let Err(why) = cron::parse(schedule) {
        errors.push(Error::invalid(path, schedule, why));
    }
    if schedule.contains("TZ") {
        if zone_allowed && spec.time_zone.is_some() {
            let why = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
            errors.push(Error::invalid(path, schedule, why));
        } else if !zone_allowed {
            let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(Error::invalid(path, schedule, why));
        }
    }
}

fn validate_zone(zone: &str, path: &Path, errors: &mut Errors) {
    const MAX_PART: usize = 14;
    if zone.is_empty() {
        errors.push(Error::invalid(path, zone, "timeZone must be nil or non-empty string"));
        return;
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
    let is_part = |part: &str| {
        !matches!(part, "." | ".." | "")
            && !part.starts_with('-')
            && part.len() <= MAX_PART
            && part.bytes().all(fits)
    };
    if !zone.split('/').all(is_part) {
        errors.push(Error::invalid(path, zone, format!("unknown time zone {zone}")));
        return;
    }
    if zone.eq_ignore_ascii_case("local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(Error::invalid(path, zone, why));
    }
    check::name(path, zone, cron::check_zone(zone), errors);
}

fn warn_template(cron: &CronJob, warnings: &mut Vec<String>) {
    if let Some(spec) = &cron.spec.job_template.spec {
        warn_spec(spec, &At::root("spec").child("jobTemplate").child("spec"), warnings);
    }
}

/// The rules of a job hold, but for its selector, which is made with each job.
fn validate_template(template: &JobTemplateSpec, old: Option<&JobTemplateSpec>, errors: &mut Errors) {
    let spec = template.spec.clone().unwrap_or_default();
    let old = old.and_then(|old| old.spec.as_ref()).map(|spec| &spec.template);
    let root = At::root("spec");
    check_spec(&spec, old, &root.child("jobTemplate").child("spec"), errors);
    let at = Path::new("spec").child("jobTemplate").child("spec");
    if let Some(selector) = &spec.selector {
        let why = "`selector` will be auto-generated";
        errors.push(Error::invalid(&at.child("selector"), json!(selector), why));
    }
    if spec.manual_selector == Some(true) {
        errors.push(Error::not_supported(&at.child("manualSelector"), true, &["nil", "false"]));
    }
}
