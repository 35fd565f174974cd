//! A certificate authority and what it issues.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_base::error::Context;
use gantry_base::{Class, Error, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::identity::Identity;
use super::{AUTHORITY_LIFE, RENEW_BELOW, files};

/// Clocks may differ by this much.
const SKEW: Duration = Duration::from_secs(3600);

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Being connected to.
    Server,
    /// Connecting.
    Client,
    /// Either.
    Both,
}

/// A certificate that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'a> {
    /// CN: the user's name.
    pub common_name: &'a str,
    /// O: the user's group, at most one.
    pub organizations: &'a [&'a str],
    /// DNS names and IP addresses.
    pub hosts: &'a [String],
    /// What it is for.
    pub usage: Usage,
    /// How long it is valid.
    pub life: Duration,
}

/// A certificate authority.
pub struct Authority {
    issuer: Arc<Issuer<'static, KeyPair>>,
    /// Its own certificate first, then those of its predecessors and of its successor that may be shown.
    certificate_pem: String,
    certificates: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// A new one.
    pub(super) fn make(subject: &str, now: SystemTime) -> Result<Self> {
        let pair = KeyPair::generate().context(Class::Bug, "cannot make a key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(subject, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.not_before = (now - SKEW).into();
        params.not_after = (now + AUTHORITY_LIFE).into();
        let certificate = params.self_signed(&pair).context(Class::Bug, "cannot sign a certificate")?;
        Self::from_pem(&certificate.pem(), &pair.serialize_pem())
    }

    /// Reads `NAME.crt` and `NAME.key` below `dir`; `None` if there is none, or only a key: the certificate is written
    /// last.
    ///
    /// # Errors
    /// A file cannot be read, or they do not fit one another.
    pub(super) fn read(dir: &Path, name: &str) -> Result<Option<Self>> {
        let (crt, key) = Self::paths(dir, name);
        let Some(certificate) = files::read(&crt)? else { return Ok(None) };
        let told = |e: Error| e.while_doing(format!("{} and {name}.key", crt.display()));
        Self::from_pem(&certificate, &files::read_required(&key)?).map(Some).map_err(told)
    }

    /// Writes both files, each in one step, first the key.
    ///
    /// # Errors
    /// One cannot be written.
    pub(super) fn write(&self, dir: &Path, name: &str) -> Result<()> {
        let (crt, key) = Self::paths(dir, name);
        files::write_private(&key, &self.key().serialize_pem())?;
        files::write_public(&crt, &self.certificate_pem)
    }

    /// Where one of this name has its certificate and its key.
    pub(super) fn paths(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")))
    }

    /// Reads an authority that somebody else looks after.
    pub(super) fn load(certificate: &Path, key: &Path) -> Result<Self> {
        let (crt, pem) = (files::read_required(certificate)?, files::read_required(key)?);
        Self::from_pem(&crt, &pem)
            .map_err(|e| e.while_doing(format!("{} and {}", certificate.display(), key.display())))
    }

    fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self> {
        let key = KeyPair::from_pem(key_pem).context(Class::Invalid, "not a private key")?;
        let certificates = all(certificate_pem)?;
        let own = certificates.first().ok_or_else(|| Error::invalid("there is no certificate"))?;
        if !fits(own, &key) {
            return Err(Error::invalid("the key does not fit the certificate"));
        }
        let issuer = Issuer::from_ca_cert_der(own, key).context(Class::Invalid, "not an authority")?;
        Ok(Self { issuer: Arc::new(issuer), certificate_pem: certificate_pem.to_owned(), certificates })
    }

    /// The same, which also believes those of `others` that it does not yet.
    pub(super) fn believing(&self, others: &[CertificateDer<'static>]) -> Self {
        let mut all = Self {
            issuer: Arc::clone(&self.issuer),
            certificate_pem: self.certificate_pem.clone(),
            certificates: self.certificates.clone(),
        };
        for certificate in others {
            if !all.certificates.contains(certificate) {
                if !all.certificate_pem.ends_with('\n') {
                    all.certificate_pem.push('\n');
                }
                all.certificate_pem.push_str(&super::request::as_pem(certificate));
                all.certificates.push(certificate.clone());
            }
        }
        all
    }

    /// The same, which believes none of its name that are newer than itself.
    pub(super) fn without_successors(mut self) -> Result<Self> {
        let own = parsed(self.certificate())?;
        let (name, made) = (subject(&own).0, own.validity().not_before.timestamp());
        let is_newer = |certificate: &CertificateDer<'_>| {
            parsed(certificate)
                .is_ok_and(|c| c.validity().not_before.timestamp() > made && subject(&c).0 == name)
        };
        let kept: Vec<_> = self.certificates.iter().filter(|c| !is_newer(c)).cloned().collect();
        if kept.len() < self.certificates.len() {
            self.certificate_pem = kept.iter().map(|c| super::request::as_pem(c)).collect();
            self.certificates = kept;
        }
        Ok(self)
    }

    /// Its CN.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub(super) fn common_name(&self) -> Result<String> {
        common_name(self.certificate())
    }

