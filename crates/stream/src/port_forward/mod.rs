//! Port-forward: connections to a pod's ports, many over one connection.
//!
//! Over SPDY, directly or inside a WebSocket (KEP-4006), each forwarded connection is a pair of streams, `data` and
//! `error`, that name a port and a request. The older WebSocket variant has two channels for each port named
//! in the query instead.

mod client;
mod relay;
mod server;

pub use client::{
    ErrorReader, ForwardedConnection, PortForwardClient, PortForwardTransport, connect_port_forward,
};
pub use relay::relay_port_forward;
pub use server::{
    AcceptedPortForward, ErrorWriter, PortForwardServer, PortForwardStream, accept_port_forward,
};

/// The stream protocol's name.
pub(crate) const PROTOCOL: &str = "portforward.k8s.io";
/// The WebSocket subprotocol that tunnels it.
pub(crate) const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
/// The stream header that says what a stream is for.
pub(crate) const STREAM_TYPE: &str = "streamtype";
/// The stream header with the port.
pub(crate) const PORT: &str = "port";
/// The stream header that joins the two streams of a connection.
pub(crate) const REQUEST_ID: &str = "requestid";
