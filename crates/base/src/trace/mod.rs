//! Traces (OpenTelemetry): spans of what is done for a request, sent to a collector by OTLP.
//!
//! Until [`start`] is called nothing is traced, and every function here costs one relaxed load. A request belongs to
//! a trace by its W3C `traceparent`; the current span is the task's, so nobody hands it through. What is finished
//! waits in a bounded queue; what finds no room there is dropped and counted ([`DROPPED`]).

mod context;
mod export;
mod span;
mod wire;

pub use context::Context;
pub use export::{Options, Protocol, start};
pub use span::{Kind, Span, Value, child, current, enabled, root, traceparent, within};

use crate::metrics::{Counter, Stability};

/// Spans that were lost because the collector did not take them as fast as they came.
pub static DROPPED: Counter = Counter::new(
    "gantry_trace_spans_dropped_total",
    "Spans that were not sent: the queue was full, or the collector did not take them.",
    Stability::Own,
);
/// Spans that the collector took.
pub static EXPORTED: Counter =
    Counter::new("gantry_trace_spans_exported_total", "Spans that the collector took.", Stability::Own);

/// Lists what is counted of traces; [`start`] does it by itself.
pub fn register_metrics() {
    crate::metrics::register("process", &[&DROPPED, &EXPORTED]);
}

/// Finished spans that wait to be sent; further ones are dropped.
pub const MAX_QUEUE: usize = 4096;
/// Spans of one message.
pub const MAX_BATCH: usize = 512;
/// Attributes of one span; further ones are left out.
pub const MAX_ATTRIBUTES: usize = 32;
