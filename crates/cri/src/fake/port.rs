//! The fake behind the port.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use gantry_base::{Error, Result};
use tokio::sync::broadcast::error::RecvError;

use super::state::{Container, Sandbox, State, event};
use super::{FakeExec, FakeRuntime, not_found};
use crate::{
    CgroupDriver, Code, EventKind, EventSource, Events, ExecOutput, RpcError, Runtime, unsupported, v1,
};

/// The exit code of a process that was killed.
const KILLED: i32 = 128 + libc::SIGKILL;

/// Where the fake's images pretend to be.
const IMAGE_FS: &str = "/var/lib/gantry/fake-images";

#[async_trait]
impl Runtime for FakeRuntime {
    async fn version(&self) -> Result<v1::VersionResponse> {
        self.reading("version")?;
        Ok(v1::VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "fake".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    async fn status(&self, _verbose: bool) -> Result<v1::StatusResponse> {
        self.reading("status")?;
        let conditions = self.inner.state.lock().conditions.clone();
        let handler = v1::RuntimeHandler { name: String::new(), features: None };
        Ok(v1::StatusResponse {
            status: Some(v1::RuntimeStatus { conditions }),
            info: HashMap::new(),
            runtime_handlers: vec![handler],
            features: None,
        })
    }

    async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        self.reading("cgroup_driver")?;
        Ok(Some(CgroupDriver::Cgroupfs))
    }

    async fn update_runtime_config(&self, pod_cidr: &str) -> Result<()> {
        self.called("update_runtime_config", pod_cidr)?;
        self.inner.state.lock().pod_cidr = pod_cidr.to_owned();
        Ok(())
    }

    async fn run_pod_sandbox(&self, config: &v1::PodSandboxConfig, handler: &str) -> Result<String> {
        let name = config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        self.called("run_pod_sandbox", &name)?;
        let now = self.now();
        let id = {
            let mut state = self.inner.state.lock();
            let id = state.new_id();
            let mut sandbox = Sandbox {
                config: config.clone(),
                handler: handler.to_owned(),
                ready: true,
                created_at: now,
                ip: String::new(),
            };
            if !sandbox.uses_host_network() {
                sandbox.ip = state.new_address();
            }
            state.sandboxes.insert(id.clone(), sandbox);
            id
        };
        self.tell(event(&id, &id, EventKind::Created, None, now));
        self.tell(event(&id, &id, EventKind::Started, None, now));
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, sandbox_id: &str) -> Result<()> {
        self.called("stop_pod_sandbox", sandbox_id)?;
        let now = self.now();
        let events = {
            let mut state = self.inner.state.lock();
            if !state.sandboxes.contains_key(sandbox_id) {
                return Ok(());
            }
            let running = state.running_in(sandbox_id);
            let mut events = Vec::new();
            for id in running {
                events.push(state.exit(&id, KILLED, "Error", now)?);
            }
            events.extend(state.end_sandbox(sandbox_id, now)?);
            events
        };
        events.into_iter().for_each(|event| self.tell(event));
        Ok(())
    }

    async fn remove_pod_sandbox(&self, sandbox_id: &str) -> Result<()> {
        self.called("remove_pod_sandbox", sandbox_id)?;
        self.stop_quietly(sandbox_id)?;
        let now = self.now();
        let gone = {
            let mut state = self.inner.state.lock();
            let of_pod = |c: &Container| c.sandbox_id == sandbox_id;
            let mut gone: Vec<String> =
                state.containers.iter().filter(|(_, c)| of_pod(c)).map(|(id, _)| id.clone()).collect();
            state.containers.retain(|_, c| !of_pod(c));
            if state.sandboxes.remove(sandbox_id).is_some() {
                gone.push(sandbox_id.to_owned());
            }
            gone
        };
        for id in gone {
            self.tell(event(&id, sandbox_id, EventKind::Deleted, None, now));
        }
        Ok(())
    }

    async fn pod_sandbox_status(
        &self,
        sandbox_id: &str,
        _verbose: bool,
    ) -> Result<v1::PodSandboxStatusResponse> {
        self.reading("pod_sandbox_status")?;
        let timestamp = self.now();
        let state = self.inner.state.lock();
        let status = state.sandbox(sandbox_id)?.status(sandbox_id);
        let in_pod = state.containers.iter().filter(|(_, c)| c.sandbox_id == sandbox_id);
        let containers_statuses = in_pod.map(|(id, c)| state.container_status(id, c)).collect();
        Ok(v1::PodSandboxStatusResponse {
            status: Some(status),
            info: HashMap::new(),
            containers_statuses,
            timestamp,
        })
    }

    async fn list_pod_sandboxes(&self, filter: Option<v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>> {
        self.reading("list_pod_sandboxes")?;
        let filter = filter.unwrap_or_default();
        let state = self.inner.state.lock();
        let all = state.sandboxes.iter().map(|(id, s)| s.summary(id));
        Ok(all
            .filter(|s| filter.id.is_empty() || s.id == filter.id)
            .filter(|s| filter.state.as_ref().is_none_or(|wanted| wanted.state == s.state))
            .filter(|s| selects(&filter.label_selector, &s.labels))
            .collect())
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: v1::UpdatePodSandboxResourcesRequest,
    ) -> Result<()> {
        self.called("update_pod_sandbox_resources", &request.pod_sandbox_id)?;
        self.inner.state.lock().sandbox(&request.pod_sandbox_id).map(drop)
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &v1::ContainerConfig,
        _sandbox_config: &v1::PodSandboxConfig,
    ) -> Result<String> {
        let name = config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        self.called("create_container", &name)?;
        let now = self.now();
        let id = {
            let mut state = self.inner.state.lock();
            state.sandbox(sandbox_id)?;
            let container = Container {
                sandbox_id: sandbox_id.to_owned(),
                config: config.clone(),
                state: v1::ContainerState::ContainerCreated,
                created_at: now,
                started_at: 0,
                finished_at: 0,
                exit_code: 0,
                reason: String::new(),
                resources: config.linux.as_ref().and_then(|l| l.resources.clone()),
                plan: state.plan_of(&name),
            };
            if state.image(container.image_name()).is_none() {
                return Err(not_found("image", container.image_name()));
            }
            let id = state.new_id();
            state.containers.insert(id.clone(), container);
            id
        };
        self.tell(event(&id, sandbox_id, EventKind::Created, None, now));
        Ok(id)
    }

    async fn start_container(&self, container_id: &str) -> Result<()> {
        self.called("start_container", container_id)?;
        let now = self.now();
        let (sandbox_id, plan) = {
            let mut state = self.inner.state.lock();
            let container = state.container_mut(container_id)?;
            if container.state != v1::ContainerState::ContainerCreated {
                let text = format!("container {container_id} is in {} state", container.state.as_str_name());
                return Err(RpcError::error(Code::FailedPrecondition, text));
            }
            container.state = v1::ContainerState::ContainerRunning;
            container.started_at = now;
            (container.sandbox_id.clone(), container.plan.clone())
        };
        self.tell(event(container_id, &sandbox_id, EventKind::Started, None, now));
        match plan.exits {
            Some((delay, code)) if delay.is_zero() => self.exit(container_id, code),
            Some((delay, code)) => {
                self.exit_later(container_id.to_owned(), delay, code);
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn stop_container(&self, container_id: &str, grace: Duration) -> Result<()> {
        self.called("stop_container", container_id)?;
        let mut ends = self.inner.events.subscribe();
        let on_stop_signal = {
            let state = self.inner.state.lock();
            match state.containers.get(container_id) {
                Some(c) if c.state == v1::ContainerState::ContainerRunning => c.plan.on_stop_signal,
                _ => return Ok(()),
            }
        };
        match on_stop_signal {
            _ if grace.is_zero() => self.exit_unless_ended(container_id, KILLED),
            Some(code) => self.exit_unless_ended(container_id, code),
            None => {
                let ended = async {
                    while let Ok(event) = ends.recv().await {
                        if event.container_id == container_id && event.kind == EventKind::Stopped {
                            break;
                        }
                    }
                };
                drop(tokio::time::timeout(grace, ended).await);
                self.exit_unless_ended(container_id, KILLED)
            }
        }
    }

    async fn remove_container(&self, container_id: &str) -> Result<()> {
        self.called("remove_container", container_id)?;
        self.exit_unless_ended(container_id, KILLED)?;
        let removed = self.inner.state.lock().containers.remove(container_id);
        if let Some(container) = removed {
            self.tell(event(container_id, &container.sandbox_id, EventKind::Deleted, None, self.now()));
        }
        Ok(())
    }

    async fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>> {
        self.reading("list_containers")?;
        let filter = filter.unwrap_or_default();
        let state = self.inner.state.lock();
        let all = state.containers.iter().map(|(id, c)| c.summary(id, &state.image_id(c)));
        Ok(all
            .filter(|c| filter.id.is_empty() || c.id == filter.id)
            .filter(|c| filter.pod_sandbox_id.is_empty() || c.pod_sandbox_id == filter.pod_sandbox_id)
            .filter(|c| filter.state.as_ref().is_none_or(|wanted| wanted.state == c.state))
            .filter(|c| selects(&filter.label_selector, &c.labels))
            .collect())
    }

    async fn container_status(
        &self,
        container_id: &str,
        _verbose: bool,
    ) -> Result<v1::ContainerStatusResponse> {
        self.reading("container_status")?;
        let state = self.inner.state.lock();
        let status = state.container_status(container_id, state.container(container_id)?);
        Ok(v1::ContainerStatusResponse { status: Some(status), info: HashMap::new() })
    }

    async fn update_container_resources(
        &self,
        container_id: &str,
        resources: v1::LinuxContainerResources,
    ) -> Result<()> {
        self.called("update_container_resources", container_id)?;
        self.inner.state.lock().container_mut(container_id)?.resources = Some(resources);
        Ok(())
    }

    async fn reopen_container_log(&self, container_id: &str) -> Result<()> {
        self.called("reopen_container_log", container_id)?;
        self.inner.state.lock().running(container_id).map(drop)
    }

    async fn checkpoint_container(
        &self,
        _container_id: &str,
        _location: &str,
        _timeout: Duration,
    ) -> Result<()> {
        Err(unsupported("CheckpointContainer"))
    }

    async fn exec_sync(
        &self,
        container_id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput> {
        self.called("exec_sync", container_id)?;
        let script = {
            let state = self.inner.state.lock();
            let name = state.running(container_id)?.name().to_owned();
            let scripts = state.execs.iter().rev();
            let mut fitting =
                scripts.filter(|(c, words, _)| (c == "*" || *c == name) && command.starts_with(words));
            fitting.next().map(|(_, _, result)| result.clone())
        };
        match script {
            None => Ok(ExecOutput::default()),
            Some(FakeExec::Output(output)) => Ok(output),
            Some(FakeExec::Fails(code, description)) => Err(RpcError::error(code, description)),
            Some(FakeExec::Hangs) if timeout.is_zero() => std::future::pending().await,
            Some(FakeExec::Hangs) => {
                tokio::time::sleep(timeout).await;
                let text = format!(
                    "failed to exec in container: timeout {timeout:?} exceeded: context deadline exceeded"
                );
                Err(RpcError::error(Code::DeadlineExceeded, text))
            }
        }
    }

    async fn exec(&self, request: v1::ExecRequest) -> Result<String> {
        self.inner.state.lock().running(&request.container_id)?;
        Err(unsupported("Exec"))
    }

    async fn attach(&self, request: v1::AttachRequest) -> Result<String> {
        self.inner.state.lock().running(&request.container_id)?;
        Err(unsupported("Attach"))
    }

    async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String> {
        self.inner.state.lock().sandbox(&request.pod_sandbox_id)?;
        Err(unsupported("PortForward"))
    }

    async fn container_stats(&self, container_id: &str) -> Result<v1::ContainerStats> {
        self.reading("container_stats")?;
        let now = self.now();
        let state = self.inner.state.lock();
        Ok(state.stats(container_id, state.container(container_id)?, now))
    }

    async fn list_container_stats(
        &self,
        filter: Option<v1::ContainerStatsFilter>,
    ) -> Result<Vec<v1::ContainerStats>> {
        self.reading("list_container_stats")?;
        let filter = filter.unwrap_or_default();
        let now = self.now();
        let state = self.inner.state.lock();
        let fitting = state.containers.iter().filter(|(id, c)| {
            (filter.id.is_empty() || **id == filter.id)
                && (filter.pod_sandbox_id.is_empty() || c.sandbox_id == filter.pod_sandbox_id)
                && selects(&filter.label_selector, &c.config.labels)
                && c.state == v1::ContainerState::ContainerRunning
        });
        Ok(fitting.map(|(id, c)| state.stats(id, c, now)).collect())
    }

    async fn pod_sandbox_stats(&self, sandbox_id: &str) -> Result<v1::PodSandboxStats> {
        self.reading("pod_sandbox_stats")?;
        let now = self.now();
        let state = self.inner.state.lock();
        Ok(state.sandbox_stats(sandbox_id, state.sandbox(sandbox_id)?, now))
    }

    async fn list_pod_sandbox_stats(
        &self,
        filter: Option<v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>> {
        self.reading("list_pod_sandbox_stats")?;
        let filter = filter.unwrap_or_default();
        let now = self.now();
        let state = self.inner.state.lock();
        let fitting = state.sandboxes.iter().filter(|(id, s)| {
            (filter.id.is_empty() || **id == filter.id)
                && selects(&filter.label_selector, &s.config.labels)
                && s.ready
        });
        Ok(fitting.map(|(id, s)| state.sandbox_stats(id, s, now)).collect())
    }

    async fn events(&self) -> Result<Events> {
        self.reading("events")?;
        let receiver = self.inner.events.subscribe();
        let stream = stream::unfold(Some(receiver), |receiver| async move {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Ok(event) => Some((Ok(event), Some(receiver))),
                Err(RecvError::Lagged(missed)) => {
                    Some((Err(Error::retry(format!("{missed} container events were missed"))), None))
                }
                Err(RecvError::Closed) => None,
            }
        });
        Ok(Events { source: EventSource::Fake, stream: stream.boxed() })
    }

    async fn list_images(&self, filter: Option<v1::ImageSpec>) -> Result<Vec<v1::Image>> {
        self.reading("list_images")?;
        let state = self.inner.state.lock();
        let wanted = filter.map(|f| f.image).filter(|name| !name.is_empty());
        Ok(match wanted {
            Some(name) => state.image(&name).cloned().into_iter().collect(),
            None => state.images.values().cloned().collect(),
        })
    }

    async fn image_status(&self, image: &v1::ImageSpec, _verbose: bool) -> Result<v1::ImageStatusResponse> {
        self.reading("image_status")?;
        let image = self.inner.state.lock().image(&image.image).cloned();
        Ok(v1::ImageStatusResponse { image, info: HashMap::new() })
    }

    async fn pull_image(
        &self,
        image: &v1::ImageSpec,
        _auth: Option<v1::AuthConfig>,
        _sandbox_config: Option<&v1::PodSandboxConfig>,
    ) -> Result<String> {
        self.called("pull_image", &image.image)?;
        let mut state = self.inner.state.lock();
        if let Some((code, description)) = state.refused_images.get(&image.image) {
            return Err(RpcError::error(*code, description.clone()));
        }
        if let Some(present) = state.images.get(&image.image) {
            return Ok(present.id.clone());
        }
        Ok(state.add_image(&image.image, 0, ""))
    }

    async fn remove_image(&self, image: &v1::ImageSpec) -> Result<()> {
        self.called("remove_image", &image.image)?;
        let mut state = self.inner.state.lock();
        if let Some(id) = state.image(&image.image).map(|i| i.id.clone()) {
            state.images.retain(|_, i| i.id != id);
        }
        Ok(())
    }

    async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse> {
        self.reading("image_fs_info")?;
        let used: u64 = self.inner.state.lock().images.values().map(|i| i.size).sum();
        let usage = v1::FilesystemUsage {
            timestamp: self.now(),
            fs_id: Some(v1::FilesystemIdentifier { mountpoint: IMAGE_FS.to_owned() }),
            used_bytes: Some(v1::UInt64Value { value: used }),
            inodes_used: Some(v1::UInt64Value { value: 0 }),
        };
        Ok(v1::ImageFsInfoResponse { image_filesystems: vec![usage], container_filesystems: vec![] })
    }
}

impl FakeRuntime {
    /// Ends a running container; one that is gone or ended already is fine.
    fn exit_unless_ended(&self, container_id: &str, exit_code: i32) -> Result<()> {
        let running = self.inner.state.lock().running(container_id).is_ok();
        if running { self.exit(container_id, exit_code) } else { Ok(()) }
    }

    /// Stops a sandbox on the way to its removal.
    fn stop_quietly(&self, sandbox_id: &str) -> Result<()> {
        let running = self.inner.state.lock().running_in(sandbox_id);
        for id in running {
            self.exit_unless_ended(&id, KILLED)?;
        }
        if self.inner.state.lock().sandboxes.contains_key(sandbox_id) {
            self.kill_sandbox(sandbox_id)
        } else {
            Ok(())
        }
    }
}

impl State {
    fn running_in(&self, sandbox_id: &str) -> Vec<String> {
        let running =
            |c: &Container| c.sandbox_id == sandbox_id && c.state == v1::ContainerState::ContainerRunning;
        self.containers.iter().filter(|(_, c)| running(c)).map(|(id, _)| id.clone()).collect()
    }

    fn running(&self, id: &str) -> Result<&Container> {
        let container = self.container(id)?;
        if container.state == v1::ContainerState::ContainerRunning {
            return Ok(container);
        }
        let text = format!("container is in {} state", container.state.as_str_name());
        Err(RpcError::error(Code::Unknown, text))
    }

    fn plan_of(&self, name: &str) -> super::ProcessPlan {
        self.plans.get(name).or_else(|| self.plans.get("*")).cloned().unwrap_or_default()
    }

    fn image_id(&self, container: &Container) -> String {
        self.image(container.image_name()).map(|i| i.id.clone()).unwrap_or_default()
    }

    fn container_status(&self, id: &str, container: &Container) -> v1::ContainerStatus {
        let image = self.image(container.image_name());
        let digest = image.and_then(|i| i.repo_digests.first().cloned()).unwrap_or_default();
        let logs = self.sandboxes.get(&container.sandbox_id).map_or("", |s| s.config.log_directory.as_str());
        container.status(id, &digest, &self.image_id(container), logs)
    }

    fn stats(&self, id: &str, container: &Container, now: i64) -> v1::ContainerStats {
        let (cpu, memory) = self.usage.get(id).copied().unwrap_or_default();
        v1::ContainerStats {
            attributes: Some(v1::ContainerAttributes {
                id: id.to_owned(),
                metadata: container.config.metadata.clone(),
                labels: container.config.labels.clone(),
                annotations: container.config.annotations.clone(),
            }),
            cpu: Some(v1::CpuUsage {
                timestamp: now,
                usage_core_nano_seconds: Some(v1::UInt64Value { value: cpu }),
                ..Default::default()
            }),
            memory: Some(v1::MemoryUsage {
                timestamp: now,
                working_set_bytes: Some(v1::UInt64Value { value: memory }),
                usage_bytes: Some(v1::UInt64Value { value: memory }),
                rss_bytes: Some(v1::UInt64Value { value: memory }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn sandbox_stats(&self, id: &str, sandbox: &Sandbox, now: i64) -> v1::PodSandboxStats {
        let in_pod = self.containers.iter().filter(|(_, c)| c.sandbox_id == id);
        let containers: Vec<_> = in_pod.map(|(id, c)| self.stats(id, c, now)).collect();
        v1::PodSandboxStats {
            attributes: Some(v1::PodSandboxAttributes {
                id: id.to_owned(),
                metadata: sandbox.config.metadata.clone(),
                labels: sandbox.config.labels.clone(),
                annotations: sandbox.config.annotations.clone(),
            }),
            linux: Some(v1::LinuxPodSandboxStats { containers, ..Default::default() }),
            windows: None,
        }
    }
}

/// True if every pair of the selector is among the labels.
fn selects(selector: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
