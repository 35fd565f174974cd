//! Cluster DNS: names of services and pods, answered on each node from its informers.
//!
//! Implements the Kubernetes DNS-Based Service Discovery specification 1.1.0. There are no zone data: a question is a
//! look-up in the informers ([`records::resolve`], pure), so an answer is as fresh as they are. What is outside the
//! cluster's domain goes to the upstream servers ([`upstream`]) through a small cache.
//!
//! hickory-proto reads and writes the messages; sockets and their limits are ours ([`server`]): an answer is a table
//! look-up, done in the task that received the question, and the number of questions in flight is bounded.

pub mod records;
pub mod server;
pub mod upstream;
pub mod views;

pub use server::{DnsServer, Options, register_metrics};
pub use views::{Directory, InformerDirectory, NameEndpoint, NamedPort, ServiceNames, SliceNames};
