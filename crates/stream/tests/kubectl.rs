//! The real kubectl against our servers: a tiny API server on loopback that knows one pod.
//!
//! kubectl speaks SPDY and WebSockets with the libraries that the rest of the ecosystem uses. Where there is no
//! kubectl on the PATH, these tests say so and prove nothing.

mod common;

use std::net::SocketAddr;
use std::process::{Output, Stdio};

use common::{Answer, end, full, pattern, serve};
use gantry_base::Tasks;
use gantry_stream::{
    CommandStatus, PortForwardServer, RemoteCommandOptions, RemoteCommandStreams, accept_port_forward,
    accept_remote_command,
};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

/// The two ways kubectl has: WebSockets, and SPDY when told so.
const TRANSPORTS: [&str; 2] = ["true", "false"];
const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","namespace":"default","uid":"1"},
    "spec":{"containers":[{"name":"web","image":"web"}]},"status":{"phase":"Running"}}"#;
const RESOURCES: &str = r#"{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"v1","resources":[
    {"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get","list"]}]}"#;

async fn api(tasks: &Tasks) -> SocketAddr {
    let group = tasks.clone();
    serve(tasks, move |request| answer(request, group.clone())).await
}

async fn answer(mut request: Request<Incoming>, tasks: Tasks) -> Answer {
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/version" => json(r#"{"major":"1","minor":"36","gitVersion":"v1.36.0"}"#),
        "/api" => json(r#"{"kind":"APIVersions","versions":["v1"]}"#),
        "/apis" => json(r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[]}"#),
        "/api/v1" => json(RESOURCES),
        "/api/v1/namespaces/default/pods/web" => json(POD),
        "/api/v1/namespaces/default/pods/web/exec" => {
            let options = RemoteCommandOptions::from_uri(request.uri());
            let query = request.uri().query().unwrap_or_default().to_owned();
            match accept_remote_command(&mut request, options) {
                Err(rejection) => full(rejection.into_response()),
                Ok(accepted) => {
                    let (response, streams) = accepted.into_parts(&tasks);
                    tasks.spawn("test command", async move {
                        run(&query, streams.await.expect("kubectl opens streams")).await;
                    });
                    full(response)
                }
            }
        }
        "/api/v1/namespaces/default/pods/web/portforward" => match accept_port_forward(&mut request) {
            Err(rejection) => full(rejection.into_response()),
            Ok(accepted) => {
                let (response, server) = accepted.into_parts(&tasks);
                let group = tasks.clone();
                tasks.spawn("test forward", async move {
                    forward(server.await.expect("the upgrade works"), group).await;
                });
                full(response)
            }
        },
        _ => {
            let mut response = Response::new(Full::from(format!("no {path} here")));
            *response.status_mut() = StatusCode::NOT_FOUND;
            full(response)
        }
    }
}

fn json(text: &'static str) -> Answer {
    let mut response = Response::new(Full::from(text));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    full(response)
}

/// `cat` echoes, `deaf` writes without reading and exits with 4, `fail` exits with 5.
async fn run(query: &str, streams: RemoteCommandStreams) {
    let RemoteCommandStreams { stdin, stdout, stderr, status, .. } = streams;
    let outcome = if query.contains("command=cat") {
        let (mut stdin, mut stdout) =
            (stdin.expect("kubectl -i sends it"), stdout.expect("kubectl wants it"));
        tokio::io::copy(&mut stdin, &mut stdout).await.expect("kubectl stays");
        CommandStatus::success()
    } else if query.contains("command=deaf") {
        drop(stdin);
        let mut stdout = stdout.expect("kubectl wants it");
        stdout.write_all(&pattern(2_000_000, 2)).await.expect("kubectl stays");
        CommandStatus::exited(4)
    } else {
        let mut stderr = stderr.expect("kubectl wants it");
        stderr.write_all(b"it went wrong\n").await.expect("kubectl stays");
        CommandStatus::exited(5)
    };
    status.write(&outcome).await.expect("kubectl stays");
}

