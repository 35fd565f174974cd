//! The opening handshake of a WebSocket over HTTP/1.1, both sides (RFC 6455, section 4).

use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, StatusCode};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::upgrade::{ConnectError, Rejection, list, mentions};

/// True if the request asks for a WebSocket.
pub fn is_websocket_request(headers: &HeaderMap) -> bool {
    mentions(headers, &CONNECTION, "upgrade")
        && headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The first of the client's subprotocols that is `supported`. A client that names none asks for the protocol
/// with the empty name, if that is supported.
pub fn negotiate<'a>(headers: &HeaderMap, supported: &[&'a str]) -> Option<&'a str> {
    let wanted = list(headers, &SEC_WEBSOCKET_PROTOCOL);
    if wanted.is_empty() {
        return supported.iter().find(|name| name.is_empty()).copied();
    }
    wanted.iter().find_map(|name| supported.iter().find(|known| *known == name).copied())
}

/// The subprotocol that the client names; empty if it names none.
///
/// # Errors
///
/// It names several.
pub fn only_protocol(headers: &HeaderMap) -> Result<String, Rejection> {
    let mut wanted = list(headers, &SEC_WEBSOCKET_PROTOCOL);
    match wanted.len() {
        0 | 1 => Ok(wanted.pop().unwrap_or_default()),
        _ => Err(Rejection::new(StatusCode::BAD_REQUEST, "missing or bad WebSocket-Protocol")),
    }
}

/// The headers of the 101 response to a WebSocket request.
///
/// # Errors
///
/// The request is not a WebSocket handshake of version 13.
pub fn accept_headers(request: &HeaderMap, protocol: &str) -> Result<HeaderMap, Rejection> {
    if !is_websocket_request(request) {
        return Err(Rejection::new(
            StatusCode::BAD_REQUEST,
            "unable to upgrade: the request is no WebSocket handshake",
        ));
    }
    if request.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Rejection::new(
            StatusCode::BAD_REQUEST,
            "unable to upgrade: only WebSocket version 13 is supported",
        )
        .with_header(SEC_WEBSOCKET_VERSION, "13"));
    }
    let key = request.get(SEC_WEBSOCKET_KEY).ok_or_else(|| {
        Rejection::new(StatusCode::BAD_REQUEST, "unable to upgrade: the Sec-WebSocket-Key header is missing")
    })?;
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, text(&derive_accept_key(key.as_bytes())));
    if !protocol.is_empty() {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, text(protocol));
    }
    Ok(headers)
}

/// The headers of a request for a WebSocket with one of `protocols`, the preferred first.
pub(crate) fn request_headers(protocols: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_KEY, text(&generate_key()));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, text(&protocols.join(",")));
    headers
}

/// Checks the 101 response to a request made with [`request_headers`] and returns the server's choice.
pub(crate) fn accepted_protocol(request: &HeaderMap, response: &HeaderMap) -> Result<String, ConnectError> {
    let expected = request.get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let accept = response.get(SEC_WEBSOCKET_ACCEPT).and_then(|value| value.to_str().ok());
    if !is_websocket_request(response) || accept != expected.as_deref() {
        return Err(ConnectError::Protocol("the server's WebSocket handshake is wrong".into()));
    }
    let offered = list(request, &SEC_WEBSOCKET_PROTOCOL);
    let chosen =
        response.get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !offered.iter().any(|name| name == chosen) {
        let message = format!("the server chose the WebSocket protocol {chosen:?}, which was not offered");
        return Err(ConnectError::Protocol(message));
    }
    Ok(chosen.to_owned())
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("keys are base64 and protocol names are visible ASCII")
}

/// The header with the client's and the server's subprotocols.
pub const PROTOCOL_HEADER: HeaderName = SEC_WEBSOCKET_PROTOCOL;

/// [`negotiate`], or the response that refuses the request.
pub(crate) fn negotiate_or_reject<'a>(
    request: &HeaderMap,
    supported: &[&'a str],
) -> Result<&'a str, Rejection> {
    negotiate(request, supported).ok_or_else(|| {
        let wanted = list(request, &SEC_WEBSOCKET_PROTOCOL).join(" ");
        let supported = supported.join(" ");
        let message = format!("requested protocol(s) are not supported: [{wanted}]; supports [{supported}]");
        Rejection::new(StatusCode::FORBIDDEN, message)
    })
}
