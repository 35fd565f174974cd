//! The pods that wait: ready to be tried, waiting out a back-off, or waiting for something to change.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gantry_base::BackoffPolicy;
use tokio::time::Instant;

use crate::metrics;
use crate::pod::SchedulingPod;

/// As upstream: one second, doubling to ten.
const BACKOFF: BackoffPolicy = BackoffPolicy::doubling(Duration::from_secs(1), Duration::from_secs(10));
/// A pod that did not fit is tried again after this long even if nothing seems to have changed.
const RETRY_ANYWAY: Duration = Duration::from_secs(300);

struct Waiting {
    pod: Arc<SchedulingPod>,
    attempts: u32,
    /// When it came, and when it was tried last.
    came: Instant,
    tried: Instant,
    place: Place,
}

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Ready { order: (Reverse<i32>, u64) },
    BackingOff { until: Duration },
    Unschedulable { since: Duration, earliest: Duration, plugins: Vec<&'static str> },
    InFlight,
}

/// The queue. Times are those of the monotonic clock.
#[derive(Default)]
pub struct Queue {
    pods: HashMap<Arc<str>, Waiting>,
    ready: BTreeMap<(Reverse<i32>, u64), Arc<str>>,
    backing_off: BTreeSet<(Duration, Arc<str>)>,
    arrivals: u64,
}

impl Queue {
    /// A pod is new, or has changed.
    pub fn add(&mut self, pod: Arc<SchedulingPod>) {
        if let Some(waiting) = self.pods.get_mut(&pod.uid) {
            let changed = !Arc::ptr_eq(&waiting.pod.class, &pod.class) || waiting.pod.claims != pod.claims;
            waiting.pod = pod.clone();
            // A change of what it asks for is worth another look; one of its status is not.
            if changed && matches!(waiting.place, Place::Unschedulable { .. }) {
                self.make_ready(&pod.uid);
            }
            return;
        }
        let now = Instant::now();
        let waiting =
            Waiting { pod: pod.clone(), attempts: 0, came: now, tried: now, place: Place::InFlight };
        self.pods.insert(pod.uid.clone(), waiting);
        metrics::incoming("active", "PodAdd");
        self.make_ready(&pod.uid);
    }

    /// Of a pod that is being tried: how often it was, how long ago it came, and how long ago the last try began.
    pub fn history(&self, uid: &str) -> Option<(u32, Duration, Duration)> {
        let waiting = self.pods.get(uid).filter(|w| w.place == Place::InFlight)?;
        Some((waiting.attempts, waiting.came.elapsed(), waiting.tried.elapsed()))
    }

    /// A pod needs no scheduling any more.
    pub fn remove(&mut self, uid: &str) {
        if let Some(waiting) = self.pods.remove(uid) {
            self.unlist(uid, &waiting.place);
        }
    }

    /// The next pod to try: the one of highest priority that has waited longest.
    pub fn pop(&mut self, now: Duration) -> Option<Arc<SchedulingPod>> {
        self.promote(now);
        let (_, uid) = self.ready.pop_first()?;
        let waiting = self.pods.get_mut(&uid)?;
        waiting.place = Place::InFlight;
        waiting.attempts += 1;
        waiting.tried = Instant::now();
        Some(waiting.pod.clone())
    }

