//! What lets an agent in, as its kubeconfig says it: read anew when that file, or one that it names, has changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use gantry_apiserver::limits::RELOAD_INTERVAL;
use gantry_apiserver::pki::Authorities;
use gantry_base::error::Context;
use gantry_base::{Class, Error, Result, Tasks};
use gantry_client::https::{HttpsConfig, HttpsTransport};
use gantry_client::kubeconfig::Kubeconfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// The credentials as they are at the time.
pub struct Credentials {
    path: PathBuf,
    transport: HttpsTransport,
    authorities: ArcSwap<Vec<CertificateDer<'static>>>,
}

impl Credentials {
    /// Reads them. Connections live in `tasks`.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it should be.
    pub fn read(path: PathBuf, tasks: &Tasks) -> Result<Arc<Self>> {
        let (config, authorities) = read(&path)?;
        let transport = HttpsTransport::new(config, tasks)?;
        Ok(Arc::new(Self { path, transport, authorities: ArcSwap::from_pointee(authorities) }))
    }

    /// Reads them again; whether they have changed.
    ///
    /// # Errors
    /// As of [`Credentials::read`]; all stays as it is.
    pub fn renew(&self) -> Result<bool> {
        let (config, authorities) = read(&self.path)?;
        if config == *self.transport.config() {
            return Ok(false);
        }
        self.transport.use_config(config)?;
        self.authorities.store(Arc::new(authorities));
        Ok(true)
    }

    /// Does so until `tasks` end.
    pub fn follow(self: &Arc<Self>, tasks: &Tasks) {
        let this = Arc::clone(self);
        tasks.spawn("kubeconfig", async move {
            loop {
                tokio::time::sleep(RELOAD_INTERVAL).await;
                match this.renew() {
                    Ok(false) => {}
                    Ok(true) => tracing::info!(path = %this.path.display(), "the credentials have changed"),
                    Err(error) => tracing::error!(%error, "the credentials cannot be read again"),
                }
            }
        });
    }

    /// Requests with them.
    pub fn transport(&self) -> HttpsTransport {
        self.transport.clone()
    }

    /// Who vouches for the server.
    pub fn authorities(self: &Arc<Self>) -> Authorities {
        let this = Arc::clone(self);
        Arc::new(move || this.authorities.load().to_vec())
    }
}

fn read(path: &Path) -> Result<(HttpsConfig, Vec<CertificateDer<'static>>)> {
    let config = Kubeconfig::read(path)?.select(None)?.https;
    let pem = config.ca_pem.as_deref().unwrap_or_default();
    let authorities: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<std::result::Result<_, _>>()
        .context(Class::Invalid, path.display())?;
    if authorities.is_empty() {
        return Err(Error::invalid(format!("{} holds no certificate-authority-data", path.display())));
    }
    Ok((config, authorities))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_apiserver::pki::{Identity, LEAF_LIFE, Leaf, Pki, Renewed, Usage, renewed_server_config};
    use gantry_apiserver::testing;
    use gantry_base::{Clock, SystemClock};
    use gantry_client::Transport as _;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    struct Scene {
        dir: tempfile::TempDir,
        pki: [Pki; 2],
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            let now = SystemClock::default().now();
            let pki =
                ["one", "other"].map(|name| Pki::load_or_create(&dir.path().join(name), now).expect("keys"));
            Self { dir, pki }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.path(name), text).expect("a file");
        }

        fn issue(&self, by: usize, hosts: &[String], usage: Usage) -> Identity {
            let leaf = Leaf {
                common_name: "system:node:a",
                organizations: &["system:nodes"],
                hosts,
                usage,
                life: LEAF_LIFE,
            };
            self.pki[by].cluster().issue(&leaf, SystemClock::default().now()).expect("a certificate")
        }

        /// Puts a certificate and its key beside the others.
        fn put(&self, name: &str, identity: &Identity) {
            self.write(&format!("{name}.crt"), &identity.certificate_pem);
            self.write(&format!("{name}.key"), &identity.key_pem);
        }

        fn pem(&self, of: usize) -> String {
            self.pki[of].cluster().certificate_pem().to_owned()
        }
    }

    fn kubeconfig(address: std::net::SocketAddr, authority: &str) -> String {
        format!(
            "clusters: [{{name: c, cluster: {{server: 'https://{address}', {authority}}}}}]\nusers: [{{name: u, user: {{client-certificate: client.crt, client-key: client.key}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\ncurrent-context: c\n"
        )
    }

    #[tokio::test]
    async fn authorities_and_certificates_are_followed() {
        let scene = Scene::new();
        let tasks = Tasks::new();
        // A server that lets in whom one authority vouches for: which one, the test decides.
        let hosts = ["127.0.0.1".to_owned()];
        scene.put("server", &scene.issue(0, &hosts, Usage::Server));
        let now = SystemClock::default().now();
        let serving = Renewed::from_files(scene.path("server.crt"), scene.path("server.key"), now);
        let serving = serving.expect("a certificate");
        let lets_in = Arc::new(AtomicUsize::new(0));
        let (asked, all) = (Arc::clone(&lets_in), [0, 1].map(|of| scene.pki[of].cluster().trusted()));
        let clients: Authorities = Arc::new(move || all[asked.load(Ordering::SeqCst)].clone());
        let tls = renewed_server_config(Arc::clone(&serving) as _, clients).expect("TLS");
        let (server, _) = testing::in_memory(&tasks).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        server.serve(listener, Arc::new(tls), &tasks);

        scene.write("ca.crt", &scene.pem(0));
        scene.put("client", &scene.issue(0, &[], Usage::Client));
        scene.write("kubeconfig", &kubeconfig(address, "certificate-authority: ca.crt"));
        let credentials = Credentials::read(scene.path("kubeconfig"), &tasks).expect("credentials");
        let transport = credentials.transport();
        transport.raw("/version").await.expect("an answer");
        assert!(!credentials.renew().expect("read"));

        // The server has a successor's certificate, and the file tells of it.
        scene.put("server", &scene.issue(1, &hosts, Usage::Server));
        assert!(serving.renew(now).expect("read"));
        let dial = || transport.upgrade(http::Method::GET, "/version");
        assert!(dial().await.is_err(), "it is not believed yet");
        scene.write("ca.crt", "nonsense");
        assert!(credentials.renew().is_err());
        scene.write("ca.crt", &format!("{}{}", scene.pem(0), scene.pem(1)));
        assert!(credentials.renew().expect("read"));
        assert!(dial().await.is_ok());
        transport.raw("/version").await.expect("an answer");
        assert_eq!(credentials.authorities()().len(), 2);

        // A new certificate of ours: first the half of it.
        lets_in.store(1, Ordering::SeqCst);
        let identity = scene.issue(1, &[], Usage::Client);
        scene.write("client.crt", &identity.certificate_pem);
        assert!(credentials.renew().is_err(), "the key is another's");
        scene.put("client", &identity);
        assert!(credentials.renew().expect("read"));
        transport.raw("/version").await.expect("an answer");

        // The kubeconfig itself says something else.
        use base64::Engine as _;
        let data = base64::engine::general_purpose::STANDARD.encode(scene.pem(1));
        let text = kubeconfig(address, &format!("certificate-authority-data: {data}"));
        scene.write("kubeconfig", &text);
        assert!(credentials.renew().expect("read"));
        transport.raw("/version").await.expect("an answer");
        assert_eq!(credentials.authorities()(), scene.pki[1].cluster().trusted());
        assert!(tasks.shut_down(Duration::from_secs(10)).await);
    }
}
