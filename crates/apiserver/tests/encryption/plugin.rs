//! A KMS plugin: a gRPC server on a unix socket that seals with AES-GCM. It speaks gRPC by hand, so that the messages are
//! checked against the specification and not against our own client.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use gantry_base::Tasks;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use tokio::net::{UnixListener, UnixStream};

/// `StatusResponse` and `EncryptResponse` have their texts and bytes under these numbers, `DecryptRequest` and
/// `EncryptRequest` begin with their bytes.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    healthz: String,
    #[prost(string, tag = "3")]
    key_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct Encrypted {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Decrypt {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
}

/// What the plugin says; a test changes it.
#[derive(Clone)]
pub struct Says {
    pub version: String,
    pub healthz: String,
    /// The key that `Status` names.
    pub key: String,
    /// The key that `Encrypt` uses, if it is another.
    pub encrypts_with: Option<String>,
    pub annotations: BTreeMap<String, Vec<u8>>,
    /// `Decrypt` fails with this.
    pub refuses: Option<String>,
}

/// The plugin's memory; it outlives a stop.
pub struct Plugin {
    pub socket: PathBuf,
    pub says: Mutex<Says>,
    /// The methods that were called.
    pub calls: Mutex<Vec<String>>,
    running: tokio::sync::Mutex<Option<Tasks>>,
}

impl Plugin {
    pub async fn start(socket: PathBuf) -> Arc<Self> {
        let says = Says {
            version: "v2".to_owned(),
            healthz: "ok".to_owned(),
            key: "key-1".to_owned(),
            encrypts_with: None,
            annotations: BTreeMap::from([("kek.example.com".to_owned(), b"blue".to_vec())]),
            refuses: None,
        };
        let plugin = Arc::new(Self {
            socket,
            says: Mutex::new(says),
            calls: Mutex::default(),
            running: tokio::sync::Mutex::default(),
        });
        plugin.start_again().await;
        plugin
    }

    pub async fn start_again(self: &Arc<Self>) {
        let listener = UnixListener::bind(&self.socket).expect("a socket");
        let tasks = Tasks::new();
        let (plugin, group) = (Arc::clone(self), tasks.clone());
        tasks.spawn("plugin", async move {
            while let Ok((stream, _)) = listener.accept().await {
                group.spawn("plugin connection", Arc::clone(&plugin).connection(stream));
            }
        });
        *self.running.lock().await = Some(tasks);
    }

    pub async fn stop(&self) {
        let tasks = self.running.lock().await.take().expect("it runs");
        assert!(tasks.shut_down(Duration::from_secs(10)).await);
        std::fs::remove_file(&self.socket).expect("the socket is there");
    }

    pub fn count(&self, method: &str) -> usize {
        self.calls.lock().iter().filter(|call| *call == method).count()
    }

    async fn connection(self: Arc<Self>, stream: UnixStream) {
        let service = hyper::service::service_fn(move |request| {
            let plugin = Arc::clone(&self);
            async move { Ok::<_, Infallible>(plugin.answer(request).await) }
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // The client may go at any time.
        server.serve_connection(TokioIo::new(stream), service).await.ok();
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Response<impl hyper::body::Body<Data = Bytes, Error = Infallible> + use<>> {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        assert!(request.uri().path().starts_with("/v2.KeyManagementService/"), "{}", request.uri());
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        self.calls.lock().push(method.clone());
        let answer = self.act(&method, &body[5..]);
        let mut trailers = HeaderMap::new();
        let mut frames = Vec::new();
        match answer {
            Ok(message) => {
                let mut data = BytesMut::new();
                data.put_u8(0);
                data.put_u32(u32::try_from(message.len()).expect("a small message"));
                data.extend_from_slice(&message);
                frames.push(Ok(Frame::data(data.freeze())));
                trailers.insert("grpc-status", "0".parse().expect("a value"));
            }
            Err(why) => {
                // INVALID_ARGUMENT
                trailers.insert("grpc-status", "3".parse().expect("a value"));
                trailers.insert("grpc-message", why.parse().expect("a value"));
            }
        }
        frames.push(Ok(Frame::trailers(trailers)));
        let body = StreamBody::new(futures::stream::iter(frames));
        Response::builder().header("content-type", "application/grpc").body(body).expect("a response")
    }

    fn act(&self, method: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        let says = self.says.lock().clone();
        match method {
            "Status" => {
                Ok(Status { version: says.version, healthz: says.healthz, key_id: says.key }.encode_to_vec())
            }
            "Encrypt" => {
                let mut text = Decrypt::decode(message).expect("a request").ciphertext;
                let key = says.encrypts_with.unwrap_or(says.key);
                let tag = cipher(&key).seal_in_place_separate_tag(nonce(), Aad::empty(), &mut text);
                text.extend_from_slice(tag.expect("sealed").as_ref());
                Ok(Encrypted { ciphertext: text, key_id: key, annotations: says.annotations }.encode_to_vec())
            }
            "Decrypt" => {
                if let Some(why) = says.refuses {
                    return Err(why);
                }
                let request = Decrypt::decode(message).expect("a request");
                assert!(!request.uid.is_empty());
                assert_eq!(request.annotations, says.annotations, "what came with Encrypt comes back");
                let mut text = request.ciphertext;
                let opened = cipher(&request.key_id).open_in_place(nonce(), Aad::empty(), &mut text);
                let length = opened.map_err(|_| "no such key".to_owned())?.len();
                text.truncate(length);
                Ok(Decrypt { ciphertext: text, ..Decrypt::default() }.encode_to_vec())
            }
            other => panic!("{other} is no method"),
        }
    }
}

/// A key that follows from its name.
fn cipher(name: &str) -> LessSafeKey {
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, digest.as_ref()).expect("32 bytes"))
}

/// Always the same: nothing here is secret.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}