    /// When it expires.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub(super) fn ends(&self) -> Result<SystemTime> {
        Ok(moment(parsed(self.certificate())?.validity().not_after.timestamp()))
    }

    /// When it was made, if it is one of ours.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub(super) fn made(&self) -> Result<SystemTime> {
        Ok(moment(parsed(self.certificate())?.validity().not_before.timestamp()) + SKEW)
    }

    /// The authority's certificate as PEM, and those of its predecessors that are still to be believed.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificates[0]
    }

    /// All certificates that are to be believed.
    pub fn trusted(&self) -> Vec<CertificateDer<'static>> {
        self.certificates.clone()
    }

    pub(super) fn key(&self) -> &KeyPair {
        self.issuer.key()
    }

    /// Issues a certificate with a new key.
    ///
    /// # Errors
    /// A host name that no certificate can carry.
    pub fn issue(&self, leaf: &Leaf<'_>, now: SystemTime) -> Result<Identity> {
        let key = KeyPair::generate().context(Class::Bug, "cannot make a key")?;
        let mut params = CertificateParams::new(leaf.hosts).context(Class::Invalid, "not a host name")?;
        params.distinguished_name = distinguished_name(leaf.common_name, leaf.organizations);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = match leaf.usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.not_before = (now - SKEW).into();
        params.not_after = (now + leaf.life).into();
        let certificate =
            params.signed_by(&key, &self.issuer).context(Class::Bug, "cannot sign a certificate")?;
        Identity::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// The identity kept as `NAME.crt` and `NAME.key` below `dir`; a new one if there is none, if it names other
    /// people or hosts, is not of this authority, or has lived for two thirds of its life.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn load_or_issue(
        &self,
        dir: &Path,
        name: &str,
        leaf: &Leaf<'_>,
        now: SystemTime,
    ) -> Result<Identity> {
        files::make_dir(dir)?;
        let (crt, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        if let (Some(certificate), Some(key)) = (files::read(&crt)?, files::read(&key)?)
            && let Ok(identity) = Identity::from_pem(&certificate, &key)
            && KeyPair::from_pem(&key).is_ok_and(|key| fits(&identity.chain[0], &key))
            && self.still_fits(&identity.chain[0], leaf, now)
        {
            return Ok(identity);
        }
        let identity = self.issue(leaf, now)?;
        files::write_private(&key, &identity.key_pem)?;
        files::write_public(&crt, &identity.certificate_pem)?;
        Ok(identity)
    }

    fn still_fits(&self, der: &CertificateDer<'_>, leaf: &Leaf<'_>, now: SystemTime) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
        let Ok((_, authority)) = X509Certificate::from_der(self.certificate()) else { return false };
        let left = certificate.validity().not_after.timestamp() - seconds(now);
        let fresh = left as f64 >= leaf.life.as_secs_f64() * RENEW_BELOW;
        fresh
            && certificate.verify_signature(Some(authority.public_key())).is_ok()
            && subject(&certificate) == (leaf.common_name.to_owned(), sorted(leaf.organizations))
            && hosts(&certificate) == sorted(leaf.hosts)
    }
}

/// The certificates of a bundle.
///
/// # Errors
/// It is none.
pub(super) fn all(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>();
    certificates.context(Class::Invalid, "not a certificate")
}

/// Its CN.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Result<String> {
    Ok(subject(&parsed(certificate)?).0)
}

/// Whether it has not expired.
pub(super) fn is_valid(certificate: &CertificateDer<'_>, now: SystemTime) -> bool {
    parsed(certificate).is_ok_and(|c| c.validity().not_after.timestamp() > seconds(now))
}

/// Whether it is the key of the certificate.
pub(super) fn fits(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    parsed(certificate).is_ok_and(|c| *c.public_key().subject_public_key.data == *key.public_key_raw())
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>> {
    Ok(X509Certificate::from_der(certificate).context(Class::Invalid, "not a certificate")?.1)
}

fn moment(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn sorted<T: AsRef<str>>(texts: &[T]) -> Vec<String> {
    let mut texts: Vec<String> = texts.iter().map(|t| t.as_ref().to_owned()).collect();
    texts.sort();
    texts.dedup();
    texts
}

fn distinguished_name(common_name: &str, organizations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    // rcgen keeps one value of each type; nobody here needs two groups in a certificate.
    if let Some(organization) = organizations.first() {
        name.push(DnType::OrganizationName, *organization);
    }
    name
}

fn subject(certificate: &X509Certificate<'_>) -> (String, Vec<String>) {
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().unwrap_or("").to_owned();
    let name = certificate.subject().iter_common_name().next().map(text).unwrap_or_default();
    let mut groups: Vec<String> = certificate.subject().iter_organization().map(text).collect();
    groups.sort();
    (name, groups)
}

fn hosts(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| std::net::Ipv4Addr::from(b).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| std::net::Ipv6Addr::from(b).to_string()),
            _ => None,
        },
        _ => None,
    });
    sorted(&names.collect::<Vec<_>>())
}
