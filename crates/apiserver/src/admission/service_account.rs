//! Pods run as a service account: the default one unless they name one, with its token mounted and its pull secrets.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::core::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
    ObjectFieldSelector, Pod, PodSpec, ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection,
    Volume, VolumeMount, VolumeProjection,
};
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_kinds::AnyObject;
use std::sync::Arc;

use super::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::identify::POD_TOKEN_SECONDS;
use crate::lookup::Accounts;

const DEFAULT_ACCOUNT: &str = "default";
const MIRROR: &str = "kubernetes.io/config.mirror";
const MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// The default account of a new namespace comes from a controller: it may take a moment.
const DEFAULT_ATTEMPTS: usize = 10;
const DEFAULT_WAIT: Duration = Duration::from_millis(100);
/// `0644`
const FILE_MODE: i32 = 0o644;

/// The plugin.
pub(super) struct ServiceAccounts {
    accounts: Accounts,
}

impl ServiceAccounts {
    pub(super) fn new(accounts: Accounts) -> Self {
        Self { accounts }
    }

    async fn account(
        &self,
        request: &AdmissionRequest<'_>,
        pod: &Pod,
        name: &str,
    ) -> Result<Arc<ServiceAccount>> {
        let attempts = if name == DEFAULT_ACCOUNT { DEFAULT_ATTEMPTS } else { 1 };
        let refuse = |why: String| {
            let what = format!("error looking up service account {}/{name}: {why}", request.namespace);
            forbidden(request, pod, what)
        };
        for attempt in 0..attempts {
            if attempt > 0 {
                tokio::time::sleep(DEFAULT_WAIT).await;
            }
            match self.accounts.get(request.namespace, name).await {
                Ok(Some(account)) => return Ok(account),
                Ok(None) => {}
                Err(error) => return Err(refuse(error.to_string())),
            }
        }
        Err(refuse(format!("serviceaccount \"{name}\" not found")))
    }
}

fn forbidden(request: &AdmissionRequest<'_>, pod: &Pod, why: String) -> ApiError {
    ApiError::forbidden(request.resource, pod.name(), why)
}

#[async_trait]
impl AdmissionPlugin for ServiceAccounts {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        let pods = resource.group.is_empty() && resource.plural == "pods";
        pods && matches!(
            (operation, subresource),
            (Operation::Create, "") | (Operation::Update, "ephemeralcontainers")
        )
    }

    async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        if request.operation != Operation::Create {
            return Ok(());
        }
        let Some(pod) = object.downcast_mut::<Pod>() else { return Ok(()) };
        if pod.annotation(MIRROR).is_some() {
            return check_mirror(request, pod);
        }
        let spec = pod.spec.get_or_insert_default();
        let name = spec
            .service_account_name
            .clone()
            .filter(|n| !n.is_empty())
            .unwrap_or_else(|| DEFAULT_ACCOUNT.into());
        let account = self.account(request, pod, &name).await?;
        let spec = pod.spec.get_or_insert_default();
        // The older name of the field is kept in step.
        spec.service_account = Some(name.clone());
        spec.service_account_name = Some(name);
        let wanted = spec.automount_service_account_token.or(account.automount_service_account_token);
        if wanted.unwrap_or(true) {
            mount_token(spec);
        }
        if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
            spec.image_pull_secrets = account.image_pull_secrets.clone().filter(|list| !list.is_empty());
        }
        Ok(())
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(pod) = object.and_then(|o| o.downcast::<Pod>()) else { return Ok(()) };
        let created = request.operation == Operation::Create;
        if created && pod.annotation(MIRROR).is_some() {
            return check_mirror(request, pod);
        }
        let Some(spec) = &pod.spec else { return Ok(()) };
        let name = spec.service_account_name.as_deref().unwrap_or("");
        if name.is_empty() {
            let why = format!("no service account specified for pod {}/{}", request.namespace, pod.name());
            return Err(forbidden(request, pod, why));
        }
        let account = self.account(request, pod, name).await?;
        if account
            .annotation(MOUNTABLE)
            .is_some_and(|v| matches!(v, "1" | "t" | "T" | "true" | "TRUE" | "True"))
        {
            match created {
                true => check_secrets(spec, &account).map_err(|why| forbidden(request, pod, why))?,
                // What is said here is upstream's text, which has no more to it.
                false => {
                    check_debuggers(spec, &account).map_err(|why| ApiError::new(403, "Forbidden", why))?
                }
            }
        }
        Ok(())
    }
}

