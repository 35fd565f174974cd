//! The tolerations that a namespace's pods get, and those that they may have: by annotations of the namespace, and by
//! configuration.
//!
//! Behaviour and texts: `plugin/pkg/admission/podtolerationrestriction`.

use async_trait::async_trait;
use gantry_api::core::{Namespace, Pod, Toleration};
use gantry_api::status::Result;
use gantry_api::{ApiError, Object, Resource};
use gantry_kinds::AnyObject;
use gantry_kinds::resources::qos_class;
use serde::Deserialize;

use super::common::{is_pod, is_write};
use super::registry::PluginDeps;
use super::{AdmissionPlugin, AdmissionRequest, Operation, tolerations};
use crate::lookup::Namespaces;

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

/// The plugin.
pub(super) struct PodTolerationRestriction {
    namespaces: Namespaces,
    config: Config,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    default: Vec<Toleration>,
    whitelist: Vec<Toleration>,
}

impl PodTolerationRestriction {
    pub(super) fn new(deps: &PluginDeps) -> gantry_base::Result<Self> {
        let config = deps.options.configuration_of("PodTolerationRestriction")?;
        Ok(Self { namespaces: deps.namespaces(), config })
    }

    /// What an annotation of the namespace says; `None` if it has none.
    async fn of_namespace(&self, namespace: &str, key: &str) -> Result<Option<Vec<Toleration>>> {
        let found = self.namespaces.get(namespace).await?;
        let found = found.ok_or_else(|| ApiError::not_found(&Namespace::RESOURCE, namespace))?;
        match found.annotations.get(key).map(String::as_str) {
            None => Ok(None),
            Some("") => Ok(Some(Vec::new())),
            Some(text) => serde_json::from_str(text).map(Some).map_err(ApiError::internal),
        }
    }

    async fn check(&self, namespace: &str, pod: &Pod) -> Result<()> {
        let own = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
        if own.is_empty() {
            return Ok(());
        }
        let (allowed, scope) = match self.of_namespace(namespace, ALLOWED).await? {
            Some(list) => (list, "namespace"),
            None => (self.config.whitelist.clone(), "cluster"),
        };
        if tolerations::all_covered(own, &allowed) {
            return Ok(());
        }
        Err(ApiError::internal(format!(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
        )))
    }
}

#[async_trait]
impl AdmissionPlugin for PodTolerationRestriction {
    fn name(&self) -> &'static str {
        "PodTolerationRestriction"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        is_write(operation) && is_pod(resource, subresource)
    }

    async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(pod) = object.downcast_mut::<Pod>() else { return Ok(()) };
        let mut extra = Vec::new();
        if request.operation == Operation::Create {
            let own = self.of_namespace(request.namespace, DEFAULTS).await?;
            extra = own.unwrap_or_else(|| self.config.default.clone());
        }
        if qos_class(pod) != "BestEffort" {
            extra.push(Toleration {
                key: Some("node.kubernetes.io/memory-pressure".to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoSchedule".to_owned()),
                ..Toleration::default()
            });
        }
        if !extra.is_empty() {
            let spec = pod.spec.get_or_insert_default();
            let own = spec.tolerations.take().unwrap_or_default();
            spec.tolerations = Some(tolerations::merge(&own, &extra));
        }
        self.check(request.namespace, pod).await
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        match object.and_then(|o| o.downcast::<Pod>()) {
            Some(pod) => self.check(request.namespace, pod).await,
            None => Ok(()),
        }
    }
}
