//! The verbs, one file each.

pub(crate) mod api_resources;
pub(crate) mod apply;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod get;
pub(crate) mod label;
pub(crate) mod logs;
pub(crate) mod patch;
pub(crate) mod port_forward;
pub(crate) mod rollout;
pub(crate) mod scale;
pub(crate) mod version;
pub(crate) mod wait;
pub(crate) mod workload;
