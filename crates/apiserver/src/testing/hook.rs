//! An HTTPS server in the same process, for whatever the API server calls.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use gantry_base::{Shutdown, Tasks};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What answers: `None` breaks the connection off.
pub type Handle = Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Option<Response<Bytes>>> + Send + Sync>;

/// A running server.
pub struct Hook {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who vouches for it.
    pub ca_pem: String,
}

impl Hook {
    /// Serves `handle` on loopback under certificates for `names` until `tasks` end.
    ///
    /// # Panics
    /// It cannot start.
    pub async fn start(names: &[&str], handle: Handle, tasks: &Tasks) -> Self {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).expect("an authority").pem();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(names).expect("names").signed_by(&key, &issuer).expect("a leaf");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .expect("a usable key");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (acceptor, group) = (TlsAcceptor::from(Arc::new(tls)), tasks.clone());
        tasks.spawn_graceful("hook", move |stop| listen(listener, acceptor, handle, group, stop));
        Self { address, ca_pem }
    }
}

async fn listen(listener: TcpListener, acceptor: TlsAcceptor, handle: Handle, tasks: Tasks, stop: Shutdown) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { return };
        let (acceptor, handle) = (acceptor.clone(), Arc::clone(&handle));
        tasks.spawn("hook connection", async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let handle = Arc::clone(&handle);
                async move { answer(request, &handle).await }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await.ok();
        });
    }
}

async fn answer(mut request: Request<Incoming>, handle: &Handle) -> std::io::Result<Response<Full<Bytes>>> {
    let upgrade = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
    let (parts, body) = request.into_parts();
    let bytes = if upgrade.is_some() && parts.headers.contains_key(http::header::UPGRADE) {
        Bytes::new()
    } else {
        body.collect().await.map_err(std::io::Error::other)?.to_bytes()
    };
    let mut request = Request::from_parts(parts, bytes);
    if let Some(upgrade) = upgrade {
        request.extensions_mut().insert(upgrade);
    }
    let answer = handle(request).await;
    answer.map(|a| a.map(Full::new)).ok_or_else(|| std::io::Error::other("broken off on purpose"))
}

/// JSON, with code 200.
pub fn json(value: &serde_json::Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(value.to_string()));
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
