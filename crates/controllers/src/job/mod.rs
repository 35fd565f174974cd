//! Jobs: run pods until enough of them have succeeded.
//!
//! Behaviour: `pkg/controller/job`. A pod that ended is counted exactly once, although counting it in the status and
//! taking its finalizer off are two writes: its UID is noted in `uncountedTerminatedPods` first, and moved into the
//! counter when the finalizer is seen to be gone. [`mod@policy`] judges failures, [`mod@pods`] makes pods,
//! [`mod@indexes`] keeps sets of completion indexes.

mod indexes;
mod pods;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_api::batch::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use gantry_api::meta::MetaExt;
use gantry_api::time::{since, system_time, time};
use gantry_api::{LabelSelector, ObjectKey, conditions};
use gantry_client::views::{Phase, PodView};
use gantry_client::{Delta, Informer, InformerSet};

use crate::common::claim::{Candidates, ViewKey};
use crate::common::number::count;
use crate::common::pods as common_pods;
use crate::engine::{Controller, Event, Moment, Plan, Watch, Write};

/// The label with the name of a pod's Job; it stays when the Job is deleted and its pods are orphaned.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The finalizer of pods that are not counted yet.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// The label of a pod's completion index.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Pods noted as uncounted at once.
const MAX_UNCOUNTED: usize = 500;
/// Delay after the first failure; it doubles with each further one …
const FAILURE_BACKOFF: Duration = Duration::from_secs(10);
/// … up to this.
const MAX_FAILURE_BACKOFF: Duration = Duration::from_secs(600);

/// The job controller.
pub struct Jobs {
    jobs: Informer<Job>,
    pods: Informer<PodView>,
}

impl Jobs {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { jobs: informers.of(), pods: informers.of() }
    }
}

/// What the controller sees of a key.
pub enum Seen {
    /// A Job and its pods.
    Job {
        /// The Job.
        job: Arc<Job>,
        /// Its selector.
        selector: LabelSelector,
        /// Its pods.
        pods: Candidates,
        /// Pods of an earlier Job of its name, still with their finalizer.
        strays: Vec<Arc<PodView>>,
    },
    /// The pods of a Job that is gone, still with their finalizer.
    Gone(Vec<Arc<PodView>>),
}

fn selector(job: &Job) -> Option<LabelSelector> {
    LabelSelector::from_spec(job.spec.as_ref()?.selector.as_ref()).ok()
}

fn is_tracked(pod: &PodView) -> bool {
    pod.finalizers.iter().any(|f| f == TRACKING)
}

/// The Job that has to let go of a pod that nobody controls: the one that it names, or a name that no Job has.
fn stray_key(pod: &PodView) -> Option<ObjectKey> {
    if !pod.owner_uid.is_empty() || !is_tracked(pod) {
        return None;
    }
    let (own, labels) = (pod.view_key(), pod.labels.as_ref());
    let name = labels.and_then(|labels| labels.get(JOB_NAME)).cloned();
    Some(ObjectKey::new(own.namespace.clone(), name.unwrap_or_else(|| format!("{}/", own.name))))
}

fn jobs_of(delta: &Delta<PodView>, jobs: &Informer<Job>) -> Vec<ObjectKey> {
    let (old, new) = (delta.old.as_deref(), delta.new.as_deref());
    let mut keys: Vec<_> =
        old.into_iter().chain(new).filter_map(|pod| common_pods::owner_keys(pod, "Job")).collect();
    if common_pods::is_new_orphan(old, new) {
        let labels = new.and_then(|pod| pod.labels.as_deref());
        let selects = |job: &&Arc<Job>| selector(job).is_some_and(|s| s.matches(labels));
        keys.extend(jobs.in_namespace(&delta.key.namespace).iter().filter(selects).map(|job| job.key()));
    }
    keys.extend(new.and_then(stray_key));
    keys.dedup();
    keys
}

