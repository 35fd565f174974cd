//! The controllers and the engine that drives them.
//!
//! [`engine`] owns the loop and knows no controller; every other module is one controller (or a family of small
//! ones), which observes through informers and plans purely; [`registry`] lists them and starts them.

mod common;
pub mod deployment;
pub mod engine;
pub mod replicaset;