async fn forward(mut server: PortForwardServer, tasks: Tasks) {
    while let Some(stream) = server.next().await {
        tasks.spawn("test port", async move {
            assert_eq!(stream.port, 8080);
            let (mut read, mut write) = tokio::io::split(stream.data);
            tokio::io::copy(&mut read, &mut write).await.expect("kubectl stays");
            write.shutdown().await.expect("kubectl stays");
        });
    }
}

fn kubectl(api: SocketAddr, home: &std::path::Path, websockets: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    command
        .arg(format!("--server=http://{api}"))
        .args(arguments)
        .env("HOME", home)
        .env("KUBECONFIG", home.join("none"))
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn has_kubectl() -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join("kubectl").is_file()));
    if !found {
        eprintln!("there is no kubectl on the PATH: nothing is tested");
    }
    found
}

/// Runs kubectl with `input` and returns what it said.
async fn exec(
    api: SocketAddr,
    home: &std::path::Path,
    websockets: &str,
    command: &str,
    input: &[u8],
) -> Output {
    let mut child = kubectl(api, home, websockets, &["exec", "-i", "web", "--", command])
        .stdin(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    let writing = async move {
        // A command that does not read may be over before everything is written.
        stdin.write_all(input).await.ok();
    };
    let ((), output) = tokio::join!(writing, child.wait_with_output());
    output.expect("kubectl ends")
}

#[tokio::test]
async fn kubectl_exec_passes_bytes_both_ways_and_ends_with_the_commands_exit_code() {
    if !has_kubectl() {
        return;
    }
    let tasks = Tasks::new();
    let api = api(&tasks).await;
    let home = tempfile::tempdir().expect("a folder for temporary files");
    let input = pattern(3_000_000, 7);
    for websockets in TRANSPORTS {
        let output = exec(api, home.path(), websockets, "cat", &input).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "websockets {websockets}: {said}");
        assert!(
            output.stdout == input,
            "websockets {websockets}: {} bytes came back: {said}",
            output.stdout.len()
        );
        assert_eq!(said, "", "websockets {websockets}");
        let output = exec(api, home.path(), websockets, "deaf", &input).await;
        assert_eq!(output.status.code(), Some(4), "websockets {websockets}");
        assert!(
            output.stdout == pattern(2_000_000, 2),
            "websockets {websockets}: {} bytes",
            output.stdout.len()
        );
        let output = exec(api, home.path(), websockets, "fail", b"").await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "websockets {websockets}: {said}");
        assert_eq!(said, "it went wrong\ncommand terminated with exit code 5\n", "websockets {websockets}");
    }
    end(tasks).await;
}

#[tokio::test]
async fn kubectl_port_forward_carries_many_connections() {
    if !has_kubectl() {
        return;
    }
    let tasks = Tasks::new();
    let api = api(&tasks).await;
    let home = tempfile::tempdir().expect("a folder for temporary files");
    for websockets in TRANSPORTS {
        let arguments = ["port-forward", "--address=127.0.0.1", "pod/web", ":8080"];
        let mut child = kubectl(api, home.path(), websockets, &arguments).spawn().expect("kubectl starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = lines.next_line().await.expect("kubectl speaks UTF-8").unwrap_or_default();
        let local =
            line.strip_prefix("Forwarding from ").and_then(|line| line.split_once(" -> ")).map(|(l, _)| l);
        let Some(local) = local.and_then(|local| local.parse::<SocketAddr>().ok()) else {
            let output = child.wait_with_output().await.expect("kubectl ends");
            panic!("websockets {websockets}: {line:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let connections = (0..10).map(|seed| async move {
            let sent = pattern(500_000, seed);
            let (mut read, mut write) =
                TcpStream::connect(local).await.expect("kubectl listens").into_split();
            let writing = async {
                write.write_all(&sent).await.expect("kubectl reads");
                write.shutdown().await.expect("kubectl reads");
            };
            let mut received = Vec::new();
            let ((), result) = tokio::join!(writing, read.read_to_end(&mut received));
            result.expect("an orderly end");
            assert!(received == sent, "connection {seed} brings back its own bytes");
        });
        futures::future::join_all(connections).await;
        child.kill().await.expect("kubectl is still there");
    }
    end(tasks).await;
}
