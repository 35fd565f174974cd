//! Rules that several kinds share.

pub mod at;
pub mod cel;
pub mod cells;
pub mod check;
pub mod conditions;
pub mod cron;
pub mod event;
pub mod internal;
pub mod internal_form;
pub mod labels;
pub mod metadata;
pub mod network;
pub mod node_labels;
pub mod pod_spec;
pub mod quantities;
pub mod resource_names;
pub mod selectors;
pub mod sent;
pub mod status;
pub mod template;
mod unified_diff;
pub mod workload;
