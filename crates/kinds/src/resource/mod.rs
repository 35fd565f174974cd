//! Kinds of resource.k8s.io: devices that pods ask for.

mod allocation;
pub mod device_class;
mod devices;
mod names;
mod requests;
pub mod resource_claim;
pub mod resource_claim_template;
pub mod resource_slice;
