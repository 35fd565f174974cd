//! A certificate that is always good: issued anew well before it expires, read anew when its files change, and shown
//! from then on to every new connection, without a restart.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use gantry_base::error::Context;
use gantry_base::{Class, Clock, Error, Result, Tasks};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Authority, Identity, LEAF_LIFE, Leaf, Pki, Usage, files};
use crate::limits::RELOAD_INTERVAL;

/// What a certificate says.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// CN: the user's name.
    pub common_name: String,
    /// O: the user's group; empty for none.
    pub organization: String,
    /// DNS names and IP addresses.
    pub hosts: Vec<String>,
    /// What it is for.
    pub usage: Usage,
}

enum Source {
    /// Issued by the cluster's authority, and kept in the folder of its keys under this name.
    Issued(Arc<Pki>, String, Wanted),
    /// The same by the authority of front proxies.
    FrontProxy(Arc<Pki>, String, Wanted),
    /// Somebody else's files: certificate and key.
    Files(PathBuf, PathBuf),
}

impl Source {
    fn identity(&self, now: SystemTime) -> Result<Identity> {
        match self {
            Self::Issued(pki, name, wanted) => issue(&pki.cluster(), pki.dir(), name, wanted, now),
            Self::FrontProxy(pki, name, wanted) => issue(&pki.front_proxy(), pki.dir(), name, wanted, now),
            Self::Files(certificate, key) => {
                let missing = |path: &Path| Error::missing(format!("{} is not there", path.display()));
                let read = |path: &Path| files::read(path)?.ok_or_else(|| missing(path));
                Identity::from_pem(&read(certificate)?, &read(key)?)
                    .map_err(|e| e.while_doing(format!("{} and {}", certificate.display(), key.display())))
            }
        }
    }
}

fn issue(
    authority: &Authority,
    dir: &Path,
    name: &str,
    wanted: &Wanted,
    now: SystemTime,
) -> Result<Identity> {
    let organization = [wanted.organization.as_str()];
    let leaf = Leaf {
        common_name: &wanted.common_name,
        organizations: if wanted.organization.is_empty() { &[] } else { &organization },
        hosts: &wanted.hosts,
        usage: wanted.usage,
        life: LEAF_LIFE,
    };
    authority.load_or_issue(dir, name, &leaf, now)
}

/// The certificate.
pub struct Renewed {
    source: Source,
    identity: ArcSwap<Identity>,
    certified: ArcSwap<CertifiedKey>,
}

impl fmt::Debug for Renewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewed")
    }
}

fn certified(identity: &Identity) -> Result<CertifiedKey> {
    let key = rustls::crypto::ring::sign::any_supported_type(&identity.key)
        .context(Class::Invalid, "the private key is of a sort that cannot be used")?;
    let certified = CertifiedKey::new(identity.chain.clone(), key);
    certified.keys_match().context(Class::Invalid, "the key does not fit the certificate")?;
    Ok(certified)
}

impl Renewed {
    fn of(source: Source, now: SystemTime) -> Result<Arc<Self>> {
        let identity = source.identity(now)?;
        let certified = ArcSwap::from_pointee(certified(&identity)?);
        Ok(Arc::new(Self { source, identity: ArcSwap::from_pointee(identity), certified }))
    }

