//! How the server ends: nobody is cut off who need not be.

#![expect(clippy::disallowed_methods, reason = "a test waits for what it has begun by its handle")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_api::Resource;
use gantry_api::status::Result as ApiResult;
use gantry_apiserver::admission::{AdmissionPlugin, AdmissionRequest, Operation};
use gantry_apiserver::lifecycle::Timing;
use gantry_apiserver::server::{ApiServer, Options, Parts};
use gantry_apiserver::testing::open_parts;
use gantry_base::{SystemClock, Tasks};
use gantry_kinds::AnyObject;
use gantry_store::Memory;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{Lab, MAPS, map};

/// Holds up the creation of `slow` until it is let go.
struct Gate {
    entered: Notify,
    open: Semaphore,
}

#[async_trait]
impl AdmissionPlugin for Gate {
    fn name(&self) -> &'static str {
        "Gate"
    }

    fn handles(&self, _operation: Operation, _resource: &Resource, _subresource: &str) -> bool {
        true
    }

    async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        _object: &mut dyn AnyObject,
        _old: Option<&dyn AnyObject>,
    ) -> ApiResult<()> {
        if request.name == "slow" {
            self.entered.notify_one();
            self.open.acquire().await.expect("open").forget();
        }
        Ok(())
    }
}

struct Shared(Arc<Gate>);

#[async_trait]
impl AdmissionPlugin for Shared {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        self.0.handles(operation, resource, subresource)
    }

    async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        old: Option<&dyn AnyObject>,
    ) -> ApiResult<()> {
        self.0.mutate(request, object, old).await
    }
}

/// A server that listens, and how to reach it.
struct Ending {
    lab: Lab,
    gate: Arc<Gate>,
    address: SocketAddr,
    connector: ClientConfig,
}

