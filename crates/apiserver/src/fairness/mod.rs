//! API priority and fairness (KEP-1040): which requests run now, which wait, and which are sent away.
//!
//! A request belongs to the first flow schema that matches it, and thereby to a priority level. Each level has seats
//! of its own; flows of one level take turns. Code in this process does not come by here.

mod follow;
mod hand;
mod level;
mod matching;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use gantry_base::Clock;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, Response, StatusCode};

pub(crate) use follow::start;
pub(crate) use level::{Refused, Seat};

use crate::identify::User;
use crate::limits::{MAX_QUEUE_WAIT, MAX_READS_IN_FLIGHT, MAX_WRITES_IN_FLIGHT};
use crate::route::RequestInfo;
use crate::serve::{Body, full};
use plan::{Plan, Schema};

/// Seats of all levels together.
const SEATS: usize = MAX_READS_IN_FLIGHT + MAX_WRITES_IN_FLIGHT;

/// Gives requests their seats.
pub(crate) struct Fairness {
    plan: ArcSwap<Plan>,
    clock: Arc<dyn Clock>,
}

/// Where a request belongs.
pub(crate) struct Flow(Arc<Schema>);

impl Fairness {
    /// With nothing but what is mandatory.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let plan = Plan::new(&[], &[], SEATS, None, &clock);
        Self { plan: ArcSwap::from_pointee(plan), clock }
    }

    /// Where the request belongs; `None` for one that runs long and is no watch.
    pub(crate) fn classify(&self, user: &User, info: &RequestInfo) -> Option<Flow> {
        if info.is_long_running() && info.verb != "watch" {
            return None;
        }
        Some(Flow(Arc::clone(self.plan.load().classify(user, info))))
    }
}

impl Flow {
    /// Waits for the request's turn. The seat is the request's until it is dropped; there is none on an exempt level.
    ///
    /// # Errors
    /// There is no room, not even to wait, or the wait took too long.
    pub(crate) async fn enter(&self, user: &User, info: &RequestInfo) -> Result<Option<Seat>, Refused> {
        let flow = || hand::hash(&self.0.name, self.0.distinguish(user, info));
        self.0.level.enter(flow, MAX_QUEUE_WAIT).await
    }

    /// Says in an answer where the request belonged.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        headers.insert("x-kubernetes-pf-flowschema-uid", self.0.uid.clone());
        headers.insert("x-kubernetes-pf-prioritylevel-uid", self.0.level_uid.clone());
    }
}

/// What those are told who are sent away. As upstream it is no Status.
pub(crate) fn too_many_requests() -> Response<Body> {
    let mut response = Response::new(full("Too many requests, please try again later.\n"));
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
