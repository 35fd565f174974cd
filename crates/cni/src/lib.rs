//! The pod network of one node: addresses, veth pairs, routes and host ports.
//!
//! Every pod has one veth pair and an address of the node's range as a /32. The host routes each address to its
//! pod's veth, and a pod routes everything to the gateway address, so that all traffic, also between two pods of a
//! node, passes the host's IP layer once: there services are translated and policies decided, whatever the
//! `bridge-nf-call-iptables` setting is, and a pod reaches itself through its service like any other. The gateway
//! address sits on an interface of our own that carries no traffic. Other nodes' ranges will be routes too (direct,
//! or over one VXLAN device).
//!
//! The binary is its own CNI plugin ([`plugin::main`]): the plugin process hands its request to the agent's
//! [`Network`] over a local socket and prints the answer. See CNI specification 1.0.0 (and 0.3.1, 0.4.0, 1.1.0).

mod install;
mod ipam;
mod links;
mod loopback;
mod network;
pub mod plugin;
mod protocol;
mod rules;
mod server;
mod state;

pub use gantry_nft::Ipv4Cidr;
pub use install::{Install, PLUGIN_NAME};
pub use network::{AttachRequest, Network, Options};
pub use protocol::{HostPort, Protocol};
pub use state::Attachment;
