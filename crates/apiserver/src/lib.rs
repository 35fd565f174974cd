//! The API server: pipeline, verbs, patch and apply, admission, watch cache, custom resources, discovery.
//!
//! Values flow one way: `serve` → `pipeline` (identify, limit, authorize) → `dispatch` → `verbs` → `respond`. Code in
//! the same process enters at [`server::ApiServer::transport`], which skips TCP, TLS and HTTP and nothing else.

pub mod admission;
mod aggregate;
pub mod apply;
pub mod audit;
pub mod authorize;
pub mod bootstrap;
mod cache;
pub mod callout;
pub mod connect;
mod core;
mod custom;
mod discovery;
mod dispatch;
pub mod encryption;
mod errors;
pub mod fairness;
pub mod health;
pub mod identify;
mod impersonate;
mod json_key;
pub mod lifecycle;
pub mod limits;
mod lookup;
mod loopback;
mod managed;
mod metrics;
pub mod openapi;
pub mod parts;
mod pipeline;
pub mod pki;
mod policy_types;
mod query;
pub mod reach;
mod resources;
mod respond;
pub mod reviews;
mod route;
pub mod serve;
pub mod server;
mod splice;
pub mod structural;
pub mod testing;
pub mod traces;
mod verbs;
pub mod virtual_resource;
pub mod warnings;
