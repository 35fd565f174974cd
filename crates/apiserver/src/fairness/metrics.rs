//! What `/metrics` says of priority and fairness, under upstream's names.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::borrow::{Bounds, Dealt, Demand};

type Real = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LevelLabel {
    priority_level: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FlowLabels {
    priority_level: String,
    flow_schema: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    priority_level: String,
    flow_schema: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ExecuteLabels {
    priority_level: String,
    flow_schema: String,
    execute: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TypeLabels {
    priority_level: String,
    flow_schema: String,
    r#type: &'static str,
}

type Buckets<L> = Family<L, Histogram, fn() -> Histogram>;

struct Metrics {
    rejected: Family<ReasonLabels, Counter>,
    dispatched: Family<FlowLabels, Counter>,
    inqueue_requests: Family<FlowLabels, Gauge>,
    inqueue_seats: Family<FlowLabels, Gauge>,
    executing_requests: Family<FlowLabels, Gauge>,
    executing_seats: Family<FlowLabels, Gauge>,
    no_room: Family<FlowLabels, Counter>,
    queue_length: Buckets<FlowLabels>,
    waited: Buckets<ExecuteLabels>,
    ran: Buckets<TypeLabels>,
    estimated: Buckets<FlowLabels>,
    watchers: Buckets<FlowLabels>,
    nominal: Family<LevelLabel, Gauge>,
    lower: Family<LevelLabel, Gauge>,
    upper: Family<LevelLabel, Gauge>,
    current: Family<LevelLabel, Gauge>,
    high_watermark: Family<LevelLabel, Gauge>,
    average: Family<LevelLabel, Real>,
    deviation: Family<LevelLabel, Real>,
    smoothed: Family<LevelLabel, Real>,
    target: Family<LevelLabel, Real>,
    fair: Real,
}

fn seconds() -> Histogram {
    Histogram::new([0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0])
}

fn lengths() -> Histogram {
    Histogram::new([0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0])
}

fn seats() -> Histogram {
    Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0])
}

fn watchers() -> Histogram {
    Histogram::new([0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0])
}

impl Metrics {
    fn new() -> Self {
        let buckets = |of: fn() -> Histogram| of;
        Self {
            rejected: Family::default(),
            dispatched: Family::default(),
            inqueue_requests: Family::default(),
            inqueue_seats: Family::default(),
            executing_requests: Family::default(),
            executing_seats: Family::default(),
            no_room: Family::default(),
            queue_length: Family::new_with_constructor(buckets(lengths)),
            waited: Family::new_with_constructor(buckets(seconds)),
            ran: Family::new_with_constructor(buckets(seconds)),
            estimated: Family::new_with_constructor(buckets(seats)),
            watchers: Family::new_with_constructor(buckets(watchers)),
            nominal: Family::default(),
            lower: Family::default(),
            upper: Family::default(),
            current: Family::default(),
            high_watermark: Family::default(),
            average: Family::default(),
            deviation: Family::default(),
            smoothed: Family::default(),
            target: Family::default(),
            fair: Real::default(),
        }
    }

    fn register(&self, registry: &mut Registry) {
        macro_rules! register {
            ($($field:ident $name:literal $help:literal;)*) => {
                $( registry.register(concat!("apiserver_flowcontrol_", $name), $help, self.$field.clone()); )*
            };
        }
        register! {
            rejected "rejected_requests" "Number of requests rejected by API Priority and Fairness subsystem";
            dispatched "dispatched_requests" "Number of requests executed by API Priority and Fairness subsystem";
            inqueue_requests "current_inqueue_requests"
                "Number of requests currently pending in queues of the API Priority and Fairness subsystem";
            inqueue_seats "current_inqueue_seats"
                "Number of seats currently pending in queues of the API Priority and Fairness subsystem";
            executing_requests "current_executing_requests"
                "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem";
            executing_seats "current_executing_seats"
                "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem";
            no_room "request_dispatch_no_accommodation"
                "Number of times a dispatch attempt resulted in a non accommodation due to lack of available seats";
            queue_length "request_queue_length_after_enqueue"
                "Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued";
            waited "request_wait_duration_seconds" "Length of time a request spent waiting in its queue";
            ran "request_execution_seconds"
                "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem";
            estimated "work_estimated_seats"
                "Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness";
            watchers "watch_count_samples" "count of watchers for mutating requests in API Priority and Fairness";
            nominal "nominal_limit_seats" "Nominal number of execution seats configured for each priority level";
            lower "lower_limit_seats" "Configured lower bound on number of execution seats available to each priority level";
            upper "upper_limit_seats" "Configured upper bound on number of execution seats available to each priority level";
            current "current_limit_seats" "current derived number of execution seats available to each priority level";
            high_watermark "demand_seats_high_watermark" "High watermark, over last adjustment period, of demand_seats";
            average "demand_seats_average" "Time-weighted average, over last adjustment period, of demand_seats";
            deviation "demand_seats_stdev" "Time-weighted standard deviation, over last adjustment period, of demand_seats";
            smoothed "demand_seats_smoothed" "Smoothed seat demands";
            target "target_seats" "Seat allocation targets";
            fair "seat_fair_frac" "Fair fraction of server's concurrency to allocate to each priority level that can use it";
        }
    }
}

fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
        let metrics = Metrics::new();
        metrics.register(&mut gantry_base::telemetry::metrics().lock());
        metrics
    });
    &METRICS
}

