//! How many requests are served at one time.

use std::sync::Arc;

use gantry_api::ApiError;
use gantry_api::status::Result;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{MAX_READS_IN_FLIGHT, MAX_WRITES_IN_FLIGHT};
use crate::route::RequestInfo;

/// Counts requests under way. Those that run long are not counted.
pub(crate) struct InFlight {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl Default for InFlight {
    fn default() -> Self {
        Self {
            reads: Arc::new(Semaphore::new(MAX_READS_IN_FLIGHT)),
            writes: Arc::new(Semaphore::new(MAX_WRITES_IN_FLIGHT)),
        }
    }
}

impl InFlight {
    /// A place, held until it is dropped.
    ///
    /// # Errors
    /// 429 if there is none.
    pub(crate) fn enter(&self, info: &RequestInfo) -> Result<Option<OwnedSemaphorePermit>> {
        if info.is_long_running() {
            return Ok(None);
        }
        let reads = matches!(info.verb, "get" | "list" | "head" | "options");
        let places = if reads { &self.reads } else { &self.writes };
        let place = Arc::clone(places)
            .try_acquire_owned()
            .map_err(|_| ApiError::too_many_requests("Too many requests, please try again later.", 1))?;
        Ok(Some(place))
    }
}
