//! The upgrade proxy: exec and port-forward through it, half-close, and responses that are no upgrade.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::{Answer, dial, end, full, pattern, request, serve};
use gantry_base::{Class, Tasks};
use gantry_stream::port_forward::{PortForwardTransport, connect_port_forward};
use gantry_stream::remote_command::ClientProtocol;
use gantry_stream::{
    CommandStatus, ConnectError, RemoteCommandOptions, accept_port_forward, accept_remote_command,
    connect_remote_command, proxy_upgrade,
};
use http::header::{AUTHORIZATION, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A proxy that hands every request on to `upstream`, under another path and with its own credentials.
async fn proxy(tasks: &Tasks, upstream: SocketAddr) -> SocketAddr {
    let group = tasks.clone();
    serve(tasks, move |request: Request<Incoming>| {
        let tasks = group.clone();
        async move {
            let uri = format!("http://{upstream}/upstream{}", request.uri());
            let uri: Uri = uri.parse().expect("a valid URI");
            let extra = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer ours"))]);
            proxy_upgrade(request, dial(upstream).await, &uri, extra, &tasks)
                .await
                .expect("the upstream answers")
        }
    })
    .await
}

#[tokio::test]
async fn a_command_runs_through_the_proxy() {
    let tasks = Tasks::new();
    let group = tasks.clone();
    let upstream = serve(&tasks, move |mut request: Request<Incoming>| {
        let tasks = group.clone();
        async move {
            assert_eq!(request.uri().path(), "/upstream/exec");
            assert_eq!(request.headers()[AUTHORIZATION], "Bearer ours");
            let options = RemoteCommandOptions::from_uri(request.uri());
            let (response, streams) =
                accept_remote_command(&mut request, options).expect("valid").into_parts(&tasks);
            tasks.spawn("test command", async move {
                let mut streams = streams.await.expect("the client opens streams");
                let (mut stdin, mut stdout) =
                    (streams.stdin.take().expect("asked for"), streams.stdout.take().expect("asked for"));
                tokio::io::copy(&mut stdin, &mut stdout).await.expect("the client stays");
                drop(stdout);
                streams.status.write(&CommandStatus::exited(3)).await.expect("the client stays");
            });
            full(response)
        }
    })
    .await;
    let proxy = proxy(&tasks, upstream).await;
    let sent = pattern(3 * 1024 * 1024, 9);
    for (method, protocol) in [("GET", ClientProtocol::WebSocketV5), ("POST", ClientProtocol::SpdyV4)] {
        let mut request = request(method, proxy, "/exec?stdin=true&stdout=true");
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer theirs"));
        let options = RemoteCommandOptions::from_uri(request.uri());
        let mut client = connect_remote_command(dial(proxy).await, request, protocol, options, &tasks)
            .await
            .expect("the upstream accepts");
        let (mut stdin, mut stdout) =
            (client.stdin.take().expect("asked for"), client.stdout.take().expect("asked for"));
        let writing = async {
            stdin.write_all(&sent).await.expect("the server reads");
            stdin.shutdown().await.expect("the server reads");
        };
        let mut received = Vec::new();
        let ((), read) = tokio::join!(writing, stdout.read_to_end(&mut received));
        read.expect("an orderly end");
        assert!(received == sent, "{protocol:?}");
        assert_eq!(client.status.wait().await.expect("a status comes").exit_code(), Some(3));
    }
    end(tasks).await;
}

#[tokio::test]
async fn a_port_is_forwarded_through_the_proxy() {
    let tasks = Tasks::new();
    let group = tasks.clone();
    let upstream = serve(&tasks, move |mut request: Request<Incoming>| {
        let tasks = group.clone();
        async move {
            let (response, server) = accept_port_forward(&mut request).expect("valid").into_parts(&tasks);
            tasks.spawn("test forward", async move {
                let mut server = server.await.expect("the upgrade works");
                let mut stream = server.next().await.expect("a connection comes");
                stream.data.write_u16(stream.port).await.expect("the client stays");
            });
            full(response)
        }
    })
    .await;
    let proxy = proxy(&tasks, upstream).await;
    for transport in [PortForwardTransport::WebSocketTunnel, PortForwardTransport::Spdy] {
        let request = request("GET", proxy, "/portforward");
        let client =
            connect_port_forward(dial(proxy).await, request, transport, &tasks).await.expect("accepted");
        let mut connection = client.open(443).await.expect("the server accepts");
        assert_eq!(connection.data.read_u16().await.expect("the port comes"), 443);
    }
    end(tasks).await;
}

#[tokio::test]
async fn each_direction_is_closed_on_its_own() {
    let tasks = Tasks::new();
    let group = tasks.clone();
    let upstream = serve(&tasks, move |mut request: Request<Incoming>| {
        let tasks = group.clone();
        async move {
            let upgrade = hyper::upgrade::on(&mut request);
            tasks.spawn("test upstream", async move {
                let mut io = TokioIo::new(upgrade.await.expect("the connection is upgraded"));
                let mut question = Vec::new();
                io.read_to_end(&mut question).await.expect("the client ends its direction");
                io.write_all(&question).await.expect("the other direction is open");
                io.write_all(b" answered").await.expect("the other direction is open");
                io.shutdown().await.expect("the other direction is open");
            });
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", HeaderValue::from_static("Upgrade"));
            response.headers_mut().insert("upgrade", HeaderValue::from_static("anything"));
            full(response)
        }
    })
    .await;
    let proxy = proxy(&tasks, upstream).await;
    let mut io = dial(proxy).await;
    io.write_all(b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: anything\r\n\r\n")
        .await
        .expect("open");
    // The first bytes of the new protocol may come before its acceptance.
    io.write_all(b"question").await.expect("open");
    io.shutdown().await.expect("open");
    let mut text = String::new();
    io.read_to_string(&mut text).await.expect("an orderly end");
    let (head, rest) = text.split_once("\r\n\r\n").expect("a response head");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("upgrade: anything"), "{head}");
    assert_eq!(rest, "question answered");
    end(tasks).await;
}

async fn refuse(body: Arc<Vec<u8>>) -> Answer {
    let mut response = Response::new(Full::from(body.to_vec()));
    *response.status_mut() = StatusCode::NOT_FOUND;
    full(response)
}

#[tokio::test]
async fn a_refusal_is_relayed_with_its_body() {
    let tasks = Tasks::new();
    let body = Arc::new(pattern(300_000, 5));
    let answer = Arc::clone(&body);
    let upstream = serve(&tasks, move |_| refuse(Arc::clone(&answer))).await;
    let proxy = proxy(&tasks, upstream).await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(dial(proxy).await)).await.expect("a server");
    tasks.spawn("test client", async move { connection.await.expect("the server stays") });
    let upgrade = Request::builder().uri("/exec").header("host", "x").header("connection", "Upgrade");
    let upgrade = upgrade.header("upgrade", "websocket").body(http_body_util::Empty::<bytes::Bytes>::new());
    let response = sender.send_request(upgrade.expect("a valid request")).await.expect("a response");
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(response.into_body().collect().await.expect("the whole body").to_bytes()[..] == body[..]);
    let options = RemoteCommandOptions { stdout: true, ..Default::default() };
    let websocket = ClientProtocol::WebSocketV5;
    let refused =
        connect_remote_command(dial(proxy).await, request("GET", proxy, "/exec"), websocket, options, &tasks)
            .await;
    assert!(matches!(refused, Err(ConnectError::Rejected { status: StatusCode::NOT_FOUND, .. })));
    end(tasks).await;
}

#[tokio::test]
async fn an_upstream_that_is_no_http_server_or_talks_too_much_is_an_error() {
    let tasks = Tasks::new();
    let uri = Uri::from_static("http://node/exec");
    let huge = format!("HTTP/1.1 101 Switching\r\nx: {}\r\n\r\n", "y".repeat(200_000)).into_bytes();
    let unasked = b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n".to_vec();
    let rubbish = b"rubbish\r\n\r\n".to_vec();
    for (answer, class) in [
        (rubbish, Class::Invalid),
        (huge, Class::Invalid),
        (unasked, Class::Invalid),
        (Vec::new(), Class::Retry),
    ] {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let request = Request::new(Full::<bytes::Bytes>::default());
        let proxied = proxy_upgrade(request, ours, &uri, HeaderMap::new(), &tasks);
        let upstream = async move {
            theirs.read_u8().await.expect("a request comes");
            // The proxy may give up before everything is sent.
            theirs.write_all(&answer).await.ok();
        };
        let (result, ()) = tokio::join!(proxied, upstream);
        assert_eq!(result.expect_err("no response").class(), class);
    }
    end(tasks).await;
}
