//! Services on this node: what reaches a service's address or node port goes to one of its endpoints.
//!
//! observe → compile → diff → apply. [`views`] are the few fields that are kept of services and endpoint slices;
//! [`compile`] turns one service into frontends and backends; [`table`] joins all services and settles who owns a
//! frontend that two of them claim; [`plan`] compares with what the kernel has; [`kernel`] writes the difference, as one
//! nftables transaction. The first three are pure. [`service`] runs them as changes arrive.
//!
//! The rules are flat: one lookup by address, protocol and port leads to a chain made for that *number* of endpoints,
//! which draws a slot and looks up the endpoint. Whatever changes, only elements do (and chains for new numbers).

pub mod compile;
pub mod kernel;
pub mod plan;
pub mod service;
pub mod table;
pub mod views;

pub use compile::{Action, Frontend, Masquerade, Node};
pub use service::{Options, ServiceProxy, register_metrics};
pub use views::{ServiceView, SliceView};
