//! A work queue of keys: deduplicating, one worker per key, with delays and back-off.
//!
//! A key that is added while it waits is there once; a key that is added while it is worked on is worked on again
//! afterwards. Failures delay a key exponentially, and all failing keys together draw on one token bucket, as
//! client-go's `DefaultTypedControllerRateLimiter` does.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use gantry_api::ObjectKey;
use gantry_base::BackoffPolicy;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::metrics::QueueMetrics;
use super::plan::Failure;

/// How long one key waits after its failures.
const BACKOFF: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(5), Duration::from_secs(1000));
/// Retries of all keys of a controller: one per this long …
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// … after this many at once.
const RETRY_BURST: u32 = 100;

/// Keys to work on.
pub struct Queue {
    state: Mutex<State>,
    wake: Notify,
    metrics: QueueMetrics,
}

#[derive(Default)]
struct State {
    ready: VecDeque<ObjectKey>,
    /// The keys in `ready`, and since when.
    waiting: HashMap<ObjectKey, Instant>,
    /// The keys that are worked on.
    active: HashSet<ObjectKey>,
    /// The active keys that were added again.
    again: HashSet<ObjectKey>,
    delayed: BTreeSet<(Instant, ObjectKey)>,
    due: HashMap<ObjectKey, Instant>,
    failures: HashMap<ObjectKey, (u32, Failure)>,
    /// When the retry bucket is full again.
    bucket_full_at: Option<Instant>,
}

impl Queue {
    /// An empty queue that counts under `metrics`.
    pub fn new(metrics: QueueMetrics) -> Self {
        Self { state: Mutex::default(), wake: Notify::new(), metrics }
    }

    /// Adds a key that is to be worked on as soon as may be.
    pub fn add(&self, key: ObjectKey) {
        let mut state = self.state.lock();
        self.enqueue(&mut state, key);
    }

    fn enqueue(&self, state: &mut State, key: ObjectKey) {
        if state.active.contains(&key) {
            if state.again.insert(key) {
                self.metrics.added();
            }
            return;
        }
        if state.waiting.contains_key(&key) {
            return;
        }
        state.waiting.insert(key.clone(), Instant::now());
        state.ready.push_back(key);
        self.metrics.added();
        self.metrics.depth(state.ready.len());
        self.wake.notify_one();
    }

    /// Adds a key after a delay. Of several delays of one key the shortest counts.
    pub fn add_after(&self, key: ObjectKey, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        let mut state = self.state.lock();
        if let Some(earlier) = state.due.get(&key).copied() {
            if earlier <= at {
                return;
            }
            state.delayed.remove(&(earlier, key.clone()));
        }
        state.due.insert(key.clone(), at);
        state.delayed.insert((at, key));
        drop(state);
        self.wake.notify_one();
    }

    /// Waits for a key and marks it as worked on. One task at a time may wait.
    pub async fn next(&self) -> ObjectKey {
        loop {
            let due = {
                let mut state = self.state.lock();
                self.promote(&mut state);
                if let Some(key) = self.take(&mut state) {
                    return key;
                }
                state.delayed.first().map(|(at, _)| *at)
            };
            match due {
                None => self.wake.notified().await,
                Some(at) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
            }
        }
    }

