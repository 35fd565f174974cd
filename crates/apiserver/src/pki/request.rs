//! Signs certificate requests (PKCS#10) of others: subject, key and alternative names are theirs, all else is ours.
//!
//! The certificate is written by hand, so that the subject stays byte for byte what was asked for: several
//! organizations, any kind of text. Behaviour: `pkg/controller/certificates/authority`.

use std::time::{Duration, SystemTime};

use gantry_base::error::Context;
use gantry_base::{Class, Error, Result};
use rcgen::SigningKey;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::oid_registry::{OID_X509_EXT_SUBJECT_ALT_NAME, OID_X509_EXT_SUBJECT_KEY_IDENTIFIER};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::Authority;

/// How far back a certificate is dated: clocks differ.
const BACKDATE: Duration = Duration::from_secs(300);
/// A shorter life than this is not shortened by [`BACKDATE`].
const SHORT: Duration = Duration::from_secs(8 * 3600);

/// The names of the bits of a key's usage, from the first on.
const KEY_USAGES: [(&str, u8); 10] = [
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// Extended usages, in the order in which they are written, and the bytes of their identifiers.
const EXTENDED: [(&str, &[u8]); 13] = [
    ("any", &[0x55, 0x1d, 0x25, 0x00]),
    ("server auth", &[0x2b, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[0x2b, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[0x2b, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[0x2b, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[0x2b, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[0x2b, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[0x2b, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[0x2b, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[0x2b, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[0x2b, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 10, 3, 3]),
    ("netscape sgc", &[0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 4, 1]),
];

/// One element of DER.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    if length < 0x80 {
        out.push(u8::try_from(length).unwrap_or(0));
    } else {
        let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
        out.push(0x80 | u8::try_from(bytes.len()).unwrap_or(0));
        out.extend(bytes);
    }
    out.extend_from_slice(content);
    out
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

fn extension(id: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let mut parts = vec![element(0x06, &[0x55, 0x1d, id])];
    if critical {
        parts.push(element(0x01, &[0xff]));
    }
    parts.push(element(0x04, value));
    sequence(&parts)
}

fn time(at: SystemTime) -> Result<Vec<u8>> {
    let at = jiff::Timestamp::try_from(at).context(Class::Invalid, "a time out of range")?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    Ok(match at.year() {
        ..2050 => element(0x17, at.strftime("%y%m%d%H%M%SZ").to_string().as_bytes()),
        _ => element(0x18, at.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes()),
    })
}

/// `KeyUsage` and `ExtendedKeyUsage`, as far as there are any.
fn usages(wanted: &[String]) -> Result<Vec<Vec<u8>>> {
    let mut bits = 0_u16;
    let mut unknown = Vec::new();
    for usage in wanted {
        match KEY_USAGES.iter().find(|(name, _)| name == usage) {
            Some((_, bit)) => bits |= 0x8000 >> bit,
            None if EXTENDED.iter().any(|(name, _)| name == usage) => {}
            None => unknown.push(gantry_api::field::quote(usage)),
        }
    }
    if !unknown.is_empty() {
        return Err(Error::invalid(format!("unrecognized usage values: [{}]", unknown.join(" "))));
    }
    let mut extensions = Vec::new();
    if bits != 0 {
        let unused = bits.trailing_zeros();
        let bytes = if unused >= 8 { vec![(bits >> 8) as u8] } else { bits.to_be_bytes().to_vec() };
        let content = [vec![(unused % 8) as u8], bytes].concat();
        extensions.push(extension(0x0f, true, &element(0x03, &content)));
    }
    let mut identifiers: Vec<Vec<u8>> = Vec::new();
    for (name, id) in EXTENDED {
        let id = element(0x06, id);
        if wanted.iter().any(|w| w == name) && !identifiers.contains(&id) {
            identifiers.push(id);
        }
    }
    if !identifiers.is_empty() {
        extensions.push(extension(0x25, false, &sequence(&identifiers)));
    }
    Ok(extensions)
}

/// How the key signs, as an `AlgorithmIdentifier`.
fn algorithm(key: &rcgen::KeyPair) -> Result<Vec<u8>> {
    let by = key.algorithm();
    let id: &[u8] = if by == &rcgen::PKCS_ECDSA_P256_SHA256 {
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]
    } else if by == &rcgen::PKCS_ECDSA_P384_SHA384 {
        &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]
    } else if by == &rcgen::PKCS_ED25519 {
        &[0x2b, 0x65, 0x70]
    } else if by == &rcgen::PKCS_RSA_SHA256 {
        return Ok(sequence(&[
            element(0x06, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b]),
            element(0x05, &[]),
        ]));
    } else {
        return Err(Error::invalid("the authority's key signs by an algorithm that is not known"));
    };
    Ok(sequence(&[element(0x06, id)]))
}

impl Authority {
    /// The certificate, PEM, that the request (PEM) asks for, with these usages (`client auth`, …), for `life`.
    ///
    /// # Errors
    /// The request cannot be read, was not signed by its own key, or asks for usages that are not known; the authority
    /// has expired.
    pub fn sign_request(
        &self,
        request: &str,
        wanted: &[String],
        life: Duration,
        now: SystemTime,
    ) -> Result<String> {
        let pem = block(request.as_bytes())?;
        let (_, request) = X509CertificationRequest::from_der(&pem.contents)
            .map_err(|e| Error::invalid(format!("unable to parse certificate request: {e}")))?;
        request
            .verify_signature()
            .map_err(|e| Error::invalid(format!("unable to verify certificate request signature: {e}")))?;
        let (_, own) =
            X509Certificate::from_der(self.certificate()).context(Class::Bug, "our certificate")?;
        let end = own.validity().not_after.timestamp();
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(end).unwrap_or(0));
        if now >= end {
            return Err(Error::refused("refusing to sign a certificate that expired in the past"));
        }
        let not_after = (now + if life < SHORT { life } else { life - BACKDATE }).min(end);
        let mut extensions = usages(wanted)?;
        // Not an authority.
        extensions.push(extension(0x13, true, &sequence(&[])));
        if let Some(id) = extension_of(own.extensions(), &OID_X509_EXT_SUBJECT_KEY_IDENTIFIER) {
            // The subject's identifier, as the certificate of the authority has it.
            let bare = id.get(2..).unwrap_or_default();
            extensions.push(extension(0x23, false, &sequence(&[element(0x80, bare)])));
        }
        let subject = &request.certification_request_info.subject;
        for attribute in request.certification_request_info.iter_attributes() {
            if let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute()
                && let Some(names) = extension_of(&asked.extensions, &OID_X509_EXT_SUBJECT_ALT_NAME)
            {
                extensions.push(extension(0x11, subject.iter().next().is_none(), names));
            }
        }
        let mut serial: [u8; 16] = rand::random();
        // Positive, and of full length.
        serial[0] = serial[0] & 0x7f | 0x40;
        let key = self.key();
        let by = algorithm(key)?;
        let body = sequence(&[
            element(0xa0, &element(0x02, &[2])),
            element(0x02, &serial),
            by.clone(),
            own.subject().as_raw().to_vec(),
            sequence(&[time(now - BACKDATE)?, time(not_after)?]),
            subject.as_raw().to_vec(),
            request.certification_request_info.subject_pki.raw.to_vec(),
            element(0xa3, &sequence(&extensions)),
        ]);
        let signature = key.sign(&body).context(Class::Retry, "cannot sign a certificate")?;
        let certificate = sequence(&[body, by, element(0x03, &[vec![0], signature].concat())]);
        Ok(as_pem(&certificate))
    }
}

/// The PEM block of a request.
fn block(pem: &[u8]) -> Result<x509_parser::pem::Pem> {
    let bad = || Error::invalid("PEM block type must be CERTIFICATE REQUEST");
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| bad())?;
    if pem.label == "CERTIFICATE REQUEST" { Ok(pem) } else { Err(bad()) }
}

/// The CN of the subject of a request (PEM); empty if it has none.
///
/// # Errors
/// It cannot be read.
pub fn common_name_of_request(pem: &[u8]) -> Result<String> {
    let pem = block(pem)?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents)
        .map_err(|e| Error::invalid(format!("unable to parse certificate request: {e}")))?;
    let names = request.certification_request_info.subject.iter_common_name();
    Ok(names.filter_map(|n| n.as_str().ok()).last().unwrap_or("").to_owned())
}

fn extension_of<'a>(
    extensions: &'a [x509_parser::extensions::X509Extension<'_>],
    id: &x509_parser::oid_registry::Oid<'_>,
) -> Option<&'a [u8]> {
    extensions.iter().find(|e| e.oid == *id).map(|e| e.value)
}

