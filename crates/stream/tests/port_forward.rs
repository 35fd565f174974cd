//! Port-forward: our client against our server, every transport, over a real HTTP/1.1 server on loopback.

mod common;

use std::net::SocketAddr;

use common::{Answer, dial, end, full, pattern, request, serve};
use gantry_base::Tasks;
use gantry_stream::port_forward::{
    ForwardedConnection, PortForwardTransport, connect_port_forward, relay_port_forward,
};
use gantry_stream::websocket::channels::{self, Codec, Dialect, Role};
use gantry_stream::{ConnectError, PortForwardClient, PortForwardServer, accept_port_forward};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TRANSPORTS: [PortForwardTransport; 2] =
    [PortForwardTransport::WebSocketTunnel, PortForwardTransport::Spdy];
/// The port at which nothing listens.
const CLOSED: u16 = 9;

/// Echoes on every port but [`CLOSED`], putting the port in front.
async fn forward(mut server: PortForwardServer, tasks: Tasks) {
    while let Some(stream) = server.next().await {
        tasks.spawn("test port", async move {
            if stream.port == CLOSED {
                stream.fail("connection refused").await.expect("the client stays");
                return;
            }
            let (mut read, mut write) = tokio::io::split(stream.data);
            write.write_u16(stream.port).await.expect("the client stays");
            // A client may leave in the middle.
            if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                write.shutdown().await.expect("shutting down twice is no error");
            }
        });
    }
}

async fn forward_server(tasks: &Tasks) -> SocketAddr {
    let group = tasks.clone();
    serve(tasks, move |request| answer(request, group.clone())).await
}

async fn answer(mut request: Request<Incoming>, tasks: Tasks) -> Answer {
    match accept_port_forward(&mut request) {
        Ok(accepted) => {
            let (response, server) = accepted.into_parts(&tasks);
            let group = tasks.clone();
            tasks.spawn("test forward", async move {
                forward(server.await.expect("the upgrade works"), group).await
            });
            full(response)
        }
        Err(rejection) => full(rejection.into_response()),
    }
}

async fn relay_server(tasks: &Tasks, upstream: SocketAddr) -> SocketAddr {
    let group = tasks.clone();
    serve(tasks, move |mut client: Request<Incoming>| {
        let tasks = group.clone();
        async move {
            let (response, server) =
                accept_port_forward(&mut client).expect("a valid request").into_parts(&tasks);
            let group = tasks.clone();
            tasks.spawn("test relay", async move {
                let server = server.await.expect("the upgrade works");
                let upstream = connect(upstream, PortForwardTransport::Spdy, &group).await.expect("accepted");
                relay_port_forward(server, &upstream).await;
            });
            full(response)
        }
    })
    .await
}

async fn connect(
    address: SocketAddr,
    transport: PortForwardTransport,
    tasks: &Tasks,
) -> Result<PortForwardClient, ConnectError> {
    let request = request("GET", address, "/portforward");
    connect_port_forward(dial(address).await, request, transport, tasks).await
}

async fn echo(connection: ForwardedConnection, port: u16, sent: &[u8]) {
    let (mut read, mut write) = tokio::io::split(connection.data);
    let writing = async {
        write.write_all(sent).await.expect("the server reads");
        write.shutdown().await.expect("the server reads");
    };
    let reading = async {
        assert_eq!(read.read_u16().await.expect("the port comes first"), port);
        let mut received = Vec::new();
        read.read_to_end(&mut received).await.expect("an orderly end");
        received
    };
    let ((), received) = tokio::join!(writing, reading);
    assert!(received == sent, "port {port} brings back its own bytes");
    assert_eq!(connection.error.wait().await, None);
}

#[tokio::test]
async fn ten_connections_at_once_do_not_mix() {
    let tasks = Tasks::new();
    let direct = forward_server(&tasks).await;
    let relayed = relay_server(&tasks, direct).await;
    for (server, transport) in [direct, relayed].into_iter().flat_map(|s| TRANSPORTS.map(|t| (s, t))) {
        let client = connect(server, transport, &tasks).await.expect("the server accepts");
        let connections = (1..=10).map(|i| {
            let client = &client;
            async move {
                let connection = client.open(8000 + i).await.expect("the server accepts");
                echo(connection, 8000 + i, &pattern(700_000, i as u8)).await;
            }
        });
        futures::future::join_all(connections).await;
    }
    end(tasks).await;
}

