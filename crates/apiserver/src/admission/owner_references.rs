//! Who changes owner references must be able to delete the object; who lets an owner's deletion wait for it must be
//! able to change the owner's finalizers.
//!
//! Behaviour and texts: `plugin/pkg/admission/gc`.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::Resource;
use gantry_api::metav1::OwnerReference;
use gantry_api::status::Result;
use gantry_kinds::AnyObject;

use super::common::{forbidden, is_core, is_write};
use super::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::authorize::{Attributes, Authorizer, Decision};

/// The plugin.
pub(super) struct OwnerReferencesPermissionEnforcement {
    pub(super) authorizer: Arc<dyn Authorizer>,
}

fn owners(object: Option<&dyn AnyObject>) -> &[OwnerReference] {
    object.and_then(|o| o.metadata().owner_references.as_deref()).unwrap_or_default()
}

/// What keeps a decision from being a yes, as Go prints a reason and an error.
fn refusal(decision: Decision) -> Option<String> {
    match decision {
        Decision::Allow(_) => None,
        Decision::Deny(why) | Decision::NoOpinion(why) => Some(format!("{why}, <nil>")),
        Decision::Failed(why) | Decision::DenyFailed(why) => Some(format!(", {why}")),
    }
}

/// References that block their owner's deletion and did not before.
fn newly_blocking<'a>(new: &'a [OwnerReference], old: &[OwnerReference]) -> Vec<&'a OwnerReference> {
    let blocked = |uid: &str| old.iter().any(|o| o.uid == uid && o.block_owner_deletion == Some(true));
    new.iter().filter(|o| o.block_owner_deletion == Some(true) && !blocked(&o.uid)).collect()
}

/// The resources of a kind, by its name in an owner reference.
fn resources(request: &AdmissionRequest<'_>, owner: &OwnerReference) -> Vec<Resource> {
    let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
    let table = request.call.core.table.load();
    let versions = table.entries().flat_map(|e| e.versions.iter().map(|v| v.kind.resource().clone()));
    versions.filter(|r| r.group == group && r.version == version && r.kind == owner.kind).collect()
}

impl OwnerReferencesPermissionEnforcement {
    async fn may_block(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        owner: &OwnerReference,
    ) -> Result<()> {
        let found = resources(request, owner);
        if found.is_empty() {
            let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
            let why = format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {} Kind {}: no matches for kind \"{}\" in version \"{}\"",
                owner.api_version,
                owner.kind,
                owner.kind,
                if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
            );
            return Err(forbidden(request, object, why));
        }
        for resource in found {
            let attributes = Attributes {
                version: &resource.version,
                subresource: "finalizers",
                name: &owner.name,
                namespace: if resource.namespaced { request.namespace } else { "" },
                ..Attributes::on_resource(request.user, "update", &resource.group, &resource.plural)
            };
            if let Some(why) = refusal(self.authorizer.authorize(&attributes).await) {
                let why = format!(
                    "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {why}"
                );
                return Err(forbidden(request, object, why));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl AdmissionPlugin for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        is_write(operation) && !(is_core(resource, "pods") && subresource == "status")
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let (new, before) = (owners(object), owners(old));
        if new == before {
            return Ok(());
        }
        let resource = request.resource;
        if request.operation != Operation::Create {
            let attributes = Attributes {
                version: &resource.version,
                subresource: request.subresource,
                namespace: request.namespace,
                name: request.name,
                ..Attributes::on_resource(request.user, "delete", &resource.group, &resource.plural)
            };
            if let Some(why) = refusal(self.authorizer.authorize(&attributes).await) {
                let why = format!("cannot set an ownerRef on a resource you can't delete: {why}");
                return Err(forbidden(request, object, why));
            }
        }
        let blocking = newly_blocking(new, before);
        if blocking.is_empty() {
            return Ok(());
        }
        let anything = Attributes {
            version: "*",
            subresource: "finalizers",
            name: "*",
            ..Attributes::on_resource(request.user, "update", "*", "*")
        };
        if self.authorizer.authorize(&anything).await.is_allowed() {
            return Ok(());
        }
        for owner in blocking {
            self.may_block(request, object, owner).await?;
        }
        Ok(())
    }
}
