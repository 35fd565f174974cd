//! Typed verbs, informers and indexes, in process or over HTTPS.
//!
//! A [`Transport`] carries requests: the API server's own (straight to the pipeline and the watch cache) or
//! [`https`] (list + watch over the network). [`Api`] and [`Informer`] sit on top and cannot tell which they have.

pub mod api;
pub mod election;
pub mod https;
pub mod informer;
pub mod kubeconfig;
pub mod reflector;
pub mod transport;
pub mod views;

pub use api::{Api, PatchKind};
pub use election::{Candidate, Election, Terms};
pub use https::HttpsTransport;
pub use informer::{Delta, Index, Informer, InformerSet, Projection, Scope, Subscription};
pub use transport::{
    DeleteOptions, List, ListParams, Mutation, Payload, Propagation, Target, Transport, Verb, WatchEvent,
    WatchKind, WatchParams, WatchStream, WriteOptions,
};
