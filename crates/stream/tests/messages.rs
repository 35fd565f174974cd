//! Logs and watches over a WebSocket, over a real HTTP/1.1 server on loopback.

mod common;

use std::net::SocketAddr;

use bytes::Bytes;
use common::{dial, end, full, serve};
use futures::StreamExt;
use gantry_base::Tasks;
use gantry_stream::websocket::messages::BYTE_PROTOCOLS;
use gantry_stream::websocket::{Framing, accept_messages, accept_watch};
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

async fn connect(
    server: SocketAddr,
    path: &str,
    protocol: Option<&str>,
    tasks: &Tasks,
) -> Result<Socket, u16> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(dial(server).await)).await.expect("a server");
    tasks.spawn("test client", async move { connection.with_upgrades().await.expect("the server stays") });
    let mut request = Request::builder()
        .uri(path)
        .header("host", "test")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    if let Some(protocol) = protocol {
        request = request.header("sec-websocket-protocol", protocol);
    }
    let request = request.body(http_body_util::Empty::<Bytes>::new()).expect("a valid request");
    let response = sender.send_request(request).await.expect("a response");
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        return Err(response.status().as_u16());
    }
    let chosen = response
        .headers()
        .get("sec-websocket-protocol")
        .map(|value| value.to_str().expect("text").to_owned());
    assert_eq!(chosen.as_deref(), protocol);
    let io = TokioIo::new(hyper::upgrade::on(response).await.expect("the connection is upgraded"));
    Ok(WebSocketStream::from_raw_socket(io, Role::Client, None).await)
}

async fn all(mut socket: Socket) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(message) = socket.next().await {
        match message.expect("an orderly end") {
            Message::Close(_) => {}
            message => messages.push(message),
        }
    }
    messages
}

#[tokio::test]
async fn bytes_come_as_messages_in_the_framing_asked_for() {
    let tasks = Tasks::new();
    let group = tasks.clone();
    let server = serve(&tasks, move |mut request: Request<Incoming>| {
        let tasks = group.clone();
        async move {
            let is_log = request.uri().path() == "/log";
            let accepted = match is_log {
                true => accept_messages(&mut request, BYTE_PROTOCOLS),
                false => accept_watch(&mut request, Framing::Text),
            };
            match accepted {
                Err(rejection) => full(rejection.into_response()),
                Ok(accepted) => {
                    let (response, socket) = accepted.into_parts();
                    tasks.spawn("test messages", async move {
                        let lines =
                            futures::stream::iter([Bytes::from_static(b"one"), Bytes::from_static(b"two")]);
                        socket
                            .await
                            .expect("the upgrade works")
                            .send_all(lines, is_log)
                            .await
                            .expect("the client stays");
                    });
                    full(response)
                }
            }
        }
    })
    .await;
    let binary = |text: &'static str| Message::Binary(Bytes::from_static(text.as_bytes()));
    let text = |text: &'static str| Message::Text(text.into());
    for (path, protocol, expected) in [
        ("/log", None, vec![binary(""), binary("one"), binary("two")]),
        ("/log", Some("binary.k8s.io"), vec![binary(""), binary("one"), binary("two")]),
        ("/log", Some("base64.binary.k8s.io"), vec![text(""), text("b25l"), text("dHdv")]),
        ("/watch", None, vec![text("one"), text("two")]),
    ] {
        let socket = connect(server, path, protocol, &tasks).await.expect("the server accepts");
        assert_eq!(all(socket).await, expected, "{path} {protocol:?}");
    }
    assert_eq!(connect(server, "/log", Some("v9.k8s.io"), &tasks).await.err(), Some(403));
    end(tasks).await;
}

#[tokio::test]
async fn an_endless_source_ends_when_the_client_goes() {
    let tasks = Tasks::new();
    let (ended, mut wait) = tokio::sync::mpsc::channel(1);
    let group = tasks.clone();
    let server = serve(&tasks, move |mut request: Request<Incoming>| {
        let (tasks, ended) = (group.clone(), ended.clone());
        async move {
            let (response, socket) =
                accept_messages(&mut request, BYTE_PROTOCOLS).expect("valid").into_parts();
            tasks.spawn("test messages", async move {
                let socket = socket.await.expect("the upgrade works");
                socket.send_all(futures::stream::pending(), true).await.expect("going is no error");
                ended.send(()).await.expect("the test waits");
            });
            full(response)
        }
    })
    .await;
    let mut socket = connect(server, "/log", None, &tasks).await.expect("the server accepts");
    assert!(socket.next().await.expect("a message comes").expect("a message comes").is_empty());
    socket.close(None).await.expect("the server stays");
    wait.recv().await.expect("the server notices");
    end(tasks).await;
}
