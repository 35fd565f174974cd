//! Wire types of the Kubernetes API and pure helpers: selectors, quantities, conditions, merge metadata.
//!
//! All serde work on the typed kinds is compiled once, here, behind the non-generic functions of [`Object`];
//! no other crate instantiates `serde_json::from_slice::<Pod>`.

pub mod conditions;
pub mod encoded;
pub mod field;
pub mod meta;
pub mod names;
pub mod object;
pub mod protobuf;
pub mod quantity;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
pub mod time;

pub use k8s_openapi;
pub use k8s_openapi::api::{
    apps::v1 as apps, batch::v1 as batch, coordination::v1 as coordination, core::v1 as core,
    discovery::v1 as discovery, events::v1 as events, rbac::v1 as rbac, storage::v1 as storage,
};
pub use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1 as metav1;
pub use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub use encoded::Encoded;
pub use meta::ObjectKey;
pub use object::{DecodeError, Object};
pub use quantity::Quantity;
pub use resource::Resource;
pub use selector::{FieldSelector, LabelSelector};
pub use status::ApiError;
