//! The connector: finds the kubelet of a pod's node and passes the request on.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use gantry_api::core::Pod;
use gantry_api::status::Result;
use gantry_api::{ApiError, Object, Resource};
use gantry_base::Tasks;
use gantry_stream::{is_upgrade_request, proxy_upgrade, websocket};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, BodyStream};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::{ConnectRequest, Connector, containers, logs, proxies};
use crate::lookup::Lookup;
use crate::query::Query;
use crate::reach::{KubeletClient, Reach, Target};
use crate::serve::{Body, empty};

/// How much of a kubelet's complaint is passed on, in bytes.
const MAX_COMPLAINT: usize = 2000;

/// Passes requests on to kubelets, and `proxy` requests to pods, services and nodes.
pub struct Kubelets {
    kubelets: Arc<KubeletClient>,
    /// TLS towards pods and services, whose certificates nobody can know: encrypted, not authenticated, as upstream's
    /// `proxy` is.
    unverified: Arc<ClientConfig>,
    reach: Reach,
    lookup: Lookup,
    tasks: Tasks,
}

impl Kubelets {
    /// Talks to `kubelets`, and to everybody else by `reach`.
    pub(crate) fn new(kubelets: Arc<KubeletClient>, reach: Reach, lookup: Lookup, tasks: Tasks) -> Self {
        let unverified = Arc::new(gantry_client::https::unverified());
        Self { kubelets, unverified, reach, lookup, tasks }
    }

    pub(super) fn lookup(&self) -> &Lookup {
        &self.lookup
    }

    /// The address of a node's kubelet.
    pub(super) async fn kubelet(&self, node: &str) -> Result<SocketAddr> {
        self.kubelets.address(node).await
    }

    /// Passes a request on.
    pub(super) async fn pass(
        &self,
        request: Request<Body>,
        to: &Destination,
    ) -> Result<Response<Body>, String> {
        let tls = match to.security {
            Security::Kubelet => Some(self.kubelets.tls(to.address)),
            Security::Unverified => {
                Some((Arc::clone(&self.unverified), ServerName::IpAddress(to.address.ip().into())))
            }
            Security::None => None,
        };
        let target = Target { address: to.address.to_string(), node: to.node.clone() };
        let connection = self.reach.dial(&target, tls.as_ref()).await.map_err(|e| e.0)?;
        let scheme = if matches!(to.security, Security::None) { "http" } else { "https" };
        let uri: Uri = format!("{scheme}://{}{}", to.address, to.path)
            .parse()
            .map_err(|e| format!("{}: {e}", to.path))?;
        // A concrete error: a boxed one is not general enough for the compiler.
        let request = clean(request).map(|body| body.map_err(std::io::Error::other).boxed_unsync());
        let response = proxy_upgrade(request, connection, &uri, HeaderMap::new(), &self.tasks).await;
        let response = response.map_err(|e| e.to_string())?;
        Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
    }

    async fn stream(&self, about: About, request: Request<Body>, pod: &Pod) -> Result<Response<Body>> {
        let query = Query::parse(request.uri().query().unwrap_or(""));
        let forward = about.subresource == "portforward";
        let container = match forward {
            true => String::new(),
            false => containers::choose(pod, query.get("container").unwrap_or(""))?,
        };
        let node = node_of(pod);
        if node.is_empty() {
            let why = format!("pod {} does not have a host assigned", about.name);
            return Err(ApiError::bad_request(why));
        }
        if !is_upgrade_request(request.headers()) {
            return Err(ApiError::bad_request("Upgrade request required"));
        }
        let mut parameters = Parameters::default();
        if forward {
            query.all("ports").iter().for_each(|ports| parameters.add("port", ports));
        } else {
            for (ours, theirs) in
                [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
            {
                if query.flag(ours) {
                    parameters.add(theirs, "1");
                }
            }
            query.all("command").iter().for_each(|word| parameters.add("command", word));
        }
        let verb = if forward { "portForward" } else { &about.subresource };
        let slash = if forward { "" } else { "/" };
        let path = format!("/{verb}/{}/{}{slash}{container}{parameters}", about.namespace, about.name);
        let to = Destination::kubelet(self.kubelet(node).await?, path);
        let passed = self.pass(request, &to).await;
        passed.map_err(|why| ApiError::new(500, "", format!("error dialing backend: {why}")))
    }

    async fn log(&self, about: About, mut request: Request<Body>, pod: &Pod) -> Result<Response<Body>> {
        let query = Query::parse(request.uri().query().unwrap_or(""));
        let parameters = logs::parameters(pod, &query)?;
        let container = containers::choose(pod, query.get("container").unwrap_or(""))?;
        let node = node_of(pod);
        if node.is_empty() {
            let mut nothing = Response::new(empty());
            *nothing.status_mut() = StatusCode::NO_CONTENT;
            return Ok(nothing);
        }
        let path = format!("/containerLogs/{}/{}/{container}{parameters}", about.namespace, about.name);
        let to = Destination::kubelet(self.kubelet(node).await?, path);
        let mut ask = Request::new(empty());
        *ask.method_mut() = Method::GET;
        let answer = self.pass(ask, &to).await;
        let answer = answer.map_err(|why| {
            ApiError::new(500, "", format!("Get \"https://{}{}\": {why}", to.address, to.path))
        })?;
        let answer = checked(answer, &about).await?;
        if websocket::is_websocket_request(request.headers()) {
            return self.log_messages(&mut request, answer);
        }
        let mut response = Response::new(answer.into_body());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok(response)
    }

    /// The log as messages of a WebSocket.
    fn log_messages(&self, request: &mut Request<Body>, log: Response<Body>) -> Result<Response<Body>> {
        let accepted = match websocket::accept_messages(request, websocket::messages::BYTE_PROTOCOLS) {
            Ok(accepted) => accepted,
            Err(rejection) => return Ok(rejection.into_response().map(full_body)),
        };
        let (response, socket) = accepted.into_parts();
        self.tasks.spawn("log messages", async move {
            let chunks = BodyStream::new(log.into_body())
                .take_while(|frame| std::future::ready(frame.is_ok()))
                .filter_map(|frame| async move { frame.ok()?.into_data().ok() });
            let sent = match socket.await {
                Ok(socket) => socket.send_all(chunks, true).await,
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                tracing::debug!(%error, "a log sent as messages broke off");
            }
        });
        Ok(response.map(full_body))
    }
}

fn full_body(body: http_body_util::Full<Bytes>) -> Body {
    body.map_err(|never| match never {}).boxed_unsync()
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("")
}

/// A kubelet's refusal as an API error.
async fn checked(answer: Response<Body>, about: &About) -> Result<Response<Body>> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await
        && text.len() < MAX_COMPLAINT
    {
        text.extend(frame.into_data().unwrap_or_default());
    }
    text.truncate(MAX_COMPLAINT);
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_end();
    Err(match status {
        StatusCode::INTERNAL_SERVER_ERROR => ApiError::internal(text),
        StatusCode::BAD_REQUEST => ApiError::bad_request(text),
        StatusCode::NOT_FOUND => {
            let what = format!(
                "the server could not find the requested resource ( {} {})",
                about.resource.plural, about.name
            );
            let what = if text.is_empty() { what } else { text.to_owned() };
            ApiError::new(404, "NotFound", what)
        }
        other => ApiError::new(i32::from(other.as_u16()), "", text),
    })
}

