//! A bounded buffer in front of a backend: requests put events in, a task tells them batch by batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gantry_base::{Clock, Shutdown, Tasks};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc};

use super::event::Event;
use super::metrics;
use super::options::Batch;
use super::sink::{Backend, Setting, told};
use crate::limits::{AUDIT_BUFFER_BYTES, AUDIT_CALLS as CALLS, DRAIN_TIMEOUT};

const NAME: &str = "buffered";
/// How often it is looked whether the last audited request has ended, once all is to end.
const LOOK: Duration = Duration::from_millis(10);

/// Where events wait.
pub(super) struct Queue {
    sender: mpsc::Sender<Arc<Event>>,
    bytes: Arc<AtomicUsize>,
}

/// Takes events out and tells them.
struct Teller {
    receiver: mpsc::Receiver<Arc<Event>>,
    bytes: Arc<AtomicUsize>,
    backend: Arc<dyn Backend>,
    max_size: usize,
    max_wait: Duration,
    /// Bytes of JSON in one batch.
    max_bytes: Option<usize>,
    throttle: Option<Throttle>,
    clock: Arc<dyn Clock>,
    /// Batches that are told at one time, and where that happens; else one after the other.
    calls: Option<(Arc<Semaphore>, Tasks)>,
    open: Arc<AtomicUsize>,
}

impl Queue {
    /// Starts the task, which ends when nobody is audited any more after the setting's tasks were told to end.
    /// `at_once`: whether a batch may be told before the last one has been.
    pub(super) fn start(
        backend: Arc<dyn Backend>,
        batch: &Batch,
        max_bytes: Option<usize>,
        at_once: bool,
        setting: &Setting,
    ) -> Self {
        let size = |number: i64| usize::try_from(number).unwrap_or(1).max(1);
        let (sender, receiver) = mpsc::channel(size(batch.buffer_size));
        let bytes = Arc::<AtomicUsize>::default();
        let teller = Teller {
            receiver,
            bytes: Arc::clone(&bytes),
            backend,
            max_size: size(batch.max_size),
            max_wait: batch.max_wait,
            max_bytes,
            throttle: batch.throttle.then(|| Throttle::new(batch, &*setting.clock)),
            clock: Arc::clone(&setting.clock),
            calls: at_once.then(|| (Arc::new(Semaphore::new(CALLS as usize)), Tasks::new())),
            open: Arc::clone(&setting.open),
        };
        setting.tasks.spawn_graceful("audit buffer", move |shutdown| teller.run(shutdown));
        Self { sender, bytes }
    }

    /// Puts an event in; without room it is lost, and counted.
    pub(super) fn offer(&self, event: Arc<Event>) {
        let weight = event.weight();
        let outcome = if self.bytes.fetch_add(weight, Ordering::AcqRel) + weight > AUDIT_BUFFER_BYTES {
            Err("audit buffer queue blocked")
        } else {
            self.sender.try_send(event).map_err(|error| match error {
                TrySendError::Full(_) => "audit buffer queue blocked",
                TrySendError::Closed(_) => "audit backend shut down",
            })
        };
        if let Err(why) = outcome {
            self.bytes.fetch_sub(weight, Ordering::AcqRel);
            metrics::failed(NAME, 1, why);
        }
    }
}

