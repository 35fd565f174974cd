//! The HTTPS server: who is let in, what logs look like, and which addresses are tunnelled to.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use common::{MemoryApi, Node};
use gantry_base::{SystemClock, Tasks};
use gantry_cri::{FakeRuntime, Runtime};
use gantry_kubelet::{AllowedClients, ServerOptions};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

/// The node's address: one of the loopback's.
const NODE_IP: &str = "127.9.1.1";

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

/// TLS to the kubelet, under a certificate of `client`.
async fn connect(address: SocketAddr, issuer: &Issuer, client: Option<&str>) -> TlsStream<TcpStream> {
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
    let stream = TcpStream::connect(address).await.expect("connected");
    let name = ServerName::try_from("localhost").expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS")
}

async fn get(address: SocketAddr, issuer: &Issuer, client: Option<&str>, path: &str) -> (u16, String) {
    let stream = connect(address, issuer, client).await;
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

/// A node that lets `kube-apiserver` in, and where its kubelet listens.
async fn serving(issuer: &Issuer) -> (Node, SocketAddr) {
    let server = ServerOptions {
        listen: "127.0.0.1:0".parse().expect("an address"),
        tls: server_config(issuer),
        allowed: AllowedClients { common_names: vec!["kube-apiserver".into()], organizations: vec![] },
    };
    let tasks = Tasks::new();
    let runtime = FakeRuntime::new(Arc::new(SystemClock::default()), tasks.clone());
    let dir = tempfile::tempdir().expect("a directory");
    let node = Node::serving(MemoryApi::new(), runtime, tasks, dir, NODE_IP, Some(server)).await;
    let address = node.kubelet.address().expect("an address");
    (node, address)
}

/// Asks for a tunnel to `target`: the code, and the connection behind the answer's headers.
async fn tunnel(
    address: SocketAddr,
    issuer: &Issuer,
    client: Option<&str>,
    target: &str,
) -> (u16, TlsStream<TcpStream>) {
    let mut stream = connect(address, issuer, client).await;
    let request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    let head = String::from_utf8(head).expect("text");
    (head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code"), stream)
}

#[tokio::test]
async fn tunnels_lead_to_the_nodes_own_pods_only() {
    let issuer = authority();
    let (node, address) = serving(&issuer).await;
    // The pod's address is one of the loopback's.
    node.runtime.update_runtime_config("127.9.0.0/24").await.expect("a range");
    node.run("p", json!({"containers": [{"name": "c", "image": "a:1"}]}));
    let pod = node.condition("p", "Ready", "True").await;
    let ip = pod.status.and_then(|s| s.pod_ip).expect("an address");
    let listener = TcpListener::bind((ip.as_str(), 0)).await.expect("a port");
    let open = listener.local_addr().expect("an address").to_string();
    let closed = TcpListener::bind((ip.as_str(), 0)).await.expect("a port").local_addr().expect("an address");

    assert_eq!(tunnel(address, &issuer, None, &open).await.0, 401);
    assert_eq!(tunnel(address, &issuer, Some("somebody"), &open).await.0, 403);
    let refused = [
        ("127.0.0.1:80".to_owned(), 403, "no pod of this node has the address 127.0.0.1".to_owned()),
        (format!("{NODE_IP}:80"), 403, format!("no pod of this node has the address {NODE_IP}")),
        ("localhost:80".to_owned(), 400, "\"localhost:80\" is not an address and a port".to_owned()),
        (closed.to_string(), 502, format!("dial tcp {closed}: connect: connection refused")),
    ];
    for (target, expected, why) in refused {
        let (code, mut stream) = tunnel(address, &issuer, Some("kube-apiserver"), &target).await;
        let mut body = vec![0; why.len()];
        stream.read_exact(&mut body).await.expect("a reason");
        assert_eq!((code, String::from_utf8(body).expect("text")), (expected, why), "{target}");
    }

    // The pod answers when its client has ended, and the client hears the pod's end.
    let pod = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.expect("the client's end");
        stream.write_all(format!("{} bytes", heard.len()).as_bytes()).await.expect("sent");
    };
    let client = async {
        let (code, mut stream) = tunnel(address, &issuer, Some("kube-apiserver"), &open).await;
        assert_eq!(code, 200);
        stream.write_all(&[7; 100_000]).await.expect("sent");
        stream.shutdown().await.expect("ended");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the pod's end");
        answer
    };
    assert_eq!(tokio::join!(client, pod).0, "100000 bytes");

    // A pod on the node's network has the node's address.
    node.run("h", json!({"hostNetwork": true, "containers": [{"name": "c", "image": "a:1"}]}));
    node.condition("h", "Ready", "True").await;
    let listener = TcpListener::bind((NODE_IP, 0)).await.expect("a port");
    let open = listener.local_addr().expect("an address").to_string();
    assert_eq!(tunnel(address, &issuer, Some("kube-apiserver"), &open).await.0, 200);
    node.stop().await;
}

#[tokio::test]
async fn only_named_clients_are_let_in_and_logs_are_rendered() {
    let issuer = authority();
    let (node, address) = serving(&issuer).await;
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