#[tokio::test]
async fn a_port_that_fails_says_why_and_the_others_go_on() {
    let tasks = Tasks::new();
    let direct = forward_server(&tasks).await;
    let relayed = relay_server(&tasks, direct).await;
    for (server, transport) in [direct, relayed].into_iter().flat_map(|s| TRANSPORTS.map(|t| (s, t))) {
        let client = connect(server, transport, &tasks).await.expect("the server accepts");
        let mut failed = client.open(CLOSED).await.expect("the streams are accepted");
        let mut nothing = Vec::new();
        failed.data.read_to_end(&mut nothing).await.expect("a cancelled stream just ends");
        assert!(nothing.is_empty());
        drop(failed.data);
        assert_eq!(failed.error.wait().await.as_deref(), Some("connection refused"));
        let connection = client.open(80).await.expect("the server accepts");
        echo(connection, 80, b"still here").await;
    }
    end(tasks).await;
}

#[tokio::test]
async fn connections_outlive_the_client_that_opened_them() {
    let tasks = Tasks::new();
    let server = forward_server(&tasks).await;
    for transport in TRANSPORTS {
        let client = connect(server, transport, &tasks).await.expect("the server accepts");
        let connection = client.open(81).await.expect("the server accepts");
        drop(client);
        echo(connection, 81, b"goodbye").await;
    }
    end(tasks).await;
}

#[tokio::test]
async fn what_is_no_port_forward_is_refused() {
    let tasks = Tasks::new();
    let server = serve(&tasks, |mut request: Request<Incoming>| async move {
        full(accept_port_forward(&mut request).map(|_| ()).expect_err("nothing valid comes").into_response())
    })
    .await;
    let plain = hyper_get(server, &[], &tasks).await;
    assert_eq!(plain, StatusCode::BAD_REQUEST);
    let unknown = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v9")];
    assert_eq!(hyper_get(server, &unknown, &tasks).await, StatusCode::FORBIDDEN);
    end(tasks).await;
}

async fn hyper_get(server: SocketAddr, headers: &[(&str, &str)], tasks: &Tasks) -> StatusCode {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(dial(server).await)).await.expect("a server");
    tasks.spawn("test client", async move { connection.with_upgrades().await.expect("the server stays") });
    let builder = Request::builder().uri("/portforward?ports=80&ports=9").header("host", "test");
    let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
    let request = builder.body(http_body_util::Empty::<bytes::Bytes>::new()).expect("a valid request");
    sender.send_request(request).await.expect("a response").status()
}

#[tokio::test]
async fn websocket_channels_name_their_port_and_carry_data_and_errors() {
    let tasks = Tasks::new();
    let server = forward_server(&tasks).await;
    for (protocol, codec) in
        [("v4.channel.k8s.io", Codec::Binary), ("v4.base64.channel.k8s.io", Codec::Base64)]
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(dial(server).await)).await.expect("a server");
        tasks
            .spawn("test client", async move { connection.with_upgrades().await.expect("the server stays") });
        let request = Request::builder()
            .uri(format!("/portforward?ports=80&ports={CLOSED}"))
            .header("host", "test")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", protocol)
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .expect("a valid request");
        let response = sender.send_request(request).await.expect("a response");
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let io = TokioIo::new(hyper::upgrade::on(response).await.expect("the connection is upgraded"));
        let dialect = Dialect { codec, close_signal: false };
        let mut channels = channels::open(io, Role::Client, dialect, 4, &tasks).await;
        for (channel, port) in [(0, 80), (1, 80), (2, CLOSED), (3, CLOSED)] {
            assert_eq!(channels[channel].read_u16_le().await.expect("the port comes first"), port);
        }
        assert_eq!(channels[0].read_u16().await.expect("the echo server names the port"), 80);
        channels[0].write_all(b"ping").await.expect("the server reads");
        let mut pong = [0; 4];
        channels[0].read_exact(&mut pong).await.expect("the server echoes");
        assert_eq!(&pong, b"ping");
        let mut error = [0; 18];
        channels[3].read_exact(&mut error).await.expect("the server tells");
        assert_eq!(&error, b"connection refused");
    }
    end(tasks).await;
}
