//! Requests that are broken, too large or too slow, on real connections: what Kubernetes answers, and that the server
//! goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_apiserver::limits::{HEADER_TIMEOUT, MAX_STREAMS, REQUEST_TIMEOUT};
use gantry_apiserver::testing::http;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::listen_as;
use crate::{Lab, MAPS, map, refused};

/// A server on loopback, and what it shows.
struct Listening {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
}

async fn listen(lab: &Lab) -> Listening {
    let (address, certificate) = listen_as(lab).await;
    Listening { address, certificate }
}

/// A connection that speaks `protocol`.
async fn connect(to: &Listening, protocol: &str) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(to.certificate.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(to.address).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake")
}

/// Everything until the server closes.
async fn rest(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A server that resets the connection has said what it had to say.
    stream.read_to_end(&mut bytes).await.ok();
    bytes
}

/// The status code of an HTTP/1.1 response.
fn code(response: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(response);
    text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// Whether the server answers on a new connection.
async fn is_well(to: &Listening) -> bool {
    let mut stream = connect(to, "http/1.1").await;
    stream.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("sent");
    code(&rest(&mut stream).await) == 200
}

#[tokio::test]
async fn broken_requests_are_refused() {
    let lab = Lab::new().await;
    let to = listen(&lab).await;
    let post =
        format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n");
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(1 << 20));
    let table = [
        ("chunk sizes that are none", format!("{post}transfer-encoding: chunked\r\n\r\nzz\r\n"), 400),
        ("a chunk without its end", format!("{post}transfer-encoding: chunked\r\n\r\n2\r\n{{}}xx"), 400),
        ("two lengths", format!("{post}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"), 400),
        ("a length that is none", format!("{post}content-length: -1\r\n\r\n"), 400),
        ("many headers", format!("GET /version HTTP/1.1\r\nhost: x\r\n{many}\r\n"), 431),
        ("a long header", format!("GET /version HTTP/1.1\r\nhost: x\r\n{long}\r\n"), 431),
        ("a long URL", format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000)), 414),
        ("no HTTP", "hello\r\n\r\n".to_owned(), 400),
        ("a header without a name", "GET / HTTP/1.1\r\n: x\r\n\r\n".to_owned(), 400),
    ];
    for (what, bytes, expected) in table {
        let mut stream = connect(&to, "http/1.1").await;
        // The server may answer and close before it has read everything.
        stream.write_all(bytes.as_bytes()).await.ok();
        assert_eq!(code(&rest(&mut stream).await), expected, "{what}");
    }
    assert!(is_well(&to).await);
    lab.end().await;
}

#[tokio::test]
async fn slow_requests_are_broken_off() {
    let lab = Lab::new().await;
    let to = listen(&lab).await;
    let mut headers = connect(&to, "http/1.1").await;
    let mut body = connect(&to, "http/1.1").await;
    headers.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\nx-slow").await.expect("sent");
    let begun = format!(
        "POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\ncontent-type: application/json\r\n\r\n{{"
    );
    body.write_all(begun.as_bytes()).await.expect("sent");
    // What was sent has to arrive before time flies.
    assert!(is_well(&to).await);
    tokio::time::pause();
    let started = tokio::time::Instant::now();
    assert!(rest(&mut headers).await.is_empty(), "a connection without a request is closed");
    assert!(started.elapsed() <= HEADER_TIMEOUT + Duration::from_secs(5));
    let mut answer = vec![0; 4096];
    let length = body.read(&mut answer).await.expect("an answer");
    assert_eq!(code(&answer[..length]), 504, "{}", String::from_utf8_lossy(&answer[..length]));
    assert!(started.elapsed() <= REQUEST_TIMEOUT + Duration::from_secs(5));
    tokio::time::resume();
    lab.end().await;
}

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The beginning of a connection of HTTP/2.
fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[])].concat()
}

/// A request of `method` (an index of HPACK's table) for `/`; with END_HEADERS and perhaps END_STREAM.
fn request(stream: u32, method: u8, end: bool) -> Vec<u8> {
    let block = [&[method, 0x87, 0x84, 0x41, 1][..], b"x"].concat();
    frame(HEADERS, if end { 5 } else { 4 }, stream, &block)
}

/// The kinds of the frames that come until the server closes or is silent for a while.
async fn frames(stream: &mut TlsStream<TcpStream>) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    let reading = async {
        let mut buffer = [0; 16 << 10];
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            bytes.extend_from_slice(&buffer[..length]);
        }
    };
    Box::pin(tokio::time::timeout(Duration::from_secs(2), reading)).await.ok();
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(head) = bytes.get(at..at + 9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some(payload) = bytes.get(at + 9..at + 9 + length) else { break };
        found.push((head[3], payload.to_vec()));
        at += 9 + length;
    }
    found
}

