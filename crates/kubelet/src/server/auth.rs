//! Who may use the server, by the subject of the certificate that TLS has verified.

use http::StatusCode;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::options::AllowedClients;

/// Whether a client with this certificate is let in.
///
/// # Errors
/// 401 without a certificate, 403 with one of somebody else.
pub fn check(certificate: Option<&CertificateDer<'_>>, allowed: &AllowedClients) -> Result<(), StatusCode> {
    let certificate = certificate.ok_or(StatusCode::UNAUTHORIZED)?;
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| StatusCode::UNAUTHORIZED)?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().filter_map(|n| n.as_str().ok());
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok());
    let by_name = name.into_iter().any(|n| allowed.common_names.iter().any(|a| a == n));
    let by_group = groups.into_iter().any(|g| allowed.organizations.iter().any(|a| a == g));
    if by_name || by_group { Ok(()) } else { Err(StatusCode::FORBIDDEN) }
}
