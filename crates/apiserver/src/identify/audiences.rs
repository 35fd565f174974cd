//! For which audiences a node may have tokens on behalf of a pod (KEP-740): those of the pod's projected tokens, and
//! those that the drivers of its volumes ask for.

use gantry_api::core::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_api::storage::CSIDriver;

use crate::lookup::Lookup;

/// Whether the pod asks for tokens of this audience (empty: the server's own).
pub(super) async fn of_pod(pod: &Pod, audience: &str, lookup: &Lookup) -> Result<bool> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    for volume in volumes {
        let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        let mut tokens = sources.filter_map(|s| s.service_account_token.as_ref());
        if tokens.any(|t| t.audience.as_deref().unwrap_or("") == audience) {
            return Ok(true);
        }
        let Some(driver) = driver(pod, volume, lookup).await? else { continue };
        let Some(driver) = lookup.find::<CSIDriver>("", &driver).await? else { continue };
        if driver.spec.token_requests.iter().flatten().any(|t| t.audience == audience) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The driver of a volume, if a CSI driver serves it.
async fn driver(pod: &Pod, volume: &Volume, lookup: &Lookup) -> Result<Option<String>> {
    if let Some(csi) = &volume.csi {
        return Ok(Some(csi.driver.clone()));
    }
    let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => claim.claim_name.clone(),
        (None, Some(_)) => format!("{}-{}", pod.name(), volume.name),
        (None, None) => return Ok(None),
    };
    let Some(claim) = lookup.find::<PersistentVolumeClaim>(pod.namespace(), &claim).await? else {
        return Ok(None);
    };
    let Some(name) = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).filter(|n| !n.is_empty()) else {
        return Ok(None);
    };
    let volume = lookup.find::<PersistentVolume>("", &name).await?;
    Ok(volume.and_then(|v| v.spec.as_ref()?.csi.as_ref().map(|csi| csi.driver.clone())))
}
