//! SPDY/3.1, the subset that Kubernetes streams with.

pub mod connection;
mod dictionary;
pub mod frame;
pub mod headers;

pub use connection::{Connection, IncomingStream, Role};
