//! One request: headers out, status and bytes (or a stream of them) in.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use gantry_api::ApiError;
use gantry_api::metav1::Status;
use gantry_api::status::Result;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT, WARNING};
use http::{HeaderMap, Method, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{HttpsTransport, Inner, Io, Token, metrics};

/// The largest body taken, in bytes, streams excepted.
pub const MAX_BODY: usize = 512 << 20;
/// How much of the body of a refusal is kept, in bytes.
const MAX_REFUSAL: usize = 1 << 20;
/// The `reason` of errors that mean: no answer came from the server.
pub const UNREACHABLE: &str = "Unreachable";

/// What comes in over time.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The verb.
    pub method: Method,
    /// From `/api` on, with the query.
    pub path: String,
    /// `Accept`
    pub accept: String,
    /// `Content-Type`; empty if there is no body.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

impl Request {
    /// Reads `path` as JSON.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            accept: "application/json".into(),
            content_type: "",
            body: Bytes::new(),
        }
    }

    /// Sends `body` of `content_type`.
    pub fn send(method: Method, path: impl Into<String>, content_type: &'static str, body: Bytes) -> Self {
        Self { method, content_type, body, ..Self::get(path) }
    }

    /// The same, asking for other forms of the answer.
    #[must_use]
    pub fn accepting(mut self, accept: impl Into<String>) -> Self {
        self.accept = accept.into();
        self
    }
}

/// A good answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP code, 200 to 299.
    pub code: u16,
    /// The body.
    pub body: Bytes,
    /// `Warning` headers, the texts only.
    pub warnings: Vec<String>,
}

impl HttpsTransport {
    /// Sends a request and waits for all of its answer.
    ///
    /// # Errors
    /// What the server refuses; reason [`UNREACHABLE`] if no answer came.
    pub async fn send(&self, request: Request) -> Result<Reply> {
        let exchange = async {
            let response = self.open(request).await?;
            let code = response.status().as_u16();
            let warnings = warnings(response.headers());
            let body = collect(response, MAX_BODY).await?;
            Ok(Reply { code, body, warnings })
        };
        match self.config().request_timeout {
            Some(limit) => {
                tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(too_slow(limit)))
            }
            None => exchange.await,
        }
    }

    /// Sends a request as it is, with the user's credentials, and returns whatever answer comes.
    ///
    /// # Errors
    /// Reason [`UNREACHABLE`] if none came.
    pub async fn exchange(&self, request: http::Request<Bytes>) -> Result<Response<Bytes>> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let inner = self.now();
        parts.uri = inner.uri(path)?;
        inner.identify(&mut parts.headers)?;
        let outgoing = http::Request::from_parts(parts, Full::new(body));
        let response = inner.client.request(outgoing).await.map_err(|e| unreachable(&e))?;
        let (parts, body) = response.into_parts();
        let body =
            collect(Response::from_parts(http::response::Parts::clone(&parts), body), MAX_BODY).await?;
        Ok(Response::from_parts(parts, body))
    }

    /// Sends a request and hands out its answer as it comes, without a limit of time or size.
    ///
    /// # Errors
    /// What the server refuses; reason [`UNREACHABLE`] if no answer came.
    pub async fn stream(&self, request: Request) -> Result<ByteStream> {
        let limit = self.config().request_timeout.unwrap_or(Duration::MAX);
        let response =
            tokio::time::timeout(limit, self.open(request)).await.unwrap_or_else(|_| Err(too_slow(limit)))?;
        let body = response.into_body().into_data_stream();
        Ok(body.map(|frame| frame.map_err(|e| unreachable(&e))).boxed())
    }

    /// A connection of its own that speaks HTTP/1.1, and a request for `path_and_query` (from `/api` on) with the
    /// user's credentials: what the clients of `gantry-stream` take.
    ///
    /// # Errors
    /// Reason [`UNREACHABLE`] if there is no connection.
    pub async fn upgrade(&self, method: Method, path_and_query: &str) -> Result<(Io, http::Request<()>)> {
        let inner = self.now();
        let uri = inner.uri(path_and_query)?;
        let mut request = http::Request::new(());
        *request.method_mut() = method;
        let headers = request.headers_mut();
        inner.identify(headers)?;
        if let Some(Ok(host)) = uri.authority().map(|a| HeaderValue::from_str(a.as_str())) {
            headers.insert(HOST, host);
        }
        *request.uri_mut() = uri;
        let io = inner.upgrades.dial().await.map_err(|e| unreachable(&e))?;
        Ok((io, request))
    }

    /// The response if its status is good.
    pub(super) async fn open(&self, request: Request) -> Result<Response<Incoming>> {
        let inner = self.now();
        let mut outgoing = http::Request::new(Full::new(request.body));
        *outgoing.method_mut() = request.method;
        *outgoing.uri_mut() = inner.uri(&request.path)?;
        let headers = outgoing.headers_mut();
        headers.insert(ACCEPT, value(&request.accept)?);
        if !request.content_type.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(request.content_type));
        }
        inner.identify(headers)?;
        tracing::debug!(method = %outgoing.method(), path = request.path, "request");
        let (method, since) = (outgoing.method().clone(), Instant::now());
        let answer = inner.client.request(outgoing).await;
        let code = answer.as_ref().ok().map(|response| response.status().as_u16());
        metrics::answered(method.as_str(), inner.host(), code, since.elapsed());
        let response = answer.map_err(|e| unreachable(&e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status();
        let body = collect(response, MAX_REFUSAL).await.unwrap_or_default();
        Err(refusal(code.as_u16(), &body))
    }
}

