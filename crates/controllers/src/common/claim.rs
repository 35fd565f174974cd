//! Adoption and release: the one controller that an object has.

use gantry_api::meta::{MetaExt, controller_reference};
use gantry_api::{LabelSelector, Object, ObjectKey, Resource};
use gantry_client::PatchKind;
use gantry_client::views::PodView;
use serde_json::json;
use std::sync::Arc;

use crate::engine::{Check, Plan, Write};

/// Makes `owner` the controller of an object that has none.
pub fn adopt<K: Object>(owner: &K, resource: Resource, key: ObjectKey, uid: &str) -> Write {
    let reference = controller_reference(owner);
    let patch = json!({"metadata": {"uid": uid, "ownerReferences": [{
        "apiVersion": reference.api_version, "kind": reference.kind, "name": reference.name,
        "uid": reference.uid, "controller": true, "blockOwnerDeletion": true,
    }]}});
    Write::patch(resource, key, "", PatchKind::Strategic, &patch)
}

/// Ends the control of `owner_uid` over an object.
pub fn release(owner_uid: &str, resource: Resource, key: ObjectKey, uid: &str) -> Write {
    let patch = json!({"metadata": {"uid": uid,
        "ownerReferences": [{"$patch": "delete", "uid": owner_uid}]}});
    let write = Write::patch(resource, key, "", PatchKind::Strategic, &patch);
    // Gone, or released already.
    write.tolerating("NotFound").tolerating("Invalid")
}

/// The check that comes before an adoption: the owner still exists and is not being deleted.
pub fn may_adopt<K: Object>(owner: &K) -> Check {
    Check::Alive(K::RESOURCE, owner.key(), owner.uid().to_owned())
}

/// The pods that a workload looks at: those it controls, and those that nothing controls and it selects.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// Controlled by the workload.
    pub owned: Vec<Arc<PodView>>,
    /// Controlled by nothing.
    pub orphans: Vec<Arc<PodView>>,
}

impl Candidates {
    /// Sorts out what `owner` has, takes and gives up, plans the taking and giving, and returns what it then has.
    pub fn claim<K: Object>(
        &self,
        owner: &K,
        selector: &LabelSelector,
        plan: &mut Plan,
    ) -> Vec<Arc<PodView>> {
        let pods = <gantry_api::core::Pod as Object>::RESOURCE;
        let (mut kept, lost): (Vec<_>, Vec<_>) =
            self.owned.iter().cloned().partition(|pod| selector.matches(pod.labels.as_deref()));
        if owner.is_terminating() {
            return kept;
        }
        let lost = lost.into_iter().filter(|pod| pod.deleted.is_none());
        plan.extend(lost.map(|pod| release(owner.uid(), pods.clone(), pod.view_key(), &pod.uid)));
        let adoptable = |pod: &&Arc<PodView>| pod.is_active() && selector.matches(pod.labels.as_deref());
        let adopted: Vec<_> = self.orphans.iter().filter(adoptable).cloned().collect();
        if !adopted.is_empty() {
            plan.push(may_adopt(owner));
            plan.next_stage();
            plan.extend(
                adopted
                    .iter()
                    .map(|pod| adopt(owner, pods.clone(), pod.view_key(), &pod.uid).tolerating("NotFound")),
            );
            plan.next_stage();
        }
        kept.extend(adopted);
        kept
    }
}

/// The key of a viewed pod.
pub trait ViewKey {
    /// Namespace and name.
    fn view_key(&self) -> ObjectKey;
}

impl ViewKey for PodView {
    fn view_key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace(), self.name())
    }
}
