//! Without priority and fairness: so many requests read at one time, and so many write (upstream's
//! `pkg/server/filters/maxinflight.go`).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::identify::{MASTERS, User};
use crate::route::RequestInfo;

/// The two limits; 0 is none.
pub(super) struct InFlight {
    reads: Option<Arc<Semaphore>>,
    writes: Option<Arc<Semaphore>>,
}

/// One of those that are served.
#[expect(dead_code, reason = "held, not read")]
pub(crate) struct Counted(Option<OwnedSemaphorePermit>);

impl InFlight {
    pub(super) fn new(reads: usize, writes: usize) -> Self {
        let limit =
            |limit: usize| (limit > 0).then(|| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))));
        Self { reads: limit(reads), writes: limit(writes) }
    }

    /// `None` if there are too many. Masters always may.
    pub(super) fn enter(&self, user: &User, info: &RequestInfo) -> Option<Counted> {
        let reads = matches!(info.verb, "get" | "list" | "watch");
        let Some(limit) = (if reads { &self.reads } else { &self.writes }) else {
            return Some(Counted(None));
        };
        match Arc::clone(limit).try_acquire_owned() {
            Ok(permit) => Some(Counted(Some(permit))),
            Err(_) if user.is_in(MASTERS) => Some(Counted(None)),
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::query::Query;
    use crate::route::resolve;

    #[test]
    fn reads_and_writes_are_counted_apart_and_masters_always_may() {
        let limits = InFlight::new(1, 1);
        let of = |method: Method| resolve(&method, "/api/v1/pods", &Query::parse(""));
        let (read, write) = (of(Method::GET), of(Method::POST));
        let ann = User::new("ann", []);
        let first = limits.enter(&ann, &read);
        assert!(first.is_some() && limits.enter(&ann, &read).is_none());
        assert!(limits.enter(&User::apiserver(), &read).is_some());
        assert!(limits.enter(&ann, &write).is_some());
        drop(first);
        assert!(limits.enter(&ann, &read).is_some());
        assert!(InFlight::new(0, 0).enter(&ann, &read).is_some());
    }
}
