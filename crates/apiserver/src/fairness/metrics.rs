//! What `/metrics` says of priority and fairness, under upstream's names.

use std::sync::Arc;
use std::time::Duration;

use gantry_base::metrics::{
    Count, CounterVec, Distribution, Family, Gauge, GaugeVec, Handle, HistogramVec, Level, Stability,
};

use super::borrow::{Bounds, Dealt, Demand};

const LEVEL: &[&str] = &["priority_level"];
const FLOW: &[&str] = &["priority_level", "flow_schema"];
const SECONDS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

macro_rules! families {
    ($($name:ident: $family:ident = $suffix:literal, $stability:ident, $labels:expr $(, $buckets:expr)?;
       $help:literal;)*) => {
        $(static $name: $family = $family::new(
            concat!("apiserver_flowcontrol_", $suffix), $help, Stability::$stability, $labels $(, $buckets)?
        );)*
        pub(crate) static FAMILIES: &[&dyn Family] = &[$(&$name,)* &FAIR];
    };
}

families! {
    REJECTED: CounterVec = "rejected_requests_total", Beta, &["priority_level", "flow_schema", "reason"];
        "Number of requests rejected by API Priority and Fairness subsystem";
    DISPATCHED: CounterVec = "dispatched_requests_total", Beta, FLOW;
        "Number of requests executed by API Priority and Fairness subsystem";
    INQUEUE_REQUESTS: GaugeVec = "current_inqueue_requests", Beta, FLOW;
        "Number of requests currently pending in queues of the API Priority and Fairness subsystem";
    INQUEUE_SEATS: GaugeVec = "current_inqueue_seats", Alpha, FLOW;
        "Number of seats currently pending in queues of the API Priority and Fairness subsystem";
    EXECUTING_REQUESTS: GaugeVec = "current_executing_requests", Beta, FLOW;
        "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem";
    EXECUTING_SEATS: GaugeVec = "current_executing_seats", Beta, FLOW;
        "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem";
    NO_ROOM: CounterVec = "request_dispatch_no_accommodation_total", Alpha, FLOW;
        "Number of times a dispatch attempt resulted in a non accommodation due to lack of available seats";
    QUEUE_LENGTH: HistogramVec = "request_queue_length_after_enqueue", Alpha, FLOW,
        &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
        "Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued";
    WAITED: HistogramVec = "request_wait_duration_seconds", Beta, &["priority_level", "flow_schema", "execute"], SECONDS;
        "Length of time a request spent waiting in its queue";
    RAN: HistogramVec = "request_execution_seconds", Alpha, &["priority_level", "flow_schema", "type"], SECONDS;
        "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem";
    ESTIMATED: HistogramVec = "work_estimated_seats", Alpha, FLOW, &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
        "Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness";
    WATCHERS: HistogramVec = "watch_count_samples", Alpha, FLOW, &[0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0];
        "count of watchers for mutating requests in API Priority and Fairness";
    NOMINAL: GaugeVec = "nominal_limit_seats", Beta, LEVEL;
        "Nominal number of execution seats configured for each priority level";
    LOWER: GaugeVec = "lower_limit_seats", Alpha, LEVEL;
        "Configured lower bound on number of execution seats available to each priority level";
    UPPER: GaugeVec = "upper_limit_seats", Alpha, LEVEL;
        "Configured upper bound on number of execution seats available to each priority level";
    CURRENT: GaugeVec = "current_limit_seats", Alpha, LEVEL;
        "current derived number of execution seats available to each priority level";
    HIGH_WATERMARK: GaugeVec = "demand_seats_high_watermark", Alpha, LEVEL;
        "High watermark, over last adjustment period, of demand_seats";
    AVERAGE: GaugeVec = "demand_seats_average", Alpha, LEVEL;
        "Time-weighted average, over last adjustment period, of demand_seats";
    DEVIATION: GaugeVec = "demand_seats_stdev", Alpha, LEVEL;
        "Time-weighted standard deviation, over last adjustment period, of demand_seats";
    SMOOTHED: GaugeVec = "demand_seats_smoothed", Alpha, LEVEL;
        "Smoothed seat demands";
    TARGET: GaugeVec = "target_seats", Alpha, LEVEL;
        "Seat allocation targets";
    DEMAND: HistogramVec = "demand_seats", Alpha, LEVEL,
        &[0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0, 6.0];
        "Observations, at the end of every nanosecond, of (the number of seats each priority level could use) / (nominal number of seats for that level)";
    SEAT_USE: HistogramVec = "priority_level_seat_utilization", Alpha, &["priority_level", "phase"],
        &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
        "Observations, at the end of every nanosecond, of utilization of seats for any stage of execution (but only initial stage for WATCHes)";
    REQUEST_USE: HistogramVec = "priority_level_request_utilization", Alpha, &["phase", "priority_level"],
        &[0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0];
        "Observations, at the end of every nanosecond, of number of requests (as a fraction of the relevant limit) waiting or in any stage of execution (but only initial stage for WATCHes)";
}

