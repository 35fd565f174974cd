//! Deletes Jobs some time after they have finished.
//!
//! Behaviour: `pkg/controller/ttlafterfinished`.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::batch::Job;
use gantry_api::meta::MetaExt;
use gantry_api::{Object, ObjectKey};
use gantry_client::{DeleteOptions, Informer, InformerSet, Propagation};

use crate::engine::{Controller, Moment, Plan, Watch, Write};
use crate::job::finished_at;

/// The ttl-after-finished controller.
pub struct TtlAfterFinished {
    jobs: Informer<Job>,
}

impl TtlAfterFinished {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { jobs: informers.of() }
    }
}

impl Controller for TtlAfterFinished {
    const NAME: &'static str = "ttl-after-finished-controller";
    const ACCOUNT: &'static str = "ttl-after-finished-controller";
    const COMPONENT: &'static str = "ttl-after-finished-controller";
    type Seen = Arc<Job>;

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::each(&self.jobs)]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Arc<Job>> {
        self.jobs.get(key).filter(|job| !job.is_terminating())
    }

    fn plan(job: &Arc<Job>, moment: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let ttl = job.spec.as_ref().and_then(|s| s.ttl_seconds_after_finished);
        let (Some(ttl), Some(finished)) = (ttl, finished_at(job)) else { return plan };
        let due = finished + Duration::from_secs(u64::from(ttl.unsigned_abs()));
        match due.duration_since(moment.now) {
            Ok(left) if !left.is_zero() => plan.requeue_after(left),
            _ => {
                let options = DeleteOptions {
                    propagation: Some(Propagation::Foreground),
                    uid: Some(job.uid().to_owned()),
                    resource_version: job.metadata.resource_version.clone(),
                    ..DeleteOptions::default()
                };
                plan.push(Write::delete(Job::RESOURCE, job.key(), &options));
            }
        }
        plan
    }
}