    fn promote(&self, state: &mut State) {
        let now = Instant::now();
        while state.delayed.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = state.delayed.pop_first() else { return };
            state.due.remove(&key);
            self.enqueue(state, key);
        }
    }

    fn take(&self, state: &mut State) -> Option<ObjectKey> {
        let key = state.ready.pop_front()?;
        let waited = state.waiting.remove(&key).map(|since| since.elapsed());
        self.metrics.taken(&key, waited);
        self.metrics.depth(state.ready.len());
        state.active.insert(key.clone());
        Some(key)
    }

    /// Why the last attempt on this key failed, and how many did in a row.
    pub fn failure(&self, key: &ObjectKey) -> Option<(u32, Failure)> {
        self.state.lock().failures.get(key).cloned()
    }

    /// The work on a key is over. `outcome` is its failure, if it failed.
    pub fn done(&self, key: &ObjectKey, took: Duration, outcome: Option<Failure>) {
        self.metrics.worked(key, took);
        let mut state = self.state.lock();
        state.active.remove(key);
        let again = state.again.remove(key);
        let delay = match outcome {
            None => {
                state.failures.remove(key);
                None
            }
            Some(failure) => Some(Self::note_failure(&mut state, key, failure)),
        };
        if again && delay.is_none() {
            self.enqueue(&mut state, key.clone());
        }
        drop(state);
        if let Some(delay) = delay {
            self.metrics.retried();
            self.add_after(key.clone(), delay);
        }
    }

    fn note_failure(state: &mut State, key: &ObjectKey, failure: Failure) -> Duration {
        // A conflict says nothing of the server's health: it does not draw on the shared bucket.
        let conflict = failure.reason == "Conflict";
        let entry = state.failures.entry(key.clone()).or_insert_with(|| (0, failure.clone()));
        entry.0 = entry.0.saturating_add(1);
        entry.1 = failure;
        let own = BACKOFF.delay(entry.0, 0.0);
        if conflict {
            return own;
        }
        let now = Instant::now();
        let full_at = state.bucket_full_at.map_or(now, |at| at.max(now)) + RETRY_INTERVAL;
        state.bucket_full_at = Some(full_at);
        let shared = (full_at - now).saturating_sub(RETRY_INTERVAL * RETRY_BURST);
        own.max(shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::plan::Attempt;

    fn queue() -> Queue {
        Queue::new(QueueMetrics::detached())
    }

    fn failure() -> Failure {
        Failure { attempt: Attempt::Other, kind: String::new(), reason: String::new(), message: "no".into() }
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::cluster(name)
    }

    async fn is_idle(queue: &Queue) -> bool {
        tokio::time::timeout(Duration::from_micros(1), queue.next()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_is_worked_on_by_one() {
        let queue = queue();
        queue.add(key("a"));
        queue.add(key("a"));
        assert_eq!(queue.next().await, key("a"));
        queue.add(key("a"));
        assert!(is_idle(&queue).await, "the key is being worked on");
        queue.done(&key("a"), Duration::ZERO, None);
        assert_eq!(queue.next().await, key("a"));
        queue.done(&key("a"), Duration::ZERO, None);
        assert!(is_idle(&queue).await);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_delay_a_key_exponentially_until_it_succeeds() {
        let queue = queue();
        queue.add(key("a"));
        queue.next().await;
        let mut delays = Vec::new();
        for outcome in [Some(failure()), Some(failure()), Some(failure()), None, Some(failure())] {
            let began = Instant::now();
            if outcome.is_none() {
                queue.add(key("a"));
            }
            queue.done(&key("a"), Duration::ZERO, outcome);
            queue.next().await;
            delays.push(began.elapsed().as_millis());
        }
        assert_eq!(delays, [5, 10, 20, 0, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn all_failing_keys_together_are_held_to_ten_a_second() {
        let queue = queue();
        let began = Instant::now();
        for i in 0..150 {
            queue.add(key(&i.to_string()));
            let key = queue.next().await;
            queue.done(&key, Duration::ZERO, Some(failure()));
        }
        for _ in 0..150 {
            queue.next().await;
        }
        assert_eq!(began.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_delays_the_shortest_counts() {
        let queue = queue();
        let start = Instant::now();
        queue.add_after(key("a"), Duration::from_secs(9));
        queue.add_after(key("a"), Duration::from_secs(3));
        queue.add_after(key("a"), Duration::from_secs(5));
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        queue.done(&key("a"), Duration::ZERO, None);
        assert!(is_idle(&queue).await);
    }
}
