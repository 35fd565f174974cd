//! The streaming protocols of exec, attach and port-forward: SPDY/3.1 and WebSockets, server and client side.
//!
//! - [`remote_command`]: stdin, stdout, stderr, terminal sizes and the final status of a command.
//! - [`port_forward`]: connections to ports, many over one connection.
//! - [`proxy`]: hands an upgrade on to somebody else without looking into it.
//! - [`websocket::messages`]: logs and watches for clients that ask for a WebSocket.
//! - [`spdy`] and [`websocket`]: the protocols below.
//!
//! The servers take an `http::Request` that hyper can upgrade and return the response to send at once, together
//! with what comes into being after it is sent. The clients take a connected byte stream, TLS or not.

pub mod mux;
pub mod port_forward;
pub mod proxy;
pub mod remote_command;
pub mod spdy;
pub mod upgrade;
pub mod websocket;

pub use mux::{ConnectionMonitor, MuxStream};
pub use port_forward::{PortForwardClient, PortForwardServer, PortForwardStream, accept_port_forward};
pub use proxy::proxy_upgrade;
pub use remote_command::{
    CommandStatus, RemoteCommandClient, RemoteCommandOptions, RemoteCommandStreams, TerminalSize,
    accept_remote_command, connect_remote_command, relay_remote_command,
};
pub use upgrade::{ConnectError, FullBody, Rejection, is_upgrade_request};
