//! Files of one volume that hide each other.

use gantry_api::core::{DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection};

use super::super::at::{items, text};

/// A path in a volume, and what puts it there.
#[derive(Clone, PartialEq)]
struct Placed {
    path: String,
    source: String,
}

impl std::fmt::Display for Placed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.path)?;
        if !self.source.is_empty() {
            write!(f, " ({})", self.source)?;
        }
        Ok(())
    }
}

fn keys(list: &[KeyToPath], source: &str) -> Vec<Placed> {
    list.iter().map(|k| Placed { path: k.path.clone(), source: source.to_owned() }).collect()
}

fn files(list: &[DownwardAPIVolumeFile], source: &str) -> Vec<Placed> {
    list.iter().map(|f| Placed { path: f.path.clone(), source: source.to_owned() }).collect()
}

pub(super) fn warn(volumes: &[Volume], warnings: &mut Vec<String>) {
    for volume in volumes {
        if let Some(map) = &volume.config_map {
            report(volume, &format!("ConfigMap {:?}", map.name), keys(items(&map.items), ""), warnings);
        }
        if let Some(secret) = &volume.secret {
            let what = format!("Secret {:?}", text(&secret.secret_name));
            report(volume, &what, keys(items(&secret.items), ""), warnings);
        }
        if let Some(downward) = &volume.downward_api {
            report(volume, "DownwardAPI", files(items(&downward.items), ""), warnings);
        }
        if let Some(projected) = &volume.projected {
            let mut placed = Vec::new();
            for source in items(&projected.sources) {
                if *source == VolumeProjection::default() {
                    warnings.push(format!("volume {:?} (Projected) has no sources provided", volume.name));
                    continue;
                }
                placed.extend(paths(source));
            }
            report(volume, "Projected", placed, warnings);
        }
    }
}

fn paths(source: &VolumeProjection) -> Vec<Placed> {
    if let Some(map) = source.config_map.as_ref().filter(|m| m.items.is_some()) {
        return keys(items(&map.items), &format!("ConfigMap {:?}", map.name));
    }
    if let Some(secret) = source.secret.as_ref().filter(|s| s.items.is_some()) {
        return keys(items(&secret.items), &format!("Secret {:?}", secret.name));
    }
    if let Some(downward) = source.downward_api.as_ref().filter(|d| d.items.is_some()) {
        return files(items(&downward.items), "DownwardAPI");
    }
    let token = source.service_account_token.iter();
    token.map(|t| Placed { path: t.path.clone(), source: "ServiceAccountToken".into() }).collect()
}

fn report(volume: &Volume, what: &str, placed: Vec<Placed>, warnings: &mut Vec<String>) {
    let mut seen: Vec<Placed> = Vec::new();
    for mut here in placed {
        here.path.truncate(here.path.trim_end_matches('/').len());
        for other in seen.iter().filter(|other| overlap(other, &here)) {
            warnings
                .push(format!("volume {:?} ({what}): overlapping paths: {here} with {other}", volume.name));
        }
        seen.push(here);
    }
}

fn overlap(one: &Placed, other: &Placed) -> bool {
    let (a, b) = (format!("{}/", one.path), format!("{}/", other.path));
    !one.path.is_empty() && !other.path.is_empty() && (a.starts_with(&b) || b.starts_with(&a))
}
