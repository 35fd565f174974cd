//! Metrics: families are statics beside the code that counts, a registry lists them, `encode` writes them for Prometheus.
//!
//! Counting takes no lock: values are atomics, and the values of a family are found in a table that is replaced when
//! it grows. A family holds at most [`MAX_SERIES`] label sets; what comes after those is counted, but not shown apart.
//!
//! ```
//! use gantry_base::metrics::{CounterVec, Stability};
//! static ORDERS: CounterVec = CounterVec::new("orders_total", "Orders taken.", Stability::Alpha, &["kind"]);
//! ORDERS.with(&["tea"], |orders| orders.inc());
//! ```

mod cells;
mod encode;
mod family;
mod process;
mod registry;
mod table;

pub use cells::{Count, Distribution, Level};
pub use encode::{Encoder, Format};
pub use family::{
    Collected, Counter, CounterVec, Desc, Family, Gauge, GaugeVec, Histogram, HistogramVec, Kind, Stability,
};
pub use registry::{DROPPED, encode, families, refresh_with, register};
pub use table::{Handle, MAX_SERIES};
