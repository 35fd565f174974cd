//! Sends requests to one place.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_base::error::Context;
use gantry_base::{Class, Error, Result, Tasks};
use gantry_client::https::Token;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioTimer;
use rustls_pki_types::ServerName;

use super::answer::{Answer, CallError};
use super::dial::Dialer;
use super::{Config, Place, tls};
use crate::limits::MAX_CALL_ANSWER_BYTES;
use crate::reach::{Connection, DialError, Reach};

/// Connections without a request are closed after this (Go's `IdleConnTimeout`).
const IDLE: Duration = Duration::from_secs(90);
/// Idle connections of one caller.
const MAX_IDLE: usize = 25;

/// A body that goes out.
pub type Outgoing = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Appended to the place's URL: `?timeout=10s`.
    pub suffix: String,
    /// Headers besides those that say who we are.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// How long all of it may take.
    pub timeout: Duration,
}

struct Inner {
    config: Config,
    url: String,
    dialer: Dialer,
    upgrades: Dialer,
    client: Client<Dialer, Outgoing>,
}

/// Sends requests to one place, over connections that it keeps. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    inner: Arc<Inner>,
}

/// Runs the pool's connections in our group of tasks.
#[derive(Clone)]
struct Executor(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        self.0.spawn("callout connection", future);
    }
}

