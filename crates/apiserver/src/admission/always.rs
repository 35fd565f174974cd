//! The two plugins that decide without looking.

use async_trait::async_trait;
use gantry_api::Resource;
use gantry_api::status::Result;
use gantry_kinds::AnyObject;

use super::common::forbidden;
use super::{AdmissionPlugin, AdmissionRequest, Operation};

/// Lets everything pass.
pub(super) struct AlwaysAdmit;

#[async_trait]
impl AdmissionPlugin for AlwaysAdmit {
    fn name(&self) -> &'static str {
        "AlwaysAdmit"
    }

    fn handles(&self, _: Operation, _: &Resource, _: &str) -> bool {
        false
    }
}

/// Lets nothing pass: for tests.
pub(super) struct AlwaysDeny;

#[async_trait]
impl AdmissionPlugin for AlwaysDeny {
    fn name(&self) -> &'static str {
        "AlwaysDeny"
    }

    fn handles(&self, _: Operation, _: &Resource, _: &str) -> bool {
        true
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        Err(forbidden(request, object, "admission control is denying all modifications"))
    }
}