static FAIR: Gauge = Gauge::new(
    "apiserver_flowcontrol_seat_fair_frac",
    "Fair fraction of server's concurrency to allocate to each priority level that can use it",
    Stability::Alpha,
);

/// Those of one level, found once.
pub(super) struct OfLevel {
    nominal: Handle<Level>,
    lower: Handle<Level>,
    upper: Handle<Level>,
    current: Handle<Level>,
    high_watermark: Handle<Level>,
    average: Handle<Level>,
    deviation: Handle<Level>,
    smoothed: Handle<Level>,
    target: Handle<Level>,
}

impl OfLevel {
    pub(super) fn new(name: &str) -> Self {
        let label = &[name];
        Self {
            nominal: NOMINAL.handle(label),
            lower: LOWER.handle(label),
            upper: UPPER.handle(label),
            current: CURRENT.handle(label),
            high_watermark: HIGH_WATERMARK.handle(label),
            average: AVERAGE.handle(label),
            deviation: DEVIATION.handle(label),
            smoothed: SMOOTHED.handle(label),
            target: TARGET.handle(label),
        }
    }

    pub(super) fn bounds(&self, bounds: &Bounds) {
        self.nominal.set(to_float(bounds.nominal));
        self.lower.set(to_float(bounds.min));
        self.upper.set(to_float(bounds.max));
    }

    pub(super) fn adjusted(&self, demand: &Demand, dealt: &Dealt) {
        self.current.set(to_float(dealt.seats));
        self.high_watermark.set(to_float(demand.high_watermark));
        self.average.set(demand.average);
        self.deviation.set(demand.deviation);
        self.smoothed.set(demand.smoothed);
        self.target.set(dealt.target);
    }
}

/// How much of what it may have a level uses, each a part of one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Use {
    /// Seats that it could use, of its nominal ones.
    pub(super) demand: f64,
    /// Seats in use, of those it has for now.
    pub(super) seats: f64,
    /// Requests that run, of its seats.
    pub(super) executing: f64,
    /// Requests that wait, of the places in its queues.
    pub(super) waiting: f64,
}

/// Notes for how long a level was used how much: one observation for each nanosecond, as upstream.
pub(super) struct Utilization {
    now: Use,
    since: Duration,
    demand: Handle<Distribution>,
    seats: Handle<Distribution>,
    executing: Handle<Distribution>,
    waiting: Handle<Distribution>,
}

impl Utilization {
    pub(super) fn new(level: &str, now: Duration) -> Self {
        Self {
            now: Use::default(),
            since: now,
            demand: DEMAND.handle(&[level]),
            seats: SEAT_USE.handle(&[level, "executing"]),
            executing: REQUEST_USE.handle(&["executing", level]),
            waiting: REQUEST_USE.handle(&["waiting", level]),
        }
    }

    /// It is used like this from now on.
    pub(super) fn set(&mut self, used: Use, now: Duration) {
        let passed = u64::try_from(now.saturating_sub(self.since).as_nanos()).unwrap_or(u64::MAX);
        self.since = self.since.max(now);
        if passed > 0 {
            self.demand.observe_times(self.now.demand, passed);
            self.seats.observe_times(self.now.seats, passed);
            self.executing.observe_times(self.now.executing, passed);
            self.waiting.observe_times(self.now.waiting, passed);
        }
        self.now = used;
    }
}

