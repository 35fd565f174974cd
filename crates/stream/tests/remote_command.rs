//! Exec and attach: our clients against our server, every protocol, over a real HTTP/1.1 server on loopback.

mod common;

use std::net::SocketAddr;

use common::{Answer, dial, end, full, pattern, request, serve};
use gantry_base::{Class, Tasks};
use gantry_stream::remote_command::ClientProtocol;
use gantry_stream::websocket::channels::{self, Codec, Dialect, Role};
use gantry_stream::{
    CommandStatus, ConnectError, MuxStream, RemoteCommandClient, RemoteCommandOptions, RemoteCommandStreams,
    TerminalSize, accept_remote_command, connect_remote_command, relay_remote_command,
};
use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PROTOCOLS: [ClientProtocol; 2] = [ClientProtocol::WebSocketV5, ClientProtocol::SpdyV4];
const ALL: RemoteCommandOptions =
    RemoteCommandOptions { stdin: true, stdout: true, stderr: true, tty: false };
const ALL_QUERY: &str = "/exec?stdin=true&stdout=true&stderr=true";

const DEAF_OUTPUT: usize = 2_000_000;

/// What the test server does with a command, named by the path: it echoes stdin to stdout, counts it to stderr,
/// reports the terminal's
/// size, or writes [`DEAF_OUTPUT`] bytes without reading any.
async fn run(path: String, streams: RemoteCommandStreams) {
    let RemoteCommandStreams { stdin, mut stdout, mut stderr, resize, status, .. } = streams;
    let outcome = match path.as_str() {
        "/exec" => {
            let mut stdin = stdin.expect("the test asks for stdin");
            let mut stdout = stdout.take().expect("the test asks for stdout");
            let copied = tokio::io::copy(&mut stdin, &mut stdout).await.expect("the client stays");
            let mut stderr = stderr.take().expect("the test asks for stderr");
            stderr.write_all(format!("{copied} bytes").as_bytes()).await.expect("the client stays");
            CommandStatus::exited(7)
        }
        "/size" => {
            let mut resize = resize.expect("the test asks for a terminal");
            let mut stdout = stdout.take().expect("the test asks for stdout");
            for _ in 0..2 {
                let size = resize.next().await.expect("two sizes come");
                let text = format!("{}x{} ", size.width, size.height);
                stdout.write_all(text.as_bytes()).await.expect("the client stays");
            }
            CommandStatus::success()
        }
        "/deaf" => {
            drop(stdin);
            let mut stdout = stdout.take().expect("the test asks for stdout");
            stdout.write_all(&pattern(DEAF_OUTPUT, 1)).await.expect("the client stays");
            CommandStatus::exited(1)
        }
        other => CommandStatus::internal_error(format!("no such test command: {other}")),
    };
    drop((stdout, stderr));
    status.write(&outcome).await.expect("the client stays");
}

async fn command_server(tasks: &Tasks) -> SocketAddr {
    let group = tasks.clone();
    serve(tasks, move |request| answer(request, group.clone())).await
}

async fn answer(mut request: Request<Incoming>, tasks: Tasks) -> Answer {
    let options = RemoteCommandOptions::from_uri(request.uri());
    let path = request.uri().path().to_owned();
    match accept_remote_command(&mut request, options) {
        Ok(accepted) => {
            let (response, streams) = accepted.into_parts(&tasks);
            tasks.spawn("test command", async move {
                run(path, streams.await.expect("the client opens streams")).await
            });
            full(response)
        }
        Err(rejection) => full(rejection.into_response()),
    }
}

