//! The cluster's keys: its certificate authorities, the certificates they issue, and the key that signs tokens.
//!
//! All keys are ECDSA P-256: making one takes microseconds, so that a cold start does not wait for them. Files are
//! PEM, keys readable by their owner only, and replaced by rename, so that no reader sees half of one.

mod authority;
mod files;
mod identity;
mod kept;
mod renewed;
mod request;
mod trust;

pub use authority::{Authority, Leaf, Usage};
pub use identity::{
    Identity, client_config, open_server_config, presenting_client_config, renewed_server_config,
    server_config,
};
pub use renewed::{Renewed, Wanted};
pub use request::common_name_of_request;
pub use trust::Authorities;

use kept::Kept;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_base::error::Context;
use gantry_base::{Class, Result};

/// How long an authority is valid.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// An authority with less than this left gets a successor: what it issues must not outlive it.
const AUTHORITY_RENEW: Duration = Duration::from_secs(2 * 365 * 86_400);
/// How long what it issues is valid.
pub const LEAF_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// A certificate with less than this share of its life left is replaced at start.
const RENEW_BELOW: f64 = 1.0 / 3.0;

/// The keys of one cluster, in one folder.
pub struct Pki {
    cluster: Kept,
    front_proxy: Kept,
    /// Signs service account tokens: PKCS#8, ECDSA P-256.
    pub token_key: Arc<[u8]>,
    dir: PathBuf,
}

/// Keys that are kept elsewhere: servers that share a store have the same ones.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// The cluster's authority: certificate and key, PEM.
    pub cluster: Option<(PathBuf, PathBuf)>,
    /// The key that signs tokens, PEM.
    pub token_key: Option<PathBuf>,
}

impl Pki {
    /// Reads the keys below `dir`; makes those that are not there.
    ///
    /// # Errors
    /// A file cannot be read, written, or understood; says which.
    pub fn load_or_create(dir: &Path, now: SystemTime) -> Result<Self> {
        Self::with_shared(dir, &Shared::default(), now)
    }

    /// The same, with some of the keys from elsewhere.
    ///
    /// # Errors
    /// As of [`Pki::load_or_create`]; what is elsewhere must be there.
    pub fn with_shared(dir: &Path, shared: &Shared, now: SystemTime) -> Result<Self> {
        files::make_dir(dir)?;
        let cluster = match &shared.cluster {
            Some((certificate, key)) => Kept::of_others("ca", Authority::load(certificate, key)?),
            None => Kept::ours(dir, "ca", "gantry-ca", now)?,
        };
        let front_proxy = Kept::ours(dir, "front-proxy-ca", "gantry-front-proxy-ca", now)?;
        let token_key = match &shared.token_key {
            Some(path) => read_token_key(path, &files::read_required(path)?)?,
            None => token_key(dir)?,
        };
        Ok(Self { cluster, front_proxy, token_key, dir: dir.to_owned() })
    }

    /// Signs the certificates of the server, of nodes and of users.
    pub fn cluster(&self) -> Arc<Authority> {
        self.cluster.now()
    }

    /// Signs the certificate by which extension API servers know requests that we pass on.
    pub fn front_proxy(&self) -> Arc<Authority> {
        self.front_proxy.now()
    }

    /// Whom the cluster's authority vouches for is believed, as it is at the time.
    pub fn trusted(self: &Arc<Self>) -> Authorities {
        let this = Arc::clone(self);
        Arc::new(move || this.cluster().trusted())
    }

    /// Makes a successor of each authority that comes near its end. It is believed at once, and signs a day later: whether
    /// anything has changed.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn renew(&self, now: SystemTime) -> Result<bool> {
        let cluster = self.cluster.renew(&self.dir, now)?;
        Ok(self.front_proxy.renew(&self.dir, now)? || cluster)
    }

    /// The folder that the keys are in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The key that signs tokens: `sa.key`, with its public half beside it.
fn token_key(dir: &Path) -> Result<Arc<[u8]>> {
    let path = dir.join("sa.key");
    if let Some(pem) = files::read(&path)? {
        return read_token_key(&path, &pem);
    }
    let key = rcgen::KeyPair::generate().context(Class::Bug, "cannot make a key")?;
    files::write_public(&dir.join("sa.pub"), &key.public_key_pem())?;
    files::write_private(&path, &key.serialize_pem())?;
    Ok(key.serialize_der().into())
}

