//! Clock, tasks, errors, back-off, limits, telemetry and names of images: no Kubernetes word in it.
//!
//! Everything above this crate reaches time, randomness, spawning and metrics through these doors, so that a
//! test can drive them.

pub mod backoff;
pub mod clock;
mod dial;
pub mod error;
pub mod image;
pub mod metrics;
pub mod tasks;
pub mod telemetry;
pub mod trace;

pub use backoff::{Backoff, BackoffPolicy};
pub use clock::{Clock, ManualClock, SystemClock};
pub use dial::{dial_error, dial_timeout};
pub use error::{Class, Error, Result};
pub use tasks::{Shutdown, Tasks};
