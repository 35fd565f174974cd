//! HTTP/1.1 upgrades: what all the protocols share before their first byte.

use bytes::Bytes;
use gantry_base::{Class, Error, Tasks};
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// The name of SPDY in the `Upgrade` header.
pub const SPDY: &str = "SPDY/3.1";
/// The header with the client's stream protocols, the preferred first, and with the server's choice.
pub const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// The header with the server's stream protocols when none of the client's is among them.
pub const ACCEPTED_STREAM_PROTOCOLS: HeaderName =
    HeaderName::from_static("x-accepted-stream-protocol-versions");
/// How much of a refusal's body is kept.
pub const MAX_REFUSAL: usize = 64 * 1024;

/// A body that is known.
pub type FullBody = Full<Bytes>;

/// Why a request cannot be upgraded; turn it into the response to the client.
#[derive(Debug, Clone)]
pub struct Rejection {
    status: StatusCode,
    message: String,
    headers: Vec<(HeaderName, &'static str)>,
}

impl Rejection {
    /// A refusal with `message` as its body.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), headers: Vec::new() }
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The text of the response.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The response.
    pub fn into_response(self) -> Response<FullBody> {
        let mut response = Response::new(Full::from(format!("{}\n", self.message)));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        for (name, value) in self.headers {
            response.headers_mut().append(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl From<Rejection> for Response<FullBody> {
    fn from(rejection: Rejection) -> Self {
        rejection.into_response()
    }
}

/// Why a connection to a server could not be upgraded.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server answered something else than 101.
    #[error("the server answered {status} instead of upgrading the connection: {}", body.trim_end())]
    Rejected {
        /// The response's status.
        status: StatusCode,
        /// The beginning of the response's body: a Kubernetes Status or plain text.
        body: String,
    },
    /// The server does not keep to the protocol.
    #[error("{0}")]
    Protocol(String),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// The HTTP exchange failed.
    #[error("the upgrade request failed: {0}")]
    Http(#[from] hyper::Error),
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        let class = match &error {
            ConnectError::Rejected { status, .. } => match status.as_u16() {
                404 | 410 => Class::Missing,
                409 => Class::Conflict,
                429 | 500.. => Class::Retry,
                401 | 403 => Class::Refused,
                _ => Class::Invalid,
            },
            ConnectError::Protocol(_) => Class::Invalid,
            ConnectError::Io(_) | ConnectError::Http(_) => Class::Retry,
        };
        Error::new(class, error.to_string())
    }
}

/// The members of a header that is a comma-separated list.
pub(crate) fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|item| item.trim().to_owned())
        .filter(|item| !item.is_empty())
        .collect()
}

/// True if a header contains `word`, in any case.
pub(crate) fn mentions(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.to_ascii_lowercase().contains(word))
}

/// True if the request asks for SPDY.
pub fn is_spdy_request(headers: &HeaderMap) -> bool {
    mentions(headers, &CONNECTION, "upgrade") && mentions(headers, &UPGRADE, "spdy/3.1")
}

/// True if the request asks for any upgrade.
pub fn is_upgrade_request(headers: &HeaderMap) -> bool {
    mentions(headers, &CONNECTION, "upgrade") && headers.contains_key(UPGRADE)
}

/// Chooses the stream protocol of a SPDY request and makes the headers of the 101 response.
pub(crate) fn accept_spdy(
    request: &HeaderMap,
    supported: &[&'static str],
) -> Result<(&'static str, HeaderMap), Rejection> {
    if !is_spdy_request(request) {
        return Err(Rejection::new(
            StatusCode::BAD_REQUEST,
            "unable to upgrade: missing upgrade headers in request",
        ));
    }
    let wanted = list(request, &STREAM_PROTOCOL);
    if wanted.is_empty() {
        let message = "unable to upgrade: header X-Stream-Protocol-Version does not exist in request";
        return Err(Rejection::new(StatusCode::BAD_REQUEST, message));
    }
    let Some(chosen) = wanted.iter().find_map(|name| supported.iter().find(|known| *known == name).copied())
    else {
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            wanted.join(" "),
            supported.join(" ")
        );
        let rejection = Rejection::new(StatusCode::FORBIDDEN, message);
        return Err(supported
            .iter()
            .fold(rejection, |r, name| r.with_header(ACCEPTED_STREAM_PROTOCOLS, name)));
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(chosen));
    Ok((chosen, headers))
}

/// The headers of a request for SPDY with one of `protocols`, the preferred first.
pub(crate) fn spdy_request_headers(protocols: &[&'static str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    for protocol in protocols {
        headers.append(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    }
    headers
}

/// The 101 response with `headers`.
pub(crate) fn switching_protocols(headers: HeaderMap) -> Response<FullBody> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    response
}

/// Sends `request`, with `headers` added, over `io` and returns the response's headers and the upgraded
/// connection.
///
/// The request's URI may be absolute; its path and query are sent, and its authority is the default of `Host`.
pub(crate) async fn connect<S>(
    io: S,
    request: Request<()>,
    headers: &HeaderMap,
    tasks: &Tasks,
) -> Result<(HeaderMap, TokioIo<Upgraded>), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = client_request(request, headers)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    tasks.spawn("upgrade client", async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "an upgraded client connection ended with an error");
        }
    });
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
        let body = body.map_or_else(|error| error.to_string(), |body| lossy(&body.to_bytes()));
        return Err(ConnectError::Rejected { status, body });
    }
    let response_headers = response.headers().clone();
    let upgraded = hyper::upgrade::on(response).await?;
    Ok((response_headers, TokioIo::new(upgraded)))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn client_request(request: Request<()>, headers: &HeaderMap) -> Result<Request<Empty<Bytes>>, ConnectError> {
    let (mut parts, ()) = request.into_parts();
    if !parts.headers.contains_key(HOST) {
        let authority = parts.uri.authority().map(|authority| HeaderValue::from_str(authority.as_str()));
        let Some(Ok(authority)) = authority else {
            return Err(ConnectError::Protocol(
                "the request has neither a Host header nor an absolute URI".into(),
            ));
        };
        parts.headers.insert(HOST, authority);
    }
    parts.uri = origin_form(&parts.uri);
    for name in headers.keys() {
        parts.headers.remove(name);
    }
    parts.headers.extend(headers.clone());
    Ok(Request::from_parts(parts, Empty::new()))
}

/// The path and query of `uri`: what HTTP/1.1 servers expect.
pub(crate) fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::from(path)
}
