//! Hollow nodes, benchmarks, golden fixtures, fault simulation and end-to-end tests.

pub mod bench;
pub mod clients;
pub mod cluster;
pub mod golden;
pub mod netns;
pub mod wait;
