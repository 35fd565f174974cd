//! What the controllers need from this process: a key to sign tokens with, and a place for volumes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_apiserver::identify::TokenKey;
use gantry_apiserver::pki::Pki;
use gantry_base::{Clock, Error, Result};
use gantry_controllers::{TokenSigner, VolumeDirectory, VolumeHost};
use serde_json::Value;

/// Signs with the cluster's token key.
pub struct Signer(pub TokenKey);

impl TokenSigner for Signer {
    fn sign(&self, claims: &Value) -> Result<String> {
        self.0.sign(claims)
    }
}

/// Signs with the cluster's authority.
pub struct CertificateSigner {
    /// The authority.
    pub pki: Arc<Pki>,
    /// Reads the time.
    pub clock: Arc<dyn Clock>,
}

impl gantry_controllers::CertificateSigner for CertificateSigner {
    fn sign(&self, request: &str, usages: &[String], life: Duration) -> Result<String> {
        self.pki.cluster().sign_request(request, usages, life, self.clock.now())
    }
}

/// Volumes as folders below one of this machine's.
pub struct LocalVolumes {
    /// Where they are.
    pub root: PathBuf,
}

impl LocalVolumes {
    /// A volume's path must be right below the root: names come from the API.
    fn check(&self, directory: &VolumeDirectory) -> Result<PathBuf> {
        let path = PathBuf::from(&directory.path);
        if path.parent() == Some(&self.root) && path.file_name().is_some() {
            return Ok(path);
        }
        Err(Error::refused(format!(
            "volume {}: {} is not below {}",
            directory.volume,
            directory.path,
            self.root.display()
        )))
    }
}

#[async_trait]
impl VolumeHost for LocalVolumes {
    fn path(&self, _node: &str, volume: &str) -> String {
        self.root.join(volume).to_string_lossy().into_owned()
    }

    async fn make(&self, directory: &VolumeDirectory) -> Result<()> {
        let path = self.check(directory)?;
        tokio::fs::create_dir_all(&path).await.map_err(|e| failed(&path, e))?;
        // Who will use it is not known yet.
        let open = std::fs::Permissions::from_mode(0o777);
        tokio::fs::set_permissions(&path, open).await.map_err(|e| failed(&path, e))
    }

    async fn remove(&self, directory: &VolumeDirectory) -> Result<()> {
        let path = self.check(directory)?;
        match tokio::fs::remove_dir_all(&path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(&path, error)),
            _ => Ok(()),
        }
    }
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::from(error).while_doing(path.display())
}