impl Controller for Jobs {
    const NAME: &'static str = "job-controller";
    const ACCOUNT: &'static str = "job-controller";
    const COMPONENT: &'static str = "job-controller";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let jobs = self.jobs.clone();
        vec![Watch::each(&self.jobs), Watch::on(&self.pods, move |delta| jobs_of(delta, &jobs))]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let left = |is_left: &dyn Fn(&PodView) -> bool| {
            let pods = self.pods.in_namespace(&key.namespace).into_iter();
            pods.filter(|pod| is_tracked(pod) && is_left(pod)).collect()
        };
        let is_stray = |pod: &PodView| stray_key(pod).is_some_and(|stray| stray == *key);
        match self.jobs.get(key) {
            Some(job) => {
                let selector = selector(&job)?;
                let pods = common_pods::candidates(&self.pods, job.uid(), job.namespace(), &selector);
                let strays = left(&|pod| is_stray(pod) && !selector.matches(pod.labels.as_deref()));
                Some(Seen::Job { job, selector, pods, strays })
            }
            None => {
                let owner = format!("Job/{}", key.name);
                Some(Seen::Gone(left(&|pod| *pod.owner == *owner || is_stray(pod))))
            }
        }
    }

    fn plan(seen: &Seen, moment: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        match seen {
            Seen::Gone(left) => plan.extend(left.iter().map(|pod| pods::untrack(pod))),
            Seen::Job { job, selector, pods, strays } => {
                plan.extend(strays.iter().map(|pod| pods::untrack(pod)));
                let Some(spec) = &job.spec else { return plan };
                let foreign = |by: &String| by != "kubernetes.io/job-controller";
                if spec.managed_by.as_ref().is_some_and(foreign) {
                    return plan;
                }
                let owned = pods.claim(&**job, selector, &mut plan);
                if finished_at(job).is_some() {
                    let left = owned.iter().filter(|pod| is_tracked(pod));
                    plan.extend(left.map(|pod| pods::untrack(pod)));
                    return plan;
                }
                let mut sync = Sync::new(job, spec, owned, moment, plan);
                sync.run();
                return sync.plan;
            }
        }
        plan
    }
}

/// When a Job ended, well or badly.
pub(crate) fn finished_at(job: &Job) -> Option<SystemTime> {
    let list = job.status.as_ref()?.conditions.as_ref()?;
    let over =
        list.iter().find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    Some(over.last_transition_time.as_ref().map_or(SystemTime::UNIX_EPOCH, |t| system_time(&t.0)))
}

/// How a Job is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    good: bool,
    reason: String,
    message: String,
}

impl Verdict {
    fn bad(reason: &str, message: impl Into<String>) -> Self {
        Self { good: false, reason: reason.into(), message: message.into() }
    }
}

/// One synchronization.
struct Sync<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    status: JobStatus,
    pods: Vec<Arc<PodView>>,
    /// Neither ended nor being deleted.
    active: Vec<Arc<PodView>>,
    succeeded: i32,
    failed: i32,
    succeeded_indexes: BTreeSet<i32>,
    failed_indexes: BTreeSet<i32>,
    /// Pods whose finalizer goes once the status is written.
    counted: Vec<Arc<PodView>>,
    terminating: i32,
    moment: &'a Moment,
    /// What goes along with the status.
    plan: Plan,
    events: Vec<Event>,
}

impl<'a> Sync<'a> {
    fn new(job: &'a Job, spec: &'a JobSpec, pods: Vec<Arc<PodView>>, moment: &'a Moment, plan: Plan) -> Self {
        let mut status = job.status.clone().unwrap_or_default();
        status.uncounted_terminated_pods.get_or_insert_default();
        let active: Vec<_> = pods.iter().filter(|pod| pod.is_active()).cloned().collect();
        let terminating = pods.iter().filter(|pod| pod.deleted.is_some() && !pod.is_finished()).count();
        let done = indexes::parse(status.completed_indexes.as_deref().unwrap_or(""));
        Self {
            job,
            spec,
            status,
            active,
            pods,
            succeeded: 0,
            failed: 0,
            succeeded_indexes: done,
            failed_indexes: BTreeSet::new(),
            counted: Vec::new(),
            terminating: count(terminating),
            moment,
            plan,
            events: Vec::new(),
        }
    }

