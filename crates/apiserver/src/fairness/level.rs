//! One priority level: its seats, and the queues of those that wait for one.
//!
//! Queues take turns by start-time fair queuing: each has a virtual time at which its next request may start, which
//! grows by the work (seats times time) of its requests. A guess is charged at first, and what was really used in the
//! end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use gantry_base::{Clock, Tasks};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::borrow::{Bounds, Dealt, Demand, Party};
use super::demand::Integrator;
use super::dump::{LevelDump, QueueDump, RequestDump};
use super::hand::deal;
use super::metrics::{OfFlow, OfLevel, Use, Utilization, to_float};
use super::ticket::Ticket;
use super::work::Work;

/// What a request is taken to need until it has ended (upstream's `estimatedServiceDuration`).
const GUESS: Duration = Duration::from_millis(3);

/// There is no room for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Not even to wait.
    QueueFull,
    /// And nobody waits here.
    NoQueue,
    /// It has waited long enough.
    TimedOut,
}

impl Refused {
    fn reason(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::NoQueue => "concurrency-limit",
            Self::TimedOut => "time-out",
        }
    }
}

/// How many may run, how many may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// No limit.
    Exempt,
    /// Without queues nobody waits.
    Limited { queuing: Option<Queuing> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queuing {
    pub(super) queues: u32,
    /// Of how many queues a flow uses the one with the least work.
    pub(super) hand: u32,
    /// Requests that wait in one queue.
    pub(super) length: usize,
}

/// A priority level.
pub(super) struct Level {
    pub(super) name: String,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    metrics: OfLevel,
}

struct State {
    shape: Shape,
    bounds: Bounds,
    /// Seats for now.
    limit: usize,
    demand: Demand,
    wanted: Integrator,
    utilization: Utilization,
    executing: usize,
    seats: usize,
    waiting: usize,
    waiting_seats: usize,
    /// Virtual time: when the last request that was let in might start.
    now: Duration,
    /// Those that somebody waits in or came from.
    queues: BTreeMap<u32, Queue>,
    running: BTreeMap<u64, Running>,
    next: u64,
    dispatched: u64,
    rejected: u64,
    timed_out: u64,
}

struct Running {
    ticket: Ticket,
    queue: Option<u32>,
    since: Duration,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    executing: usize,
    seats: usize,
    /// Virtual time at which the next one may start.
    start: Duration,
}

struct Waiting {
    id: u64,
    ticket: Ticket,
    turn: oneshot::Sender<Seat>,
}

/// A place among those that run; dropping it lets the next one in.
pub(crate) struct Seat {
    /// `None` once it was taken back.
    level: Option<Arc<Level>>,
    id: u64,
    waited: Duration,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(level) = self.level.take() {
            level.leave(self.id);
        }
    }
}

/// Takes a request out of its queue that does not wait any more.
struct Place<'a> {
    level: &'a Arc<Level>,
    queue: u32,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.level.give_up(self.queue, self.id);
    }
}

impl Level {
    pub(super) fn new(name: &str, clock: Arc<dyn Clock>, tasks: Tasks) -> Self {
        let now = clock.monotonic();
        let state = State {
            shape: Shape::Limited { queuing: None },
            bounds: Bounds::default(),
            limit: 0,
            demand: Demand::default(),
            wanted: Integrator::new(now),
            utilization: Utilization::new(name, now),
            executing: 0,
            seats: 0,
            waiting: 0,
            waiting_seats: 0,
            now: Duration::ZERO,
            queues: BTreeMap::new(),
            running: BTreeMap::new(),
            next: 0,
            dispatched: 0,
            rejected: 0,
            timed_out: 0,
        };
        Self { name: name.to_owned(), state: Mutex::new(state), clock, tasks, metrics: OfLevel::new(name) }
    }

    /// Changes what it is. Those that wait go on waiting where they are.
    pub(super) fn reshape(&self, shape: Shape, bounds: Bounds, is_new: bool) {
        let mut state = self.state.lock();
        (state.shape, state.bounds) = (shape, bounds);
        if is_new {
            state.limit = bounds.initial();
        }
        self.metrics.bounds(&bounds);
    }

