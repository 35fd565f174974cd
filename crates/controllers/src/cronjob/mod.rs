//! CronJobs: make a Job whenever it is time.
//!
//! Behaviour: `pkg/controller/cronjob`. The name of a Job tells the minute that it is for, so that none is made
//! twice. A Job enters `status.active` when it is seen to exist, one step after its creation.

mod schedule;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_api::batch::{CronJob, CronJobSpec, CronJobStatus, Job};
use gantry_api::core::ObjectReference;
use gantry_api::field::quote;
use gantry_api::meta::{MetaExt, controller_reference};
use gantry_api::time::{system_time, time};
use gantry_api::{Object, ObjectKey, conditions};
use gantry_client::{DeleteOptions, Delta, Informer, InformerSet, Propagation};
use jiff::Timestamp;

use crate::engine::{Controller, Event, Moment, Plan, Watch, Write, reference};
use schedule::{Timetable, zone};

/// When a Job is for, RFC 3339.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Clocks differ a little.
const SLACK: Duration = Duration::from_millis(100);
/// More missed times than this are worth a warning.
const MANY: i64 = 100;

/// The cronjob controller.
pub struct CronJobs {
    cron_jobs: Informer<CronJob>,
    jobs: Informer<Job>,
}

impl CronJobs {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { cron_jobs: informers.of(), jobs: informers.of() }
    }
}

/// What the controller sees of a cron job.
pub struct Seen {
    cron_job: Arc<CronJob>,
    jobs: Vec<Arc<Job>>,
}

fn owner_of(job: &Job) -> Option<ObjectKey> {
    let owner = job.controller().filter(|o| o.kind == "CronJob")?;
    Some(ObjectKey::new(job.namespace(), owner.name.as_str()))
}

impl Controller for CronJobs {
    const NAME: &'static str = "cronjob-controller";
    const ACCOUNT: &'static str = "cronjob-controller";
    const COMPONENT: &'static str = "cronjob-controller";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let owners =
            |delta: &Delta<Job>| delta.old.iter().chain(&delta.new).filter_map(|j| owner_of(j)).collect();
        vec![Watch::each(&self.cron_jobs), Watch::on(&self.jobs, owners)]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let cron_job = self.cron_jobs.get(key)?;
        let jobs = self.jobs.in_namespace(&key.namespace);
        let own = jobs.into_iter().filter(|job| job.is_controlled_by(cron_job.uid()));
        Some(Seen { jobs: own.collect(), cron_job })
    }

    fn plan(seen: &Seen, moment: &Moment) -> Plan {
        let mut work = Work {
            cron_job: &seen.cron_job,
            spec: &seen.cron_job.spec,
            status: seen.cron_job.status.clone().unwrap_or_default(),
            now: moment.now,
            deletions: Plan::nothing(),
            plan: Plan::nothing(),
        };
        work.clean_up(&seen.jobs);
        work.account(&seen.jobs);
        let start = match seen.cron_job.is_terminating() {
            true => None,
            false => work.due(&seen.jobs),
        };
        let replaced = start.is_some() && work.policy() == "Replace";
        if replaced {
            work.replace(&seen.jobs);
        }
        work.finish(start)
    }
}

struct Work<'a> {
    cron_job: &'a CronJob,
    spec: &'a CronJobSpec,
    /// The status as it is to become.
    status: CronJobStatus,
    now: SystemTime,
    deletions: Plan,
    plan: Plan,
}

fn ended(job: &Job) -> Option<&'static str> {
    let list = job.status.as_ref().and_then(|s| s.conditions.as_ref());
    ["Complete", "Failed"].into_iter().find(|kind| conditions::is_true(list, kind))
}

