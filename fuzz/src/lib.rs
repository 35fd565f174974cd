//! Fuzz targets: one function for each reader of bytes from outside.
//!
//! A target takes any bytes and panics if a property does not hold; most properties are of the sort "what was read and
//! written is read again as the same". `cargo xtask fuzz` runs targets under libFuzzer with coverage feedback
//! (docs/fuzzing.md); the test `corpus` runs each over the inputs that are kept in `corpus/`, former crashes among them.

mod input;
pub mod seeds;
mod targets;

pub use targets::{TARGETS, Target, find};
