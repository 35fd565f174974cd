//! What several controllers of workloads share: pods and their claims, revisions, hashes, numbers.

pub mod claim;
pub mod hash;
pub mod nodes;
pub mod number;
pub mod pods;
pub mod revisions;
