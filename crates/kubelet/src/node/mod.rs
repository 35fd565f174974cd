//! The node's own objects: its registration and status, and its lease.

pub mod lease;
pub mod machine;
pub mod status;
