//! A container's mounts: its volumes, `/etc/hosts`, and the file for its last words.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gantry_api::core::{Container, Pod, VolumeMount};
use gantry_cri::v1;

use crate::engine::core::Core;
use crate::pod;
use crate::steps::env;
use crate::steps::hosts;
use crate::volumes::{self, subpath};

const ETC_HOSTS: &str = "/etc/hosts";

/// The mounts of `container`; `environment` is for `subPathExpr`.
///
/// # Errors
/// A volume is missing, or a sub path leads out of its volume.
pub fn mounts(
    core: &Core,
    pod: &Pod,
    container: &Container,
    pod_ips: &[String],
    environment: &BTreeMap<String, String>,
    restart_count: i32,
) -> Result<Vec<v1::Mount>, String> {
    let mut out = Vec::new();
    let mut hosts_taken = false;
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        hosts_taken |= mount.mount_path == ETC_HOSTS;
        out.push(volume_mount(core, pod, container, index, mount, environment)?);
    }
    let has_network = pod::host_network(pod) || !pod_ips.is_empty();
    if !hosts_taken && has_network {
        let path = core.pod_dir(pod).join("etc-hosts");
        hosts::write(&path, pod, pod_ips, &core.options.cluster_domain)
            .map_err(|e| format!("cannot write the hosts file: {e}"))?;
        out.push(bind(&path, ETC_HOSTS));
    }
    if let Some(path) = container.termination_message_path.as_deref().filter(|p| !p.is_empty()) {
        let dir = core.pod_dir(pod).join("containers").join(&container.name);
        let file = dir.join(restart_count.to_string());
        let written = std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(&file, b""))
            .and_then(|()| std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)));
        written.map_err(|e| format!("cannot make the termination message file: {e}"))?;
        out.push(bind(&file, path));
    }
    Ok(out)
}

fn bind(host_path: &Path, container_path: &str) -> v1::Mount {
    v1::Mount {
        host_path: host_path.display().to_string(),
        container_path: container_path.to_owned(),
        ..Default::default()
    }
}

fn volume_mount(
    core: &Core,
    pod: &Pod,
    container: &Container,
    index: usize,
    mount: &VolumeMount,
    environment: &BTreeMap<String, String>,
) -> Result<v1::Mount, String> {
    let name = &mount.name;
    let root = volumes::host_path(core, pod, name)
        .ok_or_else(|| format!("cannot find volume {name:?} to mount into container {:?}", container.name))?;
    let sub_path = match mount.sub_path_expr.as_deref().filter(|e| !e.is_empty()) {
        Some(expression) => {
            let missing = std::cell::RefCell::new(None);
            let text = env::expand(expression, |name| {
                let value = environment.get(name).cloned();
                if value.is_none() {
                    missing.replace(Some(name.to_owned()));
                }
                value
            });
            if missing.take().is_some() {
                return Err(format!("missing value for {expression:?}"));
            }
            text
        }
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    let host_path = if sub_path.is_empty() {
        root
    } else {
        prepare_subpath(core, pod, container, index, name, &root, &sub_path)?
    };
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
        _ => v1::MountPropagation::PropagationPrivate,
    };
    let container_path = match mount.mount_path.strip_prefix('/') {
        Some(_) => mount.mount_path.clone(),
        None => format!("/{}", mount.mount_path),
    };
    Ok(v1::Mount {
        container_path,
        host_path: host_path.display().to_string(),
        readonly: mount.read_only == Some(true) || volumes::is_read_only(pod, name),
        propagation: propagation as i32,
        ..Default::default()
    })
}

fn prepare_subpath(
    core: &Core,
    pod: &Pod,
    container: &Container,
    index: usize,
    volume: &str,
    root: &Path,
    sub_path: &str,
) -> Result<PathBuf, String> {
    if sub_path.starts_with('/') {
        return Err(format!("error SubPath `{sub_path}` must not be an absolute path"));
    }
    if sub_path.split('/').any(|part| part == "..") {
        return Err(format!("unable to provision SubPath `{sub_path}`: must not contain '..'"));
    }
    // The cause may tell about the node's file system: it goes to our log, not to the user.
    if let Err(error) = subpath::make_dir(root, sub_path) {
        tracing::warn!(%error, volume, container = container.name, "cannot create a subPath directory");
        return Err(format!(
            "failed to create subPath directory for volumeMount {volume:?} of container {:?}",
            container.name
        ));
    }
    let target = core.pod_dir(pod).join("volume-subpaths").join(volume).join(&container.name);
    subpath::bind(root, sub_path, &target.join(index.to_string())).map_err(|error| {
        tracing::warn!(%error, volume, container = container.name, "cannot bind a subPath");
        format!("failed to prepare subPath for volumeMount {volume:?} of container {:?}", container.name)
    })
}