/// The minute that a Job's name tells, if it is one of ours.
fn scheduled_for(cron_job: &CronJob, job: &Job) -> Option<SystemTime> {
    let minutes: u64 = job.name().strip_prefix(cron_job.name())?.strip_prefix('-')?.parse().ok()?;
    let noted = job.annotation(SCHEDULED).and_then(|text| text.parse::<Timestamp>().ok());
    Some(noted.map_or_else(|| UNIX_EPOCH + Duration::from_secs(minutes * 60), SystemTime::from))
}

fn job_name(cron_job: &CronJob, at: SystemTime) -> String {
    let minutes = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 60;
    format!("{}-{minutes}", cron_job.name())
}

impl Work<'_> {
    fn warn(&mut self, reason: &'static str, text: String) {
        self.plan.event(Event::warning(self.cron_job, reason, text));
    }

    fn policy(&self) -> &str {
        self.spec.concurrency_policy.as_deref().unwrap_or("Allow")
    }

    fn is_active(&self, uid: &str) -> bool {
        self.status.active.iter().flatten().any(|a| a.uid.as_deref() == Some(uid))
    }

    fn drop_active(&mut self, uid: &str) {
        if let Some(active) = &mut self.status.active {
            active.retain(|a| a.uid.as_deref() != Some(uid));
        }
        self.status.active.take_if(|active| active.is_empty());
    }

    /// Removes the oldest of those that ended, beyond what is to be kept.
    fn clean_up(&mut self, jobs: &[Arc<Job>]) {
        let limits = [
            ("Complete", self.spec.successful_jobs_history_limit),
            ("Failed", self.spec.failed_jobs_history_limit),
        ];
        for (kind, limit) in limits {
            let Some(limit) = limit.and_then(|l| usize::try_from(l).ok()) else { continue };
            let mut all: Vec<&Arc<Job>> =
                jobs.iter().filter(|j| ended(j) == Some(kind) && !j.is_terminating()).collect();
            let started = |job: &Job| job.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
            // Those that never started are the last.
            all.sort_by_key(|job| (started(job).is_none(), started(job), job.name().to_owned()));
            for job in all.iter().take(all.len().saturating_sub(limit)) {
                self.delete(job);
            }
        }
    }

    fn delete(&mut self, job: &Job) {
        let options = DeleteOptions {
            propagation: Some(Propagation::Background),
            uid: Some(job.uid().to_owned()),
            ..DeleteOptions::default()
        };
        let deleted = Event::normal(self.cron_job, "SuccessfulDelete", format!("Deleted job {}", job.name()));
        let failed = Event::warning(self.cron_job, "FailedDelete", "Deleted job: {error}");
        let write = Write::delete(Job::RESOURCE, job.key(), &options);
        self.deletions.push(write.announcing(deleted).lamenting(failed));
        self.drop_active(job.uid());
    }

    /// Brings the status in line with the Jobs that there are.
    fn account(&mut self, jobs: &[Arc<Job>]) {
        for job in jobs {
            match ended(job) {
                None if !self.is_active(job.uid()) => self.began(job),
                None => {}
                Some(how) => self.ended(job, how),
            }
        }
        let active = self.status.active.clone().unwrap_or_default();
        for missing in active.iter().filter(|a| !jobs.iter().any(|j| Some(j.uid()) == a.uid.as_deref())) {
            let text = format!("Active job went missing: {}", missing.name.as_deref().unwrap_or(""));
            self.plan.event(Event::normal(self.cron_job, "MissingJob", text));
            self.drop_active(missing.uid.as_deref().unwrap_or(""));
        }
    }

    fn began(&mut self, job: &Job) {
        match scheduled_for(self.cron_job, job) {
            Some(at) => {
                let active: ObjectReference = reference(job);
                self.status.active.get_or_insert_default().push(active);
                self.scheduled(at);
            }
            None => self.warn(
                "UnexpectedJob",
                format!("Saw a job that the controller did not create or forgot: {}", job.name()),
            ),
        }
    }

    fn scheduled(&mut self, at: SystemTime) {
        let last = self.status.last_schedule_time.as_ref().map(|t| system_time(&t.0));
        if last.is_none_or(|last| last < at) {
            self.status.last_schedule_time = Some(time(at));
        }
    }

    fn ended(&mut self, job: &Job, how: &str) {
        if self.is_active(job.uid()) {
            self.drop_active(job.uid());
            let text = format!("Saw completed job: {}, condition: {how}", job.name());
            self.plan.event(Event::normal(self.cron_job, "SawCompletedJob", text));
        } else if let Some(at) = scheduled_for(self.cron_job, job) {
            // It ended before anybody looked.
            self.scheduled(at);
        }
        let completed = job.status.as_ref().and_then(|s| s.completion_time.clone());
        let last = self.status.last_successful_time.as_ref();
        if how == "Complete" && completed.as_ref().is_some_and(|t| last.is_none_or(|last| last.0 < t.0)) {
            self.status.last_successful_time = completed;
        }
    }

    /// The time that a Job is to be made for now, if there is one; arranges for the next look.
    fn due(&mut self, jobs: &[Arc<Job>]) -> Option<SystemTime> {
        let named = self.spec.time_zone.as_deref();
        if let Some(Err(why)) = named.map(zone) {
            self.warn("UnknownTimeZone", format!("invalid timeZone: {}: {why}", quote(named.unwrap_or(""))));
            return None;
        }
        if self.spec.suspend == Some(true) {
            return None;
        }
        if self.spec.schedule.contains("TZ") {
            let text = format!(
                "CRON_TZ or TZ used in schedule {} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
                quote(&self.spec.schedule)
            );
            self.warn("UnsupportedSchedule", text);
        }
        let table = match Timetable::read(&self.spec.schedule, named) {
            Ok(table) => table,
            Err(why) => {
                let text = format!("unparseable schedule: {} : {why}", quote(&self.spec.schedule));
                self.warn("UnparseableSchedule", text);
                return None;
            }
        };
        let recent = match self.most_recent(&table, true) {
            Ok(recent) => recent,
            Err(why) => {
                self.warn("InvalidSchedule", format!("invalid schedule: {} : {why}", self.spec.schedule));
                return None;
            }
        };
        if let Some(next) = self.next_look(&table) {
            self.plan.requeue_after(next);
        }
        let at = recent.at.filter(|at| *at <= self.now)?;
        if recent.missed > MANY {
            let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.warn("TooManyMissedTimes", text.to_owned());
        }
        self.may_start(at, jobs).then_some(at)
    }

    fn may_start(&mut self, at: SystemTime, jobs: &[Arc<Job>]) -> bool {
        let deadline = self.spec.starting_deadline_seconds.and_then(|s| u64::try_from(s).ok());
        if deadline.is_some_and(|seconds| at + Duration::from_secs(seconds) < self.now) {
            self.warn("MissSchedule", format!("Missed scheduled time to start a job: {}", rfc1123(at)));
            return false;
        }
        let name = job_name(self.cron_job, at);
        let done = self.status.last_schedule_time.as_ref().is_some_and(|t| system_time(&t.0) == at);
        if done || jobs.iter().any(|job| job.name() == name) {
            return false;
        }
        let active = self.status.active.as_ref().is_some_and(|active| !active.is_empty());
        if self.policy() == "Forbid" && active {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            self.plan.event(Event::normal(self.cron_job, "JobAlreadyActive", text));
            return false;
        }
        true
    }

    fn replace(&mut self, jobs: &[Arc<Job>]) {
        for job in jobs.iter().filter(|job| ended(job).is_none()) {
            if self.is_active(job.uid()) {
                self.delete(job);
            }
        }
    }

    fn finish(mut self, start: Option<SystemTime>) -> Plan {
        let mut plan = self.deletions;
        if self.cron_job.status.clone().unwrap_or_default() != self.status {
            let status = Some(std::mem::take(&mut self.status));
            plan.push(Write::update_status(&CronJob { status, ..self.cron_job.clone() }));
        }
        plan.append(self.plan);
        if let Some(at) = start {
            plan.next_stage();
            let write = Write::create(&job(self.cron_job, at))
                .announcing(Event::normal(self.cron_job, "SuccessfulCreate", "Created job {name}"))
                .lamenting(Event::warning(self.cron_job, "FailedCreate", "Error creating job: {error}"));
            plan.push(write.tolerating("AlreadyExists"));
        }
        plan
    }

    /// The last time at which a Job was due.
    fn most_recent(&self, table: &Timetable, with_deadline: bool) -> Result<Recent, String> {
        let created = self.cron_job.metadata.creation_timestamp.as_ref();
        let last = self.status.last_schedule_time.as_ref().or(created);
        let mut earliest = last.map_or(self.now, |t| system_time(&t.0));
        let deadline = self.spec.starting_deadline_seconds.and_then(|s| u64::try_from(s).ok());
        if let Some(seconds) = deadline.filter(|_| with_deadline) {
            let bound = self.now.checked_sub(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH);
            earliest = earliest.max(bound);
        }
        let none = Recent { earliest, at: None, missed: 0 };
        const NONSENSE: &str = "time difference between two schedules is less than 1 second";
        let first = table.next(earliest).ok_or(NONSENSE)?;
        if self.now < first {
            return Ok(none);
        }
        let second = table.next(first).ok_or(NONSENSE)?;
        if self.now < second {
            return Ok(Recent { at: Some(first), ..none });
        }
        let between = second.duration_since(first).unwrap_or_default().as_secs().max(1);
        let elapsed = self.now.duration_since(first).unwrap_or_default().as_secs();
        let missed = elapsed / between + 1;
        let mut from = first + Duration::from_secs(missed.saturating_sub(2) * between);
        if missed < 2 {
            from = first.checked_sub(Duration::from_secs(between)).unwrap_or(UNIX_EPOCH);
        }
        let mut at = None;
        let mut next = table.next(from);
        while let Some(due) = next.filter(|due| *due <= self.now) {
            at = Some(due);
            next = table.next(due);
        }
        Ok(Recent { earliest, at, missed: i64::try_from(missed).unwrap_or(i64::MAX) })
    }

    fn next_look(&self, table: &Timetable) -> Option<Duration> {
        let from = match self.most_recent(table, false) {
            Err(_) => self.now,
            Ok(Recent { at: Some(at), .. }) => at,
            Ok(Recent { earliest, missed: 0, .. }) => earliest,
            Ok(_) => self.now,
        };
        let next = table.next(from)? + SLACK;
        // A time that has come already is dealt with now; then the one after it counts.
        Some(next.duration_since(self.now).ok().filter(|wait| !wait.is_zero()).unwrap_or(SLACK))
    }
}

struct Recent {
    earliest: SystemTime,
    at: Option<SystemTime>,
    missed: i64,
}

fn job(cron_job: &CronJob, at: SystemTime) -> Job {
    let template = &cron_job.spec.job_template;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut job = Job { spec: template.spec.clone(), ..Job::default() };
    job.metadata.name = Some(job_name(cron_job, at));
    job.metadata.namespace = cron_job.metadata.namespace.clone();
    job.metadata.labels = meta.labels;
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED.to_owned(), rfc3339(at, cron_job.spec.time_zone.as_deref()));
    job.metadata.annotations = Some(annotations);
    job.metadata.owner_references = Some(vec![controller_reference(cron_job)]);
    job
}

fn rfc3339(at: SystemTime, named: Option<&str>) -> String {
    let Ok(at) = Timestamp::try_from(at) else { return String::new() };
    match named.map(zone) {
        Some(Ok(zone)) if named != Some("UTC") => {
            at.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
        }
        _ => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }
}

fn rfc1123(at: SystemTime) -> String {
    let at = Timestamp::try_from(at).map(|at| at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string());
    at.unwrap_or_default()
}
