//! Certificate requests: approval, signing, cleaning up.
//!
//! Behaviour: `pkg/controller/certificates`.

pub mod approve;
pub mod clean;
mod request;
pub mod sign;

use gantry_api::certificates::{CertificateSigningRequest, CertificateSigningRequestCondition};

/// The signer of what kubelets show to the API server.
pub(crate) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// The signer of what kubelets show to their clients.
pub(crate) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// The signer of what other clients show to the API server.
pub(crate) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// The signer of whatever nobody vouches for.
pub(crate) const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// The conditions of a request.
fn conditions(csr: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    csr.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

fn has(csr: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(csr).iter().any(|c| c.type_ == kind)
}

/// The certificate that was issued, PEM.
fn issued(csr: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = csr.status.as_ref()?.certificate.as_ref()?;
    Some(certificate.0.as_slice()).filter(|bytes| !bytes.is_empty())
}

/// Neither approved nor denied nor issued.
fn is_pending(csr: &CertificateSigningRequest) -> bool {
    issued(csr).is_none() && !has(csr, "Approved") && !has(csr, "Denied")
}
