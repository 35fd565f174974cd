//! Effects outside the API, and the ports that perform them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::ObjectKey;
use gantry_api::certificates::CertificateSigningRequest;
use gantry_base::{Error, Result};
use serde_json::Value;

use super::plan::Write;
use super::scales::{Scaled, Scales};

/// An effect outside the API that a plan asks for.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Sign `claims`, and put the token, the root certificate and the namespace into a secret.
    TokenSecret {
        /// Which secret.
        key: ObjectKey,
        /// Its UID: a later one of that name is not meant.
        secret_uid: String,
        /// The account's UID, for the secret's annotation.
        account_uid: String,
        /// The root certificate, PEM.
        root_ca: Arc<str>,
        /// The token's claims.
        claims: Value,
    },
    /// Sign an approved certificate request and put the certificate into its status.
    Certificate {
        /// The request.
        csr: Box<CertificateSigningRequest>,
        /// What the certificate is for.
        usages: Vec<String>,
        /// How long it is valid.
        life: Duration,
    },
    /// Perform the write of the first question that is answered with yes; a failure if none is.
    FirstAllowed(Vec<(Question, Write)>),
    /// Read the `scale` of what controls pods, and note it for the next look.
    ReadScale {
        /// Of what.
        of: Scaled,
        /// Where it is noted.
        into: Arc<Scales>,
    },
    /// Make the directory of a volume.
    MakeVolume(VolumeDirectory),
    /// Remove the directory of a volume with all that is in it.
    RemoveVolume(VolumeDirectory),
}

/// Whether a user may do something: a SubjectAccessReview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The user's name.
    pub user: String,
    /// The user's UID.
    pub uid: String,
    /// The user's groups.
    pub groups: Vec<String>,
    /// What else is known of the user.
    pub extra: BTreeMap<String, Vec<String>>,
    /// The verb.
    pub verb: &'static str,
    /// The API group.
    pub group: &'static str,
    /// The resource.
    pub resource: &'static str,
    /// The subresource.
    pub subresource: &'static str,
}

/// Signs certificate requests with the cluster's authority.
pub trait CertificateSigner: Send + Sync + 'static {
    /// The certificate, PEM, that `request` (PEM) asks for, for these usages (`client auth`, …) and that long.
    ///
    /// # Errors
    /// The request cannot be signed.
    fn sign(&self, request: &str, usages: &[String], life: Duration) -> Result<String>;
}

/// The directory of a node-local volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeDirectory {
    /// The node that it is on.
    pub node: String,
    /// The volume's name.
    pub volume: String,
    /// The absolute path.
    pub path: String,
}

/// Signs service account tokens.
pub trait TokenSigner: Send + Sync + 'static {
    /// The compact JWT with these claims.
    ///
    /// # Errors
    /// The key cannot sign.
    fn sign(&self, claims: &Value) -> Result<String>;
}

/// Keeps the directories of node-local volumes.
#[async_trait]
pub trait VolumeHost: Send + Sync + 'static {
    /// The absolute path of a volume on a node: `<data-dir>/volumes/<volume>`.
    fn path(&self, node: &str, volume: &str) -> String;
    /// Makes the directory (mode 0777, as its users are not known); that it is there already is no error. The
    /// kubelet makes it where this process is not on that node.
    ///
    /// # Errors
    /// The file system refuses.
    async fn make(&self, directory: &VolumeDirectory) -> Result<()>;
    /// Removes the directory and its content; that it is gone already is no error.
    ///
    /// # Errors
    /// The file system refuses, or the node cannot be reached.
    async fn remove(&self, directory: &VolumeDirectory) -> Result<()>;
}

/// The ports that a process has.
#[derive(Clone, Default)]
pub struct Ports {
    /// Signs tokens; without it token secrets stay empty.
    pub signer: Option<Arc<dyn TokenSigner>>,
    /// Signs certificates; without it approved requests wait.
    pub certificates: Option<Arc<dyn CertificateSigner>>,
    /// Keeps volumes; without it the local-path provisioner is off.
    pub volumes: Option<Arc<dyn VolumeHost>>,
}

impl Ports {
    pub(crate) fn signer(&self) -> Result<&dyn TokenSigner> {
        self.signer.as_deref().ok_or_else(|| Error::refused("this server has no key to sign tokens with"))
    }

    pub(crate) fn certificates(&self) -> Result<&dyn CertificateSigner> {
        let signer = self.certificates.as_deref();
        signer.ok_or_else(|| Error::refused("this server has no authority to sign certificates with"))
    }

    pub(crate) fn volumes(&self) -> Result<&dyn VolumeHost> {
        self.volumes.as_deref().ok_or_else(|| Error::refused("this server keeps no volumes"))
    }
}