    /// What it wants of all seats, as of late.
    pub(super) fn party(&self) -> Party {
        let mut state = self.state.lock();
        state.note_demand(&*self.clock);
        let seen = state.wanted.take(self.clock.monotonic());
        state.demand.update(&seen);
        let exempt = state.shape == Shape::Exempt;
        Party { exempt, bounds: state.bounds, demand: state.demand, current: state.limit }
    }

    /// Has so many seats from now on.
    pub(super) fn have(self: &Arc<Self>, dealt: &Dealt) {
        let mut state = self.state.lock();
        state.limit = dealt.seats;
        self.metrics.adjusted(&state.demand, dealt);
        self.dispatch(&mut state);
    }

    /// The most seats that one request may have, if the level says so: a part of its own, so that wide ones do not
    /// keep all others out.
    pub(super) fn widest(&self) -> Option<usize> {
        let state = self.state.lock();
        let Shape::Limited { queuing: Some(queuing) } = state.shape else { return None };
        let nominal = state.bounds.nominal;
        let part = (nominal * 15).div_ceil(100);
        Some(part.min(nominal / usize::try_from(queuing.hand.max(1)).unwrap_or(1)).max(1))
    }

    /// A seat, at once or after a wait of at most `patience`.
    pub(super) async fn enter(
        self: &Arc<Self>,
        ticket: Ticket,
        flow: impl FnOnce() -> u64,
        patience: Duration,
    ) -> Result<Seat, Refused> {
        let of_flow = ticket.metrics().clone();
        let outcome = self.enter_or_wait(ticket, flow, patience).await;
        match &outcome {
            Ok(seat) => of_flow.dispatched(seat.waited),
            Err(refused) => of_flow.refused(refused.reason()),
        }
        outcome
    }

    async fn enter_or_wait(
        self: &Arc<Self>,
        ticket: Ticket,
        flow: impl FnOnce() -> u64,
        patience: Duration,
    ) -> Result<Seat, Refused> {
        let since = ticket.arrived;
        let (place, turn) = {
            let mut state = self.state.lock();
            let shape = state.shape;
            let queuing = match shape {
                Shape::Limited { queuing } if state.waiting > 0 || !state.has_room(ticket.work.width()) => {
                    queuing
                }
                _ => {
                    let id = state.id();
                    return Ok(self.start(&mut state, id, ticket, None));
                }
            };
            let Some(queuing) = queuing else {
                state.rejected += 1;
                return Err(Refused::NoQueue);
            };
            let (queue, id, turn) =
                state.enqueue(flow(), queuing, ticket).inspect_err(|_| state.rejected += 1)?;
            state.note_demand(&*self.clock);
            // Perhaps those who waited before have all given up.
            self.dispatch(&mut state);
            (Place { level: self, queue, id }, turn)
        };
        let granted = tokio::time::timeout(patience, turn).await;
        drop(place);
        let Ok(Ok(mut seat)) = granted else {
            self.state.lock().timed_out += 1;
            return Err(Refused::TimedOut);
        };
        seat.waited = self.clock.monotonic().saturating_sub(since);
        Ok(seat)
    }

    /// Counts a request as running.
    fn start(self: &Arc<Self>, state: &mut State, id: u64, ticket: Ticket, queue: Option<u32>) -> Seat {
        let since = self.clock.monotonic();
        let width = ticket.work.width();
        ticket.metrics().starts(width);
        state.executing += 1;
        state.seats += width;
        state.dispatched += 1;
        state.running.insert(id, Running { ticket, queue, since });
        state.note_demand(&*self.clock);
        Seat { level: Some(Arc::clone(self)), id, waited: Duration::ZERO }
    }

    /// A request has ended; its seats may be needed for a while.
    fn leave(self: &Arc<Self>, id: u64) {
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        let Some(Running { ticket, queue, since }) = state.running.remove(&id) else { return };
        let took = now.saturating_sub(since);
        state.executing -= 1;
        ticket.metrics().ran(ticket.verb, took);
        if let Some(index) = queue {
            state.settle(index, &ticket.work, took);
        }
        let lingers = !ticket.work.afterwards.is_zero() && tokio::runtime::Handle::try_current().is_ok();
        if !lingers {
            self.release(&mut state, &ticket, queue);
            return;
        }
        state.note_demand(&*self.clock);
        drop(state);
        let level = Arc::clone(self);
        self.tasks.spawn_graceful("watchers' seats", move |shutdown| async move {
            tokio::select! {
                () = tokio::time::sleep(ticket.work.afterwards) => {}
                () = shutdown.cancelled() => {}
            }
            level.release(&mut level.state.lock(), &ticket, queue);
        });
    }

