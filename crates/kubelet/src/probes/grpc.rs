//! gRPC probes: `grpc.health.v1.Health/Check` by hand over HTTP/2. The request is one string, the answer one enum.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::Outcome;

const MAX_ANSWER: usize = 64 * 1024;
/// `HealthCheckResponse.ServingStatus.SERVING`
const SERVING: u64 = 1;
/// gRPC's `UNIMPLEMENTED`
const UNIMPLEMENTED: &str = "12";

/// Asks `host:port` for the health of `service`.
pub async fn probe(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match tokio::time::timeout(timeout, check(host, port, &address, service)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Failure(format!(
            "timeout: failed to connect service {address:?} within {}s: context deadline exceeded",
            timeout.as_secs()
        )),
    }
}

async fn check(host: &str, port: u16, address: &str, service: &str) -> Outcome {
    let stream = match TcpStream::connect((host, port)).await {
        Ok(stream) => stream,
        Err(error) => {
            let why = gantry_base::dial_error(address, &error);
            return Outcome::Failure(format!("error: this is not a healthy gRPC server: {why}"));
        }
    };
    let (status, body) = match call(stream, address, service).await {
        Ok(answer) => answer,
        Err(error) => return Outcome::Failure(format!("error: health rpc probe failed: {error}")),
    };
    match status.as_deref() {
        None | Some("0") => match serving_status(&body) {
            Some(SERVING) => Outcome::Success,
            Some(other) => {
                Outcome::Failure(format!("service unhealthy (responded with {:?})", status_name(other)))
            }
            None => Outcome::Failure("error: health rpc probe failed: the answer cannot be read".to_owned()),
        },
        Some(UNIMPLEMENTED) => Outcome::Failure(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                .to_owned(),
        ),
        Some(code) => Outcome::Failure(format!("error: health rpc probe failed: rpc error: code = {code}")),
    }
}

/// The `grpc-status` (from the headers or the trailers) and the message of one call.
async fn call(stream: TcpStream, address: &str, service: &str) -> Result<(Option<String>, Bytes), String> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(request_frame(service)))
        .map_err(|e| e.to_string())?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let early = answer.headers().get("grpc-status").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| e.to_string())?;
        let late = body.trailers().and_then(|t| t.get("grpc-status")).and_then(|v| v.to_str().ok());
        let status = late.map(str::to_owned).or(early);
        Ok((status, body.to_bytes()))
    };
    let mut exchange = std::pin::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        outcome = &mut exchange => outcome,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

/// A gRPC frame with `HealthCheckRequest{service}`.
fn request_frame(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// `HealthCheckResponse.status` of a gRPC frame.
fn serving_status(frame: &[u8]) -> Option<u64> {
    let length = u32::from_be_bytes(frame.get(1..5)?.try_into().ok()?) as usize;
    let message = frame.get(5..5 + length)?;
    match message {
        [] => Some(0),
        [0x08, value, ..] => Some(u64::from(*value)),
        _ => None,
    }
}

fn status_name(status: u64) -> &'static str {
    match status {
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_what_protobuf_makes_of_them() {
        assert_eq!(&request_frame("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request_frame("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 0x08, 1]), Some(SERVING));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(serving_status(&[0, 0]), None);
    }
}
