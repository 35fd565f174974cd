//! The authorities that vouch for clients: files and our own, which may change while the server runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use arc_swap::ArcSwap;
use gantry_base::error::Context;
use gantry_base::{Class, Clock, Error, Result};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

/// What vouches at the moment.
struct Current {
    pem: String,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// Authorities of clients' certificates. Shared.
pub struct Authorities {
    /// Our own, if clients of ours are meant.
    own: ArcSwap<String>,
    file: Option<PathBuf>,
    current: ArcSwap<Current>,
    generation: AtomicU64,
    clock: Arc<dyn Clock>,
}

fn make(pem: String) -> Result<Current> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.context(Class::Invalid, "not a certificate")?;
        roots.add(certificate).context(Class::Invalid, "not an authority's certificate")?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .context(Class::Invalid, "the client authorities cannot be used")?;
    Ok(Current { pem, verifier })
}

fn bundle(own: &str, file: Option<&PathBuf>) -> Result<String> {
    let Some(path) = file else { return Ok(own.to_owned()) };
    let text = std::fs::read_to_string(path).map_err(|e| Error::from(e).while_doing(path.display()))?;
    let newline = if own.is_empty() || own.ends_with('\n') { "" } else { "\n" };
    Ok(format!("{own}{newline}{text}"))
}

impl Authorities {
    /// Those in `own` (PEM) and in `file`.
    ///
    /// # Errors
    /// There is none, or the file cannot be read.
    pub fn new(own: &str, file: Option<PathBuf>, clock: Arc<dyn Clock>) -> Result<Self> {
        let current = make(bundle(own, file.as_ref())?)?;
        Ok(Self {
            own: ArcSwap::from_pointee(own.to_owned()),
            file,
            current: ArcSwap::from_pointee(current),
            generation: AtomicU64::new(0),
            clock,
        })
    }

    /// Reads the file again; what cannot be used leaves things as they are.
    ///
    /// # Errors
    /// The file cannot be read or holds no authority.
    pub fn reload(&self) -> Result<()> {
        let pem = bundle(&self.own.load(), self.file.as_ref())?;
        if pem != self.current.load().pem {
            self.current.store(Arc::new(make(pem)?));
            self.generation.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }

    /// Our own have changed, if clients of ours are meant.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn replace_own(&self, pem: &str) -> Result<()> {
        if !self.own.load().is_empty() {
            self.own.store(Arc::new(pem.to_owned()));
        }
        self.reload()
    }

    /// All of them, PEM.
    pub fn pem(&self) -> String {
        self.current.load().pem.clone()
    }

    /// Changes whenever they do.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether one of them vouches for a client with this chain.
    pub(crate) fn vouch(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> bool {
        let now = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let current = self.current.load();
        match current.verifier.verify_client_cert(leaf, others, UnixTime::since_unix_epoch(now)) {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, "a client certificate was refused");
                false
            }
        }
    }
}
