//! Watches as messages of a WebSocket.

use std::sync::Arc;

use futures::StreamExt;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::tls::listen_as;
use crate::{Lab, MAPS, map};

type Socket = tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>>;

/// Opens a WebSocket with these headers; the subprotocol that the server named.
async fn open(lab: &Lab, path: &str, headers: &[(&'static str, &str)]) -> Result<(Socket, String), Error> {
    let (address, certificate) = listen_as(lab).await;
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("TLS");
    let mut request = format!("wss://localhost{path}").into_client_request().expect("a request");
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().expect("a header"));
    }
    let (socket, response) = tokio_tungstenite::client_async(request, tls).await?;
    let protocol = response.headers().get("sec-websocket-protocol");
    let protocol = protocol.and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    Ok((socket, protocol))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_sends_each_event_as_a_message() {
    let lab = Lab::new().await;
    lab.create(MAPS, &map("a")).await;
    lab.create(MAPS, &map("b")).await;
    let path = format!("{MAPS}?watch=true&timeoutSeconds=20");
    let (mut socket, protocol) = open(&lab, &path, &[]).await.expect("a socket");
    assert_eq!(protocol, "");
    for name in ["a", "b"] {
        let Some(Ok(Message::Text(text))) = socket.next().await else { panic!("a text message") };
        assert!(text.ends_with('\n'), "{text}");
        let event: Value = serde_json::from_str(&text).expect("an event");
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&"ADDED".into(), &name.into()));
    }
    lab.create(MAPS, &map("c")).await;
    let Some(Ok(Message::Text(text))) = socket.next().await else { panic!("a text message") };
    assert!(text.contains("\"name\":\"c\""), "{text}");
    socket.close(None).await.expect("closed");

    // The subprotocol is the client's; the form is that of `Accept`.
    let headers = [("sec-websocket-protocol", "foo"), ("accept", "application/vnd.kubernetes.protobuf")];
    let (mut socket, protocol) = open(&lab, &path, &headers).await.expect("a socket");
    assert_eq!(protocol, "foo");
    let Some(Ok(Message::Binary(bytes))) = socket.next().await else { panic!("a binary message") };
    // A WatchEvent, without a length before it: its type is field 1, and the object has upstream's prefix.
    assert!(bytes.starts_with(b"\x0a\x05ADDED") && bytes.windows(4).any(|w| w == b"k8s\0"), "{bytes:?}");
    drop(socket);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_is_refused_opens_no_socket() {
    let lab = Lab::new().await;
    let bad = format!("{MAPS}?watch=true&resourceVersionMatch=Exact");
    let several = [("sec-websocket-protocol", "a, b")];
    for (path, headers, code) in
        [(bad.as_str(), &[][..], 422), (&format!("{MAPS}?watch=true"), &several[..], 400)]
    {
        match open(&lab, path, headers).await {
            Err(Error::Http(response)) => assert_eq!(response.status().as_u16(), code, "{path}"),
            other => panic!("{path}: {:?}", other.map(|(_, protocol)| protocol)),
        }
    }
    lab.end().await;
}
