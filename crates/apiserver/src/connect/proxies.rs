//! `proxy`: HTTP to pods, services and nodes through the API server.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use gantry_api::core::{Endpoints, Pod, Service};
use gantry_api::field::quote;
use gantry_api::status::Result;
use gantry_api::{ApiError, Object};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, LOCATION};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;

use super::kubelets::{About, Destination, Kubelets, Security};
use super::rewrite::{self, Rewriter};
use crate::limits::MAX_PAGE_BYTES;
use crate::reach::pod_node;
use crate::serve::{Body, empty, full};

/// `scheme:name:port`, `name:port` or `name`.
struct Name<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Name<'a> {
    fn parse(text: &'a str, kind: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let parsed = match parts.as_slice() {
            [name] => Self { scheme: "", name, port: "" },
            [name, port] => Self { scheme: "", name, port },
            [scheme, name, port] => Self { scheme, name, port },
            _ => Self { scheme: "", name: "", port: "" },
        };
        if parsed.name.is_empty() || !matches!(parsed.scheme, "" | "http" | "https") {
            return Err(ApiError::bad_request(format!("invalid {kind} request {}", quote(text))));
        }
        Ok(parsed)
    }

    fn security(&self) -> Security {
        if self.scheme == "https" { Security::Unverified } else { Security::None }
    }

    /// The port, or the scheme's default one.
    fn number(&self, port: &str) -> Result<u16> {
        match port {
            "" if self.scheme == "https" => Ok(443),
            "" => Ok(80),
            text => text.parse().map_err(|_| ApiError::bad_request(format!("invalid port {}", quote(text)))),
        }
    }
}

/// Answers a `proxy` request.
pub(super) async fn proxy(
    kubelets: &Kubelets,
    about: &About,
    request: Request<Body>,
) -> Result<Response<Body>> {
    let uri = request.uri().clone();
    let path = if about.path.is_empty() { "/" } else { &about.path };
    let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let asked = format!("{path}{query}");
    let to = match &*about.resource.plural {
        "pods" => pod(kubelets, about, asked).await?,
        "services" => service(kubelets, about, asked).await?,
        _ => node(kubelets, about, asked).await?,
    };
    if about.path.is_empty() && matches!(*request.method(), Method::GET | Method::HEAD) {
        return redirect(&uri);
    }
    let prefix = uri.path().strip_suffix(about.path.as_str()).unwrap_or(uri.path());
    let host = request.headers().get(HOST).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let rewriter =
        Rewriter { prefix: prefix.trim_end_matches('/').to_owned(), target: to.address.to_string(), host };
    let mut request = request;
    forwarded(&mut request, &rewriter, path);
    let answer = kubelets.pass(request, &to).await;
    let mut answer =
        answer.map_err(|why| ApiError::unavailable(format!("error trying to reach service: {why}")))?;
    if let Some(location) = answer.headers().get(LOCATION).and_then(|v| v.to_str().ok()) {
        let rewritten = HeaderValue::from_str(&rewriter.url(location)).map_err(ApiError::internal)?;
        answer.headers_mut().insert(LOCATION, rewritten);
        return Ok(answer);
    }
    page(answer, &rewriter).await
}

/// Says which path the client asked for.
fn forwarded(request: &mut Request<Body>, rewriter: &Rewriter, path: &str) {
    let mut uri = rewrite::clean(&format!("{}{path}", rewriter.prefix));
    if path.ends_with('/') && !uri.ends_with('/') {
        uri.push('/');
    }
    if let Ok(value) = HeaderValue::from_str(&uri) {
        request.headers_mut().insert(HeaderName::from_static("x-forwarded-uri"), value);
    }
}

/// The `Content-Encoding` of a page; nothing for what is none.
fn page_encoding(answer: &Response<Body>) -> Option<String> {
    let header = |name| answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    let media = header(CONTENT_TYPE).split(';').next().unwrap_or("").trim();
    let is_page = media == "text/html" && answer.status() != StatusCode::SWITCHING_PROTOCOLS;
    is_page.then(|| header(CONTENT_ENCODING).to_owned())
}

