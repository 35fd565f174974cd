//! One priority level: its seats, and the queues of those that wait for one.
//!
//! Queues take turns by start-time fair queuing: each has a virtual time at which its next request may start, which
//! grows by what its requests take. A guess is charged at first, and what was really used in the end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use gantry_base::Clock;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::hand::deal;

/// What a request is taken to need until it has ended (upstream's `estimatedServiceDuration`).
const GUESS: Duration = Duration::from_millis(3);

/// There is no room for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// How many may run, how many may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// No limit.
    Exempt,
    /// Without queues nobody waits.
    Limited { seats: usize, queuing: Option<Queuing> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queuing {
    pub(super) queues: u32,
    /// Of how many queues a flow uses the shortest.
    pub(super) hand: u32,
    /// Requests that wait in one queue.
    pub(super) length: usize,
}

/// A priority level.
pub(super) struct Level {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

struct State {
    shape: Shape,
    executing: usize,
    waiting: usize,
    /// Virtual time: when the last request that was let in might start.
    now: Duration,
    /// Those that somebody waits in or came from.
    queues: BTreeMap<u32, Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<oneshot::Sender<Seat>>,
    executing: usize,
    /// Virtual time at which the next one may start.
    start: Duration,
}

/// A place among those that run; dropping it lets the next one in.
pub(crate) struct Seat {
    /// `None` once it was taken back.
    level: Option<Arc<Level>>,
    /// The queue that the request came from, if it had to wait.
    queue: Option<u32>,
    since: Duration,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(level) = self.level.take() {
            level.leave(self.queue, self.since);
        }
    }
}

impl Level {
    pub(super) fn new(shape: Shape, clock: Arc<dyn Clock>) -> Self {
        let state = State { shape, executing: 0, waiting: 0, now: Duration::ZERO, queues: BTreeMap::new() };
        Self { state: Mutex::new(state), clock }
    }

    /// Changes the limits. Those that wait go on waiting where they are.
    pub(super) fn reshape(self: &Arc<Self>, shape: Shape) {
        let mut state = self.state.lock();
        if state.shape != shape {
            state.shape = shape;
            self.dispatch(&mut state);
        }
    }

    /// A seat, at once or after a wait of at most `patience`; `None` on an exempt level.
    pub(super) async fn enter(
        self: &Arc<Self>,
        flow: impl FnOnce() -> u64,
        patience: Duration,
    ) -> Result<Option<Seat>, Refused> {
        let turn = {
            let mut state = self.state.lock();
            let Shape::Limited { seats, queuing } = state.shape else { return Ok(None) };
            if state.waiting == 0 && state.executing < seats {
                state.executing += 1;
                return Ok(Some(self.seat(None)));
            }
            let turn = state.enqueue(flow(), queuing.ok_or(Refused)?)?;
            // Perhaps all who waited before have given up.
            self.dispatch(&mut state);
            turn
        };
        match tokio::time::timeout(patience, turn).await {
            Ok(Ok(seat)) => Ok(Some(seat)),
            _ => Err(Refused),
        }
    }

    fn seat(self: &Arc<Self>, queue: Option<u32>) -> Seat {
        Seat { level: Some(Arc::clone(self)), queue, since: self.clock.monotonic() }
    }

    fn leave(self: &Arc<Self>, queue: Option<u32>, since: Duration) {
        let took = self.clock.monotonic().saturating_sub(since);
        let mut state = self.state.lock();
        state.executing -= 1;
        if let Some(index) = queue {
            state.settle(index, took);
        }
        self.dispatch(&mut state);
    }

    /// Lets in as many as there are seats for.
    fn dispatch(self: &Arc<Self>, state: &mut State) {
        while state.waiting > 0 && state.has_seat() {
            let Some((index, waiter)) = state.next() else { return };
            if let Err(mut seat) = waiter.send(self.seat(Some(index))) {
                // Nobody waits any more. Its end must not come back here.
                seat.level = None;
                state.executing -= 1;
                state.settle(index, Duration::ZERO);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.executing, state.waiting)
    }
}

impl State {
    fn has_seat(&self) -> bool {
        match self.shape {
            Shape::Exempt => true,
            Shape::Limited { seats, .. } => self.executing < seats,
        }
    }

    /// Puts a request into the shortest queue of its flow's hand.
    fn enqueue(&mut self, flow: u64, queuing: Queuing) -> Result<oneshot::Receiver<Seat>, Refused> {
        let hand = deal(flow, queuing.queues, queuing.hand);
        for index in &hand {
            self.forget_those_who_left(*index);
        }
        let load = |index: &u32| self.queues.get(index).map_or(0, |q| q.waiting.len() + q.executing);
        let index = hand.into_iter().min_by_key(load).ok_or(Refused)?;
        if self.queues.get(&index).is_some_and(|queue| queue.waiting.len() >= queuing.length) {
            return Err(Refused);
        }
        let now = self.now;
        let queue = self.queues.entry(index).or_default();
        if queue.waiting.is_empty() {
            queue.start = queue.start.max(now);
        }
        let (turn, waiter) = oneshot::channel();
        queue.waiting.push_back(turn);
        self.waiting += 1;
        Ok(waiter)
    }

    fn forget_those_who_left(&mut self, index: u32) {
        if let Some(queue) = self.queues.get_mut(&index) {
            let before = queue.waiting.len();
            queue.waiting.retain(|waiter| !waiter.is_closed());
            self.waiting -= before - queue.waiting.len();
        }
    }

    /// Takes the next one out of the queue whose turn it is, and counts it as running.
    fn next(&mut self) -> Option<(u32, oneshot::Sender<Seat>)> {
        let waiting = self.queues.iter_mut().filter(|(_, queue)| !queue.waiting.is_empty());
        let (index, queue) = waiting.min_by_key(|(_, queue)| queue.start)?;
        let waiter = queue.waiting.pop_front()?;
        self.now = self.now.max(queue.start);
        queue.start += GUESS;
        queue.executing += 1;
        self.waiting -= 1;
        self.executing += 1;
        Some((*index, waiter))
    }

    /// Charges a queue what its request really took.
    fn settle(&mut self, index: u32, took: Duration) {
        let Some(queue) = self.queues.get_mut(&index) else { return };
        queue.executing -= 1;
        queue.start = (queue.start + took).saturating_sub(GUESS);
        if queue.executing == 0 && queue.waiting.is_empty() {
            self.queues.remove(&index);
        }
    }
}
