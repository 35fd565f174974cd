//! Hands an upgrade on to another server without looking into it.
//!
//! This is how an API server passes exec, attach, port-forward and pod, service and node proxy upgrades on: the
//! request goes to the other server over a connection made for it, and once that has switched protocols, bytes
//! are copied both ways until both directions are closed.

use bytes::Bytes;
use gantry_base::{Class, Error, Result, Tasks};
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{Extensions, HeaderMap, Request, Response, StatusCode, Uri, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::upgrade::{is_upgrade_request, origin_form};

/// The most bytes the other server's response line and headers may have.
pub const MAX_RESPONSE_HEAD: usize = 64 * 1024;
/// The buffer of each direction, in bytes.
const COPY_BUFFER: usize = 32 * 1024;

const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Sends `request` to the server behind `upstream` as a request for `uri`, with `extra` headers replacing those
/// of the same name, and returns its response. If that is a 101, a task of `tasks` copies bytes both ways from
/// then on; otherwise the response comes with its body.
///
/// `upstream` is connected, TLS included, and used for this request only. `Host` is the authority of `uri` if it
/// has one. There is no idle limit.
///
/// # Errors
///
/// [`Class::Retry`] if the other server cannot be talked to, [`Class::Invalid`] if its response is no HTTP or
/// too large.
pub async fn proxy_upgrade<B, S>(
    mut request: Request<B>,
    upstream: S,
    uri: &Uri,
    extra: HeaderMap,
    tasks: &Tasks,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wants_upgrade = is_upgrade_request(request.headers());
    let downstream = hyper::upgrade::on(&mut request);
    // What belongs to the request goes on as long as its tunnel.
    let belongings = request.extensions().clone();
    rewrite(&mut request, uri, extra);
    let handshake = http1::Builder::new().max_buf_size(MAX_RESPONSE_HEAD).handshake(TokioIo::new(upstream));
    let (mut sender, connection) = handshake.await.map_err(|e| failed(e, "connect to the upstream"))?;
    tasks.spawn("upgrade proxy upstream", async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended with an error");
        }
    });
    let response = sender.send_request(request).await.map_err(|e| failed(e, "proxy the request"))?;
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS if wants_upgrade => {
            Ok(switch(response, downstream, belongings, tasks))
        }
        StatusCode::SWITCHING_PROTOCOLS => {
            Err(Error::invalid("the upstream upgraded a request that did not ask for it"))
        }
        _ => Ok(relayed(response)),
    }
}

fn failed(error: hyper::Error, what: &str) -> Error {
    let class = if error.is_parse() { Class::Invalid } else { Class::Retry };
    Error::new(class, what).because(error)
}

/// Makes the client's request ours.
fn rewrite<B>(request: &mut Request<B>, uri: &Uri, extra: HeaderMap) {
    let upgrade =
        is_upgrade_request(request.headers()).then(|| request.headers().get(UPGRADE).cloned()).flatten();
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = origin_form(uri);
    let headers = request.headers_mut();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
    if let Some(Ok(host)) = uri.authority().map(|authority| HeaderValue::from_str(authority.as_str())) {
        headers.insert(HOST, host);
    }
    for name in extra.keys() {
        headers.remove(name);
    }
    headers.extend(extra);
}

/// The response that is no upgrade.
fn relayed(response: Response<Incoming>) -> Response<BoxBody<Bytes, hyper::Error>> {
    let mut response = response.map(BodyExt::boxed);
    for name in HOP_BY_HOP {
        response.headers_mut().remove(name);
    }
    response
}

/// The 101 response; the bytes after it are copied by a task.
fn switch(
    response: Response<Incoming>,
    downstream: OnUpgrade,
    belongings: Extensions,
    tasks: &Tasks,
) -> Response<BoxBody<Bytes, hyper::Error>> {
    let mut answer = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *answer.status_mut() = response.status();
    *answer.headers_mut() = response.headers().clone();
    let upstream = hyper::upgrade::on(response);
    tasks.spawn("upgrade proxy", async move {
        if let Err(error) = copy(downstream, upstream).await {
            tracing::debug!(%error, "a proxied upgrade ended with an error");
        }
        drop(belongings);
    });
    answer
}

async fn copy(downstream: OnUpgrade, upstream: OnUpgrade) -> Result<()> {
    let downstream = downstream.await.map_err(|e| failed(e, "upgrade the client's connection"))?;
    let upstream = upstream.await.map_err(|e| failed(e, "upgrade the upstream connection"))?;
    let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
    tokio::io::copy_bidirectional_with_sizes(&mut downstream, &mut upstream, COPY_BUFFER, COPY_BUFFER)
        .await?;
    Ok(())
}