impl Inner {
    fn uri(&self, path: &str) -> Result<Uri> {
        format!("{}{path}", self.base)
            .parse()
            .map_err(|e| ApiError::bad_request(format!("{path:?} is not a path: {e}")))
    }

    fn identify(&self, headers: &mut HeaderMap) -> Result<()> {
        let config = &self.config;
        headers.insert(USER_AGENT, value(&config.user_agent)?);
        let token = match &config.token {
            Some(Token::Text(token)) => Some(token.clone()),
            Some(Token::File(path)) => Some(std::fs::read_to_string(path).map_err(|e| {
                ApiError::new(401, UNREACHABLE, format!("cannot read the token in {}: {e}", path.display()))
            })?),
            None => None,
        };
        if let Some(token) = token {
            let mut bearer = value(&format!("Bearer {}", token.trim()))?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        } else if let Some(basic) = &config.basic {
            let pair = STANDARD.encode(format!("{}:{}", basic.username, basic.password));
            let mut basic = value(&format!("Basic {pair}"))?;
            basic.set_sensitive(true);
            headers.insert(AUTHORIZATION, basic);
        }
        if let Some(user) = &config.impersonate_user {
            headers.insert(HeaderName::from_static("impersonate-user"), value(user)?);
        }
        for group in &config.impersonate_groups {
            headers.append(HeaderName::from_static("impersonate-group"), value(group)?);
        }
        Ok(())
    }
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| ApiError::bad_request("a header has a control character in it"))
}

async fn collect(response: Response<Incoming>, limit: usize) -> Result<Bytes> {
    match Limited::new(response.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(e) if e.is::<LengthLimitError>() => {
            Err(ApiError::internal(format!("the server's answer is larger than {limit} bytes")))
        }
        Err(e) => Err(unreachable(&*e)),
    }
}

fn too_slow(limit: Duration) -> ApiError {
    let message = format!("the server did not answer within {} seconds", limit.as_secs());
    ApiError::new(504, UNREACHABLE, message)
}

/// The error of an exchange that failed: its innermost cause says most.
pub(super) fn unreachable(error: &(dyn std::error::Error + 'static)) -> ApiError {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    // hyper and the I/O error both hide what they carry from `source`.
    let text = match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => inner.to_string(),
        None => cause.to_string(),
    };
    ApiError::new(503, UNREACHABLE, text)
}

/// The error in a body that came with a bad code: a `Status`, or any text.
pub(super) fn refusal(code: u16, body: &[u8]) -> ApiError {
    if let Ok(status) = serde_json::from_slice::<Status>(body)
        && status.status.as_deref() == Some("Failure")
    {
        return ApiError::from_status(status);
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let reason = match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        406 => "NotAcceptable",
        409 => "Conflict",
        410 => "Expired",
        413 => "RequestEntityTooLarge",
        415 => "UnsupportedMediaType",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        500.. => "InternalError",
        _ => "",
    };
    let message = if text.is_empty() { format!("the server answered with code {code}") } else { text.into() };
    ApiError::new(i32::from(code), reason, message)
}

/// The texts of `Warning: 299 - "text"` headers.
fn warnings(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(WARNING).iter().filter_map(|v| v.to_str().ok());
    values.filter_map(warning_text).collect()
}

fn warning_text(value: &str) -> Option<String> {
    let quoted = value.splitn(3, ' ').nth(2)?.trim();
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    Some(inner.replace("\\\"", "\"").replace("\\\\", "\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_statuses_or_text() {
        let status = br#"{"kind":"Status","status":"Failure","reason":"NotFound","message":"pods \"x\" not found","code":404}"#;
        let error = refusal(404, status);
        assert!(error.is_not_found());
        assert_eq!(error.message(), "pods \"x\" not found");
        let error = refusal(403, b"no\n");
        assert_eq!((error.code(), error.reason(), error.message()), (403, "Forbidden", "no"));
    }

    #[test]
    fn warnings_are_unquoted() {
        assert_eq!(
            warning_text(r#"299 - "unknown field \"spec.x\"""#).as_deref(),
            Some(r#"unknown field "spec.x""#)
        );
    }
}
