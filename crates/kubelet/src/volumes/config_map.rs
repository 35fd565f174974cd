//! `configMap`: the keys of a ConfigMap as files.

use std::collections::BTreeMap;

use async_trait::async_trait;
use gantry_api::core::{KeyToPath, Pod, Volume};
use gantry_api::meta::MetaExt;
use gantry_base::{Error, Result};

use super::atomic::{self, File, Payload};
use super::{Ready, References, Request, VolumeType, fs_group, key_for};

pub(super) struct ConfigMapVolume;

/// The permission bits of files where nothing else is said.
pub(super) const DEFAULT_MODE: i32 = 0o644;

#[async_trait]
impl VolumeType for ConfigMapVolume {
    fn name(&self) -> &'static str {
        "kubernetes.io~configmap"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.config_map.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<Ready> {
        let source = request.volume.config_map.clone().unwrap_or_default();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional == Some(true);
        let payload = payload(request, &source.name, source.items.as_deref(), optional, mode).await?;
        atomic::write(&request.dir, &payload, fs_group(request.pod))?;
        Ok(Ready::default())
    }

    fn read_only(&self, _volume: &Volume) -> bool {
        true
    }

    fn references(&self, pod: &Pod, volume: &Volume, into: &mut References) {
        if let Some(source) = &volume.config_map {
            into.config_maps.insert(key_for(pod, &source.name));
        }
    }
}

/// The files of a ConfigMap.
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
    let namespace = request.pod.namespace();
    let data: BTreeMap<String, Vec<u8>> = match request.core.config_maps.fetch(namespace, name).await {
        Ok(map) => {
            let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
            let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
            text.chain(binary).collect()
        }
        Err(error) if error.is_not_found() && optional => BTreeMap::new(),
        Err(error) if error.is_not_found() => {
            return Err(gantry_base::Error::missing(format!("configmap {name:?} not found")));
        }
        Err(error) => return Err(error.into()),
    };
    choose(data, items, optional, mode, "configmap")
}

/// The files that `items` choose of `data`: all of it where there are no items.
///
/// # Errors
/// A chosen key does not exist and is not optional.
pub(super) fn choose(
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: i32,
    what: &str,
) -> Result<Payload> {
    let file =
        |data: Vec<u8>, mode: i32| File { data, mode: u32::try_from(mode).unwrap_or(0o644), user: None };
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        return Ok(data.into_iter().map(|(key, value)| (key, file(value, mode))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match data.remove(&item.key).or_else(|| payload.get(&item.path).map(|f| f.data.clone())) {
            Some(value) => {
                payload.insert(item.path.clone(), file(value, item.mode.unwrap_or(mode)));
            }
            None if optional => {}
            None => {
                return Err(Error::missing(format!(
                    "{what} references non-existent {what} key: {}",
                    item.key
                )));
            }
        }
    }
    Ok(payload)
}
