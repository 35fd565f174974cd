//! `/exec` and `/attach`: the client's streams joined to the runtime's.

use std::sync::Arc;

use gantry_base::{Error, Result, Tasks};
use gantry_cri::v1;
use gantry_stream::remote_command::ClientProtocol;
use gantry_stream::{
    RemoteCommandOptions, accept_remote_command, connect_remote_command, relay_remote_command,
};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::net::TcpStream;

use super::{Body, text};
use crate::engine::core::{Core, Door};
use crate::engine::observed::RunState;
use crate::pod;

/// Answers a request to run `command` in a container, or (`None`) to attach to it.
pub async fn respond(
    core: &Arc<Core>,
    door: &Arc<Door>,
    container: &str,
    command: Option<Vec<String>>,
    mut request: Request<Incoming>,
    tasks: &Tasks,
) -> Response<Body> {
    let seen = door.seen.read().clone();
    let record = seen.latest(container).filter(|c| c.state == RunState::Running);
    let Some(record) = record else {
        return text(StatusCode::NOT_FOUND, &format!("container not found ({container:?})"));
    };
    let mut options = RemoteCommandOptions::from_uri(request.uri());
    if command.is_none() {
        let pod = door.inbox.borrow().pod.clone();
        options.tty = pod::find_container(&pod, container).is_some_and(|(_, c)| c.tty == Some(true));
    }
    options.stderr &= !options.tty;
    let accepted = match accept_remote_command(&mut request, options) {
        Ok(accepted) => accepted,
        Err(rejection) => {
            return rejection.into_response().map(|b| b.map_err(|never| match never {}).boxed_unsync());
        }
    };
    let url = match runtime_url(core, &record.id, command, options).await {
        Ok(url) => url,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    let (response, streams) = accepted.into_parts(tasks);
    let tasks_of_relay = tasks.clone();
    tasks.spawn("remote command", async move {
        let client = match streams.await {
            Ok(client) => client,
            Err(error) => return tracing::debug!(%error, "a client did not create its streams"),
        };
        let outcome = match connect(&url, options, &tasks_of_relay).await {
            Ok(upstream) => relay_remote_command(client, upstream).await,
            Err(error) => {
                let status = gantry_stream::CommandStatus::internal_error(&error);
                client.status.write(&status).await.map_err(Error::from)
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "a remote command ended early");
        }
    });
    response.map(|b| b.map_err(|never| match never {}).boxed_unsync())
}

async fn runtime_url(
    core: &Core,
    id: &str,
    command: Option<Vec<String>>,
    options: RemoteCommandOptions,
) -> Result<String> {
    let runtime = &core.options.runtime;
    let RemoteCommandOptions { stdin, stdout, stderr, tty } = options;
    match command {
        Some(cmd) => {
            runtime
                .exec(v1::ExecRequest { container_id: id.to_owned(), cmd, tty, stdin, stdout, stderr })
                .await
        }
        None => {
            runtime
                .attach(v1::AttachRequest { container_id: id.to_owned(), stdin, tty, stdout, stderr })
                .await
        }
    }
}

async fn connect(
    url: &str,
    options: RemoteCommandOptions,
    tasks: &Tasks,
) -> Result<gantry_stream::RemoteCommandClient> {
    let uri: Uri =
        url.parse().map_err(|e| Error::invalid(format!("the runtime's URL {url:?}")).because(e))?;
    let authority =
        uri.authority().ok_or_else(|| Error::invalid(format!("the runtime's URL {url:?} has no host")))?;
    let host = authority.host().trim_matches(['[', ']']);
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    let port = authority.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let request =
        Request::post(uri.clone()).body(()).map_err(|e| Error::bug("a POST to the runtime").because(e))?;
    Ok(connect_remote_command(stream, request, ClientProtocol::SpdyV4, options, tasks).await?)
}