impl Caller {
    pub(super) fn new(config: Config, reach: &Reach, tasks: Tasks) -> Result<Self> {
        let url = config.place.url();
        let uri: Uri = url.parse().context(Class::Invalid, format!("Unparsable URL: {url}"))?;
        let host = uri.host().ok_or_else(|| Error::invalid(format!("{url} names no host")))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let encrypted = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(Error::invalid(format!("unsupported protocol scheme in {url}"))),
        };
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let secure = |protocols: &[&str]| -> Result<_> {
            if !encrypted {
                return Ok(None);
            }
            let name = if config.server_name.is_empty() { &host } else { &config.server_name };
            let name = ServerName::try_from(name.clone())
                .context(Class::Invalid, format!("{name:?} can be in no certificate"))?;
            Ok(Some((Arc::new(tls::config(&config, protocols)?), name)))
        };
        let dialer = |protocols: &[&str]| -> Result<Dialer> {
            Ok(Dialer {
                place: config.place.clone(),
                reach: reach.clone(),
                host: host.clone(),
                port,
                tls: secure(protocols)?,
            })
        };
        let pooled = dialer(if config.http2 { &["h2", "http/1.1"] } else { &["http/1.1"] })?;
        let upgrades = dialer(&["http/1.1"])?;
        let client = Client::builder(Executor(tasks))
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(pooled.clone());
        Ok(Self { inner: Arc::new(Inner { config, url, dialer: pooled, upgrades, client }) })
    }

    /// Whom it calls.
    pub fn place(&self) -> &Place {
        &self.inner.config.place
    }

    /// The URL that is called.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// Sends JSON and waits for the answer's body, as client-go's REST client does: `timeout` also goes into the query.
    ///
    /// # Errors
    /// No answer came in time, or it is a refusal.
    pub async fn post_json(&self, body: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        self.send(self.json(body, timeout)).await?.accepted()
    }

    fn json(&self, body: Bytes, timeout: Duration) -> Request {
        let separator = if self.inner.url.contains('?') { '&' } else { '?' };
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Request {
            method: Method::POST,
            suffix: format!("{separator}timeout={}", go_duration(timeout)),
            headers,
            body,
            timeout,
        }
    }

    /// The same where nothing is no answer.
    ///
    /// # Errors
    /// As [`Self::post_json`], and [`CallError::Unanswered`] for an empty body.
    pub async fn ask_json(&self, body: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        self.send(self.json(body, timeout)).await?.filled()
    }

    /// Sends a request and waits for all of its answer, whatever it is.
    ///
    /// # Errors
    /// [`CallError::Unanswered`].
    pub async fn send(&self, request: Request) -> Result<Answer, CallError> {
        let url = format!("{}{}", self.inner.url, request.suffix);
        let method = request.method.clone();
        let failed = |why: String| CallError::Unanswered(format!("{} \"{url}\": {why}", go_method(&method)));
        let timeout = request.timeout;
        let exchange = async {
            let mut outgoing =
                http::Request::new(Full::new(request.body).map_err(|e| match e {}).boxed_unsync());
            *outgoing.method_mut() = request.method;
            *outgoing.uri_mut() = url.parse().map_err(|e| failed(format!("{e}")))?;
            *outgoing.headers_mut() = request.headers;
            crate::traces::inject(outgoing.headers_mut());
            let response = self.pass(outgoing).await.map_err(&failed)?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_CALL_ANSWER_BYTES).collect().await.map_err(|e| {
                CallError::Unanswered(if e.is::<LengthLimitError>() {
                    format!("the answer is larger than {MAX_CALL_ANSWER_BYTES} bytes")
                } else {
                    format!("unexpected error when reading response body. Please retry. Original error: {e}")
                })
            })?;
            Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(failed("context deadline exceeded".to_owned())),
        }
    }

    /// Sends a request whose URI is whole and hands out the answer as it begins; for streams, there is no limit of
    /// time or size. The error is the text that follows the URL.
    ///
    /// # Errors
    /// No answer came.
    pub async fn pass(
        &self,
        mut request: http::Request<Outgoing>,
    ) -> Result<http::Response<Incoming>, String> {
        self.identify(request.headers_mut())?;
        // With the port, also if it is the scheme's own: so does Go.
        let host = request.uri().authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
        if let Some(host) = host.filter(|_| !request.headers().contains_key(HOST)) {
            request.headers_mut().insert(HOST, host);
        }
        self.inner.client.request(request).await.map_err(|e| describe(&e))
    }

    /// A connection of its own that speaks HTTP/1.1: for upgrades.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn connect(&self) -> Result<Connection, String> {
        self.inner.upgrades.dial().await.map_err(|e| e.0)
    }

    /// Whether a connection can be made at all.
    ///
    /// # Errors
    /// Why not.
    pub async fn probe(&self) -> Result<(), String> {
        self.inner.dialer.dial().await.map(drop).map_err(|e| e.0)
    }

    /// Adds who we are to a request's headers.
    ///
    /// # Errors
    /// A token cannot be read.
    pub fn identify(&self, headers: &mut HeaderMap) -> Result<(), String> {
        let config = &self.inner.config;
        if !headers.contains_key(USER_AGENT) {
            headers.insert(USER_AGENT, HeaderValue::from_static(config.user_agent));
        }
        let token = match &config.token {
            Some(Token::Text(token)) => Some(token.clone()),
            Some(Token::File(path)) => {
                let text = std::fs::read_to_string(path);
                Some(text.map_err(|e| format!("failed to read token file {:?}: {e}", path.display()))?)
            }
            None => None,
        };
        let authorization = match (token, &config.basic) {
            (Some(token), _) => format!("Bearer {}", token.trim()),
            (None, Some(basic)) => {
                format!("Basic {}", STANDARD.encode(format!("{}:{}", basic.username, basic.password)))
            }
            (None, None) => return Ok(()),
        };
        let mut value = HeaderValue::from_str(&authorization)
            .map_err(|_| "net/http: invalid header field value for \"Authorization\"".to_owned())?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        Ok(())
    }
}

/// The innermost reason that says something.
fn describe(error: &hyper_util::client::legacy::Error) -> String {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut last = error.to_string();
    while let Some(inner) = source {
        if let Some(dial) = inner.downcast_ref::<DialError>() {
            return dial.0.clone();
        }
        if let Some(hyper) = inner.downcast_ref::<hyper::Error>()
            && (hyper.is_incomplete_message() || hyper.is_closed())
        {
            return "EOF".to_owned();
        }
        match inner.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe) => return "EOF".to_owned(),
            Some(ErrorKind::ConnectionReset) => return "read: connection reset by peer".to_owned(),
            _ => {}
        }
        if let Some(hyper) = inner.downcast_ref::<hyper::Error>()
            && hyper.is_parse()
        {
            return format!("net/http: HTTP/1.x transport connection broken: {hyper}");
        }
        last = inner.to_string();
        source = inner.source();
    }
    last
}

/// `Post`, as Go's `net/http` begins its errors.
fn go_method(method: &Method) -> String {
    let lower = method.as_str().to_ascii_lowercase();
    let mut chars = lower.chars();
    chars.next().map(|first| first.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}

/// Whole seconds, rounded up, as Go writes a duration: `10s`, `1m30s`.
pub(super) fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}
