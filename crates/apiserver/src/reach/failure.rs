//! What we say of those whom we do not believe, in the words of Go's `crypto/x509`.

use std::io;

use rustls::CertificateError;
use rustls_pki_types::ServerName;

/// Why a handshake failed.
pub(super) fn of_handshake(error: &io::Error, name: &ServerName<'_>) -> String {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => {
            format!("tls: failed to verify certificate: x509: {}", certificate(why, name))
        }
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            "http: server gave HTTP response to HTTPS client".to_owned()
        }
        Some(rustls::Error::AlertReceived(alert)) => {
            format!("remote error: tls: {}", words(&format!("{alert:?}")))
        }
        Some(other) => format!("tls: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => error.to_string(),
    }
}

fn certificate(why: &CertificateError, name: &ServerName<'_>) -> String {
    let expected = name.to_str();
    match why {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "certificate has expired or is not yet valid".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => match name {
            ServerName::IpAddress(_) => {
                format!("cannot validate certificate for {expected} because it doesn't contain any IP SANs")
            }
            _ => "certificate relies on legacy Common Name field, use SANs instead".to_owned(),
        },
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<&str> = presented.iter().map(|n| inside(n)).collect();
            format!("certificate is valid for {}, not {expected}", names.join(", "))
        }
        CertificateError::NotValidForName => {
            format!("certificate is not valid for any names, but wanted to match {expected}")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate specifies an incompatible key usage".to_owned()
        }
        _ => "certificate signed by unknown authority".to_owned(),
    }
}

/// `a.b` of `DnsName("a.b")`.
fn inside(name: &str) -> &str {
    name.split_once("(\"").and_then(|(_, rest)| rest.strip_suffix("\")")).unwrap_or(name)
}

/// `bad certificate` of `BadCertificate`.
fn words(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push(' ');
        }
        out.extend(c.to_lowercase());
    }
    out
}
