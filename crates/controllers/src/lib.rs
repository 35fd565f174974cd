//! The controllers and the engine that drives them.
//!
//! [`engine`] owns the loop and knows no controller; every other module is one controller (or a family of small
//! ones), which observes through informers and plans purely; [`registry`] lists them and starts them.

pub mod bootstrap;
pub mod certificates;
pub mod clusterroles;
mod common;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod disruption_targets;
pub mod endpoints;
mod endpoints_common;
pub mod endpointslices;
pub mod endpointslices_mirror;
pub mod engine;
pub mod garbage;
pub mod inventory;
pub mod job;
pub mod legacytokens;
#[cfg(test)]
mod model;
pub mod namespaces;
pub mod nodeipam;
pub mod nodelifecycle;
pub mod nodettl;
pub mod podgc;
pub mod quota;
pub mod registry;
pub mod replicaset;
pub mod replicationcontroller;
pub mod serviceaccounts;
pub mod serviceaddresses;
pub mod servicecidr;
pub mod statefulset;
pub mod tainteviction;
pub mod ttl;
pub mod volumes;

pub use engine::{
    AlwaysLeader, CertificateSigner, Leadership, Ports, TokenSigner, VolumeDirectory, VolumeHost,
};
pub use nodeipam::ClusterCidr;
pub use registry::{Controllers, Enabled, Options, TransportFor};