impl Ending {
    async fn new(timing: Timing) -> Self {
        let gate = Arc::new(Gate { entered: Notify::new(), open: Semaphore::new(0) });
        let tasks = Tasks::new();
        let plugin: Arc<dyn AdmissionPlugin> = Arc::new(Shared(Arc::clone(&gate)));
        let options = Options {
            store: Arc::new(Memory::default()),
            kinds: gantry_kinds::builtin(),
            clock: Arc::new(SystemClock::default()),
        };
        let parts = Box::new(|_| Ok(Parts { admission: vec![plugin], ..open_parts() }));
        let server = ApiServer::start(options, parts, &tasks).await.expect("a server").with_timing(timing);
        let names = ["localhost".to_owned()];
        let key = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], private)
            .expect("a key pair");
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut roots = RootCertStore::empty();
        roots.add(key.cert.der().clone()).expect("a root");
        let connector = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        server.serve(listener, Arc::new(tls), &tasks);
        Self { lab: Lab { server, tasks }, gate, address, connector }
    }

    async fn dial(&self, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = self.connector.clone();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Sends a request over a connection of its own.
    async fn ask(
        &self,
        version: Version,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        let http2 = version == Version::HTTP_2;
        let stream =
            TokioIo::new(self.dial(if http2 { "h2" } else { "http/1.1" }).await.expect("a connection"));
        if http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
            self.lab.tasks.spawn("client", async move { connection.await.unwrap_or_default() });
            return sender.send_request(request).await;
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        self.lab.tasks.spawn("client", async move { connection.await.unwrap_or_default() });
        sender.send_request(request).await
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
        Request::builder()
            .method(method)
            .uri(format!("https://localhost{path}"))
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .expect("a request")
    }

    /// Begins to create `slow`, and waits until that is under way.
    async fn begin_slow(
        self: &Arc<Self>,
        version: Version,
    ) -> tokio::task::JoinHandle<hyper::Result<Response<Incoming>>> {
        let ending = Arc::clone(self);
        let slow = tokio::spawn(async move {
            let request = ending.request("POST", MAPS, &map("slow").to_string());
            ending.ask(version, request).await
        });
        self.gate.entered.notified().await;
        slow
    }

    fn shut_down(&self) -> tokio::task::JoinHandle<bool> {
        let server = self.lab.server.clone();
        tokio::spawn(async move { server.shut_down().await })
    }

    async fn until_not_ready(&self) -> String {
        loop {
            let answer = self.lab.get("/readyz").await;
            if answer.code == 500 {
                return String::from_utf8_lossy(&answer.bytes).into_owned();
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn end(ending: Arc<Ending>) {
    let ending = Arc::into_inner(ending).expect("nobody else has it");
    ending.lab.end().await;
}

#[tokio::test]
async fn what_is_under_way_ends_well_and_nothing_new_begins() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let ending = Arc::new(Ending::new(Timing::default()).await);
        let watch = ending.request("GET", &format!("{MAPS}?watch=true"), "");
        let watch = ending.ask(version, watch).await.expect("a watch");
        assert_eq!(watch.status(), 200);
        let watch = tokio::spawn(async move { watch.into_body().collect().await });
        let slow = ending.begin_slow(version).await;

        let down = ending.shut_down();
        let report = ending.until_not_ready().await;
        assert!(report.contains("[-]shutdown failed: reason withheld\n"), "{report}");
        let events = watch.await.expect("no panic").expect("a whole body, not one that broke off");
        let events = events.to_bytes();
        assert!(events.is_empty() || events.ends_with(b"\n"), "no frame is cut in two");
        // The listener closes at about the same time.
        while ending.dial("http/1.1").await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(!down.is_finished(), "a request is still under way");
        ending.gate.open.add_permits(1);
        let made = slow.await.expect("no panic").expect("an answer");
        assert_eq!(made.status(), 201, "{version:?}");
        let body = made.into_body().collect().await.expect("a whole body").to_bytes();
        assert!(body.ends_with(b"}") || body.ends_with(b"}\n"));
        assert!(down.await.expect("no panic"), "nobody was cut off");
        end(ending).await;
    }
}

#[tokio::test]
async fn a_client_that_hangs_does_not_hold_up_the_end() {
    let timing = Timing { request_timeout: Duration::from_millis(300), ..Timing::default() };
    let ending = Ending::new(timing).await;
    let mut stream = ending.dial("http/1.1").await.expect("a connection");
    let half = format!(
        "POST {MAPS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\nexpect: 100-continue\r\n\r\n"
    );
    stream.write_all(half.as_bytes()).await.expect("half a request");
    let mut answer = [0; 12];
    // The server asks for the body, so it has begun to serve the request.
    stream.read_exact(&mut answer).await.expect("an interim answer");
    assert_eq!(&answer, b"HTTP/1.1 100");
    ending.shut_down().await.expect("no panic");
    let mut rest = Vec::new();
    // Whether it was told 504 or not: the connection is over.
    stream.read_to_end(&mut rest).await.unwrap_or_default();
    ending.lab.end().await;
}

#[tokio::test]
async fn new_requests_are_told_to_come_back_if_that_is_wanted() {
    let timing = Timing { send_retry_after: true, ..Timing::default() };
    let ending = Arc::new(Ending::new(timing).await);
    let slow = ending.begin_slow(Version::HTTP_11).await;
    let down = ending.shut_down();
    ending.until_not_ready().await;
    let answer = loop {
        let answer = ending.lab.get(MAPS).await;
        if answer.code != 200 {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(answer.code, 429);
    assert_eq!(answer.headers["retry-after"], "5");
    assert_eq!(&answer.bytes[..], b"The apiserver is shutting down, please try again later.\n");
    assert_eq!(ending.lab.get("/livez").await.code, 200, "it still lives");
    ending.gate.open.add_permits(1);
    assert_eq!(slow.await.expect("no panic").expect("an answer").status(), 201);
    assert!(down.await.expect("no panic"));
    end(ending).await;
}

#[tokio::test]
async fn clients_are_sent_elsewhere_now_and_then() {
    let timing = Timing { goaway_chance: 1.0, ..Timing::default() };
    let ending = Ending::new(timing).await;
    let stream = TokioIo::new(ending.dial("h2").await.expect("a connection"));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(ending.request("GET", "/version", "")).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    answer.into_body().collect().await.expect("a whole body");
    connection.await.expect("no panic").expect("the server closes the connection in order");
    ending.lab.end().await;
}
