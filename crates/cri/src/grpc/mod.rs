//! CRI v1 over gRPC on a Unix socket.

mod events;

pub(crate) use events::{CRI_NAMESPACE, NAMESPACE_HEADER};

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_base::{Class, Error, Result};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::{CgroupDriver, EventSource, Events, ExecOutput, RpcError, Runtime, is_unsupported, v1};

/// The largest message we accept: the kubelet's limit.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// The API version that CRI's `Version` call wants to hear.
const KUBE_RUNTIME_API_VERSION: &str = "0.1.0";

/// How long a connection attempt to the socket may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long calls may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallDeadlines {
    /// Calls that change something (the kubelet's `runtimeRequestTimeout`).
    pub change: Duration,
    /// Calls that only read.
    pub read: Duration,
}

impl Default for CallDeadlines {
    fn default() -> Self {
        Self { change: Duration::from_secs(120), read: Duration::from_secs(120) }
    }
}

/// A runtime behind a CRI socket: containerd, CRI-O, or any other.
///
/// The connection is made at the first call and made again whenever it broke; until then calls fail with
/// [`gantry_base::Class::Retry`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GrpcRuntime {
    channel: Channel,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    deadlines: CallDeadlines,
    known: Arc<Known>,
}

/// What was learnt from calls.
#[derive(Debug, Default)]
struct Known {
    /// The sandbox of each container that we created or saw in a list; containerd's events do not name it.
    sandbox_of: Mutex<HashMap<String, String>>,
    /// The sources of events that the runtime turned out not to have.
    refused_sources: Mutex<Vec<EventSource>>,
    /// Where the events come from, once somebody subscribed.
    event_source: Mutex<Option<EventSource>>,
}

impl GrpcRuntime {
    /// A runtime at `endpoint` (`unix:///run/containerd/containerd.sock`, or a plain absolute path). Must be
    /// called within a tokio runtime; does not connect yet.
    ///
    /// # Errors
    /// [`gantry_base::Class::Invalid`] if the endpoint is no Unix socket.
    pub fn connect(endpoint: &str) -> Result<Self> {
        Self::connect_with(endpoint, CallDeadlines::default())
    }

    /// The same with other deadlines.
    ///
    /// # Errors
    /// As [`GrpcRuntime::connect`].
    pub fn connect_with(endpoint: &str, deadlines: CallDeadlines) -> Result<Self> {
        let channel = channel(&socket_path(endpoint)?);
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            images: ImageServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            channel,
            deadlines,
            known: Arc::default(),
        })
    }

    /// Where events come from; `None` until the first subscription.
    pub fn event_source(&self) -> Option<EventSource> {
        *self.known.event_source.lock()
    }

    /// The connection itself, for a runtime's own services on the same socket.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    async fn reading<T>(&self, call: impl Future<Output = Answer<T>>) -> Result<T> {
        within(self.deadlines.read, call).await
    }

    async fn changing<T>(&self, call: impl Future<Output = Answer<T>>) -> Result<T> {
        within(self.deadlines.change, call).await
    }
}

type Answer<T> = Result<tonic::Response<T>, tonic::Status>;

/// Awaits an answer for at most `deadline`.
async fn within<T>(deadline: Duration, call: impl Future<Output = Answer<T>>) -> Result<T> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(RpcError::from_status(&status)),
        Err(_) => Err(RpcError::error(tonic::Code::DeadlineExceeded, "context deadline exceeded")),
    }
}

/// The path of a `unix://` endpoint.
fn socket_path(endpoint: &str) -> Result<PathBuf> {
    let path =
        endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:")).unwrap_or(endpoint);
    if !path.starts_with('/') {
        let message = format!("container runtime endpoint {endpoint:?}: want unix:///absolute/path.sock");
        return Err(Error::invalid(message));
    }
    Ok(PathBuf::from(path))
}

/// A channel to the socket at `path` that connects when it is first used.
pub(crate) fn channel(path: &Path) -> Channel {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The name only fills the `:authority` header.
    Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector_lazy(connector)
}

