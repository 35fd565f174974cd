//! Calls to a plugin by gRPC on a unix socket (`k8s.io/kms/apis/v2`).
//!
//! A call waits for the plugin to be there, as long as it may take at all: a plugin may start after the server, or
//! anew. All three calls may be repeated.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::ErrorKind;
use std::time::Duration;

use gantry_api::field::quote;
use gantry_base::{Backoff, BackoffPolicy};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::encryption::metrics;

/// Between attempts to reach the socket.
const RECONNECT: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(10), Duration::from_secs(1));

/// Asks nothing.
#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

/// How the plugin is.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StatusResponse {
    /// `v2` or `v2beta1`.
    #[prost(string, tag = "1")]
    pub(super) version: String,
    /// `ok`, or what is wrong.
    #[prost(string, tag = "2")]
    pub(super) healthz: String,
    /// The key that encrypts from now on.
    #[prost(string, tag = "3")]
    pub(super) key_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
}

/// What the plugin made of a seed.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) ciphertext: Vec<u8>,
    /// The key that it used.
    #[prost(string, tag = "2")]
    pub(super) key_id: String,
    /// What it wants to be told when it is to decrypt.
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub(super) annotations: BTreeMap<String, Vec<u8>>,
}

/// What the plugin once made of a seed.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) uid: String,
    #[prost(string, tag = "3")]
    pub(super) key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub(super) annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

/// A plugin.
pub(super) struct Client {
    provider: String,
    socket: String,
    patience: Duration,
    channel: Mutex<Option<Channel>>,
}

impl Client {
    /// Of the plugin at this socket, whose calls take no longer than `patience`.
    pub(super) fn new(provider: String, socket: String, patience: Duration) -> Self {
        Self { provider, socket, patience, channel: Mutex::new(None) }
    }

    /// Asks how it is.
    pub(super) async fn status(&self) -> Result<StatusResponse, String> {
        self.call("/v2.KeyManagementService/Status", StatusRequest {}).await
    }

    /// Has a seed encrypted.
    pub(super) async fn encrypt(&self, uid: &str, plaintext: &[u8]) -> Result<EncryptResponse, String> {
        let request = EncryptRequest { plaintext: plaintext.to_vec(), uid: uid.to_owned() };
        self.call("/v2.KeyManagementService/Encrypt", request).await
    }

    /// Has a seed decrypted.
    pub(super) async fn decrypt(&self, request: DecryptRequest) -> Result<Vec<u8>, String> {
        let answer: DecryptResponse = self.call("/v2.KeyManagementService/Decrypt", request).await?;
        Ok(answer.plaintext)
    }

    /// Calls it; a failure is told as Go's clients tell it.
    async fn call<Q, A>(&self, method: &'static str, message: Q) -> Result<A, String>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let waiting = "context deadline exceeded while waiting for connections to become ready";
        let mut unreached = Some(waiting.to_owned());
        let called = metrics::timed(async {
            let called =
                tokio::time::timeout(self.patience, self.insist(method, message, &mut unreached)).await;
            called.unwrap_or_else(|_| {
                let why = unreached.take().unwrap_or_else(|| "context deadline exceeded".to_owned());
                Err(Status::deadline_exceeded(why))
            })
        });
        let (called, took) = called.await;
        let code = go_name(called.as_ref().err().map_or(Code::Ok, Status::code));
        metrics::kms_called(&self.provider, method, &code, took);
        called.map_err(|status| format!("rpc error: code = {code} desc = {}", status.message()))
    }

    /// Calls it until it answers; `unreached` says why there is nobody to be waited for.
    async fn insist<Q, A>(
        &self,
        method: &'static str,
        message: Q,
        unreached: &mut Option<String>,
    ) -> Result<A, Status>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut backoff = Backoff::new(RECONNECT);
        loop {
            match self.channel().await {
                Ok(channel) => {
                    *unreached = None;
                    match unary(channel, method, message.clone()).await {
                        Ok(answer) => return Ok(answer),
                        // The plugin said so.
                        Err(status) if status.source().is_none() => return Err(status),
                        Err(status) => {
                            *self.channel.lock().await = None;
                            *unreached = Some(status.to_string());
                        }
                    }
                }
                Err(error) => *unreached = Some(format!("latest balancer error: {error}")),
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    async fn channel(&self) -> Result<Channel, String> {
        let mut channel = self.channel.lock().await;
        if let Some(channel) = &*channel {
            return Ok(channel.clone());
        }
        // A socket without a file begins with a zero in place of the `@`.
        let path =
            self.socket.strip_prefix('@').map_or_else(|| self.socket.clone(), |name| format!("\0{name}"));
        let stream = UnixStream::connect(&path).await.map_err(|error| {
            let dialing = format!("dial unix {}: connect: {}", self.socket, in_go(&error));
            format!(
                "connection error: desc = {}",
                quote(&format!("transport: Error while dialing: {dialing}"))
            )
        })?;
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = stream.take().ok_or_else(|| std::io::Error::from(ErrorKind::NotConnected));
            async move { stream }
        });
        let made = Endpoint::from_static("http://localhost").connect_with_connector(connector).await;
        let made = made.map_err(|error| format!("connection error: desc = {}", quote(&error.to_string())))?;
        *channel = Some(made.clone());
        Ok(made)
    }
}

async fn unary<Q, A>(channel: Channel, method: &'static str, message: Q) -> Result<A, Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let codec = ProstCodec::<Q, A>::default();
    let answer = grpc.unary(Request::new(message), PathAndQuery::from_static(method), codec).await?;
    Ok(answer.into_inner())
}

fn in_go(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file or directory".to_owned(),
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

fn go_name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        other => format!("{other:?}"),
    }
}
