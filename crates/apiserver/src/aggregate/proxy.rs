//! Passes requests on to a remote server.

use gantry_api::ApiError;
use gantry_api::status::Result;
use gantry_stream::{is_upgrade_request, proxy_upgrade};
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;

use super::remote::{DISCOVERY_TIMEOUT, Remote};
use crate::callout::Caller;
use crate::core::Core;
use crate::identify::User;
use crate::serve::{Body, full};

const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";

/// Answers with what the remote server answers.
///
/// # Errors
/// The request cannot be passed on at all.
pub(crate) async fn pass(
    core: &Core,
    remote: &Remote,
    user: &User,
    request: Request<Body>,
) -> Result<Response<Body>> {
    if !remote.available {
        return Ok(plain(503, "service unavailable"));
    }
    let caller = match &remote.caller {
        Ok(caller) => caller,
        Err(why) => return Ok(plain(500, why)),
    };
    let discovery = request.uri().path().trim_matches('/').split('/').count() == 3;
    let passing = forward(core, caller, user, request);
    let answer = if discovery {
        tokio::time::timeout(DISCOVERY_TIMEOUT, passing)
            .await
            .unwrap_or_else(|_| Ok(Err("context deadline exceeded".to_owned())))
    } else {
        passing.await
    };
    Ok(match answer? {
        Ok(response) if response.status().is_redirection() && response.headers().contains_key(LOCATION) => {
            plain(502, "the backend attempted to redirect this request, which is not permitted")
        }
        Ok(response) => response,
        Err(why) => plain(503, &format!("error trying to reach service: {why}")),
    })
}

/// What Go's `http.Error` writes.
fn plain(code: u16, text: &str) -> Response<Body> {
    let mut response = Response::new(full(format!("{text}\n")));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}

async fn forward(
    core: &Core,
    caller: &Caller,
    user: &User,
    mut request: Request<Body>,
) -> Result<Result<Response<Body>, String>> {
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let uri: Uri = format!("{}{path}", caller.url()).parse().map_err(ApiError::internal)?;
    let headers = request.headers_mut();
    headers.remove(AUTHORIZATION);
    let foreign = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("x-remote-") || name.starts_with("impersonate-")
    };
    let foreign: Vec<HeaderName> = headers.keys().filter(|name| foreign(name)).cloned().collect();
    for name in foreign {
        headers.remove(name);
    }
    identify(headers, user)?;
    headers.remove(HOST);
    if is_upgrade_request(headers) {
        return Ok(upgrade(core, caller, request, &uri).await);
    }
    for name in [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        request.headers_mut().remove(name);
    }
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_11;
    Ok(caller.pass(request).await.map(|response| {
        let mut response = response.map(|body| body.map_err(Into::into).boxed_unsync());
        for name in [CONNECTION, TRANSFER_ENCODING] {
            response.headers_mut().remove(name);
        }
        response
    }))
}

async fn upgrade(
    core: &Core,
    caller: &Caller,
    request: Request<Body>,
    uri: &Uri,
) -> Result<Response<Body>, String> {
    let connection = caller.connect().await?;
    // A concrete error: a boxed one is not general enough for the compiler.
    let request = request.map(|body| body.map_err(std::io::Error::other).boxed_unsync());
    let response = proxy_upgrade(request, connection, uri, HeaderMap::new(), &core.tasks).await;
    let response = response.map_err(|e| e.to_string())?;
    Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
}

/// Says for whom the request is.
fn identify(headers: &mut HeaderMap, user: &User) -> Result<()> {
    let value = |text: &str| HeaderValue::from_str(text).map_err(ApiError::internal);
    headers.insert(USER, value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert(UID, value(&user.uid)?);
    }
    for group in user.groups.iter() {
        headers.append(GROUP, value(group)?);
    }
    for (key, values) in user.extra.iter() {
        let name = HeaderName::from_bytes(format!("{EXTRA}{}", escaped(key)).as_bytes());
        let name = name.map_err(ApiError::internal)?;
        for text in values {
            headers.append(name.clone(), value(text)?);
        }
    }
    Ok(())
}

/// A key as part of a header's name: whatever no name may hold is written as in a URL.
fn escaped(key: &str) -> String {
    let mut out = String::new();
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z'
            | b'0'..=b'9'
            | b'A'..=b'Z'
            | b'!'
            | b'#'
            | b'$'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
