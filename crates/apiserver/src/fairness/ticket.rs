//! A request that wants a seat.

use std::sync::Arc;
use std::time::Duration;

use super::plan::Schema;
use super::work::Work;
use crate::identify::User;
use crate::route::RequestInfo;

/// A request, as far as its level and those who look at it want to know.
pub(super) struct Ticket {
    pub(super) schema: Arc<Schema>,
    pub(super) work: Work,
    pub(super) user: User,
    pub(super) verb: &'static str,
    /// What else there is to say of it follows from the path.
    pub(super) path: Box<str>,
    /// By the monotonic clock.
    pub(super) arrived: Duration,
}

impl Ticket {
    pub(super) fn new(
        schema: &Arc<Schema>,
        work: Work,
        user: &User,
        info: &RequestInfo,
        arrived: Duration,
    ) -> Self {
        Self {
            schema: Arc::clone(schema),
            work,
            user: user.clone(),
            verb: info.verb,
            path: info.path.as_str().into(),
            arrived,
        }
    }
}