    fn release(self: &Arc<Self>, state: &mut State, ticket: &Ticket, queue: Option<u32>) {
        let width = ticket.work.width();
        state.seats -= width;
        ticket.metrics().frees(width);
        if let Some(index) = queue {
            state.free(index, width);
        }
        state.note_demand(&*self.clock);
        self.dispatch(state);
    }

    fn give_up(self: &Arc<Self>, queue: u32, id: u64) {
        let mut state = self.state.lock();
        if state.withdraw(queue, id) {
            state.note_demand(&*self.clock);
            self.dispatch(&mut state);
        }
    }

    /// Lets in as many as there are seats for.
    fn dispatch(self: &Arc<Self>, state: &mut State) {
        while let Some((index, Waiting { id, ticket, turn })) = state.next() {
            let seat = self.start(state, id, ticket, Some(index));
            if let Err(mut seat) = turn.send(seat) {
                // Nobody waits any more. Its end must not come back here.
                seat.level = None;
                state.never_ran(id);
            }
        }
    }

    /// How it is, for people.
    pub(super) fn dump(&self) -> LevelDump {
        let state = self.state.lock();
        let now = self.clock.monotonic();
        let mut requests = Vec::new();
        for (index, queue) in &state.queues {
            let waiting = queue.waiting.iter().enumerate();
            requests.extend(
                waiting.map(|(at, w)| RequestDump::new(&w.ticket, Some(*index), Some(at), now, None)),
            );
        }
        let running = state.running.values();
        requests.extend(running.map(|r| RequestDump::new(&r.ticket, r.queue, None, now, Some(r.since))));
        LevelDump {
            name: self.name.clone(),
            queues: state.queues.iter().map(|(index, queue)| queue.dump(*index)).collect(),
            waiting: state.waiting,
            executing: state.executing,
            dispatched: state.dispatched,
            rejected: state.rejected + state.timed_out,
            timed_out: 0,
            cancelled: state.timed_out,
            requests,
        }
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.executing, state.waiting)
    }
}

impl State {
    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn has_room(&self, width: usize) -> bool {
        match self.shape {
            Shape::Exempt => true,
            // What is wider than all seats together runs alone.
            Shape::Limited { .. } if width > self.limit => self.executing == 0,
            Shape::Limited { .. } => self.seats + width <= self.limit,
        }
    }

    fn note_demand(&mut self, clock: &dyn Clock) {
        let now = clock.monotonic();
        let wanted = to_float(self.seats + self.waiting_seats);
        self.wanted.set(wanted, now);
        let places = match self.shape {
            Shape::Limited { queuing: Some(queuing) } => f64::from(queuing.queues) * to_float(queuing.length),
            _ => 1.0,
        };
        let seats = to_float(self.limit.max(1));
        let used = Use {
            demand: wanted / to_float(self.bounds.nominal.max(1)),
            seats: to_float(self.seats) / seats,
            executing: to_float(self.executing) / seats,
            waiting: to_float(self.waiting) / places.max(1.0),
        };
        self.utilization.set(used, now);
    }

    /// Puts a request into the queue of its flow's hand with the least work.
    fn enqueue(
        &mut self,
        flow: u64,
        queuing: Queuing,
        ticket: Ticket,
    ) -> Result<(u32, u64, oneshot::Receiver<Seat>), Refused> {
        let hand = deal(flow, queuing.queues, queuing.hand);
        let load = |index: &u32| self.queues.get(index).map_or(Duration::ZERO, Queue::load);
        let index = hand.into_iter().min_by_key(load).ok_or(Refused::QueueFull)?;
        if self.queues.get(&index).is_some_and(|queue| queue.waiting.len() >= queuing.length) {
            return Err(Refused::QueueFull);
        }
        let id = self.id();
        let now = self.now;
        let queue = self.queues.entry(index).or_default();
        if queue.waiting.is_empty() {
            queue.start = queue.start.max(now);
        }
        self.waiting += 1;
        self.waiting_seats += ticket.work.width();
        let (turn, waiter) = oneshot::channel();
        ticket.metrics().waits(ticket.work.width());
        ticket.metrics().queued(queue.waiting.len() + 1);
        queue.waiting.push_back(Waiting { id, ticket, turn });
        Ok((index, id, waiter))
    }