fn read_token_key(path: &Path, pem: &str) -> Result<Arc<[u8]>> {
    let what = format!("{} holds no ECDSA P-256 key", path.display());
    Ok(rcgen::KeyPair::from_pem(pem).context(Class::Invalid, what)?.serialize_der().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn leaf<'a>(hosts: &'a [String]) -> Leaf<'a> {
        Leaf {
            common_name: "system:node:a",
            organizations: &["system:nodes"],
            hosts,
            usage: Usage::Both,
            life: LEAF_LIFE,
        }
    }

    #[test]
    fn keys_outlive_the_process_and_are_private() {
        let dir = tempfile::tempdir().expect("a folder");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let first = Pki::load_or_create(dir.path(), now).expect("new keys");
        let second = Pki::load_or_create(dir.path(), now).expect("the same keys");
        assert_eq!(first.cluster().certificate_pem(), second.cluster().certificate_pem());
        assert_eq!(first.token_key, second.token_key);
        for name in ["ca.key", "front-proxy-ca.key", "sa.key"] {
            let mode = std::fs::metadata(dir.path().join(name)).expect(name).permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_leaf_is_kept_until_it_ages_or_its_hosts_change() {
        let dir = tempfile::tempdir().expect("a folder");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let pki = Pki::load_or_create(dir.path(), now).expect("keys");
        let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let issue = |hosts: &[String], at| {
            pki.cluster()
                .load_or_issue(dir.path(), "node", &leaf(hosts), at)
                .expect("a certificate")
                .certificate_pem
        };
        let first = issue(&hosts, now);
        assert_eq!(issue(&hosts, now + LEAF_LIFE / 2), first);
        let renewed = issue(&hosts, now + LEAF_LIFE * 3 / 4);
        assert_ne!(renewed, first);
        assert_ne!(issue(&hosts[..1], now + LEAF_LIFE * 3 / 4), renewed);
    }

    #[test]
    fn an_authority_gets_a_successor_in_time_and_is_believed_to_its_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let at = |now| Pki::load_or_create(dir.path(), now).expect("keys");
        let first = at(now).cluster().certificate().clone();
        assert_eq!(*at(now + AUTHORITY_LIFE / 2).cluster().certificate(), first);
        let near = now + AUTHORITY_LIFE - AUTHORITY_RENEW / 2;
        let pki = at(near);
        assert_ne!(*pki.cluster().certificate(), first);
        assert_eq!(pki.cluster().trusted().len(), 2);
        assert_eq!(pki.cluster().trusted()[1], first);
        assert_eq!(at(near).cluster().trusted().len(), 2, "it is read back");
        // All is over: a new authority alone, and leafs of its own.
        let late = near + AUTHORITY_LIFE + LEAF_LIFE;
        let pki = at(late);
        assert_eq!(pki.cluster().trusted().len(), 1);
        let identity =
            pki.cluster().load_or_issue(dir.path(), "node", &leaf(&[]), late).expect("a certificate");
        let authority = pki.cluster();
        let (_, own) = x509_parser::parse_x509_certificate(authority.certificate()).expect("ours");
        let (_, issued) = x509_parser::parse_x509_certificate(&identity.chain[0]).expect("a certificate");
        assert!(issued.verify_signature(Some(own.public_key())).is_ok());
    }

    #[test]
    fn a_successor_is_made_while_the_server_runs() {
        let dir = tempfile::tempdir().expect("a folder");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let pki = Arc::new(Pki::load_or_create(dir.path(), now).expect("keys"));
        let wanted = || Wanted {
            common_name: "kube-apiserver".to_owned(),
            organization: String::new(),
            hosts: vec!["localhost".to_owned()],
            usage: Usage::Server,
        };
        let trusted = pki.trusted();
        let (first, proxies) = (trusted(), pki.front_proxy().trusted());
        assert!(!pki.renew(now + AUTHORITY_LIFE / 2).expect("fine"));
        assert_eq!(trusted(), first);
        let near = now + AUTHORITY_LIFE - AUTHORITY_RENEW / 2;
        let serving = Renewed::issued(&pki, "apiserver", wanted(), near).expect("a certificate");
        // It is believed, on the disk too, but does not sign yet.
        assert!(pki.renew(near).expect("fine"));
        assert_eq!((trusted().len(), &trusted()[0]), (2, &first[0]));
        assert_eq!(pki.front_proxy().trusted()[0], proxies[0]);
        assert_eq!(Pki::load_or_create(dir.path(), near).expect("keys").cluster().trusted()[0], trusted()[1]);
        assert!(!serving.renew(near).expect("fine"));
        assert!(!pki.renew(near + kept::SETTLE / 2).expect("fine"));
        // Then it does, and what its predecessor has signed is believed.
        let settled = near + kept::SETTLE;
        assert!(pki.renew(settled).expect("fine"));
        assert_eq!((trusted().len(), &trusted()[1]), (2, &first[0]));
        assert!(!pki.renew(settled).expect("fine"));
        let before = serving.identity();
        assert!(serving.renew(settled).expect("fine"));
        let issued_by = |identity: &Identity, authority: &rustls_pki_types::CertificateDer<'_>| {
            let (_, leaf) = x509_parser::parse_x509_certificate(&identity.chain[0]).expect("a certificate");
            let (_, authority) = x509_parser::parse_x509_certificate(authority).expect("an authority");
            leaf.verify_signature(Some(authority.public_key())).is_ok()
        };
        assert!(issued_by(&before, &first[0]) && issued_by(&serving.identity(), &trusted()[0]));
        let at = rustls_pki_types::UnixTime::since_unix_epoch(
            settled.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970"),
        );
        let name = rustls_pki_types::ServerName::try_from("localhost").expect("a name");
        let trust = trust::Trust::new(pki.trusted());
        for identity in [before, serving.identity()] {
            use rustls::client::danger::ServerCertVerifier as _;
            trust.verify_server_cert(&identity.chain[0], &[], &name, &[], at).expect("believed");
        }
    }

    #[test]
    fn a_broken_file_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("sa.key"), "nonsense").expect("a file");
        let error =
            Pki::load_or_create(dir.path(), SystemTime::UNIX_EPOCH + AUTHORITY_LIFE).err().expect("an error");
        assert!(error.to_string().contains("sa.key holds no ECDSA P-256 key"), "{error}");
    }
}
