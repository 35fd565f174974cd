//! The container runtime port: CRI v1 over gRPC, a supervised containerd, and a fake.
//!
//! [`Runtime`] is what the kubelet sees. Its messages are CRI's own ([`v1`]), since every field of them is a
//! contract with the runtime. [`GrpcRuntime`] speaks to containerd or CRI-O; [`FakeRuntime`] keeps everything
//! in memory for tests and hollow nodes;
//! [`supervise`] starts and keeps a containerd of our own.

mod error;
mod events;
mod fake;
mod grpc;
pub mod image;
mod port;
pub mod supervise;
mod types;

/// The generated gRPC clients and messages (`cargo xtask proto`).
#[allow(missing_docs, clippy::all, clippy::disallowed_methods, rustdoc::all)]
#[path = "gen/mod.rs"]
#[rustfmt::skip]
pub mod proto;

/// The messages of CRI v1.
pub use proto::runtime::v1;

pub use error::{
    Code, RpcError, is_deadline_exceeded, is_unsupported, rpc_code, rpc_description, unsupported,
};
pub use events::{ContainerEvent, EventKind, EventSource, EventStream, Events};
pub use fake::{FakeExec, FakeRuntime, ProcessPlan};
pub use grpc::{CallDeadlines, GrpcRuntime};
pub use port::{CgroupDriver, ExecOutput, Runtime};