/// A page with its links rewritten; anything else as it is.
async fn page(answer: Response<Body>, rewriter: &Rewriter) -> Result<Response<Body>> {
    let Some(encoding) = page_encoding(&answer) else { return Ok(answer) };
    let (mut parts, body) = answer.into_parts();
    let mut body = body;
    let mut page = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|e| ApiError::unavailable(format!("error trying to reach service: {e}")))?;
        page.extend_from_slice(&frame.into_data().unwrap_or_default());
        if page.len() > MAX_PAGE_BYTES {
            let why = format!("error trying to reach service: a page of more than {MAX_PAGE_BYTES} bytes");
            return Err(ApiError::unavailable(why));
        }
    }
    let body = Bytes::from(page);
    let rewritten = rewriter.page(&encoding, &body);
    let rewritten =
        rewritten.map_err(|e| ApiError::unavailable(format!("error trying to reach service: {e}")))?;
    parts.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(parts, full(rewritten.unwrap_or(body))))
}

/// Relative links of a page only work if its path ends with a slash.
fn redirect(uri: &Uri) -> Result<Response<Body>> {
    let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let to = HeaderValue::from_str(&format!("{}/{query}", uri.path())).map_err(ApiError::internal)?;
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, to);
    Ok(response)
}

async fn pod(kubelets: &Kubelets, about: &About, path: String) -> Result<Destination> {
    let wanted = Name::parse(&about.name, "pod")?;
    let found: Option<Arc<Pod>> = kubelets.lookup().find(&about.namespace, wanted.name).await?;
    let pod = found.ok_or_else(|| ApiError::not_found(&Pod::RESOURCE, wanted.name))?;
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let first =
        containers.flat_map(|c| c.ports.iter().flatten()).map(|p| p.container_port.to_string()).next();
    let port = if wanted.port.is_empty() { first.unwrap_or_default() } else { wanted.port.to_owned() };
    let ip = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref()).and_then(|ip| ip.parse::<IpAddr>().ok());
    let ip = ip.filter(allowed).ok_or_else(|| ApiError::bad_request("address not allowed"))?;
    let address = SocketAddr::new(ip, wanted.number(&port)?);
    let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
    Ok(Destination { address, node, security: wanted.security(), path })
}

/// Neither this machine nor its link.
fn allowed(ip: &IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}

async fn service(kubelets: &Kubelets, about: &About, path: String) -> Result<Destination> {
    let wanted = Name::parse(&about.name, "service")?;
    let (namespace, name) = (&*about.namespace, wanted.name);
    let mut port_name = wanted.port.to_owned();
    if let Ok(number) = wanted.port.parse::<i32>() {
        let found: Option<Arc<Service>> = kubelets.lookup().find(namespace, name).await?;
        let service = found.ok_or_else(|| ApiError::not_found(&Service::RESOURCE, name))?;
        let port = service.spec.iter().flat_map(|s| s.ports.iter().flatten()).find(|p| p.port == number);
        let port = port.ok_or_else(|| {
            ApiError::unavailable(format!("no service port {number} found for service {}", quote(name)))
        })?;
        port_name = port.name.clone().unwrap_or_default();
    }
    let found: Option<Arc<Endpoints>> = kubelets.lookup().find(namespace, name).await?;
    // As upstream: endpoints that are not there are missed in the name of what is asked for.
    let endpoints = found.ok_or_else(|| ApiError::not_found(&Service::RESOURCE, name))?;
    let mut ready: Vec<(SocketAddr, Option<String>)> = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let port = subset.ports.iter().flatten().find(|p| p.name.as_deref().unwrap_or("") == port_name);
        let Some(port) = port.and_then(|p| u16::try_from(p.port).ok()) else { continue };
        for address in subset.addresses.iter().flatten() {
            let Some(ip) = address.ip.parse::<IpAddr>().ok().filter(allowed) else { continue };
            let node = pod_node(address.target_ref.as_ref(), address.node_name.as_deref());
            ready.push((SocketAddr::new(ip, port), node.map(str::to_owned)));
        }
    }
    if ready.is_empty() {
        return Err(ApiError::unavailable(format!(
            "no endpoints available for service {}",
            quote(&about.name)
        )));
    }
    let (address, node) = ready.swap_remove(rand::random_range(0..ready.len()));
    Ok(Destination { address, node, security: wanted.security(), path })
}

async fn node(kubelets: &Kubelets, about: &About, path: String) -> Result<Destination> {
    let wanted = Name::parse(&about.name, "node")?;
    let kubelet = kubelets.kubelet(wanted.name).await?;
    if wanted.port.is_empty() || wanted.port == kubelet.port().to_string() {
        return Ok(Destination::kubelet(kubelet, path));
    }
    if !allowed(&kubelet.ip()) {
        return Err(ApiError::bad_request("address not allowed"));
    }
    let address = SocketAddr::new(kubelet.ip(), wanted.number(wanted.port)?);
    Ok(Destination { address, node: None, security: wanted.security(), path })
}
