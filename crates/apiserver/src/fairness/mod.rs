//! API priority and fairness (KEP-1040): which requests run now, which wait, and which are sent away.
//!
//! A request belongs to the first flow schema that matches it, and thereby to a priority level. Each level has seats
//! of its own, lends what it does not need, and borrows from others; flows of one level take turns. How many seats a
//! request takes follows from the work that it is taken to be. Code in this process does not come by here.

mod borrow;
mod demand;
mod dropped;
mod dump;
mod follow;
mod hand;
mod in_flight;
mod level;
mod matching;
pub(crate) mod metrics;
mod plan;
#[cfg(test)]
mod tests;
mod ticket;
mod watchers;
mod work;

use std::sync::Arc;

use arc_swap::ArcSwap;
use gantry_base::{Clock, Tasks};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, Response, StatusCode};

pub(crate) use follow::start;
pub(crate) use watchers::Watching;

use crate::core::Core;
use crate::identify::User;
use crate::limits::{MAX_QUEUE_WAIT, MAX_READS_IN_FLIGHT, MAX_WRITES_IN_FLIGHT};
use crate::query::Query;
use crate::route::RequestInfo;
use crate::serve::{Body, full};
use dropped::Dropped;
use in_flight::InFlight;
use level::Seat;
use plan::{Plan, Schema};
use ticket::Ticket;
use watchers::Watchers;

/// How many requests are served at one time. The names are upstream's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `--max-requests-inflight`: those that read; with priority and fairness, both numbers together are the seats.
    pub max_requests_inflight: usize,
    /// `--max-mutating-requests-inflight`: those that write.
    pub max_mutating_requests_inflight: usize,
    /// `--enable-priority-and-fairness`
    pub enable_priority_and_fairness: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_requests_inflight: MAX_READS_IN_FLIGHT,
            max_mutating_requests_inflight: MAX_WRITES_IN_FLIGHT,
            enable_priority_and_fairness: true,
        }
    }
}

/// Gives requests their seats.
pub(crate) struct Fairness {
    plan: ArcSwap<Plan>,
    /// Of all levels together.
    seats: usize,
    /// Else there are but two limits, for all who are no masters.
    enabled: bool,
    in_flight: InFlight,
    watchers: Arc<Watchers>,
    dropped: Dropped,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
}

/// Where a request belongs.
pub(crate) struct Flow(Arc<Schema>);

/// A request's right to be served, until it is dropped.
#[expect(dead_code, reason = "held, not read")]
pub(crate) enum Place {
    /// Nobody counts it.
    Free,
    /// A seat of its level.
    Seat(Seat),
    /// One of those that may be served at one time.
    Counted(in_flight::Counted),
}

impl Fairness {
    /// With nothing but what is mandatory.
    pub(crate) fn new(options: &Options, clock: Arc<dyn Clock>, tasks: &Tasks) -> Self {
        let seats = options.max_requests_inflight + options.max_mutating_requests_inflight;
        let plan = Plan::new(&[], &[], seats, None, (&clock, tasks));
        Self {
            plan: ArcSwap::from_pointee(plan),
            seats,
            enabled: options.enable_priority_and_fairness,
            in_flight: InFlight::new(options.max_requests_inflight, options.max_mutating_requests_inflight),
            watchers: Arc::default(),
            dropped: Dropped::default(),
            clock,
            tasks: tasks.clone(),
        }
    }

    /// Where the request belongs; `None` for one that runs long and is no watch.
    pub(crate) fn classify(&self, user: &User, info: &RequestInfo) -> Option<Flow> {
        if !self.enabled || (info.is_long_running() && info.verb != "watch") {
            return None;
        }
        Some(Flow(Arc::clone(self.plan.load().classify(user, info))))
    }

    /// Waits for the request's turn.
    ///
    /// # Errors
    /// What the client is told: there is no room, not even to wait, or the wait took too long.
    pub(crate) async fn enter(
        &self,
        core: &Core,
        flow: Option<&Flow>,
        user: &User,
        info: &RequestInfo,
        query: &Query,
    ) -> Result<Place, Box<Response<Body>>> {
        let Some(Flow(schema)) = flow else {
            if self.enabled || info.is_long_running() {
                return Ok(Place::Free);
            }
            return match self.in_flight.enter(user, info) {
                Some(counted) => Ok(Place::Counted(counted)),
                None => Err(Box::new(too_many_requests(1))),
            };
        };
        let level = &schema.level;
        let (work, watchers) = work::estimate(core, &self.watchers, info, query, level.widest());
        schema.metrics.estimated(work.width(), watchers);
        let ticket = Ticket::new(schema, work, user, info, self.clock.monotonic());
        let hash = || hand::hash(&schema.name, schema.distinguish(user, info));
        match level.enter(ticket, hash, MAX_QUEUE_WAIT).await {
            Ok(seat) => Ok(Place::Seat(seat)),
            Err(_) => {
                let second = self.clock.monotonic().as_secs();
                Err(Box::new(too_many_requests(self.dropped.note(&level.name, second))))
            }
        }
    }

    /// Counts a watch that has begun, as long as the answer is kept.
    pub(crate) fn watches(&self, info: &RequestInfo) -> Watching {
        self.watchers.join(info)
    }

    /// What is shown under a name below `/debug/api_priority_and_fairness/`.
    pub(crate) fn show(&self, name: &str, details: bool) -> Option<String> {
        if self.enabled { dump::show(self, name, details) } else { None }
    }
}

impl Flow {
    /// Says in an answer where the request belonged.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        headers.insert("x-kubernetes-pf-flowschema-uid", self.0.uid.clone());
        headers.insert("x-kubernetes-pf-prioritylevel-uid", self.0.level_uid.clone());
    }
}

/// What those are told who are sent away, and when they may come again. As upstream it is no Status.
fn too_many_requests(retry_after: u64) -> Response<Body> {
    let mut response = Response::new(full("Too many requests, please try again later.\n"));
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RETRY_AFTER, HeaderValue::from(retry_after));
    response
}