/// Those of one flow schema, found once.
pub(super) struct OfFlow {
    level: String,
    schema: String,
    dispatched: Handle<Count>,
    inqueue_requests: Handle<Level>,
    inqueue_seats: Handle<Level>,
    executing_requests: Handle<Level>,
    executing_seats: Handle<Level>,
    no_room: Handle<Count>,
    queue_length: Handle<Distribution>,
    waited: Handle<Distribution>,
    ran: Handle<Distribution>,
    watched: Handle<Distribution>,
    estimated: Handle<Distribution>,
    watchers: Handle<Distribution>,
}

impl OfFlow {
    pub(super) fn new(level: &str, schema: &str) -> Arc<Self> {
        let labels = &[level, schema];
        Arc::new(Self {
            dispatched: DISPATCHED.handle(labels),
            inqueue_requests: INQUEUE_REQUESTS.handle(labels),
            inqueue_seats: INQUEUE_SEATS.handle(labels),
            executing_requests: EXECUTING_REQUESTS.handle(labels),
            executing_seats: EXECUTING_SEATS.handle(labels),
            no_room: NO_ROOM.handle(labels),
            queue_length: QUEUE_LENGTH.handle(labels),
            waited: WAITED.handle(&[level, schema, "true"]),
            ran: RAN.handle(&[level, schema, "regular"]),
            watched: RAN.handle(&[level, schema, "watch"]),
            estimated: ESTIMATED.handle(labels),
            watchers: WATCHERS.handle(labels),
            level: level.to_owned(),
            schema: schema.to_owned(),
        })
    }

    pub(super) fn dispatched(&self, waited: Duration) {
        self.dispatched.inc();
        self.waited.observe(waited.as_secs_f64());
    }

    pub(super) fn refused(&self, reason: &'static str) {
        REJECTED.with(&[&self.level, &self.schema, reason], Count::inc);
    }

    pub(super) fn starts(&self, seats: usize) {
        self.executing_requests.add(1.0);
        self.executing_seats.add(to_float(seats));
    }

    /// Takes back that it runs.
    pub(super) fn ends(&self) {
        self.executing_requests.add(-1.0);
    }

    pub(super) fn frees(&self, seats: usize) {
        self.executing_seats.add(-to_float(seats));
    }

    pub(super) fn ran(&self, verb: &str, took: Duration) {
        self.ends();
        if verb == "watch" { &self.watched } else { &self.ran }.observe(took.as_secs_f64());
    }

    /// One more waits, with so many seats.
    pub(super) fn waits(&self, seats: usize) {
        self.inqueue_requests.add(1.0);
        self.inqueue_seats.add(to_float(seats));
    }

    /// One that waited does no longer.
    pub(super) fn waits_no_longer(&self, seats: usize) {
        self.inqueue_requests.add(-1.0);
        self.inqueue_seats.add(-to_float(seats));
    }

    pub(super) fn queued(&self, length: usize) {
        self.queue_length.observe(to_float(length));
    }

    pub(super) fn no_room(&self) {
        self.no_room.inc();
    }

    pub(super) fn estimated(&self, seats: usize, watchers: Option<usize>) {
        self.estimated.observe(to_float(seats));
        if let Some(watchers) = watchers {
            self.watchers.observe(to_float(watchers));
        }
    }
}

/// The part of its target that a level gets whose bounds do not matter.
pub(super) fn fair(part: f64) {
    FAIR.set(part);
}

pub(super) fn to_float(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utilization_counts_nanoseconds() {
        let at = Duration::from_nanos;
        let mut level = Utilization::new("a level of this test", at(100));
        level.set(Use { seats: 0.5, ..Use::default() }, at(100));
        level.set(Use { seats: 1.0, ..Use::default() }, at(140));
        level.set(Use::default(), at(150));
        assert_eq!(level.seats.count(), 50);
        assert!((level.seats.sum() - 30.0).abs() < 1e-9);
        assert_eq!((level.waiting.count(), level.waiting.sum()), (50, 0.0));
    }
}