/// Passes commands on to `upstream`, like a kubelet to its runtime.
async fn relay_server(tasks: &Tasks, upstream: SocketAddr) -> SocketAddr {
    let group = tasks.clone();
    serve(tasks, move |mut client: Request<Incoming>| {
        let tasks = group.clone();
        async move {
            let options = RemoteCommandOptions::from_uri(client.uri());
            let request = request("POST", upstream, client.uri().path_and_query().expect("a path").as_str());
            let (response, streams) =
                accept_remote_command(&mut client, options).expect("a valid request").into_parts(&tasks);
            let group = tasks.clone();
            tasks.spawn("test relay", async move {
                let streams = streams.await.expect("the client opens streams");
                let upstream = connect_remote_command(
                    dial(upstream).await,
                    request,
                    ClientProtocol::SpdyV4,
                    options,
                    &group,
                )
                .await
                .expect("the upstream accepts");
                relay_remote_command(streams, upstream).await.expect("the client stays");
            });
            full(response)
        }
    })
    .await
}

async fn connect(
    address: SocketAddr,
    protocol: ClientProtocol,
    path: &str,
    tasks: &Tasks,
) -> Result<RemoteCommandClient, ConnectError> {
    let method = if protocol == ClientProtocol::SpdyV4 { "POST" } else { "GET" };
    let request = request(method, address, path);
    let options = RemoteCommandOptions::from_uri(request.uri());
    connect_remote_command(dial(address).await, request, protocol, options, tasks).await
}

/// Sends `input`, and returns stdout, stderr and the status.
async fn converse(client: RemoteCommandClient, input: &[u8]) -> (Vec<u8>, Vec<u8>, CommandStatus) {
    let RemoteCommandClient { stdin, stdout, stderr, status, .. } = client;
    let writing = async {
        let mut stdin = stdin.expect("asked for");
        stdin.write_all(input).await.expect("the server reads");
        stdin.shutdown().await.expect("the server reads");
    };
    let read = async |stream: Option<MuxStream>| {
        let mut bytes = Vec::new();
        stream.expect("asked for").read_to_end(&mut bytes).await.expect("an orderly end");
        bytes
    };
    let ((), out, err, status) = tokio::join!(writing, read(stdout), read(stderr), status.wait());
    (out, err, status.expect("a status comes"))
}

#[tokio::test]
async fn a_command_gets_its_input_and_gives_output_errors_and_exit_code() {
    let tasks = Tasks::new();
    let server = command_server(&tasks).await;
    for protocol in PROTOCOLS {
        let client = connect(server, protocol, ALL_QUERY, &tasks).await.expect("the server accepts");
        let (out, err, status) = converse(client, b"some input").await;
        assert_eq!((out.as_slice(), err.as_slice()), (&b"some input"[..], &b"10 bytes"[..]), "{protocol:?}");
        assert_eq!(status.exit_code(), Some(7));
    }
    end(tasks).await;
}

#[tokio::test]
async fn megabytes_go_both_ways_at_once_directly_and_through_a_relay() {
    let tasks = Tasks::new();
    let direct = command_server(&tasks).await;
    let relayed = relay_server(&tasks, direct).await;
    let input = pattern(5 * 1024 * 1024, 3);
    for (server, protocol) in [direct, relayed].into_iter().flat_map(|s| PROTOCOLS.map(|p| (s, p))) {
        let client = connect(server, protocol, ALL_QUERY, &tasks).await.expect("the server accepts");
        let (out, err, status) = converse(client, &input).await;
        assert!(out == input, "{protocol:?}");
        assert_eq!(err, format!("{} bytes", input.len()).into_bytes());
        assert_eq!(status.exit_code(), Some(7));
    }
    end(tasks).await;
}

#[tokio::test]
async fn a_command_that_reads_nothing_still_gives_all_its_output_and_its_status() {
    let tasks = Tasks::new();
    let direct = command_server(&tasks).await;
    let relayed = relay_server(&tasks, direct).await;
    for (server, protocol) in [direct, relayed].into_iter().flat_map(|s| PROTOCOLS.map(|p| (s, p))) {
        let client =
            connect(server, protocol, "/deaf?stdin=true&stdout=true", &tasks).await.expect("accepted");
        let RemoteCommandClient { stdin, stdout, status, .. } = client;
        let mut stdin = stdin.expect("asked for");
        tasks.spawn("endless input", async move {
            let zeros = vec![0; 64 * 1024];
            while stdin.write_all(&zeros).await.is_ok() {}
        });
        let mut output = Vec::new();
        stdout.expect("asked for").read_to_end(&mut output).await.expect("an orderly end");
        assert!(output == pattern(DEAF_OUTPUT, 1), "{protocol:?}");
        assert_eq!(status.wait().await.expect("a status comes").exit_code(), Some(1));
    }
    end(tasks).await;
}