impl Teller {
    async fn run(mut self, shutdown: Shutdown) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                () = self.collect(&mut batch) => {}
                () = shutdown.cancelled() => break,
            }
            self.tell(std::mem::take(&mut batch)).await;
        }
        let finished = self.finish(batch);
        if tokio::time::timeout(DRAIN_TIMEOUT, finished).await.is_err() {
            tracing::warn!("audit events were left when the server ended");
        }
        if let Some((_, calls)) = &self.calls {
            calls.shut_down(Duration::ZERO).await;
        }
    }

    /// Fills a batch. What it has taken stays in `batch` if the future is dropped.
    async fn collect(&mut self, batch: &mut Vec<Arc<Event>>) {
        if self.max_wait.is_zero() || self.max_size == 1 {
            // Only who is called cares how many events come at once.
            let room = if self.calls.is_some() { self.max_size } else { self.max_size.max(LOG_BATCH) };
            let before = batch.len();
            if self.receiver.recv_many(batch, room).await == 0 {
                // There is no sender any more.
                std::future::pending::<()>().await;
            }
            taken(&self.bytes, &batch[before..]);
            if self.calls.is_none() {
                // Telling has a price of its own, which what comes meanwhile shares.
                tokio::time::sleep(LOG_PAUSE).await;
                let before = batch.len();
                let more = std::iter::from_fn(|| self.receiver.try_recv().ok());
                batch.extend(more.take(room.saturating_sub(before)));
                taken(&self.bytes, &batch[before..]);
            }
            return;
        }
        let end = tokio::time::sleep(self.max_wait);
        tokio::pin!(end);
        while batch.len() < self.max_size {
            tokio::select! {
                event = self.receiver.recv() => match event {
                    Some(event) => {
                        taken(&self.bytes, std::slice::from_ref(&event));
                        batch.push(event);
                    }
                    None => std::future::pending::<()>().await,
                },
                () = &mut end => return,
            }
        }
    }

    /// Waits until no request is left that may say something, and tells the rest.
    async fn finish(&mut self, mut batch: Vec<Arc<Event>>) {
        loop {
            let last = self.open.load(Ordering::Acquire) == 0;
            while let Ok(event) = self.receiver.try_recv() {
                taken(&self.bytes, std::slice::from_ref(&event));
                batch.push(event);
                if batch.len() >= self.max_size {
                    self.tell(std::mem::take(&mut batch)).await;
                }
            }
            if last {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.receiver.close();
        self.tell(batch).await;
        if let Some((places, _)) = &self.calls {
            // All places are free when the last call has ended.
            places.acquire_many(CALLS).await.map(drop).unwrap_or_default();
        }
    }

    async fn tell(&mut self, batch: Vec<Arc<Event>>) {
        for part in parts(batch, self.max_bytes) {
            if let Some(throttle) = &mut self.throttle {
                throttle.wait(&*self.clock).await;
            }
            let Some((places, calls)) = &self.calls else {
                told(&*self.backend, &part).await;
                continue;
            };
            let Ok(place) = Arc::clone(places).acquire_owned().await else { return };
            let backend = Arc::clone(&self.backend);
            calls.spawn("audit call", async move {
                told(&*backend, &part).await;
                drop(place);
            });
        }
    }
}

/// What a backend that does not wait for batches takes at once.
const LOG_BATCH: usize = 512;
/// How long an event may lie before such a backend is told.
const LOG_PAUSE: Duration = Duration::from_millis(10);

fn taken(bytes: &AtomicUsize, events: &[Arc<Event>]) {
    let weight: usize = events.iter().map(|event| event.weight()).sum();
    bytes.fetch_sub(weight, Ordering::AcqRel);
}

/// A batch in parts of no more bytes than `max` (one that is larger alone is a part of its own).
fn parts(batch: Vec<Arc<Event>>, max: Option<usize>) -> Vec<Vec<Arc<Event>>> {
    let Some(max) = max else { return if batch.is_empty() { Vec::new() } else { vec![batch] } };
    let mut parts: Vec<Vec<Arc<Event>>> = Vec::new();
    let mut bytes = 0;
    for event in batch {
        let size = event.json().len();
        match parts.last_mut() {
            Some(part) if bytes + size <= max => part.push(event),
            _ => {
                parts.push(vec![event]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    parts
}

/// A bucket of permissions that fills at a steady rate.
struct Throttle {
    rate: f64,
    burst: f64,
    left: f64,
    at: Duration,
}

impl Throttle {
    fn new(batch: &Batch, clock: &dyn Clock) -> Self {
        let burst = batch.throttle_burst.max(1) as f64;
        Self { rate: batch.throttle_qps, burst, left: burst, at: clock.monotonic() }
    }

    async fn wait(&mut self, clock: &dyn Clock) {
        let wait = self.take(clock.monotonic());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes a permission; how long to wait until it is there.
    fn take(&mut self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + passed * self.rate).min(self.burst) - 1.0;
        if self.left >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.left / self.rate) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_at_the_rate_and_in_bursts() {
        let batch = Batch { throttle_qps: 10.0, throttle_burst: 2, ..Batch::of_webhook() };
        let clock = gantry_base::ManualClock::at(Duration::from_secs(1));
        let mut throttle = Throttle::new(&batch, &clock);
        let mut at = |ms: u64| throttle.take(Duration::from_millis(ms)).as_millis();
        assert_eq!([at(0), at(0), at(0), at(0)], [0, 0, 100, 200]);
        assert_eq!([at(1000), at(1000), at(1000)], [0, 0, 100]);
    }
}