pub(super) fn as_pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Pki;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    fn request(hosts: &[String]) -> String {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(hosts).expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:a");
        params.serialize_request(&key).expect("a request").pem().expect("PEM")
    }

    #[test]
    fn what_is_asked_for_is_signed_and_believed() {
        let dir = tempfile::tempdir().expect("a folder");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let pki = Pki::load_or_create(dir.path(), now).expect("keys");
        let usages =
            ["digital signature", "key encipherment", "server auth", "client auth"].map(str::to_owned);
        let hosts = ["a.example".to_owned(), "192.0.2.7".to_owned()];
        let life = Duration::from_secs(86_400);
        let pem = pki.cluster().sign_request(&request(&hosts), &usages, life, now).expect("a certificate");
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        let (rest, certificate) = X509Certificate::from_der(&der).expect("a certificate");
        assert!(rest.is_empty());
        let authority = pki.cluster();
        let (_, own) = X509Certificate::from_der(authority.certificate()).expect("ours");
        certificate.verify_signature(Some(own.public_key())).expect("our signature");
        assert_eq!(certificate.subject().to_string(), "O=system:nodes, CN=system:node:a");
        assert_eq!(certificate.validity().not_after.timestamp(), 1_800_000_000 + 86_400 - 300);
        let key_usage = certificate.key_usage().expect("readable").expect("there").value;
        assert!(key_usage.digital_signature() && key_usage.key_encipherment() && !key_usage.key_cert_sign());
        let extended = certificate.extended_key_usage().expect("readable").expect("there").value;
        assert!(extended.server_auth && extended.client_auth && !extended.any);
        assert!(!certificate.is_ca());
        let names = certificate.subject_alternative_name().expect("readable").expect("there").value;
        assert_eq!(names.general_names.len(), 2);
        // And a TLS server of ours believes it.
        let clock = std::sync::Arc::new(gantry_base::ManualClock::at(Duration::from_secs(1_800_000_000)));
        let authorities =
            crate::identify::Authorities::new(pki.cluster().certificate_pem(), None, clock).expect("ours");
        assert!(authorities.vouch(&der, &[]));
    }

    #[test]
    fn what_cannot_be_signed_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let pki = Pki::load_or_create(dir.path(), now).expect("keys");
        let sign = |text: &str, usage: &str, now| {
            let life = Duration::from_secs(3600);
            pki.cluster().sign_request(text, &[usage.to_owned()], life, now).expect_err("refused").to_string()
        };
        let good = request(&[]);
        assert_eq!(sign(&good, "flying", now), "unrecognized usage values: [\"flying\"]");
        assert!(sign("nothing", "client auth", now).starts_with("PEM block type must be"));
        let late = now + Duration::from_secs(20 * 365 * 86_400);
        assert!(sign(&good, "client auth", late).starts_with("refusing to sign"));
    }
}
