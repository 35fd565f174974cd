//! HTTP: connections, TLS and bodies.

mod body;
mod connection;

pub use body::{Body, BodyError, empty, full};
pub(crate) use connection::listen;