/// What a request is about. (The request itself cannot be shared between threads: its body is a stream.)
pub(super) struct About {
    pub(super) resource: Resource,
    pub(super) subresource: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) path: String,
}

/// How a destination is talked to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Security {
    /// TLS with certificates of the cluster's authority on both sides.
    Kubelet,
    /// TLS with whatever certificate.
    Unverified,
    /// None.
    None,
}

/// Where a request goes.
pub(super) struct Destination {
    pub(super) address: SocketAddr,
    /// The node of the pod whose address it is.
    pub(super) node: Option<String>,
    pub(super) security: Security,
    /// Path and query.
    pub(super) path: String,
}

impl Destination {
    /// A path of a kubelet.
    pub(super) fn kubelet(address: SocketAddr, path: String) -> Self {
        Self { address, node: None, security: Security::Kubelet, path }
    }
}

/// The subprotocol that carries a token.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// The request without what it says of its sender: that was for us.
fn clean(mut request: Request<Body>) -> Request<Body> {
    let headers = request.headers_mut();
    headers.remove(AUTHORIZATION);
    let theirs = |name: &HeaderName| name.as_str().starts_with("impersonate-");
    let impersonation: Vec<HeaderName> = headers.keys().filter(|name| theirs(name)).cloned().collect();
    for name in impersonation {
        headers.remove(name);
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let kept: Vec<&str> = protocols
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|protocol| !protocol.starts_with(TOKEN_PROTOCOL))
        .collect();
    let kept = kept.join(", ");
    if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        headers.remove(SEC_WEBSOCKET_PROTOCOL);
        if let Ok(value) = HeaderValue::from_str(&kept)
            && !kept.is_empty()
        {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
        }
    }
    request
}

/// Query parameters.
#[derive(Default)]
pub(super) struct Parameters(String);

impl Parameters {
    pub(super) fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    self.0.push(char::from(byte))
                }
                other => {
                    const HEX: &[u8; 16] = b"0123456789ABCDEF";
                    self.0.push('%');
                    self.0.push(char::from(HEX[usize::from(other >> 4)]));
                    self.0.push(char::from(HEX[usize::from(other & 15)]));
                }
            }
        }
    }
}

impl std::fmt::Display for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[async_trait]
impl Connector for Kubelets {
    async fn connect(&self, request: ConnectRequest) -> Result<Response<Body>> {
        let ConnectRequest { user: _, resource, subresource, namespace, name, path, object, request } =
            request;
        let about = About { resource, subresource, namespace, name, path };
        if about.subresource == "proxy" {
            return proxies::proxy(self, &about, request).await;
        }
        let object = object.ok_or_else(|| ApiError::not_found(&about.resource, &about.name))?;
        let pod =
            object.typed::<Pod>().map_err(|e| ApiError::internal(format!("cannot read the pod: {e}")))?;
        let answer = match about.subresource.as_str() {
            "log" => self.log(about, request, &pod).await,
            _ => self.stream(about, request, &pod).await,
        };
        // As upstream: a node that is not there is missed in the name of what is asked for.
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("");
        let is_node = |error: &ApiError| {
            error.is_not_found()
                && error.status().details.as_ref().is_some_and(|d| d.kind.as_deref() == Some("nodes"))
        };
        answer.map_err(
            |error| {
                if is_node(&error) { ApiError::not_found(&Pod::RESOURCE, node) } else { error }
            },
        )
    }
}
