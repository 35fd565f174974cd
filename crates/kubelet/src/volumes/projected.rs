//! `projected`: several sources in one directory, among them service account tokens.

use async_trait::async_trait;
use gantry_api::core::{Pod, Volume};
use gantry_base::{Error, Result};

use super::atomic::{self, File, Payload};
use super::config_map::DEFAULT_MODE;
use super::{
    Ready, References, Request, VolumeType, common_user, config_map, downward_api, fs_group, key_for, mount,
    secret,
};

pub(super) struct Projected;

/// The validity of a token, in seconds, where nothing else is said.
const TOKEN_SECONDS: i64 = 3600;

#[async_trait]
impl VolumeType for Projected {
    fn name(&self) -> &'static str {
        "kubernetes.io~projected"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.projected.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<Ready> {
        let source = request.volume.projected.clone().unwrap_or_default();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let mut payload = Payload::new();
        let mut ready = Ready::default();
        for part in source.sources.iter().flatten() {
            if let Some(map) = &part.config_map {
                let optional = map.optional == Some(true);
                payload.extend(
                    config_map::payload(request, &map.name, map.items.as_deref(), optional, mode).await?,
                );
            } else if let Some(own) = &part.secret {
                let optional = own.optional == Some(true);
                payload
                    .extend(secret::payload(request, &own.name, own.items.as_deref(), optional, mode).await?);
            } else if let Some(downward) = &part.downward_api {
                let items = downward.items.as_deref().unwrap_or_default();
                payload.extend(downward_api::payload(request, items, mode)?);
            } else if let Some(token) = &part.service_account_token {
                let audience = token.audience.as_deref().unwrap_or("");
                let seconds = token.expiration_seconds.unwrap_or(TOKEN_SECONDS);
                let (text, renew_at) = request.core.tokens.get(request.pod, audience, seconds).await?;
                ready.again_at = Some(ready.again_at.map_or(renew_at, |at| at.min(renew_at)));
                let user = common_user(request.pod);
                let private = user.is_some() || fs_group(request.pod).is_some();
                let mode = if private { 0o600 } else { u32::try_from(mode).unwrap_or(0o644) };
                payload.insert(token.path.clone(), File { data: text.into_bytes(), mode, user });
            } else {
                return Err(Error::invalid("this source of a projected volume is not supported"));
            }
        }
        mount::tmpfs(&request.dir, None)?;
        atomic::write(&request.dir, &payload, fs_group(request.pod))?;
        Ok(ready)
    }

    fn read_only(&self, _volume: &Volume) -> bool {
        true
    }

    fn references(&self, pod: &Pod, volume: &Volume, into: &mut References) {
        let parts = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        for part in parts {
            into.config_maps.extend(part.config_map.iter().map(|m| key_for(pod, &m.name)));
            into.secrets.extend(part.secret.iter().map(|s| key_for(pod, &s.name)));
        }
    }
}
