//! Wire types of the Kubernetes API and pure helpers: selectors, quantities, conditions, merge metadata.
//!
//! All serde work on the typed kinds is compiled once, here, behind the non-generic functions of [`Object`];
//! no other crate instantiates `serde_json::from_slice::<Pod>`.

pub mod conditions;
mod decoded;
pub mod encoded;
pub mod field;
pub mod go_json;
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
mod zero_time;

pub use k8s_openapi;
pub use k8s_openapi::api::{
    admissionregistration::v1 as admissionregistration, apps::v1 as apps, autoscaling::v1 as autoscaling_v1,
    autoscaling::v2 as autoscaling, batch::v1 as batch, certificates::v1 as certificates,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events,
    flowcontrol::v1 as flowcontrol, networking::v1 as networking, node::v1 as node, policy::v1 as policy,
    rbac::v1 as rbac, resource::v1 as dynamic_resource, scheduling::v1 as scheduling, storage::v1 as storage,
};
pub use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1 as metav1;
pub use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
pub use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;

pub use encoded::Encoded;
pub use meta::ObjectKey;
pub use object::{DecodeError, Object};
pub use quantity::Quantity;
pub use resource::Resource;
pub use selector::{FieldSelector, LabelSelector};
pub use status::ApiError;
