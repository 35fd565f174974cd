//! Conditions of a status list: find, set, compare.

use crate::metav1::Time;

/// What all the condition types of the API share.
pub trait Condition {
    /// `type`
    fn kind(&self) -> &str;
    /// `status`: `True`, `False` or `Unknown`.
    fn status(&self) -> &str;
    /// `reason`
    fn reason(&self) -> &str;
    /// `message`
    fn message(&self) -> &str;
    /// `lastTransitionTime`
    fn transition(&self) -> Option<&Time>;
    /// Sets `lastTransitionTime`.
    fn set_transition(&mut self, at: Option<Time>);
}

macro_rules! conditions {
    ($($ty:path),* $(,)?) => {$(
        impl Condition for $ty {
            fn kind(&self) -> &str { &self.type_ }
            fn status(&self) -> &str { &self.status }
            fn reason(&self) -> &str { self.reason.as_deref().unwrap_or("") }
            fn message(&self) -> &str { self.message.as_deref().unwrap_or("") }
            fn transition(&self) -> Option<&Time> { self.last_transition_time.as_ref() }
            fn set_transition(&mut self, at: Option<Time>) { self.last_transition_time = at; }
        }
    )*};
}

conditions! {
    crate::core::PodCondition, crate::core::NodeCondition, crate::core::NamespaceCondition,
    crate::core::PersistentVolumeClaimCondition, crate::apps::DeploymentCondition, crate::apps::ReplicaSetCondition,
    crate::apps::StatefulSetCondition, crate::apps::DaemonSetCondition, crate::batch::JobCondition,
    crate::apiextensions::CustomResourceDefinitionCondition, crate::apiregistration::APIServiceCondition,
}

/// The condition of this type.
pub fn find<'a, C: Condition>(list: Option<&'a Vec<C>>, kind: &str) -> Option<&'a C> {
    list?.iter().find(|c| c.kind() == kind)
}

/// Whether the condition of this type is `True`.
pub fn is_true<C: Condition>(list: Option<&Vec<C>>, kind: &str) -> bool {
    find(list, kind).is_some_and(|c| c.status() == "True")
}

/// Puts `new` into the list. The transition time of the old one stays if the status does. Returns whether
/// anything that a reader cares about (status, reason, message) changed.
pub fn set<C: Condition>(list: &mut Option<Vec<C>>, mut new: C) -> bool {
    let list = list.get_or_insert_default();
    match list.iter_mut().find(|c| c.kind() == new.kind()) {
        None => {
            list.push(new);
            true
        }
        Some(old) => {
            if old.status() == new.status() {
                new.set_transition(old.transition().cloned());
            }
            let changed = old.status() != new.status()
                || old.reason() != new.reason()
                || old.message() != new.message();
            *old = new;
            changed
        }
    }
}
