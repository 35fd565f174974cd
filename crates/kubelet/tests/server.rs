//! The HTTPS server: who is let in, and what logs look like.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use common::{MemoryApi, Node};
use gantry_base::{SystemClock, Tasks};
use gantry_cri::FakeRuntime;
use gantry_kubelet::{AllowedClients, ServerOptions};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::new(vec![]).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

fn issue(issuer: &Issuer, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &**issuer).expect("a certificate");
    (certificate.der().clone(), PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
}

fn roots(issuer: &Issuer) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let certificate: &rcgen::Certificate = issuer.as_ref();
    roots.add(certificate.der().clone()).expect("a root");
    Arc::new(roots)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server_config(issuer: &Issuer) -> Arc<ServerConfig> {
    let (certificate, key) = issue(issuer, "kubelet");
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots(issuer), provider())
        .allow_unauthenticated()
        .build()
        .expect("a verifier");
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)
        .expect("a configuration");
    Arc::new(config)
}

async fn get(address: SocketAddr, issuer: &Issuer, client: Option<&str>, path: &str) -> (u16, String) {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots(issuer));
    let config = match client {
        Some(name) => {
            let (certificate, key) = issue(issuer, name);
            builder.with_client_auth_cert(vec![certificate], key).expect("a configuration")
        }
        None => builder.with_no_client_auth(),
    };
    let stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let request =
        http::Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new()).expect("a request");
    let exchange = async {
        let answer = sender.send_request(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    tokio::select! {
        answer = exchange => answer,
        ended = connection => panic!("the connection ended: {ended:?}"),
    }
}

#[tokio::test]
async fn only_named_clients_are_let_in_and_logs_are_rendered() {
    let issuer = authority();
    let server = ServerOptions {
        listen: "127.0.0.1:0".parse().expect("an address"),
        tls: server_config(&issuer),
        allowed: AllowedClients { common_names: vec!["kube-apiserver".into()], organizations: vec![] },
    };
    let tasks = Tasks::new();
    let runtime = FakeRuntime::new(Arc::new(SystemClock::default()), tasks.clone());
    let dir = tempfile::tempdir().expect("a directory");
    let node = Node::serving(MemoryApi::new(), runtime, tasks, dir, Some(server)).await;
    let address = node.kubelet.address().expect("an address");
    assert_eq!(get(address, &issuer, None, "/pods").await.0, 401);
    assert_eq!(get(address, &issuer, Some("somebody"), "/pods").await.0, 403);
    node.run("p", json!({"containers": [{"name": "c", "image": "a:1"}]}));
    node.condition("p", "Ready", "True").await;
    let logs = node.dir.path().join("logs/default_p_uid-p/c/0.log");
    let text = "2026-01-01T00:00:00.5Z stdout F one\n2026-01-01T00:00:01Z stderr P two \n\
                2026-01-01T00:00:02Z stderr F halves\n2026-01-01T00:00:03Z stdout F three\n";
    std::fs::write(&logs, text).expect("written");
    let ask = async |query: &str| {
        get(address, &issuer, Some("kube-apiserver"), &format!("/containerLogs/default/p/c?{query}")).await
    };
    assert_eq!(ask("").await, (200, "one\ntwo halves\nthree\n".to_owned()));
    assert_eq!(ask("tailLines=1").await.1, "three\n");
    assert_eq!(ask("limitBytes=5").await.1, "one\nt");
    assert_eq!(ask("tailLines=1&timestamps=true").await.1, "2026-01-01T00:00:03Z three\n");
    assert_eq!(ask("sinceTime=2026-01-01T00:00:02Z").await.1, "halves\nthree\n");
    assert_eq!(ask("stream=Stdout").await.1, "one\nthree\n");
    let (status, message) = ask("previous=true").await;
    assert_eq!(
        (status, message.as_str()),
        (400, "previous terminated container \"c\" in pod \"p\" not found")
    );
    let (status, _) = get(address, &issuer, Some("kube-apiserver"), "/containerLogs/default/p/none").await;
    assert_eq!(status, 404);
    let (status, pods) = get(address, &issuer, Some("kube-apiserver"), "/runningpods").await;
    assert!(status == 200 && pods.contains("uid-p"));
    let (status, summary) = get(address, &issuer, Some("kube-apiserver"), "/stats/summary").await;
    assert!(status == 200 && summary.contains("\"podRef\""), "{summary}");
    node.stop().await;
}
