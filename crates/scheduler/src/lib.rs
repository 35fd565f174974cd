//! The scheduler: an incremental snapshot, an engine and its plugins.
//!
//! [`engine`] watches pods and nodes, keeps a [`engine::snapshot::Snapshot`] of who asks for what where, decides
//! pod by pod with the plugins ([`plugins`]), and commits the decisions as bindings. A decision is a pure function of
//! the pod and the snapshot. Pods that ask for the same share a [`pod::PodClass`] and, through it, what the plugins
//! said of each node.

pub mod engine;
mod metrics;
pub mod node;
pub mod plugins;
pub mod pod;

pub use engine::{Options, Scheduler, register_metrics};