    /// One of the cluster's authority, kept under `name` beside the other keys.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn issued(pki: &Arc<Pki>, name: &str, wanted: Wanted, now: SystemTime) -> Result<Arc<Self>> {
        Self::of(Source::Issued(Arc::clone(pki), name.to_owned(), wanted), now)
    }

    /// One of the authority of front proxies.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn of_front_proxy(pki: &Arc<Pki>, name: &str, wanted: Wanted, now: SystemTime) -> Result<Arc<Self>> {
        Self::of(Source::FrontProxy(Arc::clone(pki), name.to_owned(), wanted), now)
    }

    /// That of somebody else's files, PEM.
    ///
    /// # Errors
    /// They cannot be read, or do not fit one another.
    pub fn from_files(certificate: PathBuf, key: PathBuf, now: SystemTime) -> Result<Arc<Self>> {
        Self::of(Source::Files(certificate, key), now)
    }

    /// The certificate as it is now.
    pub fn identity(&self) -> Arc<Identity> {
        self.identity.load_full()
    }

    /// Issues or reads it anew if that is due; whether it changed.
    ///
    /// # Errors
    /// That does not work: the old one stays.
    pub fn renew(&self, now: SystemTime) -> Result<bool> {
        let identity = self.source.identity(now)?;
        if identity.certificate_pem == self.identity.load().certificate_pem {
            return Ok(false);
        }
        self.certified.store(Arc::new(certified(&identity)?));
        self.identity.store(Arc::new(identity));
        Ok(true)
    }

    /// Sees to it until `tasks` end; calls `changed` after each change, again and again until that works.
    pub fn follow(
        self: &Arc<Self>,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
        changed: impl Fn(&Identity) -> Result<()> + Send + Sync + 'static,
    ) {
        let this = Arc::clone(self);
        tasks.spawn("certificate renewal", async move {
            let mut told = this.identity();
            loop {
                tokio::time::sleep(RELOAD_INTERVAL).await;
                if let Err(error) = this.renew(clock.now()) {
                    tracing::error!(%error, "a certificate cannot be renewed");
                }
                let now = this.identity();
                if Arc::ptr_eq(&told, &now) {
                    continue;
                }
                match changed(&now) {
                    Ok(()) => told = now,
                    Err(error) => tracing::error!(%error, "a renewed certificate cannot be told of"),
                }
            }
        });
    }
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified.load_full())
    }
}

impl ResolvesClientCert for Renewed {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.certified.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn wanted() -> Wanted {
        Wanted {
            common_name: "kube-apiserver".into(),
            organization: String::new(),
            hosts: vec!["localhost".into()],
            usage: Usage::Server,
        }
    }

    #[test]
    fn a_certificate_is_renewed_before_it_expires() {
        let dir = tempfile::tempdir().expect("a folder");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let pki = Arc::new(Pki::load_or_create(dir.path(), now).expect("keys"));
        let renewed = Renewed::issued(&pki, "apiserver", wanted(), now).expect("a certificate");
        let first = renewed.identity().certificate_pem.clone();
        assert!(!renewed.renew(now + LEAF_LIFE / 2).expect("fine"));
        assert!(renewed.renew(now + LEAF_LIFE * 3 / 4).expect("fine"));
        assert_ne!(renewed.identity().certificate_pem, first);
        // Also if it was forgotten until all is over.
        assert!(renewed.renew(now + LEAF_LIFE * 3).expect("fine"));
    }

    #[test]
    fn files_are_read_anew_and_broken_ones_change_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let pki = Arc::new(Pki::load_or_create(dir.path(), now).expect("keys"));
        let put = || {
            let identity = issue(&pki.cluster(), &dir.path().join("x"), "x", &wanted(), now).expect("one");
            std::fs::write(dir.path().join("c.pem"), &identity.certificate_pem).expect("a file");
            std::fs::write(dir.path().join("k.pem"), &identity.key_pem).expect("a file");
            std::fs::remove_dir_all(dir.path().join("x")).expect("forgotten");
        };
        put();
        let renewed = Renewed::from_files(dir.path().join("c.pem"), dir.path().join("k.pem"), now);
        let renewed = renewed.expect("a certificate");
        assert!(!renewed.renew(now).expect("fine"));
        put();
        assert!(renewed.renew(now).expect("fine"));
        let good = renewed.identity().certificate_pem.clone();
        std::fs::write(dir.path().join("c.pem"), "nonsense").expect("a file");
        assert!(renewed.renew(now).is_err());
        assert_eq!(renewed.identity().certificate_pem, good);
    }
}
