//! Where writes are charged: one clerk per namespace at a time, who takes all that wait together, so that a hundred
//! pods created at once are one write to the quota and not a hundred conflicts.

use std::sync::Arc;

use gantry_api::ApiError;
use gantry_api::core::{ResourceQuota, ResourceQuotaStatus};
use gantry_api::meta::{MetaExt, ObjectKey};
use gantry_base::{Clock, Tasks};
use gantry_client::{Api, Informer, Transport};
use gantry_kinds::resources::to_wire;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Config;
use super::check::{Ask, Running, check};

/// How often a charge is tried again when somebody else changed the quota meanwhile.
const ATTEMPTS: usize = 10;
/// Quotas whose latest status is remembered until the informer has it.
const MAX_REMEMBERED: usize = 10_000;

/// Why a write is not charged.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It does not fit.
    Forbidden(String),
    /// The quota could not be written.
    Failed(ApiError),
}

type Answer = Result<(), Refusal>;

struct Waiting {
    ask: Ask,
    answer: oneshot::Sender<Answer>,
}

/// The desk.
pub(super) struct Desk {
    quotas: Informer<ResourceQuota>,
    api: Api<ResourceQuota>,
    tasks: Tasks,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    /// By namespace; an entry means that a clerk is at work there.
    queues: Mutex<HashMap<String, Vec<Waiting>>>,
    /// What was written and may not show in the informer yet.
    written: Mutex<HashMap<ObjectKey, Arc<ResourceQuota>>>,
}

impl Desk {
    pub(super) fn new(
        quotas: Informer<ResourceQuota>,
        transport: Arc<dyn Transport>,
        tasks: Tasks,
        clock: Arc<dyn Clock>,
        config: Arc<Config>,
    ) -> Self {
        let api = Api::new(transport, "gantry-apiserver");
        Self { quotas, api, tasks, clock, config, queues: Mutex::default(), written: Mutex::default() }
    }

    /// Queues a write; the answer comes when it is charged.
    pub(super) fn submit(self: &Arc<Self>, namespace: &str, ask: Ask) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        let mut queues = self.queues.lock();
        let waiting = Waiting { ask, answer };
        if let Some(queue) = queues.get_mut(namespace) {
            queue.push(waiting);
            return receiver;
        }
        queues.insert(namespace.to_owned(), vec![waiting]);
        drop(queues);
        let (desk, namespace) = (Arc::clone(self), namespace.to_owned());
        self.tasks.spawn("quota", async move { desk.work(namespace).await });
        receiver
    }

    async fn work(&self, namespace: String) {
        loop {
            let batch = {
                let mut queues = self.queues.lock();
                match queues.get_mut(&namespace).map(std::mem::take) {
                    Some(batch) if !batch.is_empty() => batch,
                    _ => {
                        queues.remove(&namespace);
                        return;
                    }
                }
            };
            self.serve(&namespace, batch).await;
        }
    }

    /// The quotas of a namespace as they were last written.
    async fn latest(&self, namespace: &str) -> Result<Vec<Arc<ResourceQuota>>, ApiError> {
        if !self.quotas.has_synced() {
            return Ok(self.api.list(namespace, &Default::default()).await?.0);
        }
        let mut written = self.written.lock();
        let newest = |quota: Arc<ResourceQuota>| {
            let key = quota.key();
            match written.get(&key) {
                Some(own) if own.uid() == quota.uid() && own.revision() > quota.revision() => Arc::clone(own),
                Some(_) => {
                    written.remove(&key);
                    quota
                }
                None => quota,
            }
        };
        Ok(self.quotas.in_namespace(namespace).into_iter().map(newest).collect())
    }

    async fn serve(&self, namespace: &str, mut batch: Vec<Waiting>) {
        let mut quotas = match self.latest(namespace).await {
            Ok(quotas) => quotas,
            Err(error) => return refuse_all(batch, &error),
        };
        for attempt in 1.. {
            let before: Vec<Running> = quotas.drain(..).map(Running::new).collect();
            let (charged, after) = self.charge(&before, batch);
            let failed = self.write(&before, after).await;
            let Some((_, error)) = failed.first() else {
                charged.into_iter().for_each(|waiting| tell(waiting, Ok(())));
                return;
            };
            if attempt == ATTEMPTS || charged.is_empty() {
                return refuse_all(charged, error);
            }
            // Only those that failed: the others have been charged already.
            for (key, _) in &failed {
                match self.api.find(key).await {
                    Ok(found) => quotas.extend(found),
                    Err(error) => return refuse_all(charged, &error),
                }
            }
            batch = charged;
        }
    }

    /// Answers those that are refused or cost nothing; the others, and the quotas with all of them charged.
    fn charge(&self, before: &[Running], batch: Vec<Waiting>) -> (Vec<Waiting>, Vec<Running>) {
        let mut running = before.to_vec();
        let mut charged = Vec::new();
        for waiting in batch {
            match check(&running, &waiting.ask, &self.config, self.clock.now()) {
                Err(why) => tell(waiting, Err(Refusal::Forbidden(why))),
                Ok(changes) if changes.is_empty() || waiting.ask.dry_run => tell(waiting, Ok(())),
                Ok(changes) => {
                    for (place, used) in changes {
                        running[place].used = used;
                    }
                    charged.push(waiting);
                }
            }
        }
        (charged, running)
    }

    /// Writes what changed; what could not be written, and why.
    async fn write(&self, before: &[Running], after: Vec<Running>) -> Vec<(ObjectKey, ApiError)> {
        let mut failed = Vec::new();
        for (old, new) in before.iter().zip(after) {
            if old.used == new.used {
                continue;
            }
            let mut quota = (*new.object).clone();
            let status = quota.status.get_or_insert_with(ResourceQuotaStatus::default);
            status.used = Some(to_wire(&new.used));
            match self.api.update_status(&quota).await {
                Ok(stored) => self.remember(stored),
                Err(error) => failed.push((quota.key(), error)),
            }
        }
        failed
    }

    fn remember(&self, quota: Arc<ResourceQuota>) {
        let mut written = self.written.lock();
        if written.len() >= MAX_REMEMBERED {
            written.clear();
        }
        written.insert(quota.key(), quota);
    }
}

fn refuse_all(batch: Vec<Waiting>, error: &ApiError) {
    batch.into_iter().for_each(|waiting| tell(waiting, Err(Refusal::Failed(error.clone()))));
}

/// Answers; that nobody waits any more is no matter: the controller corrects the charge.
fn tell(waiting: Waiting, answer: Answer) {
    waiting.answer.send(answer).ok();
}