fn check_mirror(request: &AdmissionRequest<'_>, pod: &Pod) -> Result<()> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let refuse = |why: &str| Err(forbidden(request, pod, why.to_owned()));
    if spec.service_account_name.as_deref().is_some_and(|n| !n.is_empty()) {
        return refuse("a mirror pod may not reference service accounts");
    }
    let projections = |v: &Volume| v.projected.clone().and_then(|p| p.sources).unwrap_or_default();
    let volumes = || spec.volumes.iter().flatten();
    let in_volumes =
        volumes().any(|v| v.secret.is_some() || projections(v).iter().any(|p| p.secret.is_some()));
    let pulls = spec.image_pull_secrets.as_ref().is_some_and(|s| !s.is_empty());
    if in_volumes || pulls || containers(spec).any(|(_, c)| !env_secrets(c).is_empty()) {
        return refuse("a mirror pod may not reference secrets");
    }
    if volumes().any(|v| projections(v).iter().any(|p| p.service_account_token.is_some())) {
        return refuse("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// Init containers and containers, each with the words that upstream calls it by.
fn containers(spec: &PodSpec) -> impl Iterator<Item = (&'static str, &Container)> {
    let init = spec.init_containers.iter().flatten().map(|c| ("init container", c));
    init.chain(spec.containers.iter().map(|c| ("container", c)))
}

/// Names of the secrets in a container's environment, each with the words that describe where.
fn env_secrets(container: &Container) -> Vec<(String, String)> {
    let single = container.env.iter().flatten().filter_map(|env| {
        let reference = env.value_from.as_ref()?.secret_key_ref.as_ref()?;
        Some((format!("envVar {}", env.name), reference.name.clone()))
    });
    let whole = container.env_from.iter().flatten().filter_map(|from| {
        let reference = from.secret_ref.as_ref()?;
        Some(("envFrom".to_owned(), reference.name.clone()))
    });
    single.chain(whole).collect()
}

/// The secrets of the pod must be those that the account names.
fn check_secrets(spec: &PodSpec, account: &ServiceAccount) -> Result<(), String> {
    let secrets = account.secrets.iter().flatten().filter_map(|s| s.name.as_deref());
    let mountable: HashSet<&str> = secrets.collect();
    let whose = format!("is not allowed because service account {} does not reference that", account.name());
    for volume in spec.volumes.iter().flatten() {
        if let Some(name) = volume.secret.as_ref().and_then(|s| s.secret_name.as_deref())
            && !mountable.contains(name)
        {
            return Err(format!("volume with secret.secretName=\"{name}\" {whose} secret"));
        }
    }
    for (what, container) in containers(spec) {
        for (place, name) in env_secrets(container) {
            if !mountable.contains(name.as_str()) {
                let container = &container.name;
                return Err(format!(
                    "{what} {container} with {place} referencing secret.secretName=\"{name}\" {whose} secret"
                ));
            }
        }
    }
    let pulls: HashSet<&str> = account.image_pull_secrets.iter().flatten().map(|s| s.name.as_str()).collect();
    for (i, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        if !pulls.contains(secret.name.as_str()) {
            return Err(format!("imagePullSecrets[{i}].name=\"{}\" {whose} imagePullSecret", secret.name));
        }
    }
    Ok(())
}

/// The same of ephemeral containers, which come by a way of their own.
fn check_debuggers(spec: &PodSpec, account: &ServiceAccount) -> Result<(), String> {
    let secrets = account.secrets.iter().flatten().filter_map(|s| s.name.as_deref());
    let mountable: HashSet<&str> = secrets.collect();
    for debugger in spec.ephemeral_containers.iter().flatten() {
        let container = Container {
            env: debugger.env.clone(),
            env_from: debugger.env_from.clone(),
            ..Container::default()
        };
        for (place, name) in env_secrets(&container) {
            if !mountable.contains(name.as_str()) {
                return Err(format!(
                    "ephemeral container {} with {place} referencing secret.secretName=\"{name}\" is not allowed because service account {} does not reference that secret",
                    debugger.name,
                    account.name()
                ));
            }
        }
    }
    Ok(())
}

/// Mounts the token where a container has nothing mounted in its place.
fn mount_token(spec: &mut PodSpec) {
    let existing =
        spec.volumes.iter().flatten().find(|v| v.name.starts_with(VOLUME_PREFIX)).map(|v| v.name.clone());
    let name = existing.clone().unwrap_or_else(|| crate::verbs::lifecycle::generated_name(VOLUME_PREFIX));
    let mount = VolumeMount {
        name: name.clone(),
        read_only: Some(true),
        mount_path: TOKEN_PATH.to_owned(),
        ..VolumeMount::default()
    };
    let mut needed = false;
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        let mounts = container.volume_mounts.get_or_insert_default();
        if !mounts.iter().any(|m| m.mount_path == TOKEN_PATH) {
            mounts.push(mount.clone());
            needed = true;
        }
    }
    if needed && existing.is_none() {
        let volume = Volume { name, projected: Some(token_source()), ..Volume::default() };
        spec.volumes.get_or_insert_default().push(volume);
    }
}

fn token_source() -> ProjectedVolumeSource {
    let token = ServiceAccountTokenProjection {
        path: "token".to_owned(),
        expiration_seconds: Some(POD_TOKEN_SECONDS),
        audience: None,
    };
    let authority = ConfigMapProjection {
        name: "kube-root-ca.crt".to_owned(),
        items: Some(vec![KeyToPath { key: "ca.crt".into(), path: "ca.crt".into(), mode: None }]),
        optional: None,
    };
    let field =
        ObjectFieldSelector { api_version: Some("v1".into()), field_path: "metadata.namespace".into() };
    let file = DownwardAPIVolumeFile {
        path: "namespace".into(),
        field_ref: Some(field),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(authority), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![file]) }),
            ..VolumeProjection::default()
        },
    ];
    ProjectedVolumeSource { default_mode: Some(FILE_MODE), sources: Some(sources) }
}
