//! `persistentVolumeClaim`: the persistent volume that a claim is bound to, where it is a path of this node.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use gantry_api::ObjectKey;
use gantry_api::core::{HostPathVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use gantry_base::{Error, Result};
use gantry_client::Api;

use super::{Ready, Request, VolumeType, fs_group, host_path, key_for, ownership};
use crate::engine::core::Core;

pub(super) struct Claim;

/// The link in the volume's own directory to the path that the claim turned out to be.
const TARGET: &str = "target";

#[async_trait]
impl VolumeType for Claim {
    fn name(&self) -> &'static str {
        "gantry~claim"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<Ready> {
        let link = request.dir.join(TARGET);
        if link.symlink_metadata().is_ok() {
            return Ok(Ready::default());
        }
        let name = claim_name(request.pod, request.volume);
        let transport = request.core.options.transport.clone();
        let claims = Api::<PersistentVolumeClaim>::new(transport.clone(), "kubelet");
        let claim = claims.get(&key_for(request.pod, &name)).await?;
        let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        let volume_name = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).filter(|n| !n.is_empty());
        let Some(volume_name) = volume_name.filter(|_| bound) else {
            return Err(Error::retry(format!("PVC {name} is not bound")));
        };
        let volumes = Api::<PersistentVolume>::new(transport, "kubelet");
        let volume = volumes.get(&ObjectKey::cluster(volume_name.as_str())).await?;
        let path = path_of(&volume)?;
        let is_local = volume.spec.as_ref().is_some_and(|s| s.local.is_some());
        if let Some(group) = fs_group(request.pod).filter(|_| is_local) {
            ownership::give_to_group(Path::new(&path), group, false)?;
        }
        std::fs::create_dir_all(&request.dir)?;
        std::os::unix::fs::symlink(&path, &link)?;
        Ok(Ready::default())
    }

    fn path(&self, _core: &Core, _pod: &Pod, _volume: &Volume, dir: PathBuf) -> Option<PathBuf> {
        std::fs::read_link(dir.join(TARGET)).ok()
    }

    fn read_only(&self, volume: &Volume) -> bool {
        volume.persistent_volume_claim.as_ref().is_some_and(|c| c.read_only == Some(true))
    }

    fn tear_down(&self, dir: &Path) -> Result<()> {
        match std::fs::remove_file(dir.join(TARGET)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// A generic ephemeral volume has a claim named after the pod and the volume.
fn claim_name(pod: &Pod, volume: &Volume) -> String {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let named = volume.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone());
    named.unwrap_or_else(|| format!("{pod_name}-{}", volume.name))
}

fn path_of(volume: &PersistentVolume) -> Result<String> {
    let spec = volume.spec.clone().unwrap_or_default();
    if let Some(host) = spec.host_path {
        host_path::prepare(&HostPathVolumeSource { path: host.path.clone(), type_: host.type_ })?;
        return Ok(host.path);
    }
    match spec.local {
        Some(local) if Path::new(&local.path).exists() => Ok(local.path),
        Some(local) => Err(Error::missing(format!("path {:?} does not exist", local.path))),
        None => Err(Error::invalid("no volume plugin matched")),
    }
}