    /// The attempt failed for now: by a conflict or another error.
    pub fn back_off(&mut self, uid: &str, now: Duration) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        let until = now + BACKOFF.delay(waiting.attempts, 0.0);
        metrics::incoming("backoff", "ScheduleAttemptFailure");
        waiting.place = Place::BackingOff { until };
        self.backing_off.insert((until, waiting.pod.uid.clone()));
    }

    /// The pod fits nowhere: it waits for a change that one of these plugins cares about.
    pub fn park(&mut self, uid: &str, plugins: Vec<&'static str>, now: Duration) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        metrics::incoming("unschedulable", "ScheduleAttemptFailure");
        let earliest = now + BACKOFF.delay(waiting.attempts, 0.0);
        waiting.place = Place::Unschedulable { since: now, earliest, plugins };
    }

    /// Something changed that these plugins may judge differently: pods that they refused are tried again, though
    /// not before their back-off is over.
    pub fn wake(&mut self, cares: impl Fn(&str) -> bool) {
        let woken: Vec<(Arc<str>, Duration)> = self
            .pods
            .values()
            .filter_map(|w| match &w.place {
                Place::Unschedulable { earliest, plugins, .. }
                    if plugins.is_empty() || plugins.iter().any(|p| cares(p)) =>
                {
                    Some((w.pod.uid.clone(), *earliest))
                }
                _ => None,
            })
            .collect();
        for (uid, until) in woken {
            if let Some(waiting) = self.pods.get_mut(&uid) {
                waiting.place = Place::BackingOff { until };
            }
            self.backing_off.insert((until, uid));
        }
    }

    /// When there will be something to do even if nothing happens until then.
    pub fn next_deadline(&self) -> Option<Duration> {
        let backed_off = self.backing_off.first().map(|(until, _)| *until);
        let parked = self.pods.values().filter_map(|w| match w.place {
            Place::Unschedulable { since, .. } => Some(since + RETRY_ANYWAY),
            _ => None,
        });
        parked.chain(backed_off).min()
    }

    /// How many pods are ready, backing off, and unschedulable.
    pub fn lengths(&self) -> [usize; 3] {
        let parked = self.pods.values().filter(|w| matches!(w.place, Place::Unschedulable { .. })).count();
        [self.ready.len(), self.backing_off.len(), parked]
    }

    fn promote(&mut self, now: Duration) {
        while let Some((until, uid)) = self.backing_off.first().cloned() {
            if until > now {
                break;
            }
            self.backing_off.remove(&(until, uid.clone()));
            metrics::incoming("active", "BackoffComplete");
            self.make_ready(&uid);
        }
        if self.ready.is_empty() {
            let overdue = |w: &Waiting| matches!(w.place, Place::Unschedulable { since, .. } if since + RETRY_ANYWAY <= now);
            let uids: Vec<_> = self.pods.values().filter(|w| overdue(w)).map(|w| w.pod.uid.clone()).collect();
            uids.iter().for_each(|uid| self.make_ready(uid));
        }
    }

    fn make_ready(&mut self, uid: &str) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        self.arrivals += 1;
        let order = (Reverse(waiting.pod.priority), self.arrivals);
        waiting.place = Place::Ready { order };
        self.ready.insert(order, waiting.pod.uid.clone());
    }

    fn unlist(&mut self, uid: &str, place: &Place) {
        match place {
            Place::Ready { order } => {
                self.ready.remove(order);
            }
            Place::BackingOff { until } => {
                self.backing_off.remove(&(*until, uid.into()));
            }
            Place::Unschedulable { .. } | Place::InFlight => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::core::Pod;
    use gantry_client::Projection;
    use serde_json::json;

    fn pod(name: &str, priority: i32) -> Arc<SchedulingPod> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"priority": priority, "containers": []}
        }))
        .expect("a pod");
        SchedulingPod::project(Arc::new(pod))
    }

    const START: Duration = Duration::from_secs(100);

    #[test]
    fn priority_first_then_arrival() {
        let mut queue = Queue::default();
        for (name, priority) in [("a", 0), ("b", 10), ("c", 0)] {
            queue.add(pod(name, priority));
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(START)).map(|p| p.key.name.clone()).collect();
        assert_eq!(order.iter().map(|n| &**n).collect::<Vec<_>>(), ["b", "a", "c"]);
    }

    #[test]
    fn a_failed_attempt_backs_off_longer_each_time() {
        let mut queue = Queue::default();
        queue.add(pod("a", 0));
        let mut now = START;
        for wait in [1, 2, 4, 8, 10, 10] {
            assert!(queue.pop(now).is_some());
            queue.back_off("a", now);
            assert_eq!(queue.next_deadline(), Some(now + Duration::from_secs(wait)));
            assert!(queue.pop(now).is_none());
            now += Duration::from_secs(wait);
        }
    }

    #[test]
    fn a_parked_pod_is_woken_by_what_its_plugins_care_about_or_by_time() {
        let mut queue = Queue::default();
        queue.add(pod("a", 0));
        assert!(queue.pop(START).is_some());
        queue.park("a", vec!["NodeResourcesFit"], START);
        queue.wake(|plugin| plugin == "NodeAffinity");
        assert!(queue.pop(START + Duration::from_secs(20)).is_none());
        queue.wake(|plugin| plugin == "NodeResourcesFit");
        assert!(queue.pop(START).is_none(), "not before its back-off is over");
        assert!(queue.pop(START + Duration::from_secs(1)).is_some());
        queue.park("a", vec!["NodeResourcesFit"], START);
        assert!(queue.pop(START + RETRY_ANYWAY).is_some());
    }

    #[test]
    fn a_removed_pod_is_not_tried() {
        let mut queue = Queue::default();
        queue.add(pod("a", 0));
        queue.remove("a");
        assert!(queue.pop(START).is_none());
    }
}
