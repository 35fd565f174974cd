//! The API server: pipeline, verbs, patch and apply, admission, watch cache, custom resources, discovery.

pub mod admission;
pub mod apply;
pub mod authorize;
pub mod connect;
pub mod identify;
pub mod pki;
pub mod serve;
pub mod server;
pub mod virtual_resource;
pub mod warnings;
