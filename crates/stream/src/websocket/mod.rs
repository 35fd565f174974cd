//! WebSockets (RFC 6455) as Kubernetes uses them: numbered channels, a tunnel for bytes, or messages one way.

pub mod channels;
pub mod handshake;
pub mod messages;
pub mod tunnel;

pub use handshake::{is_websocket_request, negotiate};
pub use messages::{Framing, MessageSocket, accept_messages, accept_watch};
pub use tunnel::Tunnel;

use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// The largest message taken from a peer, in bytes, in however many frames.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(32 * 1024)
        .write_buffer_size(32 * 1024)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}