    fn now(&self) -> SystemTime {
        self.moment.now
    }

    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn is_suspended(&self) -> bool {
        self.spec.suspend.unwrap_or(false)
    }

    /// Whether only a pod that has failed for good is replaced, not one that is being deleted.
    fn replaces_failed_only(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
            || self.spec.pod_failure_policy.is_some()
    }

    fn index_of(&self, pod: &PodView) -> Option<i32> {
        let index = pod.labels.as_deref()?.get(INDEX)?.parse().ok()?;
        (0..self.spec.completions.unwrap_or(0)).contains(&index).then_some(index)
    }

    fn has_failed(&self, pod: &PodView) -> bool {
        pod.phase == Phase::Failed
            || (!self.replaces_failed_only() && pod.deleted.is_some() && pod.phase != Phase::Succeeded)
    }

    fn run(&mut self) {
        if self.status.start_time.is_none() && !self.is_suspended() {
            self.status.start_time = Some(time(self.now()));
        }
        self.settle_uncounted();
        self.count_ended();
        let mut active = count(self.active.len());
        let mut ready = count(self.active.iter().filter(|pod| pod.ready).count());
        match self.verdict() {
            Some(verdict) => {
                self.conclude(&verdict);
                let all = self.active.clone();
                self.terminating += active;
                (active, ready) = (0, 0);
                self.delete_active(&all);
            }
            None => {
                if !self.job.is_terminating() {
                    self.manage(&mut active, &mut ready);
                }
                if self.is_complete(active) {
                    let message = "Reached expected number of succeeded pods".to_owned();
                    let reason = "CompletionsReached".to_owned();
                    self.conclude(&Verdict { good: true, reason, message });
                } else if !self.job.is_terminating() {
                    self.note_suspension();
                }
            }
        }
        self.status.active = Some(active);
        self.status.ready = Some(ready);
        self.status.terminating = Some(self.terminating);
        self.end();
        self.write();
    }

    /// Moves noted pods whose finalizer is gone into the counters.
    fn settle_uncounted(&mut self) {
        let tracked: HashSet<&str> = self.pods.iter().filter(|p| is_tracked(p)).map(|p| &*p.uid).collect();
        let uncounted = self.status.uncounted_terminated_pods.get_or_insert_default();
        let settle = |list: &mut Option<Vec<String>>| {
            let uids = list.take().unwrap_or_default();
            let (kept, gone): (Vec<_>, Vec<_>) = uids.into_iter().partition(|uid| tracked.contains(&**uid));
            *list = (!kept.is_empty()).then_some(kept);
            count(gone.len())
        };
        let (succeeded, failed) = (settle(&mut uncounted.succeeded), settle(&mut uncounted.failed));
        self.status.succeeded = Some(self.status.succeeded.unwrap_or(0) + succeeded);
        self.status.failed = Some(self.status.failed.unwrap_or(0) + failed);
    }

