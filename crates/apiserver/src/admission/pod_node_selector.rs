//! The nodes that a namespace's pods may run on: by an annotation of the namespace, and by configuration.
//!
//! Behaviour and texts: `plugin/pkg/admission/podnodeselector`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use gantry_api::core::{Namespace, Pod};
use gantry_api::selector::Labels;
use gantry_api::status::Result;
use gantry_api::{ApiError, Object, Resource};
use gantry_kinds::AnyObject;
use serde::Deserialize;

use super::common::{forbidden, is_pod};
use super::registry::PluginDeps;
use super::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::lookup::Namespaces;

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
const DEFAULT: &str = "clusterDefaultNodeSelector";

/// The plugin.
pub(super) struct PodNodeSelector {
    namespaces: Namespaces,
    /// By namespace: what the selectors of its pods must stay within; and the default for namespaces that say nothing.
    configured: BTreeMap<String, Labels>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    pod_node_selector_plugin_config: BTreeMap<String, String>,
}

impl PodNodeSelector {
    pub(super) fn new(deps: &PluginDeps) -> gantry_base::Result<Self> {
        let config: Config = deps.options.configuration_of("PodNodeSelector")?;
        let configured = config.pod_node_selector_plugin_config.into_iter().map(|(namespace, text)| {
            let labels = parse(&text).map_err(|e| {
                gantry_base::Error::invalid(format!("PodNodeSelector's configuration: {namespace}: {e}"))
            })?;
            Ok((namespace, labels))
        });
        let configured = configured.collect::<gantry_base::Result<_>>()?;
        Ok(Self { namespaces: deps.namespaces(), configured })
    }

    async fn selector(&self, namespace: &str) -> Result<Labels> {
        let found = self.namespaces.get(namespace).await?;
        let found = found.ok_or_else(|| ApiError::not_found(&Namespace::RESOURCE, namespace))?;
        match found.annotations.get(ANNOTATION) {
            Some(text) => parse(text).map_err(ApiError::internal),
            None => Ok(self.configured.get(DEFAULT).cloned().unwrap_or_default()),
        }
    }

    async fn check(&self, request: &AdmissionRequest<'_>, object: &dyn AnyObject) -> Result<Labels> {
        let wanted = self.selector(request.namespace).await?;
        let own = own(object);
        if own.iter().any(|(key, value)| wanted.get(key).is_some_and(|w| w != value)) {
            let why = "pod node label selector conflicts with its namespace node label selector";
            return Err(forbidden(request, Some(object), why));
        }
        Ok(wanted)
    }

    fn check_list(&self, request: &AdmissionRequest<'_>, object: &dyn AnyObject) -> Result<()> {
        let allowed = self.configured.get(request.namespace).filter(|list| !list.is_empty());
        let within = |list: &Labels| own(object).iter().all(|(key, value)| list.get(key) == Some(value));
        if allowed.is_none_or(within) {
            return Ok(());
        }
        let why = "pod node label selector labels conflict with its namespace whitelist";
        Err(forbidden(request, Some(object), why))
    }
}

fn own(object: &dyn AnyObject) -> Labels {
    let spec = object.downcast::<Pod>().and_then(|p| p.spec.as_ref());
    spec.and_then(|s| s.node_selector.clone()).unwrap_or_default()
}

/// `a=b,c=d`
fn parse(text: &str) -> Result<Labels, String> {
    let mut labels = Labels::new();
    for pair in text.split(',').filter(|_| !text.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("invalid selector: {text}"))?;
        gantry_api::names::qualified_name(key.trim())?;
        gantry_api::names::label_value(value.trim())?;
        labels.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(labels)
}

#[async_trait]
impl AdmissionPlugin for PodNodeSelector {
    fn name(&self) -> &'static str {
        "PodNodeSelector"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Create && is_pod(resource, subresource)
    }

    async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let mut selector = self.check(request, object).await?;
        selector.extend(own(object));
        if let Some(pod) = object.downcast_mut::<Pod>() {
            pod.spec.get_or_insert_default().node_selector = Some(selector).filter(|s| !s.is_empty());
        }
        self.check_list(request, object)
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(object) = object else { return Ok(()) };
        self.check(request, object).await?;
        self.check_list(request, object)
    }
}
