//! The apiextensions.k8s.io group.

pub mod approval;
pub mod custom_resource_definition;
mod formats;
mod validate;