    /// Takes a request out that waits; whether it did.
    fn withdraw(&mut self, index: u32, id: u64) -> bool {
        let Some(queue) = self.queues.get_mut(&index) else { return false };
        let Some(at) = queue.waiting.iter().position(|waiting| waiting.id == id) else { return false };
        let Some(waiting) = queue.waiting.remove(at) else { return false };
        self.no_longer_waits(&waiting.ticket);
        self.forget_if_empty(index);
        true
    }

    fn no_longer_waits(&mut self, ticket: &Ticket) {
        let width = ticket.work.width();
        self.waiting -= 1;
        self.waiting_seats -= width;
        ticket.metrics().waits_no_longer(width);
    }

    /// Takes the next one out of the queue whose turn it is, if there is room for it.
    fn next(&mut self) -> Option<(u32, Waiting)> {
        let heads = self.queues.iter().filter_map(|(index, queue)| {
            let head = queue.waiting.front()?;
            Some((queue.start + cost(&head.ticket.work, GUESS), *index))
        });
        let (_, index) = heads.min()?;
        let head = self.queues.get(&index)?.waiting.front()?;
        if !self.has_room(head.ticket.work.width()) {
            head.ticket.metrics().no_room();
            return None;
        }
        let queue = self.queues.get_mut(&index)?;
        let waiting = queue.waiting.pop_front()?;
        self.now = self.now.max(queue.start);
        queue.start += cost(&waiting.ticket.work, GUESS);
        queue.executing += 1;
        queue.seats += waiting.ticket.work.width();
        self.no_longer_waits(&waiting.ticket);
        Some((index, waiting))
    }

    /// Charges a queue what its request really took.
    fn settle(&mut self, index: u32, work: &Work, took: Duration) {
        let Some(queue) = self.queues.get_mut(&index) else { return };
        queue.executing -= 1;
        queue.start = (queue.start + times(took, work.seats)).saturating_sub(times(GUESS, work.seats));
    }

    fn free(&mut self, index: u32, width: usize) {
        if let Some(queue) = self.queues.get_mut(&index) {
            queue.seats -= width;
        }
        self.forget_if_empty(index);
    }

    fn forget_if_empty(&mut self, index: u32) {
        if self.queues.get(&index).is_some_and(|q| q.executing == 0 && q.seats == 0 && q.waiting.is_empty()) {
            self.queues.remove(&index);
        }
    }

    /// Takes back the start of a request that nobody waits for.
    fn never_ran(&mut self, id: u64) {
        let Some(Running { ticket, queue, .. }) = self.running.remove(&id) else { return };
        let width = ticket.work.width();
        self.executing -= 1;
        self.seats -= width;
        self.dispatched -= 1;
        ticket.metrics().ends();
        ticket.metrics().frees(width);
        if let Some(index) = queue {
            self.settle(index, &ticket.work, Duration::ZERO);
            self.free(index, width);
        }
    }
}

impl Queue {
    /// The work that waits.
    fn load(&self) -> Duration {
        let waiting: Duration = self.waiting.iter().map(|w| cost(&w.ticket.work, GUESS)).sum();
        waiting + times(GUESS, self.seats)
    }

    fn dump(&self, index: u32) -> QueueDump {
        QueueDump {
            index,
            waiting: self.waiting.len(),
            executing: self.executing,
            seats: self.seats,
            start: self.start,
            initial_seats: self.waiting.iter().map(|w| w.ticket.work.seats).sum(),
            max_seats: self.waiting.iter().map(|w| w.ticket.work.width()).sum(),
            work: self.waiting.iter().map(|w| cost(&w.ticket.work, GUESS)).sum(),
        }
    }
}

/// Seats times time.
fn cost(work: &Work, guess: Duration) -> Duration {
    times(guess, work.seats) + times(work.afterwards, work.final_seats)
}

fn times(time: Duration, seats: usize) -> Duration {
    time.saturating_mul(u32::try_from(seats).unwrap_or(u32::MAX))
}

impl Ticket {
    fn metrics(&self) -> &Arc<OfFlow> {
        &self.schema.metrics
    }
}
