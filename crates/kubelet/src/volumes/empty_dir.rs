//! `emptyDir`: a directory that lives as long as the pod, on disk or in memory.

use std::os::unix::fs::PermissionsExt;

use async_trait::async_trait;
use gantry_api::core::Volume;
use gantry_base::Result;

use super::{Ready, Request, VolumeType, fs_group, mount, ownership};
use crate::pod;

pub(super) struct EmptyDir;

#[async_trait]
impl VolumeType for EmptyDir {
    fn name(&self) -> &'static str {
        "kubernetes.io~empty-dir"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.empty_dir.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<Ready> {
        let source = request.volume.empty_dir.clone().unwrap_or_default();
        let fresh = !request.dir.exists();
        std::fs::create_dir_all(&request.dir)?;
        let in_memory = source.medium.as_deref() == Some("Memory");
        if in_memory && !mount::is_mount_point(&request.dir)? {
            let asked = source.size_limit.as_ref().map(pod::quantity).map(|q| q.value()).filter(|v| *v > 0);
            let pod_limit = pod::total_limit(request.pod, "memory").map(|q| q.value()).filter(|v| *v > 0);
            let size = [asked, pod_limit].into_iter().flatten().min();
            mount::tmpfs(&request.dir, size.and_then(|s| u64::try_from(s).ok()))?;
        } else if !fresh {
            return Ok(Ready::default());
        }
        std::fs::set_permissions(&request.dir, std::fs::Permissions::from_mode(0o777))?;
        if let Some(group) = fs_group(request.pod) {
            ownership::give_to_group(&request.dir, group, false)?;
        }
        Ok(Ready::default())
    }
}