#[tokio::test]
async fn many_streams_and_resets_are_bounded() {
    const GET: u8 = 0x82;
    const POST: u8 = 0x83;
    let lab = Lab::new().await;
    let to = listen(&lab).await;
    // More requests at once than there may be: the rest is refused.
    let mut stream = connect(&to, "h2").await;
    let mut bytes = preface();
    let more = 100;
    (0..MAX_STREAMS + more).for_each(|n| bytes.extend(request(n * 2 + 1, POST, false)));
    stream.write_all(&bytes).await.ok();
    let seen = Box::pin(frames(&mut stream)).await;
    let refused = seen.iter().filter(|(kind, _)| *kind == RESET).count();
    let gone = seen.iter().any(|(kind, _)| *kind == GOAWAY);
    assert!(gone || refused >= more as usize, "{refused} streams were refused");
    // Requests that are taken back at once (CVE-2023-44487): the connection ends, or all of them are forgotten.
    let mut stream = connect(&to, "h2").await;
    let mut bytes = preface();
    for n in 0..20_000 {
        bytes.extend(request(n * 2 + 1, GET, true));
        bytes.extend(frame(RESET, 0, n * 2 + 1, &8_u32.to_be_bytes()));
    }
    stream.write_all(&bytes).await.ok();
    let seen = Box::pin(frames(&mut stream)).await;
    let calm = seen.iter().find(|(kind, _)| *kind == GOAWAY).map(|(_, payload)| payload[4..8].to_vec());
    assert_eq!(calm, Some(11_u32.to_be_bytes().to_vec()), "the client is told to calm down");
    assert!(is_well(&to).await);
    lab.end().await;
}

#[tokio::test]
async fn bodies_that_are_none_are_refused_in_upstreams_words() {
    let lab = Lab::new().await;
    let cannot = "couldn't get version/kind; json parse error: ";
    let deep = |depth: usize| {
        format!("{{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{}", "[".repeat(depth))
    };
    let table: Vec<(&str, &str, Vec<u8>, u16, String)> = vec![
        ("gzip", "application/json", b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), 400, cannot.to_owned()),
        ("too deep", "application/json", deep(100_000).into_bytes(), 400, String::new()),
        ("cut", "application/json", b"{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\"".to_vec(), 400, "unexpected end of JSON input".to_owned()),
        ("not YAML", "application/yaml", b"a: [\n".to_vec(), 400, "yaml: ".to_owned()),
        ("not UTF-8", "application/yaml", b"a: \xff\n".to_vec(), 400, "yaml: ".to_owned()),
        ("aliases of aliases", "application/yaml", aliases(), 400, "yaml: ".to_owned()),
        ("deep YAML", "application/yaml", format!("a: {}", "[".repeat(20_000)).into_bytes(), 400, "yaml: ".to_owned()),
        ("no protobuf", "application/vnd.kubernetes.protobuf", b"{}".to_vec(), 400, "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]".to_owned()),
        ("cut protobuf", "application/vnd.kubernetes.protobuf", b"k8s\0\x0a\x7f".to_vec(), 400, "proto: ".to_owned()),
        ("unknown", "text/plain", b"{}".to_vec(), 415, "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf".to_owned()),
    ];
    for (what, media_type, body, code, message) in table {
        let answer = http(&lab.server, "POST", MAPS, &[("content-type", media_type)], body).await;
        let status = answer.json();
        let text = status["message"].as_str().unwrap_or("");
        assert!(answer.code == code && text.contains(&message), "{what}: {status}");
        assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Failure")), "{what}");
    }
    // Go reads text that is no UTF-8 and puts a replacement character in its place.
    let invalid = b"{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"u\"},\"data\":{\"a\":\"x\xff\"}}".to_vec();
    let answer = http(&lab.server, "POST", MAPS, &[], invalid).await;
    assert_eq!((answer.code, &answer.json()["data"]["a"]), (201, &json!("x\u{fffd}")));
    let twice = br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","name":"b"},"data":{"a":"1","a":"2"}}"#;
    refused(
        &http(&lab.server, "POST", &format!("{MAPS}?fieldValidation=Strict"), &[], twice.to_vec()).await,
        400,
        "BadRequest",
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"metadata.name\", duplicate field \"data.a\"",
    );
    let page = http(&lab.server, "GET", MAPS, &[("accept", "text/html")], "").await;
    let status = page.json();
    let text = status["message"].as_str().unwrap_or("");
    assert!(
        page.code == 406 && text.starts_with("406: Not Acceptable\n\nAvailable representations: "),
        "{status}"
    );
    lab.create(MAPS, &map("alive")).await;
    lab.end().await;
}

/// A few lines of YAML that say a lot.
fn aliases() -> Vec<u8> {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..10 {
        let inner = vec![format!("*a{}", n - 1); 10].join(", ");
        text.push_str(&format!("a{n}: &a{n} [{inner}]\n"));
    }
    text.into_bytes()
}
