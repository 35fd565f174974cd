//! The verbs, one file each.

pub(crate) mod apply;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod wait;