/// Whole seconds, rounded up: CRI counts in seconds, and 0 means "at once" or "no limit".
fn seconds(duration: Duration) -> i64 {
    let up = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i64::try_from(up).unwrap_or(i64::MAX)
}

#[async_trait]
impl Runtime for GrpcRuntime {
    async fn version(&self) -> Result<v1::VersionResponse> {
        let request = v1::VersionRequest { version: KUBE_RUNTIME_API_VERSION.to_owned() };
        self.reading(self.runtime.clone().version(request)).await
    }

    async fn status(&self, verbose: bool) -> Result<v1::StatusResponse> {
        self.reading(self.runtime.clone().status(v1::StatusRequest { verbose })).await
    }

    async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        let answer = self.reading(self.runtime.clone().runtime_config(v1::RuntimeConfigRequest {})).await;
        match answer {
            Ok(config) => Ok(config.linux.map(|linux| match linux.cgroup_driver() {
                v1::CgroupDriver::Systemd => CgroupDriver::Systemd,
                v1::CgroupDriver::Cgroupfs => CgroupDriver::Cgroupfs,
            })),
            Err(error) if is_unsupported(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn update_runtime_config(&self, pod_cidr: &str) -> Result<()> {
        let network_config = Some(v1::NetworkConfig { pod_cidr: pod_cidr.to_owned() });
        let request =
            v1::UpdateRuntimeConfigRequest { runtime_config: Some(v1::RuntimeConfig { network_config }) };
        self.changing(self.runtime.clone().update_runtime_config(request)).await.map(drop)
    }

    async fn run_pod_sandbox(&self, config: &v1::PodSandboxConfig, handler: &str) -> Result<String> {
        let request =
            v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.to_owned() };
        // A sandbox may wait for the network plugin: upstream gives it twice the ordinary time.
        let mut call = self.runtime.clone();
        let answer = within(self.deadlines.change * 2, call.run_pod_sandbox(request)).await?;
        let id = answer.pod_sandbox_id;
        self.known.sandbox_of.lock().insert(id.clone(), id.clone());
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, sandbox_id: &str) -> Result<()> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: sandbox_id.to_owned() };
        gone_is_fine(self.changing(self.runtime.clone().stop_pod_sandbox(request)).await)
    }

    async fn remove_pod_sandbox(&self, sandbox_id: &str) -> Result<()> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: sandbox_id.to_owned() };
        gone_is_fine(self.changing(self.runtime.clone().remove_pod_sandbox(request)).await)
    }

    async fn pod_sandbox_status(
        &self,
        sandbox_id: &str,
        verbose: bool,
    ) -> Result<v1::PodSandboxStatusResponse> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: sandbox_id.to_owned(), verbose };
        self.reading(self.runtime.clone().pod_sandbox_status(request)).await
    }

    async fn list_pod_sandboxes(&self, filter: Option<v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>> {
        let everything = filter.is_none();
        let request = v1::ListPodSandboxRequest { filter };
        let answer = self.reading(self.runtime.clone().list_pod_sandbox(request)).await?;
        if everything {
            self.known.note_sandboxes(&answer.items);
        }
        Ok(answer.items)
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: v1::UpdatePodSandboxResourcesRequest,
    ) -> Result<()> {
        self.changing(self.runtime.clone().update_pod_sandbox_resources(request)).await.map(drop)
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &v1::ContainerConfig,
        sandbox_config: &v1::PodSandboxConfig,
    ) -> Result<String> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config.clone()),
            sandbox_config: Some(sandbox_config.clone()),
        };
        let mut call = self.runtime.clone();
        let answer = Box::pin(self.changing(call.create_container(request))).await?;
        self.known.sandbox_of.lock().insert(answer.container_id.clone(), sandbox_id.to_owned());
        Ok(answer.container_id)
    }

    async fn start_container(&self, container_id: &str) -> Result<()> {
        let request = v1::StartContainerRequest { container_id: container_id.to_owned() };
        self.changing(self.runtime.clone().start_container(request)).await.map(drop)
    }

    async fn stop_container(&self, container_id: &str, grace: Duration) -> Result<()> {
        let request =
            v1::StopContainerRequest { container_id: container_id.to_owned(), timeout: seconds(grace) };
        // The runtime waits for the grace period before it kills.
        gone_is_fine(
            within(grace + self.deadlines.change, self.runtime.clone().stop_container(request)).await,
        )
    }

    async fn remove_container(&self, container_id: &str) -> Result<()> {
        let request = v1::RemoveContainerRequest { container_id: container_id.to_owned() };
        gone_is_fine(self.changing(self.runtime.clone().remove_container(request)).await)
    }

    async fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>> {
        let everything = filter.is_none();
        let request = v1::ListContainersRequest { filter };
        let answer = self.reading(self.runtime.clone().list_containers(request)).await?;
        self.known.note(&answer.containers, everything);
        Ok(answer.containers)
    }

    async fn container_status(
        &self,
        container_id: &str,
        verbose: bool,
    ) -> Result<v1::ContainerStatusResponse> {
        let request = v1::ContainerStatusRequest { container_id: container_id.to_owned(), verbose };
        self.reading(self.runtime.clone().container_status(request)).await
    }

    async fn update_container_resources(
        &self,
        container_id: &str,
        resources: v1::LinuxContainerResources,
    ) -> Result<()> {
        let request = v1::UpdateContainerResourcesRequest {
            container_id: container_id.to_owned(),
            linux: Some(resources),
            ..Default::default()
        };
        self.changing(self.runtime.clone().update_container_resources(request)).await.map(drop)
    }

    async fn reopen_container_log(&self, container_id: &str) -> Result<()> {
        let request = v1::ReopenContainerLogRequest { container_id: container_id.to_owned() };
        self.changing(self.runtime.clone().reopen_container_log(request)).await.map(drop)
    }

    async fn checkpoint_container(
        &self,
        container_id: &str,
        location: &str,
        timeout: Duration,
    ) -> Result<()> {
        let request = v1::CheckpointContainerRequest {
            container_id: container_id.to_owned(),
            location: location.to_owned(),
            timeout: seconds(timeout),
        };
        let mut call = self.runtime.clone();
        within(timeout + self.deadlines.change, call.checkpoint_container(request)).await.map(drop)
    }

    async fn exec_sync(
        &self,
        container_id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput> {
        let request = v1::ExecSyncRequest {
            container_id: container_id.to_owned(),
            cmd: command.to_vec(),
            timeout: seconds(timeout),
        };
        // The runtime ends it; our own deadline is only for a runtime that hangs.
        let mut call = self.runtime.clone();
        let answer = if timeout.is_zero() {
            call.exec_sync(request)
                .await
                .map(tonic::Response::into_inner)
                .map_err(|s| RpcError::from_status(&s))
        } else {
            within(timeout + self.deadlines.change, call.exec_sync(request)).await
        }?;
        Ok(ExecOutput {
            stdout: answer.stdout.into(),
            stderr: answer.stderr.into(),
            exit_code: answer.exit_code,
        })
    }

    async fn exec(&self, request: v1::ExecRequest) -> Result<String> {
        Ok(self.reading(self.runtime.clone().exec(request)).await?.url)
    }

    async fn attach(&self, request: v1::AttachRequest) -> Result<String> {
        Ok(self.reading(self.runtime.clone().attach(request)).await?.url)
    }

    async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String> {
        Ok(self.reading(self.runtime.clone().port_forward(request)).await?.url)
    }

    async fn container_stats(&self, container_id: &str) -> Result<v1::ContainerStats> {
        let request = v1::ContainerStatsRequest { container_id: container_id.to_owned() };
        let answer = self.reading(self.runtime.clone().container_stats(request)).await?;
        answer.stats.ok_or_else(|| no_message("ContainerStats"))
    }

    async fn list_container_stats(
        &self,
        filter: Option<v1::ContainerStatsFilter>,
    ) -> Result<Vec<v1::ContainerStats>> {
        let request = v1::ListContainerStatsRequest { filter };
        Ok(self.reading(self.runtime.clone().list_container_stats(request)).await?.stats)
    }

    async fn pod_sandbox_stats(&self, sandbox_id: &str) -> Result<v1::PodSandboxStats> {
        let request = v1::PodSandboxStatsRequest { pod_sandbox_id: sandbox_id.to_owned() };
        let answer = self.reading(self.runtime.clone().pod_sandbox_stats(request)).await?;
        answer.stats.ok_or_else(|| no_message("PodSandboxStats"))
    }

    async fn list_pod_sandbox_stats(
        &self,
        filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>> {
        let request = v1::ListPodSandboxStatsRequest { filter };
        Ok(self.reading(self.runtime.clone().list_pod_sandbox_stats(request)).await?.stats)
    }

    async fn events(&self) -> Result<Events> {
        self.subscribe().await
    }

    async fn list_images(&self, filter: Option<v1::ImageSpec>) -> Result<Vec<v1::Image>> {
        let filter = filter.map(|image| v1::ImageFilter { image: Some(image) });
        let request = v1::ListImagesRequest { filter };
        Ok(self.reading(self.images.clone().list_images(request)).await?.images)
    }

    async fn image_status(&self, image: &v1::ImageSpec, verbose: bool) -> Result<v1::ImageStatusResponse> {
        let request = v1::ImageStatusRequest { image: Some(image.clone()), verbose };
        self.reading(self.images.clone().image_status(request)).await
    }

    async fn pull_image(
        &self,
        image: &v1::ImageSpec,
        auth: Option<v1::AuthConfig>,
        sandbox_config: Option<&v1::PodSandboxConfig>,
    ) -> Result<String> {
        let request = v1::PullImageRequest {
            image: Some(image.clone()),
            auth,
            sandbox_config: sandbox_config.cloned(),
        };
        let answer = self.images.clone().pull_image(request).await;
        Ok(answer.map_err(|status| RpcError::from_status(&status))?.into_inner().image_ref)
    }

    async fn remove_image(&self, image: &v1::ImageSpec) -> Result<()> {
        let request = v1::RemoveImageRequest { image: Some(image.clone()) };
        self.changing(self.images.clone().remove_image(request)).await.map(drop)
    }

    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse> {
        self.reading(self.images.clone().image_fs_info(v1::ImageFsInfoRequest {})).await
    }
}

/// Stopping or removing what is gone is done: CRI wants it so, and containerd 1.6 fails nevertheless.
fn gone_is_fine<T>(result: Result<T>) -> Result<()> {
    match result {
        Err(error) if error.class() != Class::Missing => Err(error),
        _ => Ok(()),
    }
}

/// A runtime answered success without the message that success promises.
fn no_message(call: &str) -> Error {
    Error::retry(format!("the container runtime's answer to {call} is empty"))
}

impl Known {
    /// Takes the sandboxes of listed containers in; a list of everything also tells which ones are gone.
    fn note(&self, containers: &[v1::Container], everything: bool) {
        let mut sandbox_of = self.sandbox_of.lock();
        if everything {
            let listed: std::collections::HashSet<&str> = containers.iter().map(|c| c.id.as_str()).collect();
            sandbox_of.retain(|id, sandbox| id == sandbox || listed.contains(id.as_str()));
        }
        for container in containers {
            sandbox_of.insert(container.id.clone(), container.pod_sandbox_id.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_unix_sockets() {
        assert_eq!(socket_path("unix:///run/x.sock").ok(), Some(PathBuf::from("/run/x.sock")));
        assert_eq!(socket_path("/run/x.sock").ok(), Some(PathBuf::from("/run/x.sock")));
        assert!(socket_path("tcp://127.0.0.1:1").is_err());
        assert!(socket_path("").is_err());
    }

    #[test]
    fn seconds_round_up() {
        assert_eq!(seconds(Duration::ZERO), 0);
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::from_secs(30)), 30);
    }

    #[tokio::test]
    async fn a_missing_socket_is_worth_a_retry_and_named() {
        let runtime = GrpcRuntime::connect("unix:///nonexistent/gantry.sock").expect("a valid endpoint");
        let error = runtime.version().await.expect_err("nobody listens there");
        assert_eq!(error.class(), Class::Retry);
        assert!(error.to_string().contains("No such file or directory"), "{error}");
    }
}
