//! HTTP probes and hooks: a GET whose status decides. Certificates are not verified, as upstream does it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use gantry_api::core::{Container, HTTPGetAction};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::Outcome;
use crate::pod;

/// How long a lifecycle hook's request may take.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(600);

const MAX_BODY: usize = 10 * 1024;
const MAX_REDIRECTS: usize = 10;

/// A GET to be made.
#[derive(Clone, Debug)]
pub struct Request {
    scheme: String,
    host: String,
    port: u16,
    path: String,
    headers: HeaderMap,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The beginning of the body.
    pub body: String,
    /// Where a redirect that was not followed leads.
    pub left_for: Option<String>,
}

impl Request {
    /// The request that `action` describes; `host` is the pod's address, `purpose` goes into the user agent.
    ///
    /// # Errors
    /// The port or a header is not valid.
    pub fn new(
        action: &HTTPGetAction,
        container: &Container,
        host: &str,
        purpose: &str,
    ) -> Result<Self, String> {
        let own = action.host.as_deref().filter(|h| !h.is_empty());
        let mut headers = HeaderMap::new();
        for pair in action.http_headers.iter().flatten() {
            let name = HeaderName::try_from(&pair.name).map_err(|e| e.to_string())?;
            headers.append(name, HeaderValue::try_from(&pair.value).map_err(|e| e.to_string())?);
        }
        let agent = HeaderValue::try_from(format!("kube-{purpose}/1.36")).map_err(|e| e.to_string())?;
        headers.entry(header::USER_AGENT).or_insert(agent);
        headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        let path = action.path.as_deref().unwrap_or("/");
        Ok(Self {
            scheme: action.scheme.as_deref().unwrap_or("HTTP").to_lowercase(),
            host: own.unwrap_or(host).to_owned(),
            port: pod::resolve_port(&action.port, container)?,
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            headers,
        })
    }

    /// Whether it goes over TLS.
    pub fn is_tls(&self) -> bool {
        self.scheme == "https"
    }

    /// The same over plain HTTP.
    #[must_use]
    pub fn in_the_clear(&self) -> Self {
        let mut headers = self.headers.clone();
        headers.remove(header::AUTHORIZATION);
        Self { scheme: "http".into(), headers, ..self.clone() }
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }

    fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority(), self.path)
    }
}

/// Makes a probe of the request: 200 to 399 is a success.
pub async fn probe(request: &Request, timeout: Duration) -> Outcome {
    match fetch(request, timeout).await {
        Ok(answer) if answer.left_for.is_some() => {
            Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body))
        }
        Ok(answer) if (200..400).contains(&answer.status.as_u16()) => Outcome::Success,
        Ok(answer) => {
            Outcome::Failure(format!("HTTP probe failed with statuscode: {}", answer.status.as_u16()))
        }
        Err(error) => Outcome::Failure(error),
    }
}

/// Makes the request and follows redirects to the same host.
///
/// # Errors
/// No answer within `timeout`.
pub async fn fetch(request: &Request, timeout: Duration) -> Result<Answer, String> {
    let url = request.url();
    let failed = |why: String| format!("Get {url:?}: {why}");
    match tokio::time::timeout(timeout, follow(request.clone())).await {
        Ok(outcome) => outcome.map_err(failed),
        Err(_) => Err(failed(
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
        )),
    }
}

async fn follow(mut request: Request) -> Result<Answer, String> {
    for _ in 0..=MAX_REDIRECTS {
        let (answer, location) = once(&request).await?;
        let Some(location) = location.filter(|_| answer.status.is_redirection()) else { return Ok(answer) };
        let Ok(target) = location.parse::<Uri>() else { return Ok(answer) };
        let path = target.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        match target.host() {
            Some(host) if host.trim_matches(['[', ']']) != request.host => {
                return Ok(Answer { left_for: Some(location), ..answer });
            }
            Some(_) => {
                request.scheme = target.scheme_str().unwrap_or(&request.scheme).to_owned();
                let default = if request.is_tls() { 443 } else { 80 };
                request.port = target.port_u16().unwrap_or(default);
            }
            None => {}
        }
        request.path = path;
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

async fn once(request: &Request) -> Result<(Answer, Option<String>), String> {
    let stream = TcpStream::connect((request.host.as_str(), request.port))
        .await
        .map_err(|e| gantry_base::dial_error(request.authority(), &e))?;
    if request.is_tls() {
        let name = ServerName::try_from(request.host.clone()).map_err(|e| e.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(TLS.clone());
        let stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
        exchange(request, stream).await
    } else {
        exchange(request, stream).await
    }
}

async fn exchange<S>(request: &Request, stream: S) -> Result<(Answer, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let mut message = http::Request::get(&request.path);
    if let Some(headers) = message.headers_mut() {
        headers.clone_from(&request.headers);
        let host = HeaderValue::try_from(request.authority()).map_err(|e| e.to_string())?;
        headers.entry(header::HOST).or_insert(host);
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let message = message.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let call = async {
        let answer = sender.send_request(message).await.map_err(describe)?;
        let status = answer.status();
        let location =
            answer.headers().get(header::LOCATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
        // A body that is too long or breaks off does not change the verdict.
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
        let body = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
        Ok((Answer { status, body, left_for: None }, location))
    };
    let mut call = std::pin::pin!(call);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        outcome = &mut call => outcome,
        ended = &mut connection => match ended {
            Ok(()) => call.await,
            Err(error) => Err(describe(error)),
        },
    }
}

fn describe(error: hyper::Error) -> String {
    if error.is_incomplete_message() { "EOF".to_owned() } else { error.to_string() }
}

static TLS: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default protocol versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    Arc::new(config)
});

/// A probe asks whether a server answers, not who it is.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
