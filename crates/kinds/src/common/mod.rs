//! Rules that several kinds share.

pub mod cells;
pub mod metadata;
pub mod pod_spec;
pub mod workload;