#[tokio::test]
async fn terminal_sizes_arrive_in_order() {
    let tasks = Tasks::new();
    let direct = command_server(&tasks).await;
    let relayed = relay_server(&tasks, direct).await;
    for (server, protocol) in [direct, relayed].into_iter().flat_map(|s| PROTOCOLS.map(|p| (s, p))) {
        let path = "/size?stdin=true&stdout=true&stderr=true&tty=true";
        let client = connect(server, protocol, path, &tasks).await.expect("the server accepts");
        let RemoteCommandClient { stdout, stderr, resize, status, stdin: _stdin, .. } = client;
        assert!(stderr.is_none(), "a terminal has no stderr");
        let mut resize = resize.expect("there is a terminal");
        resize.send(TerminalSize { width: 80, height: 24 }).await.expect("the server reads");
        resize.send(TerminalSize { width: 132, height: 50 }).await.expect("the server reads");
        let mut text = String::new();
        stdout.expect("asked for").read_to_string(&mut text).await.expect("an orderly end");
        assert_eq!(text, "80x24 132x50 ", "{protocol:?}");
        assert!(status.wait().await.expect("a status comes").is_success());
    }
    end(tasks).await;
}

#[tokio::test]
async fn a_failure_is_told_with_its_reason() {
    let tasks = Tasks::new();
    let server = command_server(&tasks).await;
    for protocol in PROTOCOLS {
        let client =
            connect(server, protocol, "/nonsense?stdout=true", &tasks).await.expect("the server accepts");
        let status = client.status.wait().await.expect("a status comes");
        assert_eq!(status.message, "Internal error occurred: no such test command: /nonsense");
        assert_eq!((status.exit_code(), status.code), (None, Some(500)));
    }
    end(tasks).await;
}

#[tokio::test]
async fn a_client_that_goes_away_is_noticed_and_so_is_a_server() {
    let tasks = Tasks::new();
    let (seen, mut gone) = tokio::sync::mpsc::channel(2);
    let group = tasks.clone();
    let server = serve(&tasks, move |mut request: Request<Incoming>| {
        let (tasks, seen) = (group.clone(), seen.clone());
        async move {
            let (response, streams) =
                accept_remote_command(&mut request, ALL).expect("valid").into_parts(&tasks);
            tasks.spawn("test command", async move {
                let streams = streams.await.expect("the client opens streams");
                streams.connection.closed().await;
                seen.send(()).await.expect("the test waits");
            });
            full(response)
        }
    })
    .await;
    for protocol in PROTOCOLS {
        drop(connect(server, protocol, ALL_QUERY, &tasks).await.expect("the server accepts"));
        gone.recv().await.expect("the server notices");
    }
    let group = tasks.clone();
    let server = serve(&tasks, move |mut request: Request<Incoming>| {
        let tasks = group.clone();
        async move {
            let (response, streams) =
                accept_remote_command(&mut request, ALL).expect("valid").into_parts(&tasks);
            tasks
                .spawn("test command", async move { drop(streams.await.expect("the client opens streams")) });
            full(response)
        }
    })
    .await;
    for protocol in PROTOCOLS {
        let client = connect(server, protocol, ALL_QUERY, &tasks).await.expect("the server accepts");
        let error = client.status.wait().await.expect_err("the server went away without a status");
        assert_eq!(error.class(), Class::Retry);
    }
    end(tasks).await;
}

