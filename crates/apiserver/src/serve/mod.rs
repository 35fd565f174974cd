//! HTTP: connections, TLS and bodies.

mod body;

pub use body::{Body, BodyError, empty, full};
