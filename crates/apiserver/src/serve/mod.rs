//! HTTP: connections, TLS and bodies.

mod body;
mod connection;

pub(crate) use body::holding;
pub use body::{Body, BodyError, empty, full};
pub(crate) use connection::listen;
