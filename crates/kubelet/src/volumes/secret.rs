//! `secret`: the keys of a Secret as files, in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use gantry_api::core::{KeyToPath, Pod, Volume};
use gantry_api::meta::MetaExt;
use gantry_base::Result;

use super::atomic::{self, Payload};
use super::config_map::{DEFAULT_MODE, choose};
use super::{Ready, References, Request, VolumeType, fs_group, key_for, mount};

pub(super) struct SecretVolume;

#[async_trait]
impl VolumeType for SecretVolume {
    fn name(&self) -> &'static str {
        "kubernetes.io~secret"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.secret.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<Ready> {
        let source = request.volume.secret.clone().unwrap_or_default();
        let name = source.secret_name.clone().unwrap_or_default();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional == Some(true);
        let payload = payload(request, &name, source.items.as_deref(), optional, mode).await?;
        mount::tmpfs(&request.dir, None)?;
        atomic::write(&request.dir, &payload, fs_group(request.pod))?;
        Ok(Ready::default())
    }

    fn read_only(&self, _volume: &Volume) -> bool {
        true
    }

    fn references(&self, pod: &Pod, volume: &Volume, into: &mut References) {
        if let Some(name) = volume.secret.as_ref().and_then(|s| s.secret_name.as_deref()) {
            into.secrets.insert(key_for(pod, name));
        }
    }
}

/// The files of a Secret.
///
/// # Errors
/// It, or a key that is asked for, does not exist and is not optional.
pub(super) async fn payload(
    request: &Request<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: i32,
) -> Result<Payload> {
    let data: BTreeMap<String, Vec<u8>> =
        match request.core.secrets.fetch(request.pod.namespace(), name).await {
            Ok(secret) => secret.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect(),
            Err(error) if error.is_not_found() && optional => BTreeMap::new(),
            Err(error) if error.is_not_found() => {
                return Err(gantry_base::Error::missing(format!("secret {name:?} not found")));
            }
            Err(error) => return Err(error.into()),
        };
    choose(data, items, optional, mode, "secret")
}
