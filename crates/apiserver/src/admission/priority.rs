//! The priority of a pod from its class: of the class that it names, or of the default one.
//!
//! Behaviour and texts: `plugin/pkg/admission/priority`.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::Resource;
use gantry_api::core::Pod;
use gantry_api::meta::{MetaExt, ObjectKey};
use gantry_api::scheduling::PriorityClass;
use gantry_api::status::Result;
use gantry_client::{Informer, InformerSet};
use gantry_kinds::AnyObject;

use super::common::{forbidden, is_pod, is_write};
use super::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::lookup::Lookup;

/// The classes that every cluster has; they hold even before they are created.
const SYSTEM: [(&str, i32); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
const POLICY: &str = "PreemptLowerPriority";

/// The plugin.
pub(super) struct Priority {
    classes: Informer<PriorityClass>,
    lookup: Lookup,
}

/// What a class gives.
struct Established {
    class: String,
    priority: i32,
    policy: Option<String>,
}

impl Priority {
    pub(super) fn new(informers: &InformerSet, lookup: Lookup) -> Self {
        Self { classes: informers.of(), lookup }
    }

    /// The default class; of several, the one with the lowest value.
    fn default_class(&self) -> Option<Arc<PriorityClass>> {
        let classes = self.classes.list();
        let defaults = classes.into_iter().filter(|c| c.global_default == Some(true));
        defaults.min_by_key(|c| c.value.unwrap_or(0))
    }

    async fn establish(&self, name: &str) -> Result<Option<Established>> {
        let of = |class: &PriorityClass| Established {
            class: class.name().to_owned(),
            priority: class.value.unwrap_or(0),
            policy: class.preemption_policy.clone(),
        };
        if name.is_empty() {
            let none = || Established { class: String::new(), priority: 0, policy: Some(POLICY.to_owned()) };
            return Ok(Some(self.default_class().as_deref().map_or_else(none, of)));
        }
        if let Some(class) = self.classes.get(&ObjectKey::cluster(name)) {
            return Ok(Some(of(&class)));
        }
        if let Some((_, priority)) = SYSTEM.iter().find(|(known, _)| *known == name) {
            let (class, policy) = (name.to_owned(), Some(POLICY.to_owned()));
            return Ok(Some(Established { class, priority: *priority, policy }));
        }
        Ok(self.lookup.find::<PriorityClass>("", name).await?.as_deref().map(of))
    }

    async fn new_pod(&self, request: &AdmissionRequest<'_>, object: &mut dyn AnyObject) -> Result<()> {
        let refuse = |object: &dyn AnyObject, why: String| Err(forbidden(request, Some(object), why));
        let Some(pod) = object.downcast::<Pod>() else { return Ok(()) };
        let named = pod.spec.as_ref().and_then(|s| s.priority_class_name.as_deref()).unwrap_or("");
        let Some(found) = self.establish(named).await? else {
            return refuse(object, format!("no PriorityClass with name {named} was found"));
        };
        let (priority, policy) =
            pod.spec.as_ref().map_or((None, None), |s| (s.priority, s.preemption_policy.clone()));
        if let Some(given) = priority.filter(|given| *given != found.priority) {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
                found.priority
            );
            return refuse(object, why);
        }
        if let (Some(given), Some(computed)) = (&policy, &found.policy)
            && given != computed
        {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {computed} from the given PriorityClass name"
            );
            return refuse(object, why);
        }
        let Some(pod) = object.downcast_mut::<Pod>() else { return Ok(()) };
        let spec = pod.spec.get_or_insert_default();
        spec.priority_class_name = Some(found.class).filter(|class| !class.is_empty());
        spec.priority = Some(found.priority);
        if found.policy.is_some() {
            spec.preemption_policy = found.policy;
        }
        Ok(())
    }
}

#[async_trait]
impl AdmissionPlugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        let class = resource.group == "scheduling.k8s.io" && resource.plural == "priorityclasses";
        is_write(operation) && (is_pod(resource, subresource) || (class && subresource.is_empty()))
    }

    async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(old) = old else { return self.new_pod(request, object).await };
        let Some(pod) = object.downcast_mut::<Pod>() else { return Ok(()) };
        let Some(old) = old.downcast::<Pod>().and_then(|p| p.spec.as_ref()) else { return Ok(()) };
        let spec = pod.spec.get_or_insert_default();
        spec.priority = spec.priority.or(old.priority);
        if spec.preemption_policy.is_none() {
            spec.preemption_policy.clone_from(&old.preemption_policy);
        }
        Ok(())
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(class) = object.and_then(|o| o.downcast::<PriorityClass>()) else { return Ok(()) };
        let default = self.default_class().filter(|_| class.global_default == Some(true));
        match default {
            Some(other) if request.operation == Operation::Create || other.name() != class.name() => {
                let why = format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    other.name()
                );
                Err(forbidden(request, object, why))
            }
            _ => Ok(()),
        }
    }
}