/// Those of one level, found once.
pub(super) struct OfLevel {
    nominal: Gauge,
    lower: Gauge,
    upper: Gauge,
    current: Gauge,
    high_watermark: Gauge,
    average: Real,
    deviation: Real,
    smoothed: Real,
    target: Real,
}

impl OfLevel {
    pub(super) fn new(name: &str) -> Self {
        let label = LevelLabel { priority_level: name.to_owned() };
        let all = metrics();
        let whole = |family: &Family<LevelLabel, Gauge>| family.get_or_create(&label).clone();
        let real = |family: &Family<LevelLabel, Real>| family.get_or_create(&label).clone();
        Self {
            nominal: whole(&all.nominal),
            lower: whole(&all.lower),
            upper: whole(&all.upper),
            current: whole(&all.current),
            high_watermark: whole(&all.high_watermark),
            average: real(&all.average),
            deviation: real(&all.deviation),
            smoothed: real(&all.smoothed),
            target: real(&all.target),
        }
    }

    pub(super) fn bounds(&self, bounds: &Bounds) {
        self.nominal.set(whole(bounds.nominal));
        self.lower.set(whole(bounds.min));
        self.upper.set(whole(bounds.max));
    }

    pub(super) fn adjusted(&self, demand: &Demand, dealt: &Dealt) {
        self.current.set(whole(dealt.seats));
        self.high_watermark.set(whole(demand.high_watermark));
        self.average.set(demand.average);
        self.deviation.set(demand.deviation);
        self.smoothed.set(demand.smoothed);
        self.target.set(dealt.target);
    }
}

/// Those of one flow schema, found once.
pub(super) struct OfFlow {
    labels: FlowLabels,
    dispatched: Counter,
    inqueue_requests: Gauge,
    inqueue_seats: Gauge,
    executing_requests: Gauge,
    executing_seats: Gauge,
    no_room: Counter,
    queue_length: Histogram,
    waited: Histogram,
    ran: Histogram,
    watched: Histogram,
    estimated: Histogram,
    watchers: Histogram,
}

impl OfFlow {
    pub(super) fn new(level: &str, schema: &str) -> Arc<Self> {
        let labels = FlowLabels { priority_level: level.to_owned(), flow_schema: schema.to_owned() };
        let all = metrics();
        let gauge = |family: &Family<FlowLabels, Gauge>| family.get_or_create(&labels).clone();
        let counter = |family: &Family<FlowLabels, Counter>| family.get_or_create(&labels).clone();
        let histogram = |family: &Buckets<FlowLabels>| family.get_or_create(&labels).clone();
        let of_type = |kind: &'static str| {
            let labels =
                TypeLabels { priority_level: level.to_owned(), flow_schema: schema.to_owned(), r#type: kind };
            all.ran.get_or_create(&labels).clone()
        };
        let execute = ExecuteLabels {
            priority_level: level.to_owned(),
            flow_schema: schema.to_owned(),
            execute: "true",
        };
        Arc::new(Self {
            dispatched: counter(&all.dispatched),
            inqueue_requests: gauge(&all.inqueue_requests),
            inqueue_seats: gauge(&all.inqueue_seats),
            executing_requests: gauge(&all.executing_requests),
            executing_seats: gauge(&all.executing_seats),
            no_room: counter(&all.no_room),
            queue_length: histogram(&all.queue_length),
            waited: all.waited.get_or_create(&execute).clone(),
            ran: of_type("regular"),
            watched: of_type("watch"),
            estimated: histogram(&all.estimated),
            watchers: histogram(&all.watchers),
            labels,
        })
    }

    pub(super) fn dispatched(&self, waited: Duration) {
        self.dispatched.inc();
        self.waited.observe(waited.as_secs_f64());
    }

    pub(super) fn refused(&self, reason: &'static str) {
        let FlowLabels { priority_level, flow_schema } = self.labels.clone();
        metrics().rejected.get_or_create(&ReasonLabels { priority_level, flow_schema, reason }).inc();
    }

    pub(super) fn starts(&self, seats: usize) {
        self.executing_requests.inc();
        self.executing_seats.inc_by(whole(seats));
    }

    /// Takes back that it runs.
    pub(super) fn ends(&self) {
        self.executing_requests.dec();
    }

    pub(super) fn frees(&self, seats: usize) {
        self.executing_seats.dec_by(whole(seats));
    }

    pub(super) fn ran(&self, verb: &str, took: Duration) {
        self.ends();
        if verb == "watch" { &self.watched } else { &self.ran }.observe(took.as_secs_f64());
    }

    pub(super) fn waits(&self, more: i64, seats: usize) {
        self.inqueue_requests.inc_by(more);
        self.inqueue_seats.inc_by(more * whole(seats));
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
    metrics().fair.set(part);
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn to_float(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
