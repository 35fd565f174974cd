//! The cluster's keys: its certificate authorities, the certificates they issue, and the key that signs tokens.
//!
//! All keys are ECDSA P-256: making one takes microseconds, so that a cold start does not wait for them. Files are
//! PEM, keys readable by their owner only, and replaced by rename, so that no reader sees half of one.

mod authority;
mod files;
pub(crate) mod foreign;
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
/// An authority with less than this left gets a successor, which signs when it has [`LEAF_LIFE`] left: what it issues must
/// not outlive it, and whoever believes it has to learn of the successor before that signs.
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

    /// Makes a successor of each authority that comes near its end. It is believed at once, and signs when certificates of
    /// its predecessor would outlive that one: whether anything has changed.
    ///
    /// # Errors
    /// The files cannot be read or written: to be tried again. What could be done is done.
    pub fn renew(&self, now: SystemTime) -> Result<bool> {
        let cluster = self.cluster.renew(&self.dir, now);
        let front_proxy = self.front_proxy.renew(&self.dir, now);
        Ok(cluster? | front_proxy?)
    }

    /// Whether another server, with a copy of our keys, has made a successor of its own: in what the cluster is told
    /// (PEM) of who vouches for clients and for front proxies. Says which; a metric tells how many.
    pub fn foreign_successors(&self, clients: &str, proxies: &str, now: SystemTime) -> Vec<String> {
        let mut found = foreign::successors(&self.cluster(), clients, now);
        found.extend(foreign::successors(&self.front_proxy(), proxies, now));
        foreign::note(found.len());
        found
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
        let now = born();
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
        let now = born();
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

    fn born() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    /// When the authority of then has a successor, and when that signs.
    fn due() -> (SystemTime, SystemTime) {
        let ends = born() + AUTHORITY_LIFE;
        (ends - AUTHORITY_RENEW + Duration::from_secs(60), ends - LEAF_LIFE)
    }

    fn at(dir: &Path, now: SystemTime) -> Pki {
        Pki::load_or_create(dir, now).expect("keys")
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("ca"))
            .collect();
        names.sort();
        names
    }

    fn is_issued_by(identity: &Identity, authority: &rustls_pki_types::CertificateDer<'_>) -> bool {
        let (_, leaf) = x509_parser::parse_x509_certificate(&identity.chain[0]).expect("a certificate");
        let (_, authority) = x509_parser::parse_x509_certificate(authority).expect("an authority");
        leaf.verify_signature(Some(authority.public_key())).is_ok()
    }

    fn issued(pki: &Pki, name: &str, now: SystemTime) -> Identity {
        pki.cluster().load_or_issue(pki.dir(), name, &leaf(&[]), now).expect("a certificate")
    }

    #[test]
    fn an_authority_gets_a_successor_in_time_and_is_believed_to_its_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let (made, signs) = due();
        let at = |now| at(dir.path(), now);
        let first = at(born()).cluster().certificate().clone();
        assert_eq!(at(born() + AUTHORITY_LIFE / 2).cluster().trusted(), std::slice::from_ref(&first));
        let both = at(made).cluster().trusted();
        assert_eq!((both.len(), &both[0]), (2, &first), "the successor is believed and does not sign");
        assert_eq!(names(dir.path()), ["ca-next.crt", "ca-next.key", "ca.crt", "ca.key"]);
        // However often the server starts until its time has come; the file tells of both as well.
        for now in [made, made + LEAF_LIFE / 2, signs - Duration::from_secs(1)] {
            assert_eq!(at(now).cluster().trusted(), both);
            let file = std::fs::read_to_string(dir.path().join("ca.crt")).expect("a bundle");
            assert_eq!(authority::all(&file).expect("certificates"), both);
        }
        let last = issued(&at(signs - Duration::from_secs(1)), "last", signs - Duration::from_secs(1));
        assert!(is_issued_by(&last, &first));
        for _ in 0..2 {
            assert_eq!(at(signs).cluster().trusted(), [both[1].clone(), first.clone()]);
            assert_eq!(names(dir.path()), ["ca.crt", "ca.key"]);
        }
        assert!(is_issued_by(&issued(&at(signs), "next", signs), &both[1]));
    }

    #[test]
    fn what_has_expired_altogether_begins_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = at(dir.path(), due().0).cluster().trusted();
        let late = born() + AUTHORITY_LIFE * 2 + LEAF_LIFE;
        let pki = at(dir.path(), late);
        assert_eq!(pki.cluster().trusted().len(), 1);
        assert!(!first.contains(pki.cluster().certificate()));
        assert!(is_issued_by(&issued(&pki, "node", late), pki.cluster().certificate()));
        assert_eq!(names(dir.path()), ["ca.crt", "ca.key"]);
        // Only the old one has: its successor is known already.
        let dir = tempfile::tempdir().expect("a folder");
        at(dir.path(), born());
        let both = at(dir.path(), due().0).cluster().trusted();
        let expired = at(dir.path(), born() + AUTHORITY_LIFE + LEAF_LIFE).cluster().trusted();
        assert_eq!(expired, both[1..]);
    }

    #[test]
    fn who_was_off_for_years_gives_a_successor_a_day() {
        let dir = tempfile::tempdir().expect("a folder");
        at(dir.path(), born());
        let late = born() + AUTHORITY_LIFE - LEAF_LIFE / 2;
        let both = at(dir.path(), late).cluster().trusted();
        let day = Duration::from_secs(86_400);
        assert_eq!(at(dir.path(), late + day / 2).cluster().trusted(), both);
        assert_eq!(*at(dir.path(), late + day).cluster().certificate(), both[1]);
    }

    #[test]
    fn a_successor_is_made_while_the_server_runs() {
        let dir = tempfile::tempdir().expect("a folder");
        let (made, signs) = due();
        let pki = Arc::new(at(dir.path(), born()));
        let wanted = || Wanted {
            common_name: "kube-apiserver".to_owned(),
            organization: String::new(),
            hosts: vec!["localhost".to_owned()],
            usage: Usage::Server,
        };
        let trusted = pki.trusted();
        let (first, proxies) = (trusted(), pki.front_proxy().trusted());
        assert!(!pki.renew(born() + AUTHORITY_LIFE / 2).expect("fine"));
        assert_eq!(trusted(), first);
        let serving = Renewed::issued(&pki, "apiserver", wanted(), made).expect("a certificate");
        // It is believed, but does not sign yet.
        assert!(pki.renew(made).expect("fine"));
        assert_eq!((trusted().len(), &trusted()[0]), (2, &first[0]));
        assert_eq!(pki.front_proxy().trusted()[0], proxies[0]);
        assert!(!serving.renew(made).expect("fine"));
        assert!(!pki.renew(made + LEAF_LIFE / 2).expect("fine"));
        // Then it does, and what its predecessor has signed is believed.
        assert!(serving.renew(signs - Duration::from_secs(1)).expect("a last one"));
        assert!(pki.renew(signs).expect("fine"));
        assert_eq!((trusted().len(), &trusted()[1]), (2, &first[0]));
        assert!(!pki.renew(signs).expect("fine"));
        let before = serving.identity();
        assert!(serving.renew(signs).expect("fine"));
        assert!(is_issued_by(&before, &first[0]) && is_issued_by(&serving.identity(), &trusted()[0]));
        let now = rustls_pki_types::UnixTime::since_unix_epoch(
            signs.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970"),
        );
        let name = rustls_pki_types::ServerName::try_from("localhost").expect("a name");
        let trust = trust::Trust::new(pki.trusted());
        for identity in [before, serving.identity()] {
            use rustls::client::danger::ServerCertVerifier as _;
            trust.verify_server_cert(&identity.chain[0], &[], &name, &[], now).expect("believed");
        }
    }

    /// Each is what a power cut leaves.
    #[test]
    fn half_written_files_are_survived() {
        let (made, signs) = due();
        let fresh = || {
            let dir = tempfile::tempdir().expect("a folder");
            at(dir.path(), born());
            let both = at(dir.path(), made).cluster().trusted();
            (dir, both)
        };
        let copy = |dir: &tempfile::TempDir, from: &str, to: &str| {
            std::fs::copy(dir.path().join(from), dir.path().join(to)).expect("a copy")
        };
        // The successor: its key alone, or with the certificate of another.
        let (dir, both) = fresh();
        std::fs::remove_file(dir.path().join("ca-next.crt")).expect("it was there");
        let again = at(dir.path(), made).cluster().trusted();
        assert_eq!((again.len(), &again[0]), (2, &both[0]));
        copy(&dir, "front-proxy-ca-next.key", "ca-next.key");
        let again = at(dir.path(), made).cluster().trusted();
        assert_eq!((again.len(), &again[0]), (2, &both[0]));
        assert_eq!(*at(dir.path(), signs).cluster().certificate(), again[1]);
        // It was about to take over: its key, then its certificate was in its place.
        for now in [made, signs] {
            let (dir, both) = fresh();
            copy(&dir, "ca-next.key", "ca.key");
            let pki = at(dir.path(), now);
            assert_eq!(pki.cluster().trusted(), [both[1].clone(), both[0].clone()]);
            assert!(is_issued_by(&issued(&pki, "node", now), &both[1]));
            assert_eq!(names(dir.path()), ["ca.crt", "ca.key"]);
        }
        // The first start.
        let (dir, both) = fresh();
        for name in ["ca.crt", "ca-next.crt"] {
            std::fs::remove_file(dir.path().join(name)).expect("it was there");
        }
        let new = at(dir.path(), made).cluster();
        assert!(new.trusted().len() == 1 && !both.contains(new.certificate()));
        // What it issues.
        let (dir, both) = fresh();
        let pki = at(dir.path(), made);
        issued(&pki, "node", made);
        copy(&dir, "sa.key", "node.key");
        let whole = issued(&pki, "node", made);
        assert!(server_config(&whole, &[&both[0]]).is_ok(), "the key fits");
    }

    #[test]
    fn a_successor_that_another_server_has_made_is_taken_over() {
        let (made, signs) = due();
        let (one, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let first = at(one.path(), born());
        for name in ["ca.crt", "ca.key"] {
            std::fs::copy(one.path().join(name), other.path().join(name)).expect("a copy");
        }
        assert!(first.renew(made).expect("fine"));
        let second = at(other.path(), made);
        assert_ne!(first.cluster().trusted()[1], second.cluster().trusted()[1], "each makes one");
        let pem = |pki: &Pki| pki.cluster().certificate_pem().to_owned();
        assert_eq!(first.foreign_successors(&pem(&first), "", made), Vec::<String>::new());
        let found = first.foreign_successors(&pem(&second), "", made);
        assert!(found.len() == 1 && found[0].starts_with("gantry-ca (sha256:"), "{found:?}");
        for name in ["ca-next.key", "ca-next.crt"] {
            std::fs::copy(one.path().join(name), other.path().join(name)).expect("a copy");
        }
        assert!(second.renew(made).expect("fine"));
        assert_eq!(first.cluster().trusted(), second.cluster().trusted());
        assert_eq!(at(other.path(), made).cluster().trusted(), first.cluster().trusted());
        assert_eq!(first.foreign_successors(&pem(&second), "", made), Vec::<String>::new());
        assert!(first.renew(signs).expect("fine") && second.renew(signs).expect("fine"));
        assert_eq!(first.cluster().trusted(), second.cluster().trusted());
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
