//! One file per kind: names, defaults, validation, update rules, columns, selectable fields.
//!
//! The engine ([`kind`], [`erased`]) knows no kind; [`registry`] lists them all. A kind knows no store and no
//! server: what the server does with every object (names, metadata, revisions, deletion) is not repeated here.

pub mod erased;
pub mod kind;
pub mod quota;
pub mod registry;
pub mod resources;
pub mod scale;
pub mod table;

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod common;
mod coordination;
mod core;
mod discovery;
mod events;
mod flowcontrol;
mod networking;
mod node;
mod policy;
mod rbac;
mod resource;
mod scheduling;
mod storage;

pub use erased::{AnyKind, AnyObject, Decoded};
pub use kind::{Errors, Kind, NameRule, Names, Requester, StoredAs, Verbs};
pub use registry::builtin;
pub use scale::Scale;
pub use table::Column;

/// Rules that other crates need as well: the kubelet for static pods, custom resources for names.
pub mod rules {
    pub use crate::apiextensions::approval;
    pub use crate::common::metadata::{
        check_name, is_standard_finalizer, validate_metadata, validate_metadata_update,
        validate_updated_finalizers,
    };
    pub use crate::common::{cel, cron};
    pub use crate::core::service::check_service_addresses;
    pub use crate::flowcontrol::mandatory as mandatory_flow_control;
    pub use crate::scheduling::priority_class::SYSTEM_CLASSES;
}
