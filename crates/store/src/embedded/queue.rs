//! The bounded queue in front of the commit thread.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::store::{Batch, Committed, MAX_BATCH_BYTES};
use crate::{Result, StoreError};

/// Most KiB of batches that wait for the commit thread, each counted as at least one; more wait for room. A
/// batch of the largest size fits.
const CAPACITY_KIB: usize = 64 << 10;
/// Bytes the commit thread takes for one group, unless a single batch is larger: about 2 ms of writing.
const GROUP_BYTES: usize = 4 << 20;

const _: () = assert!(MAX_BATCH_BYTES / 1024 < CAPACITY_KIB);

/// A batch on its way to the commit thread.
pub(crate) struct Request {
    pub(crate) batch: Batch,
    pub(crate) reply: oneshot::Sender<Result<Committed>>,
    /// Its room in the queue.
    _room: OwnedSemaphorePermit,
}

/// What the commit thread is to do.
pub(crate) enum Work {
    /// Commit these; there may be none, after a timeout.
    Group(Vec<Request>),
    /// Everything has been taken and nothing more comes.
    Closed,
}

/// Many put, one takes.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Waiting {
    requests: std::collections::VecDeque<Request>,
    closed: bool,
    /// The commit thread is woken when so many wait; 0 and 1 are the same.
    wanted: usize,
}

/// How the commit thread waits.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// For the first request; forever if `None`.
    pub(crate) first: Option<Duration>,
    /// Once there is one, for so many of them.
    pub(crate) wanted: usize,
    /// And so long for these.
    pub(crate) more: Duration,
}

impl Queue {
    pub(crate) fn new() -> Self {
        let room = Arc::new(Semaphore::new(CAPACITY_KIB));
        Self { waiting: Mutex::default(), arrived: Condvar::new(), room }
    }

    /// Waits for room, then queues `batch`; its answer comes through the receiver.
    pub(crate) async fn put(&self, batch: Batch) -> Result<oneshot::Receiver<Result<Committed>>> {
        let kib = batch.size() / 1024 + 1;
        let room = self.room.clone().acquire_many_owned(kib as u32).await.map_err(|_| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(StoreError::Closed);
        }
        waiting.requests.push_back(Request { batch, reply, _room: room });
        let enough = waiting.requests.len() == waiting.wanted.max(1);
        drop(waiting);
        // The commit thread looks again before it waits, so only the one it waits for has to wake it.
        if enough {
            self.arrived.notify_one();
        }
        Ok(answer)
    }

    /// How many requests wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().requests.len()
    }

    /// Waits for requests, as long as `patience` says.
    pub(crate) fn take(&self, patience: Patience) -> Work {
        let mut waiting = self.waiting.lock();
        if waiting.requests.is_empty() && !waiting.closed {
            match patience.first {
                Some(timeout) => drop(self.arrived.wait_for(&mut waiting, timeout)),
                None => self.arrived.wait(&mut waiting),
            }
        }
        if (1..patience.wanted).contains(&waiting.requests.len()) && !waiting.closed {
            waiting.wanted = patience.wanted;
            self.arrived.wait_for(&mut waiting, patience.more);
            waiting.wanted = 1;
        }
        if waiting.requests.is_empty() && waiting.closed {
            return Work::Closed;
        }
        let mut bytes = 0;
        let count = waiting
            .requests
            .iter()
            .take_while(|request| {
                let fits = bytes < GROUP_BYTES;
                bytes += request.batch.size();
                fits
            })
            .count();
        Work::Group(waiting.requests.drain(..count).collect())
    }

    /// Refuses further requests and gives up those that wait: their senders learn that the store is closed.
    pub(crate) fn abandon(&self) {
        self.close();
        self.waiting.lock().requests.clear();
    }

    /// Refuses further requests; those that wait are still taken.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.room.close();
        self.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Durability, Expect, Op, Value};

    fn batch(key: &str) -> Batch {
        let value = Value::Bytes(bytes::Bytes::from_static(b"1"));
        let op = Op::Put { key: key.into(), value, expect: Expect::Absent };
        Batch { ops: vec![op], durability: Durability::Durable }
    }

    /// Takes with this patience while `puts` come one after the other; how many came in the group.
    fn taken(puts: &[&str], patience: Patience) -> usize {
        let queue = Queue::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for key in puts {
                    futures::executor::block_on(queue.put(batch(key))).expect("the queue is open");
                }
            });
            match queue.take(patience) {
                Work::Group(group) => group.len(),
                Work::Closed => 0,
            }
        })
    }

    #[test]
    fn who_is_patient_gets_as_many_as_are_wanted() {
        let long = Duration::from_secs(3600);
        let patience = Patience { first: None, wanted: 3, more: long };
        assert_eq!(taken(&["a", "b", "c"], patience), 3);
    }

    #[test]
    fn patience_ends() {
        let patience = Patience { first: None, wanted: 3, more: Duration::from_millis(1) };
        assert_eq!(taken(&["a"], patience), 1);
    }
}
