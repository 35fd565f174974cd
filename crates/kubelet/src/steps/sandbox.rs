//! A pod's sandbox: its configuration, its creation.

use std::path::PathBuf;

use gantry_api::core::Pod;
use gantry_api::meta::MetaExt;
use gantry_base::{Class, Error, Result};
use gantry_cri::v1;

use crate::engine::core::Core;
use crate::pod;
use crate::steps::{dns, hosts, labels, resources, security};

/// Where the logs of a pod's containers live.
pub fn log_directory(core: &Core, pod: &Pod) -> PathBuf {
    core.options.log_dir.join(format!("{}_{}_{}", pod.namespace(), pod.name(), pod.uid()))
}

/// The sandbox's configuration: the same for the same pod and attempt.
///
/// # Errors
/// The pod asks for something that cannot be.
pub fn config(core: &Core, pod: &Pod, attempt: u32) -> Result<v1::PodSandboxConfig> {
    let hostname = if pod::host_network(pod) {
        String::new()
    } else {
        hosts::kernel_name(pod, &core.options.cluster_domain).map_err(Error::invalid)?
    };
    let dns = dns::config(pod, &core.options)
        .map_err(|e| Error::from(e).while_doing("read the resolver configuration"))?;
    Ok(v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            namespace: pod.namespace().to_owned(),
            attempt,
        }),
        hostname,
        log_directory: log_directory(core, pod).display().to_string(),
        dns_config: Some(dns),
        port_mappings: port_mappings(pod),
        labels: labels::sandbox_labels(pod),
        annotations: labels::sandbox_annotations(pod),
        linux: Some(linux(core, pod)),
        windows: None,
    })
}

fn linux(core: &Core, pod: &Pod) -> v1::LinuxPodSandboxConfig {
    let context = pod::spec(pod).security_context.as_ref();
    let value = |v: Option<i64>| v.map(|value| v1::Int64Value { value });
    let sysctls = context.and_then(|c| c.sysctls.as_ref()).into_iter().flatten();
    let millis = |q: Option<gantry_api::Quantity>| q.map_or(0, |q| q.millis());
    v1::LinuxPodSandboxConfig {
        cgroup_parent: core.cgroups.parent_for_runtime(pod),
        security_context: Some(v1::LinuxSandboxSecurityContext {
            namespace_options: Some(security::namespaces(pod, None)),
            selinux_options: context.and_then(|c| c.se_linux_options.as_ref()).map(security::selinux),
            run_as_user: value(context.and_then(|c| c.run_as_user)),
            run_as_group: value(context.and_then(|c| c.run_as_group)),
            supplemental_groups: security::groups(pod),
            supplemental_groups_policy: security::groups_policy(pod),
            privileged: security::any_privileged(pod),
            seccomp: Some(v1::SecurityProfile::default()),
            ..Default::default()
        }),
        // runc takes the dotted form only.
        sysctls: sysctls.map(|s| (s.name.replace('/', "."), s.value.clone())).collect(),
        overhead: None,
        resources: Some(v1::LinuxContainerResources {
            cpu_shares: resources::shares(pod::total_request(pod, "cpu").millis()),
            cpu_period: resources::CPU_PERIOD,
            cpu_quota: resources::quota(millis(pod::total_limit(pod, "cpu"))),
            memory_limit_in_bytes: pod::total_limit(pod, "memory").map_or(0, |q| q.value()),
            ..Default::default()
        }),
    }
}

fn port_mappings(pod: &Pod) -> Vec<v1::PortMapping> {
    let sidecars = pod::init_containers(pod).iter().filter(|c| pod::is_sidecar(c));
    let ports = pod::containers(pod).iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let mapping = |port: &gantry_api::core::ContainerPort| v1::PortMapping {
        protocol: match port.protocol.as_deref() {
            Some("UDP") => v1::Protocol::Udp as i32,
            Some("SCTP") => v1::Protocol::Sctp as i32,
            _ => v1::Protocol::Tcp as i32,
        },
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or(0),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    };
    ports.map(mapping).collect()
}

/// The runtime handler of the pod's runtime class; empty for the default one.
///
/// # Errors
/// The class does not exist, or the API cannot be asked.
pub async fn handler(core: &Core, pod: &Pod) -> Result<String> {
    let Some(class) = pod::spec(pod).runtime_class_name.as_deref().filter(|c| !c.is_empty()) else {
        return Ok(String::new());
    };
    let path = format!("/apis/node.k8s.io/v1/runtimeclasses/{class}");
    let bytes = core.options.transport.raw(&path).await.map_err(|error| {
        let error = Error::from(error);
        match error.class() {
            Class::Missing => Error::missing(format!("RuntimeClass {class:?} not found")),
            _ => error.while_doing(format!("get RuntimeClass {class:?}")),
        }
    })?;
    let object: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|e| Error::invalid("a RuntimeClass cannot be read").because(e))?;
    Ok(object["handler"].as_str().unwrap_or_default().to_owned())
}

/// Creates the sandbox and returns its id.
///
/// # Errors
/// The runtime's, or the pod asks for something that cannot be.
pub async fn create(core: &Core, pod: &Pod, attempt: u32) -> Result<String> {
    let config = config(core, pod, attempt)?;
    tokio::fs::create_dir_all(&config.log_directory).await?;
    let handler = handler(core, pod).await?;
    core.options.runtime.run_pod_sandbox(&config, &handler).await
}
