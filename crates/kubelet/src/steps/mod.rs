//! What the engine can do for a pod, one file per step. Every step is idempotent.

pub mod cgroup;
pub mod container;
pub mod dns;
pub mod env;
pub mod field;
pub mod hooks;
pub mod hosts;
pub mod image;
pub mod kill;
pub mod labels;
pub mod mounts;
pub mod resources;
pub mod sandbox;
pub mod security;

/// Why a container is waiting: what `state.waiting` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// A word for machines, for example `ErrImagePull`.
    pub reason: String,
    /// A text for people.
    pub message: String,
}

impl Waiting {
    /// A reason and its message.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

/// The runtime's own words, without the wrapping that gRPC puts around them.
pub fn words(error: &gantry_base::Error) -> String {
    gantry_cri::rpc_description(error).map_or_else(|| error.to_string(), str::to_owned)
}
