//! The HTTPS transport against a server that speaks HTTP/2 over TLS and asks for a client certificate.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use gantry_api::{FieldSelector, LabelSelector, Resource};
use gantry_base::Tasks;
use gantry_client::https::{HttpsConfig, UNREACHABLE};
use gantry_client::{HttpsTransport, ListParams, Target, Transport, WatchKind, WatchParams};
use http::{Request, Response, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Body = UnsyncBoxBody<Bytes, Infallible>;

const PODS: Resource = Resource::fixed("", "v1", "Pod", "pods", true);

/// A self-made authority, and the certificates that it gave.
struct Pki {
    authority: rcgen::Certificate,
    server: (rcgen::Certificate, KeyPair),
    client: (rcgen::Certificate, KeyPair),
}

fn pki() -> Pki {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("a certificate");
    let issuer = Issuer::new(params, key);
    let leaf = |names: Vec<String>, usage| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(names).expect("parameters");
        params.extended_key_usages = vec![usage];
        (params.signed_by(&key, &issuer).expect("a certificate"), key)
    };
    Pki {
        server: leaf(vec!["localhost".into()], ExtendedKeyUsagePurpose::ServerAuth),
        client: leaf(vec!["me".into()], ExtendedKeyUsagePurpose::ClientAuth),
        authority,
    }
}

fn acceptor(pki: &Pki) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(pki.authority.der().clone()).expect("a root");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let key = PrivateKeyDer::try_from(pki.server.1.serialize_der()).expect("a key");
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(vec![pki.server.0.der().clone()], key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

fn full(code: u16, text: String) -> Response<Body> {
    let mut response = Response::new(Full::from(text).boxed_unsync());
    *response.status_mut() = code.try_into().expect("a code");
    response
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let uri = request.uri().path_and_query().map_or("", |p| p.as_str()).to_owned();
    Ok(match uri.as_str() {
        "/api/v1/namespaces/a/pods?labelSelector=app%3Dweb&limit=2" => full(200,
            r#"{"kind":"PodList","metadata":{"resourceVersion":"7","continue":"next"},"items":[{"metadata":{"name":"x","resourceVersion":"3"}},{"metadata":{"name":"y","resourceVersion":"5"}}]}"#.into()),
        "/api/v1/pods?watch=true&resourceVersion=7&allowWatchBookmarks=true" => {
            let chunks = [
                r#"{"type":"ADDED","object":{"metadata":{"resourceVersion":"8"}}}"#, "\n",
                "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"9\"}}}\n",
                "{\"type\":\"ERROR\",\"object\":{\"status\":\"Failure\",\"reason\":\"Expired\",\"code\":410}}\n",
            ];
            let frames = stream::iter(chunks.map(|c| Ok(Frame::data(Bytes::from_static(c.as_bytes())))));
            Response::new(StreamBody::new(frames).boxed_unsync())
        }
        "/version" => full(200, format!("{}", request.version() == Version::HTTP_2)),
        "/whoami" => full(200, request.headers()["authorization"].to_str().unwrap_or("").into()),
        _ => full(404, r#"{"kind":"Status","status":"Failure","reason":"NotFound","message":"pods \"z\" not found","code":404}"#.into()),
    })
}

async fn serve(pki: &Pki, tasks: &Tasks) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (acceptor, group) = (acceptor(pki), tasks.clone());
    tasks.spawn("server", async move {
        loop {
            let (socket, _) = listener.accept().await.expect("a connection");
            let acceptor = acceptor.clone();
            group.spawn("connection", async move {
                let Ok(tls) = acceptor.accept(socket).await else { return };
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let service = hyper::service::service_fn(answer);
                builder.serve_connection(TokioIo::new(tls), service).await.ok();
            });
        }
    });
    address
}

fn config(pki: &Pki, address: SocketAddr) -> HttpsConfig {
    let mut config = HttpsConfig::new(format!("https://localhost:{}", address.port()))
        .with_ca(pki.authority.pem())
        .with_identity(pki.client.0.pem(), pki.client.1.serialize_pem())
        .with_token("secret");
    config.server = format!("https://{address}");
    config.tls_server_name = Some("localhost".into());
    config
}

fn target(namespace: &str, name: &str) -> Target {
    Target { resource: PODS, namespace: namespace.into(), name: name.into(), subresource: "" }
}

#[tokio::test]
async fn the_verbs_travel_over_http2_with_a_client_certificate() {
    let tasks = Tasks::new();
    let pki = pki();
    let address = serve(&pki, &tasks).await;
    let transport = HttpsTransport::new(config(&pki, address), &tasks).expect("good certificates");

    assert_eq!(transport.raw("/version").await.expect("an answer"), "true", "HTTP/2 is spoken");
    assert_eq!(transport.raw("/whoami").await.expect("an answer"), "Bearer secret");

    let labels = LabelSelector::parse("app=web").expect("a selector");
    let params = ListParams { labels, limit: 2, ..ListParams::default() };
    let list = transport.list(&target("a", ""), &params).await.expect("a list");
    assert_eq!((list.revision, list.continue_token.as_str()), (7, "next"));
    assert_eq!(list.items.iter().map(|i| i.revision()).collect::<Vec<_>>(), [3, 5]);

    let error = transport.get(&target("a", "z")).await.expect_err("there is none");
    assert!(error.is_not_found());
    assert_eq!(error.message(), "pods \"z\" not found");
    assert!(tasks.shut_down(std::time::Duration::from_secs(10)).await);
}

#[tokio::test]
async fn a_watch_gives_events_and_ends_with_the_servers_error() {
    let tasks = Tasks::new();
    let pki = pki();
    let address = serve(&pki, &tasks).await;
    let transport = HttpsTransport::new(config(&pki, address), &tasks).expect("good certificates");
    let params = WatchParams {
        from: 7,
        bookmarks: true,
        labels: LabelSelector::everything(),
        fields: FieldSelector::everything(),
    };
    let watch = transport.watch(&target("", ""), &params).await.expect("a watch");
    let batches: Vec<_> = watch.collect().await;
    let (last, good) = batches.split_last().expect("something came");
    let events: Vec<_> = good
        .iter()
        .flat_map(|b| b.as_ref().expect("events"))
        .map(|e| (e.kind, e.object.revision()))
        .collect();
    assert_eq!(events, [(WatchKind::Added, 8), (WatchKind::Bookmark, 9)]);
    assert!(last.as_ref().expect_err("the error is last").is_expired());
    assert!(tasks.shut_down(std::time::Duration::from_secs(10)).await);
}

#[tokio::test]
async fn a_server_that_another_authority_vouches_for_is_not_believed() {
    let tasks = Tasks::new();
    let pki = pki();
    let address = serve(&pki, &tasks).await;
    let stranger = self::pki();
    let config = config(&pki, address).with_ca(stranger.authority.pem());
    let transport = HttpsTransport::new(config, &tasks).expect("good certificates");
    let error = transport.raw("/version").await.expect_err("an unknown authority");
    assert_eq!(error.reason(), UNREACHABLE);
    assert!(tasks.shut_down(std::time::Duration::from_secs(10)).await);
}
