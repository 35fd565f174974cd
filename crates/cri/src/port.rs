//! The port itself: what the kubelet asks of a container runtime.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_base::Result;

use crate::{Events, v1};

/// A container runtime, as CRI v1 describes it.
///
/// Every call has a deadline of its own and can be dropped at any await point. Errors carry the class that fits
/// ([`gantry_base::Class::Missing`] for an unknown id, `Retry` for an unreachable runtime or a deadline) and the
/// runtime's status ([`crate::rpc_code`], [`crate::is_unsupported`], [`crate::is_deadline_exceeded`]).
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// The names and versions of the runtime.
    async fn version(&self) -> Result<v1::VersionResponse>;

    /// The conditions `RuntimeReady` and `NetworkReady`, the handlers and features; `verbose` adds `info`.
    async fn status(&self, verbose: bool) -> Result<v1::StatusResponse>;

    /// The cgroup driver that the runtime is set to. `None`: the runtime does not have the call (containerd
    /// before 2.0), so that the kubelet's own setting decides.
    async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>>;

    /// Tells the runtime the pod network of this node (one CIDR, or two with commas); only a runtime that
    /// generates its own CNI configuration cares.
    async fn update_runtime_config(&self, pod_cidr: &str) -> Result<()>;

    /// Creates and starts a pod sandbox, and returns its id. `handler` is the runtime class's, "" the default.
    async fn run_pod_sandbox(&self, config: &v1::PodSandboxConfig, handler: &str) -> Result<String>;

    /// Stops whatever runs in the sandbox and gives its network back. Idempotent.
    async fn stop_pod_sandbox(&self, sandbox_id: &str) -> Result<()>;

    /// Removes the sandbox and its containers. Idempotent.
    async fn remove_pod_sandbox(&self, sandbox_id: &str) -> Result<()>;

    /// The status of a sandbox; with the containers' statuses where the runtime gives them (not containerd 1.6).
    async fn pod_sandbox_status(
        &self,
        sandbox_id: &str,
        verbose: bool,
    ) -> Result<v1::PodSandboxStatusResponse>;

    /// The sandboxes that match.
    async fn list_pod_sandboxes(&self, filter: Option<v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>>;

    /// Applies the pod-level resources; best effort by CRI's words, and missing from older runtimes.
    async fn update_pod_sandbox_resources(&self, request: v1::UpdatePodSandboxResourcesRequest)
    -> Result<()>;

    /// Creates a container in a sandbox and returns its id. `sandbox_config` is the one the sandbox got.
    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &v1::ContainerConfig,
        sandbox_config: &v1::PodSandboxConfig,
    ) -> Result<String>;

    /// Starts a created container.
    async fn start_container(&self, container_id: &str) -> Result<()>;

    /// Stops a container: its stop signal, then SIGKILL after `grace` (rounded up to seconds; zero kills at
    /// once). Returns when it has ended. Idempotent.
    async fn stop_container(&self, container_id: &str, grace: Duration) -> Result<()>;

    /// Removes a container, running or not. Idempotent.
    async fn remove_container(&self, container_id: &str) -> Result<()>;

    /// The containers that match.
    async fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>>;

    /// The status of a container; `verbose` adds `info` (JSON with the pid and the OCI spec).
    async fn container_status(
        &self,
        container_id: &str,
        verbose: bool,
    ) -> Result<v1::ContainerStatusResponse>;

    /// Changes the resources of a container.
    async fn update_container_resources(
        &self,
        container_id: &str,
        resources: v1::LinuxContainerResources,
    ) -> Result<()>;

    /// Makes the runtime open the container's log file anew, after it was rotated.
    async fn reopen_container_log(&self, container_id: &str) -> Result<()>;

    /// Writes a checkpoint of a container to the archive `location` (an absolute path).
    async fn checkpoint_container(&self, container_id: &str, location: &str, timeout: Duration)
    -> Result<()>;

    /// Runs a command in a container and waits for its end. After `timeout` (zero: none) the runtime kills it
    /// and the error is a [`crate::is_deadline_exceeded`].
    async fn exec_sync(
        &self,
        container_id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput>;

    /// Prepares a streaming exec; returns the URL of the runtime's streaming server.
    async fn exec(&self, request: v1::ExecRequest) -> Result<String>;

    /// Prepares a streaming attach; returns the URL of the runtime's streaming server.
    async fn attach(&self, request: v1::AttachRequest) -> Result<String>;

    /// Prepares a port forward; returns the URL of the runtime's streaming server.
    async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String>;

    /// The usage of one container.
    async fn container_stats(&self, container_id: &str) -> Result<v1::ContainerStats>;

    /// The usage of the containers that match. containerd 1.6 leaves `usage_nano_cores` at 0.
    async fn list_container_stats(
        &self,
        filter: Option<v1::ContainerStatsFilter>,
    ) -> Result<Vec<v1::ContainerStats>>;

    /// The usage of one pod sandbox and its containers.
    async fn pod_sandbox_stats(&self, sandbox_id: &str) -> Result<v1::PodSandboxStats>;

    /// The usage of the pod sandboxes that match.
    async fn list_pod_sandbox_stats(
        &self,
        filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>>;

    /// Subscribes to what happens to containers from now on.
    async fn events(&self) -> Result<Events>;

    /// The images on this node, or the ones that the reference names.
    async fn list_images(&self, filter: Option<v1::ImageSpec>) -> Result<Vec<v1::Image>>;

    /// The image that a reference names; `image` is `None` in the answer if it is not on this node.
    async fn image_status(&self, image: &v1::ImageSpec, verbose: bool) -> Result<v1::ImageStatusResponse>;

    /// Pulls an image and returns the reference under which it is known (an id or a digest). It has no deadline
    /// (the runtime has one for lack of progress): drop the future to give up.
    async fn pull_image(
        &self,
        image: &v1::ImageSpec,
        auth: Option<v1::AuthConfig>,
        sandbox_config: Option<&v1::PodSandboxConfig>,
    ) -> Result<String>;

    /// Removes an image with all its tags. Idempotent.
    async fn remove_image(&self, image: &v1::ImageSpec) -> Result<()>;

    /// The file systems that hold images (and containers, where the runtime tells them apart).
    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse>;
}

/// What [`Runtime::exec_sync`] gives back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// The command's standard output, cut at the runtime's limit (16 MiB).
    pub stdout: Bytes,
    /// The command's standard error, cut likewise.
    pub stderr: Bytes,
    /// The command's exit code; 0 is success.
    pub exit_code: i32,
}

/// Who makes a node's cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// Written by the runtime itself.
    Cgroupfs,
    /// Asked of systemd.
    Systemd,
}
