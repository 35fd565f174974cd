//! Pod Security: the levels `privileged`, `baseline` and `restricted` of a namespace, enforced on pods, audited and
//! warned about on pods and on what makes pods.
//!
//! Behaviour and texts: `staging/src/k8s.io/pod-security-admission`. Its configuration is a
//! `PodSecurityConfiguration` (defaults and exemptions).

mod baseline;
mod check;
mod config;
mod existing;
mod levels;
mod restricted;

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::core::{Namespace, Pod, PodSpec, PodTemplate, PodTemplateSpec, ReplicationController};
use gantry_api::meta::MetaExt;
use gantry_api::metav1::ObjectMeta;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource, apps, batch};
use gantry_base::Clock;
use gantry_client::Transport;
use gantry_kinds::AnyObject;

use super::registry::PluginDeps;
use super::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::lookup::Namespaces;
use config::Config;
use levels::{Level, LevelVersion, PREFIX, Policy};

/// Subresources of pods that carry no spec, or change none.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// The plugin.
pub(super) struct PodSecurity {
    namespaces: Namespaces,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    config: Config,
}

impl PodSecurity {
    pub(super) fn new(deps: &PluginDeps) -> gantry_base::Result<Self> {
        let config = Config::read(&deps.options)?;
        Ok(Self {
            namespaces: deps.namespaces(),
            transport: Arc::clone(&deps.transport),
            clock: deps.clock(),
            config,
        })
    }

    async fn namespace(
        &self,
        request: &AdmissionRequest<'_>,
        new: &Namespace,
        old: Option<&Namespace>,
    ) -> Result<()> {
        let labels = |n: &Namespace| n.metadata.labels.clone().unwrap_or_default();
        let new_labels = labels(new);
        let (policy, errors) = Policy::of(&new_labels, &self.config.defaults);
        let invalid = || Err(ApiError::invalid(request.resource, new.name(), &errors));
        let warn_if_exempt = || {
            let warning = self.config.exemption_warning(new.name(), &policy, &new_labels);
            warning.into_iter().for_each(|text| request.warnings.add(text));
        };
        let exempt = self.config.exempts_namespace(new.name());
        let Some(old) = old else {
            if !errors.is_empty() {
                return invalid();
            }
            if exempt {
                warn_if_exempt();
            }
            return Ok(());
        };
        let (before, old_errors) = Policy::of(&labels(old), &self.config.defaults);
        if !errors.is_empty() && errors != old_errors {
            return invalid();
        }
        let (now, then) = (policy.enforce, before.enforce);
        let relaxed = now.version == then.version && now.level <= then.level;
        if now == then || now.level == Level::Privileged || relaxed {
            return Ok(());
        }
        if exempt {
            warn_if_exempt();
            return Ok(());
        }
        let found = existing::violations(&*self.transport, &*self.clock, &self.config, new.name(), now).await;
        found.into_iter().for_each(|text| request.warnings.add(text));
        Ok(())
    }

    /// The policy of the request's namespace; `None` if it, or who asks, is exempt.
    async fn policy(
        &self,
        request: &AdmissionRequest<'_>,
    ) -> Result<Option<(Policy, Vec<gantry_api::field::Error>)>> {
        let exempt = |reason: &str| request.warnings.annotate(format!("{PREFIX}exempt"), reason);
        if self.config.exempts_namespace(request.namespace) {
            exempt("namespace");
            return Ok(None);
        }
        if self.config.exempts_user(&request.user.name) {
            exempt("user");
            return Ok(None);
        }
        let namespace = self.namespaces.get(request.namespace).await?.ok_or_else(|| {
            ApiError::internal(format!("failed to lookup namespace {:?}", request.namespace))
        })?;
        Ok(Some(Policy::of(&namespace.labels, &self.config.defaults)))
    }

    async fn pod(&self, request: &AdmissionRequest<'_>, pod: &Pod, old: Option<&Pod>) -> Result<()> {
        let Some((policy, errors)) = self.policy(request).await? else { return Ok(()) };
        if errors.is_empty() && policy.is_privileged() {
            request.warnings.annotate(format!("{PREFIX}enforce-policy"), policy.enforce.to_string());
            return Ok(());
        }
        if old.is_some_and(|old| !is_significant(pod, old)) {
            return Ok(());
        }
        let Some(spec) = &pod.spec else { return Ok(()) };
        self.evaluate(request, &policy, &errors, &pod.metadata, spec, true)
    }