    /// Notes the pods that have ended.
    fn count_ended(&mut self) {
        let mut uncounted = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let mut succeeded = uncounted.succeeded.take().unwrap_or_default();
        let mut failed = uncounted.failed.take().unwrap_or_default();
        let failing = self.stored_target().is_some_and(|c| c.type_ == "FailureTarget");
        for pod in self.pods.clone().iter().filter(|pod| is_tracked(pod)) {
            if succeeded.len() + failed.len() + self.counted.len() >= 2 * MAX_UNCOUNTED {
                break;
            }
            let uid = pod.uid.to_string();
            let valid = !self.is_indexed() || self.index_of(pod).is_some();
            if pod.phase == Phase::Succeeded && !failed.contains(&uid) {
                match self.index_of(pod).filter(|_| self.is_indexed()) {
                    Some(index) => {
                        self.succeeded_indexes.insert(index);
                    }
                    None if !self.is_indexed() && !succeeded.contains(&uid) => succeeded.push(uid),
                    None => {}
                }
            } else if self.has_failed(pod) || (failing && pod.deleted.is_some() && pod.is_finished()) {
                let counts = !policy::is_ignored(self.spec, pod);
                if valid && counts && !failed.contains(&uid) {
                    failed.push(uid);
                }
            } else {
                continue;
            }
            self.counted.push(Arc::clone(pod));
        }
        self.succeeded = self.status.succeeded.unwrap_or(0) + count(succeeded.len());
        self.failed = self.status.failed.unwrap_or(0) + count(failed.len());
        let filled = |list: Vec<String>| (!list.is_empty()).then_some(list);
        self.status.uncounted_terminated_pods =
            Some(UncountedTerminatedPods { succeeded: filled(succeeded), failed: filled(failed) });
        if self.is_indexed() {
            self.count_indexes();
        }
    }

    fn count_indexes(&mut self) {
        self.succeeded = count(self.succeeded_indexes.len());
        self.status.succeeded = Some(self.succeeded);
        let text = indexes::text(&self.succeeded_indexes);
        self.status.completed_indexes = (!text.is_empty()).then_some(text);
        if let Some(limit) = self.spec.backoff_limit_per_index {
            self.failed_indexes = indexes::parse(self.status.failed_indexes.as_deref().unwrap_or(""));
            for (index, failures) in policy::failures_by_index(self) {
                if (failures.count > limit || failures.fatal) && !self.succeeded_indexes.contains(&index) {
                    self.failed_indexes.insert(index);
                }
            }
            self.status.failed_indexes = Some(indexes::text(&self.failed_indexes));
        }
    }

    /// The condition that says how the Job will end, if that has been decided.
    fn stored_target(&self) -> Option<&JobCondition> {
        let list = self.status.conditions.as_ref()?;
        let decided = |c: &&JobCondition| {
            matches!(c.type_.as_str(), "SuccessCriteriaMet" | "FailureTarget") && c.status == "True"
        };
        list.iter().find(decided)
    }

