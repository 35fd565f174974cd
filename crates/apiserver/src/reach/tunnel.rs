//! Connections to pods through the kubelets of their nodes: HTTP `CONNECT` to the pod's address.

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::{Connection, DialError, KubeletClient, metrics, tcp};
use crate::limits::MAX_TUNNEL_REFUSAL_BYTES;

/// Where a tunnel failed.
enum Failed {
    /// On the way to the kubelet.
    Connect(String),
    /// The kubelet does not tunnel.
    Refused(String),
    /// The pod does not answer its kubelet, who says it as we would.
    Pod(String),
}

/// Connects to `address` through the kubelet of `node`.
pub(super) async fn open(
    kubelets: &KubeletClient,
    node: &str,
    address: &str,
) -> Result<Connection, DialError> {
    metrics::started();
    let began = kubelets.clock.monotonic();
    let (stage, text) = match connect(kubelets, node, address).await {
        Ok(connection) => {
            metrics::connected(kubelets.clock.monotonic().saturating_sub(began));
            return Ok(connection);
        }
        Err(Failed::Connect(why)) => (metrics::CONNECT, failure(address, node, &why)),
        Err(Failed::Refused(why)) => (metrics::PROXY, failure(address, node, &why)),
        Err(Failed::Pod(text)) => (metrics::PROXY, text),
    };
    metrics::failed(stage);
    Err(DialError(text))
}

/// What is said of a tunnel whose kubelet cannot be reached.
pub(super) fn failure(address: &str, node: &str, why: &str) -> String {
    format!("dial tcp {address}: through the kubelet of node \"{node}\": {why}")
}

async fn connect(kubelets: &KubeletClient, node: &str, address: &str) -> Result<Connection, Failed> {
    let connecting = async {
        let kubelet = kubelets.address(node).await.map_err(|e| DialError(e.message().to_owned()))?;
        tcp(&kubelet.to_string()).await?.secured(&kubelets.tls(kubelet)).await
    };
    let connection = connecting.await.map_err(|e| Failed::Connect(e.0))?;
    let lost = |error: hyper::Error| Failed::Refused(error.to_string());
    let (mut sender, driver) = http1::handshake(TokioIo::new(connection)).await.map_err(lost)?;
    kubelets.tasks.spawn("pod tunnel", async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%error, "a tunnel to a pod broke off before it was there");
        }
    });
    let answer = sender.send_request(request(address)?).await.map_err(lost)?;
    if answer.status() != StatusCode::OK {
        return Err(refused(answer).await);
    }
    let tunnel = hyper::upgrade::on(answer).await.map_err(lost)?;
    Ok(Connection::new(TokioIo::new(tunnel)))
}

fn request(address: &str) -> Result<Request<Empty<Bytes>>, Failed> {
    let invalid = |error: &dyn std::fmt::Display| Failed::Refused(format!("{address}: {error}"));
    let uri: Uri = address.parse().map_err(|e| invalid(&e))?;
    let host = HeaderValue::from_str(address).map_err(|e| invalid(&e))?;
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = uri;
    request.headers_mut().insert(HOST, host);
    Ok(request)
}

/// Why there is no tunnel. 502 is about the pod, everything else about the kubelet.
async fn refused(answer: Response<Incoming>) -> Failed {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_TUNNEL_REFUSAL_BYTES).collect().await;
    let text = match body {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim_end().to_owned(),
        Err(error) => error.to_string(),
    };
    match status {
        StatusCode::BAD_GATEWAY => Failed::Pod(text),
        _ => Failed::Refused(format!("{status}: {text}")),
    }
}