    async fn template(&self, request: &AdmissionRequest<'_>, template: &PodTemplateSpec) -> Result<()> {
        let (policy, errors) = match self.policy(request).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(()),
            // What only warns must not stand in the way.
            Err(error) => {
                request.warnings.annotate(format!("{PREFIX}error"), error.message());
                return Ok(());
            }
        };
        let quiet = policy.warn.level == Level::Privileged && policy.audit.level == Level::Privileged;
        let (Some(spec), false) = (&template.spec, errors.is_empty() && quiet) else { return Ok(()) };
        let meta = template.metadata.clone().unwrap_or_default();
        self.evaluate(request, &policy, &errors, &meta, spec, false)
    }

    fn evaluate(
        &self,
        request: &AdmissionRequest<'_>,
        policy: &Policy,
        errors: &[gantry_api::field::Error],
        meta: &ObjectMeta,
        spec: &PodSpec,
        enforce: bool,
    ) -> Result<()> {
        let note = |key: &str, value: String| request.warnings.annotate(format!("{PREFIX}{key}"), value);
        if self.config.exempts_runtime_class(spec.runtime_class_name.as_deref()) {
            note("exempt", "runtimeClass".to_owned());
            return Ok(());
        }
        if !errors.is_empty() {
            note("error", format!("Failed to parse policy: {}", gantry_api::field::aggregate(errors)));
        }
        let violation = |policy: LevelVersion| {
            let found = check::evaluate(policy, meta, spec);
            (!found.is_empty()).then(|| format!("PodSecurity \"{policy}\": {}", check::details(&found)))
        };
        let mut refused = None;
        if enforce {
            note("enforce-policy", policy.enforce.to_string());
            refused = violation(policy.enforce);
        }
        if let Some(text) = violation(policy.audit) {
            note("audit-violations", format!("would violate {text}"));
        }
        if let Some(text) = refused {
            return Err(ApiError::forbidden(request.resource, request.name, format!("violates {text}")));
        }
        if let Some(text) = violation(policy.warn) {
            request.warnings.add(format!("would violate {text}"));
        }
        Ok(())
    }
}

/// Whether an update brings in a container or an image.
fn is_significant(new: &Pod, old: &Pod) -> bool {
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return true };
    let images =
        |list: &[gantry_api::core::Container]| list.iter().map(|c| c.image.clone()).collect::<Vec<_>>();
    let init = |spec: &PodSpec| images(spec.init_containers.as_deref().unwrap_or_default());
    if images(&new.containers) != images(&old.containers) || init(new) != init(old) {
        return true;
    }
    let before = |name: &str| old.ephemeral_containers.iter().flatten().find(|c| c.name == name);
    new.ephemeral_containers.iter().flatten().any(|c| before(&c.name).is_none_or(|b| b.image != c.image))
}

/// The pod template of what makes pods.
fn template(object: &dyn AnyObject) -> Option<&PodTemplateSpec> {
    if let Some(o) = object.downcast::<apps::ReplicaSet>() {
        return o.spec.as_ref()?.template.as_ref();
    }
    if let Some(o) = object.downcast::<apps::Deployment>() {
        return Some(&o.spec.as_ref()?.template);
    }
    if let Some(o) = object.downcast::<apps::StatefulSet>() {
        return Some(&o.spec.as_ref()?.template);
    }
    if let Some(o) = object.downcast::<apps::DaemonSet>() {
        return Some(&o.spec.as_ref()?.template);
    }
    if let Some(o) = object.downcast::<batch::Job>() {
        return Some(&o.spec.as_ref()?.template);
    }
    if let Some(o) = object.downcast::<batch::CronJob>() {
        return Some(&o.spec.job_template.spec.as_ref()?.template);
    }
    if let Some(o) = object.downcast::<ReplicationController>() {
        return o.spec.as_ref()?.template.as_ref();
    }
    object.downcast::<PodTemplate>()?.template.as_ref()
}

#[async_trait]
impl AdmissionPlugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        if !matches!(operation, Operation::Create | Operation::Update) {
            return false;
        }
        match (&*resource.group, &*resource.plural) {
            ("", "pods") => !IGNORED.contains(&subresource),
            ("", "namespaces" | "replicationcontrollers" | "podtemplates")
            | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
            | ("batch", "jobs" | "cronjobs") => subresource.is_empty(),
            _ => false,
        }
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(object) = object else { return Ok(()) };
        if let Some(pod) = object.downcast::<Pod>() {
            return self.pod(request, pod, old.and_then(|o| o.downcast())).await;
        }
        if let Some(namespace) = object.downcast::<Namespace>() {
            return self.namespace(request, namespace, old.and_then(|o| o.downcast())).await;
        }
        match template(object) {
            Some(template) => self.template(request, template).await,
            None => Ok(()),
        }
    }
}
