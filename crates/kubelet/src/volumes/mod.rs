//! Volumes: one file for each type, a registry that lists them, and the way of a pod's volumes on and off.

pub mod atomic;
mod claim;
mod config_map;
mod downward_api;
mod empty_dir;
mod host_path;
mod mount;
mod ownership;
mod projected;
mod secret;
pub mod subpath;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;
use gantry_api::ObjectKey;
use gantry_api::core::{Pod, Volume};
use gantry_api::meta::MetaExt;
use gantry_base::{Error, Result};

use crate::engine::core::Core;
use crate::pod;
use crate::steps::field::Surroundings;

/// One volume of one pod on its way to being there.
pub struct Request<'a> {
    /// The kubelet.
    pub core: &'a Core,
    /// The pod.
    pub pod: &'a Pod,
    /// The volume.
    pub volume: &'a Volume,
    /// The volume's own directory, for the types that have one.
    pub dir: PathBuf,
    /// What field references may name.
    pub around: &'a Surroundings,
}

/// Objects whose changes a volume follows.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// ConfigMaps.
    pub config_maps: HashSet<ObjectKey>,
    /// Secrets.
    pub secrets: HashSet<ObjectKey>,
}

/// What came of a volume's setup.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    /// When it must be looked at again although nothing changed (a token expires).
    pub again_at: Option<SystemTime>,
}

/// A type of volume.
#[async_trait]
pub trait VolumeType: Send + Sync {
    /// The directory's name under the pod's `volumes`, `kubernetes.io~…`.
    fn name(&self) -> &'static str;

    /// Whether `volume` is of this type.
    fn supports(&self, volume: &Volume) -> bool;

    /// Makes the volume be there, and be up to date. Idempotent.
    async fn set_up(&self, request: &Request<'_>) -> Result<Ready>;

    /// Undoes what is not undone by removing the directory. Idempotent.
    fn tear_down(&self, dir: &Path) -> Result<()> {
        mount::unmount(dir)
    }

    /// Where the volume is on the node; `dir` is its own directory.
    fn path(&self, _core: &Core, _pod: &Pod, _volume: &Volume, dir: PathBuf) -> Option<PathBuf> {
        Some(dir)
    }

    /// Whether containers can only read it, whatever their mounts say.
    fn read_only(&self, _volume: &Volume) -> bool {
        false
    }

    /// The objects that it follows.
    fn references(&self, _pod: &Pod, _volume: &Volume, _into: &mut References) {}
}

/// The types there are.
static REGISTRY: [&dyn VolumeType; 7] = [
    &empty_dir::EmptyDir,
    &host_path::HostPath,
    &config_map::ConfigMapVolume,
    &secret::SecretVolume,
    &projected::Projected,
    &downward_api::DownwardApi,
    &claim::Claim,
];

fn type_of(volume: &Volume) -> Option<&'static dyn VolumeType> {
    REGISTRY.iter().copied().find(|t| t.supports(volume))
}

fn named<'a>(pod: &'a Pod, name: &str) -> Option<&'a Volume> {
    pod::spec(pod).volumes.iter().flatten().find(|v| v.name == name)
}

fn own_dir(core: &Core, pod: &Pod, kind: &dyn VolumeType, volume: &Volume) -> PathBuf {
    core.pod_dir(pod).join("volumes").join(kind.name()).join(&volume.name)
}

/// Where a pod's volume is on the node.
pub fn host_path(core: &Core, pod: &Pod, name: &str) -> Option<PathBuf> {
    let volume = named(pod, name)?;
    let kind = type_of(volume)?;
    kind.path(core, pod, volume, own_dir(core, pod, kind, volume))
}

/// Whether containers can only read a pod's volume.
pub fn is_read_only(pod: &Pod, name: &str) -> bool {
    named(pod, name).is_some_and(|v| type_of(v).is_some_and(|t| t.read_only(v)))
}

/// The objects that a pod's volumes follow.
pub fn references(pod: &Pod) -> References {
    let mut references = References::default();
    for volume in pod::spec(pod).volumes.iter().flatten() {
        if let Some(kind) = type_of(volume) {
            kind.references(pod, volume, &mut references);
        }
    }
    references
}

/// A volume that could not be set up.
#[derive(Debug)]
pub struct SetUpError {
    /// For the `FailedMount` event.
    pub message: String,
}

/// Sets all of a pod's volumes up, and says when to look again.
///
/// # Errors
/// The first volume that could not be set up.
pub async fn set_up(core: &Core, pod: &Pod, around: &Surroundings) -> Result<Option<SystemTime>, SetUpError> {
    let mut again_at: Option<SystemTime> = None;
    for volume in used(pod) {
        let name = &volume.name;
        let outcome = match type_of(volume) {
            None => Err(Error::invalid("no volume plugin matched")),
            Some(kind) => {
                let dir = own_dir(core, pod, kind, volume);
                kind.set_up(&Request { core, pod, volume, dir, around }).await
            }
        };
        let ready = outcome.map_err(|error| SetUpError {
            message: format!("MountVolume.SetUp failed for volume {name:?} : {error}"),
        })?;
        again_at = match (again_at, ready.again_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    Ok(again_at)
}

/// The volumes that some container mounts: the others are not set up, as upstream does it.
fn used(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let ephemeral = pod::ephemeral_containers(pod).iter().map(|c| c.volume_mounts.iter().flatten());
    let all = pod::init_containers(pod).iter().chain(pod::containers(pod));
    let mounts = all.map(|c| c.volume_mounts.iter().flatten()).chain(ephemeral).flatten();
    let env =
        pod::init_containers(pod).iter().chain(pod::containers(pod)).flat_map(|c| c.env.iter().flatten());
    let files = env.filter_map(|e| Some(e.value_from.as_ref()?.file_key_ref.as_ref()?.volume_name.as_str()));
    let names: HashSet<&str> = mounts.map(|m| m.name.as_str()).chain(files).collect();
    pod::spec(pod).volumes.iter().flatten().filter(move |v| names.contains(v.name.as_str()))
}

/// Takes everything of a pod's directory away: sub path binds, mounts, files.
///
/// # Errors
/// Something is still in use.
pub fn tear_down(pod_dir: &Path) -> Result<()> {
    subpath::unbind_all(&pod_dir.join("volume-subpaths"))?;
    let volumes = pod_dir.join("volumes");
    for kind in list(&volumes)? {
        let name = kind.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let known = REGISTRY.iter().find(|t| t.name() == name);
        for dir in list(&kind)? {
            match known {
                Some(known) => known.tear_down(&dir)?,
                None => mount::unmount(&dir)?,
            }
            mount::remove_tree_on_one_device(&dir)?;
        }
    }
    mount::remove_tree_on_one_device(pod_dir)
}

fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => Ok(other?.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>()?),
    }
}

/// The group that owns the pod's volumes.
fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod::spec(pod).security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// The user that all containers run as, if they all run as the same one.
fn common_user(pod: &Pod) -> Option<u32> {
    let shared = pod::spec(pod).security_context.as_ref().and_then(|s| s.run_as_user);
    let all = pod::init_containers(pod).iter().chain(pod::containers(pod));
    let users: HashSet<Option<i64>> =
        all.map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(shared)).collect();
    let mut users = users.into_iter();
    match (users.next(), users.next()) {
        (Some(Some(only)), None) => u32::try_from(only).ok(),
        _ => None,
    }
}

/// The pod's key for an object of its namespace.
fn key_for(pod: &Pod, name: &str) -> ObjectKey {
    ObjectKey::new(pod.namespace(), name)
}