    fn verdict(&mut self) -> Option<Verdict> {
        if let Some(stored) = self.stored_target() {
            let text = |t: &Option<String>| t.clone().unwrap_or_default();
            let good = stored.type_ == "SuccessCriteriaMet";
            return Some(Verdict { good, reason: text(&stored.reason), message: text(&stored.message) });
        }
        if let Some(message) = policy::fatal_failure(self.spec, &self.pods) {
            return Some(Verdict::bad("PodFailurePolicy", message));
        }
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if self.failed > limit || policy::restarts_exceed(self.spec, limit, &self.active) {
            return Some(Verdict::bad("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        self.past_deadline().or_else(|| self.verdict_on_indexes())
    }

    fn past_deadline(&mut self) -> Option<Verdict> {
        let seconds = self.spec.active_deadline_seconds.filter(|_| !self.is_suspended())?;
        let allowed = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let spent = since(self.status.start_time.as_ref()?, self.now());
        if spent >= allowed {
            let message = "Job was active longer than specified deadline";
            return Some(Verdict::bad("DeadlineExceeded", message));
        }
        self.plan.requeue_after(allowed - spent);
        None
    }

    fn verdict_on_indexes(&self) -> Option<Verdict> {
        if !self.is_indexed() {
            return None;
        }
        let (failed, done) = (count(self.failed_indexes.len()), count(self.succeeded_indexes.len()));
        if self.spec.backoff_limit_per_index.is_some() {
            if self.spec.max_failed_indexes.is_some_and(|most| failed > most) {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                return Some(Verdict::bad("MaxFailedIndexesExceeded", message));
            }
            if failed > 0 && failed + done >= self.spec.completions.unwrap_or(0) {
                return Some(Verdict::bad("FailedIndexes", "Job has failed indexes"));
            }
        }
        let rule = policy::success_rule(self.spec, &self.succeeded_indexes)?;
        let message = format!("Matched rules at index {rule}");
        Some(Verdict { good: true, reason: "SuccessPolicy".into(), message })
    }

    fn is_complete(&self, active: i32) -> bool {
        match self.spec.completions {
            None => self.succeeded > 0 && active == 0,
            Some(wanted) => self.succeeded >= wanted && active == 0,
        }
    }

    /// Says how the Job will end.
    fn conclude(&mut self, verdict: &Verdict) {
        if self.stored_target().is_none() {
            let kind = if verdict.good { "SuccessCriteriaMet" } else { "FailureTarget" };
            self.add_condition(kind, &verdict.reason, &verdict.message);
        }
    }

    fn add_condition(&mut self, kind: &str, reason: &str, message: &str) {
        let now = time(self.now());
        self.status.conditions.get_or_insert_default().push(JobCondition {
            type_: kind.into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_probe_time: Some(now.clone()),
            last_transition_time: Some(now),
        });
    }

    /// Ends the Job when all its pods are counted and gone.
    fn end(&mut self) {
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        let open = uncounted.is_some_and(|u| u.succeeded.is_some() || u.failed.is_some());
        let Some(target) = self.stored_target().cloned().filter(|_| !open && self.terminating == 0) else {
            return;
        };
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let (reason, message) = (text(&target.reason), text(&target.message));
        if target.type_ == "SuccessCriteriaMet" {
            self.add_condition("Complete", &reason, &message);
            self.status.completion_time = Some(time(self.now()));
            self.events.push(Event::normal(self.job, "Completed", "Job completed"));
        } else {
            self.add_condition("Failed", &reason, &message);
            let reason = policy::event_reason(&reason);
            self.events.push(Event::warning(self.job, reason, message));
        }
    }

    fn note_suspension(&mut self) {
        let list = self.status.conditions.as_ref();
        let stored = conditions::find(list, "Suspended").map(|c| c.status == "True");
        let (status, reason, message, event) = match (self.is_suspended(), stored) {
            (true, None | Some(false)) => ("True", "JobSuspended", "Job suspended", "Suspended"),
            (false, Some(true)) => ("False", "JobResumed", "Job resumed", "Resumed"),
            _ => return,
        };
        let now = time(self.now());
        if !self.is_suspended() {
            self.status.start_time = Some(now.clone());
        }
        let condition = JobCondition {
            type_: "Suspended".into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_probe_time: Some(now.clone()),
            last_transition_time: Some(now),
        };
        conditions::set(&mut self.status.conditions, condition);
        self.events.push(Event::normal(self.job, event, message));
    }

    /// The status beside the pods; then the finalizers of those that it has noted.
    fn write(&mut self) {
        if normalized(self.job.status.as_ref()) != normalized(Some(&self.status)) {
            let mut updated = self.job.clone();
            updated.status = Some(normalized(Some(&self.status)));
            let mut write = Write::update_status(&updated);
            write.on_success = (!self.events.is_empty()).then(|| self.events.remove(0));
            self.plan.push(write);
        }
        self.plan.next_stage();
        self.plan.extend(self.counted.iter().map(|pod| pods::untrack(pod)));
    }
}

/// Zero is left out on the wire, but for `ready` and `terminating`.
fn normalized(status: Option<&JobStatus>) -> JobStatus {
    let mut status = status.cloned().unwrap_or_default();
    for count in [&mut status.active, &mut status.succeeded, &mut status.failed] {
        *count = count.filter(|n| *n != 0);
    }
    status.conditions = status.conditions.filter(|list| !list.is_empty());
    let mut uncounted = status.uncounted_terminated_pods.unwrap_or_default();
    uncounted.succeeded = uncounted.succeeded.filter(|list| !list.is_empty());
    uncounted.failed = uncounted.failed.filter(|list| !list.is_empty());
    status.uncounted_terminated_pods = Some(uncounted);
    status
}
