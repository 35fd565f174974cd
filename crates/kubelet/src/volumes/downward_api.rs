//! `downwardAPI`: what a pod can learn about itself, as files.

use async_trait::async_trait;
use gantry_api::core::{DownwardAPIVolumeFile, Volume};
use gantry_base::{Error, Result};

use super::atomic::{self, File, Payload};
use super::config_map::DEFAULT_MODE;
use super::{Ready, Request, VolumeType, fs_group};
use crate::steps::field;

pub(super) struct DownwardApi;

#[async_trait]
impl VolumeType for DownwardApi {
    fn name(&self) -> &'static str {
        "kubernetes.io~downward-api"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.downward_api.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<Ready> {
        let source = request.volume.downward_api.clone().unwrap_or_default();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let payload = payload(request, source.items.as_deref().unwrap_or_default(), mode)?;
        atomic::write(&request.dir, &payload, fs_group(request.pod))?;
        Ok(Ready::default())
    }

    fn read_only(&self, _volume: &Volume) -> bool {
        true
    }
}

/// The files that `items` describe.
///
/// # Errors
/// A reference cannot be resolved.
pub(super) fn payload(request: &Request<'_>, items: &[DownwardAPIVolumeFile], mode: i32) -> Result<Payload> {
    let mut payload = Payload::new();
    for item in items {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(reference), _) => field::field(request.pod, &reference.field_path, request.around),
            (None, Some(reference)) => field::resource(request.pod, None, reference, request.around),
            (None, None) => Ok(String::new()),
        };
        let value = value.map_err(Error::invalid)?;
        let mode = u32::try_from(item.mode.unwrap_or(mode)).unwrap_or(0o644);
        payload.insert(item.path.clone(), File { data: value.into_bytes(), mode, user: None });
    }
    Ok(payload)
}
