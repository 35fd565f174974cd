//! `exec`: runs a command in a container, with its streams (and, with `-t`, a terminal) connected to ours.

use clap::Args;
use gantry_client::https::query;
use gantry_stream::RemoteCommandOptions;
use gantry_stream::remote_command::{ClientProtocol, RemoteCommandClient, connect_remote_command};
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::{CliError, Result, fail};
use crate::options::Session;
use crate::terminal::{self, RawMode};
use crate::verbs::workload;

/// How much is copied at a time, in bytes.
const CHUNK: usize = 32 * 1024;

/// Run a command in a container: exec web-1 -- ls /, exec -it deploy/web -- sh
#[derive(Args, Debug)]
pub struct ExecArgs {
    /// The pod, or the workload
    #[arg(value_name = "POD | KIND/NAME")]
    target: String,
    /// The container
    #[arg(short, long)]
    container: Option<String>,
    /// Send our input to the command
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// Say only what the command says
    #[arg(short, long)]
    quiet: bool,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the verb.
pub(crate) async fn run(session: &Session, args: ExecArgs) -> Result<()> {
    if args.command.is_empty() {
        return fail("you must specify at least one command for the container");
    }
    let target = workload::target(session, &args.target).await?;
    let pod = workload::one_pod(session, &target).await?;
    let phase = pod["status"]["phase"].as_str().unwrap_or("");
    if matches!(phase, "Succeeded" | "Failed") {
        return fail(format!("cannot exec into a container in a completed pod; current phase is {phase}"));
    }
    let container = workload::container(&pod, args.container.as_deref(), args.quiet)?;
    let mut tty = args.tty;
    if tty && !(args.stdin && terminal::stdin_is_terminal()) {
        if args.stdin && !args.quiet {
            eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
        }
        tty = tty && !args.stdin;
    }
    let options = RemoteCommandOptions { stdin: args.stdin, stdout: true, stderr: !tty, tty };
    let mut pairs = vec![
        ("container", container),
        ("stdin", options.stdin.to_string()),
        ("stdout", "true".to_owned()),
        ("stderr", options.stderr.to_string()),
        ("tty", tty.to_string()),
    ];
    pairs.extend(args.command.into_iter().map(|word| ("command", word)));
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}/exec{}",
        pod["metadata"]["namespace"].as_str().unwrap_or(""),
        workload::name(&pod),
        query(&pairs)
    );
    let (io, request) = session.client.upgrade(Method::GET, &path).await?;
    let client = connect_remote_command(io, request, ClientProtocol::WebSocketV5, options, &session.tasks)
        .await
        .map_err(terminal::refused)?;
    converse(session, client, tty && args.stdin).await
}

/// Carries the streams until the command ends; its exit code becomes ours.
async fn converse(session: &Session, client: RemoteCommandClient, raw: bool) -> Result<()> {
    let mode = if raw { Some(RawMode::enter()?) } else { None };
    let RemoteCommandClient { stdin, stdout, stderr, resize, status, connection } = client;
    if let Some(sender) = resize {
        session.tasks.spawn("terminal sizes", terminal::send_sizes(sender));
    }
    if let Some(mut stdin) = stdin {
        let mut ours = terminal::input()?;
        session.tasks.spawn("input", async move {
            while let Some(chunk) = ours.recv().await {
                // A command that has ended takes no more; how it ended is told elsewhere.
                if stdin.write_all(&chunk).await.is_err() {
                    return;
                }
            }
            stdin.shutdown().await.ok();
        });
    }
    let out = async {
        match stdout {
            Some(mut theirs) => copy(&mut theirs, &mut tokio::io::stdout()).await,
            None => Ok(()),
        }
    };
    let err = async {
        match stderr {
            Some(mut theirs) => copy(&mut theirs, &mut tokio::io::stderr()).await,
            None => Ok(()),
        }
    };
    let (out, err, status) = tokio::join!(out, err, status.wait());
    drop(mode);
    drop(connection);
    let status = status.map_err(CliError::from)?;
    out?;
    err?;
    if status.is_success() {
        return Ok(());
    }
    match status.exit_code() {
        Some(code) => {
            eprintln!("command terminated with exit code {code}");
            Err(CliError::Exit(u8::try_from(code).unwrap_or(1)))
        }
        None => fail(status.message),
    }
}

async fn copy(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..n]).await?;
        to.flush().await?;
    }
}