#[tokio::test]
async fn requests_that_cannot_be_served_are_refused() {
    let tasks = Tasks::new();
    let server = command_server(&tasks).await;
    for protocol in PROTOCOLS {
        // The client would refuse to ask for nothing, so the options differ from the query.
        let request = request("GET", server, "/exec");
        let refused = connect_remote_command(dial(server).await, request, protocol, ALL, &tasks).await;
        let Err(ConnectError::Rejected { status, body }) = refused else { panic!("{protocol:?} is served") };
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(body, "you must specify at least 1 of stdin, stdout, stderr\n");
    }
    let accept = |headers: &[(&'static str, &'static str)]| {
        let mut request = Request::new(());
        *request.headers_mut() = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect::<HeaderMap>();
        accept_remote_command(&mut request, ALL).map(|_| ()).map_err(|rejection| rejection.status().as_u16())
    };
    let spdy = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    assert_eq!(accept(&[]), Err(400));
    assert_eq!(accept(&spdy), Err(400));
    assert_eq!(accept(&[spdy[0], spdy[1], ("x-stream-protocol-version", "v9.channel.k8s.io")]), Err(403));
    assert_eq!(accept(&[spdy[0], spdy[1], ("x-stream-protocol-version", "v9, v4.channel.k8s.io")]), Ok(()));
    let websocket =
        [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
    let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let protocol = ("sec-websocket-protocol", "v9.channel.k8s.io, v4.channel.k8s.io");
    assert_eq!(accept(&[websocket[0], websocket[1], websocket[2], key, protocol]), Ok(()));
    assert_eq!(accept(&[websocket[0], websocket[1], websocket[2], protocol]), Err(400));
    assert_eq!(accept(&[websocket[0], websocket[1], key, protocol]), Err(400));
    let unknown = ("sec-websocket-protocol", "v9.channel.k8s.io");
    assert_eq!(accept(&[websocket[0], websocket[1], websocket[2], key, unknown]), Err(403));
    end(tasks).await;
}

/// Shakes hands for an older WebSocket protocol and returns its channels.
async fn old_channels(
    server: SocketAddr,
    protocol: &'static str,
    path: &str,
    tasks: &Tasks,
) -> Vec<MuxStream> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(dial(server).await)).await.expect("a server");
    tasks.spawn("test client", async move { connection.with_upgrades().await.expect("the server stays") });
    let request = Request::builder()
        .uri(path)
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
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    // The key and its answer are the example of RFC 6455, section 1.3.
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let io = TokioIo::new(hyper::upgrade::on(response).await.expect("the connection is upgraded"));
    let codec = if protocol.contains("base64") { Codec::Base64 } else { Codec::Binary };
    channels::open(io, Role::Client, Dialect { codec, close_signal: false }, 5, tasks).await
}

#[tokio::test]
async fn older_websocket_protocols_tell_sizes_output_and_status_in_their_ways() {
    let tasks = Tasks::new();
    let server = command_server(&tasks).await;
    for protocol in
        ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"]
    {
        for (path, output, message) in [
            ("/size?stdout=1&tty=1", "80x24 81x25 ", ""),
            ("/nonsense?stdout=1&tty=1", "", "Internal error occurred: no such test command: /nonsense"),
        ] {
            let mut channels = old_channels(server, protocol, path, &tasks).await;
            let mut read = String::new();
            let sizes = br#"{"Width":80,"Height":24}{"width":81,"height":25}"#;
            channels[4].write_all(sizes).await.expect("the server stays");
            channels[1].read_to_string(&mut read).await.expect("an orderly end");
            assert_eq!(read, output, "{protocol}");
            let mut status = String::new();
            channels[3].read_to_string(&mut status).await.expect("an orderly end");
            if protocol.starts_with("v4") {
                let status: CommandStatus = serde_json::from_str(&status).expect("a status");
                assert_eq!((status.is_success(), status.message.as_str()), (message.is_empty(), message));
            } else {
                assert_eq!(status, message, "{protocol}");
            }
        }
    }
    end(tasks).await;
}
