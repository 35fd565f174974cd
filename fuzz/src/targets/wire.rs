//! Protocols: SPDY, WebSocket channels, DNS.

use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use gantry_api::ObjectKey;
use gantry_base::{Result, SystemClock, Tasks};
use gantry_dns::{Directory, NameEndpoint, NamedPort, ServiceNames, SliceNames};
use gantry_stream::spdy::frame::{Decoder, Encoder, Frame};
use gantry_stream::spdy::{Connection, Role};
use gantry_stream::websocket::channels::{self, Codec, Dialect};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::input;

/// Frames that were read and written are read again as the same, however the bytes come.
pub fn spdy_frames(data: &[u8]) {
    let whole = frames(&mut BytesMut::from(data));
    let mut decoder = Decoder::new();
    let (mut buffer, mut pieces) = (BytesMut::new(), Vec::new());
    'all: for byte in data {
        buffer.extend_from_slice(&[*byte]);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => pieces.push(frame),
                Ok(None) => break,
                Err(_) => break 'all,
            }
        }
    }
    assert_eq!(joined(&whole), joined(&pieces), "at once and byte by byte");
    let (mut encoder, mut written) = (Encoder::new(), Vec::new());
    for frame in &whole {
        if encoder.encode(frame, &mut written).is_err() {
            return;
        }
    }
    let kept: Vec<Frame> = whole.into_iter().filter(|frame| *frame != Frame::WindowUpdate).collect();
    assert_eq!(joined(&frames(&mut BytesMut::from(&*written))), joined(&kept), "written and read");
}

fn frames(bytes: &mut BytesMut) -> Vec<Frame> {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    while let Ok(Some(frame)) = decoder.decode(bytes) {
        frames.push(frame);
    }
    frames
}

/// The frames, with the pieces of data of one stream put together: where they are cut is not promised.
fn joined(frames: &[Frame]) -> Vec<Frame> {
    let mut out: Vec<Frame> = Vec::new();
    for frame in frames {
        if let (Some(Frame::Data { id, bytes, fin }), Frame::Data { id: next, bytes: more, fin: end }) =
            (out.last_mut(), frame)
            && id == next
            && !*fin
        {
            *bytes = [&bytes[..], &more[..]].concat().into();
            *fin = *end;
            continue;
        }
        out.push(frame.clone());
    }
    out
}

/// A whole connection: every stream that the peer opens is taken and read, until the peer goes.
pub fn spdy_connection(data: &[u8]) {
    let data = data.to_vec();
    input::wait(async {
        let tasks = Tasks::new();
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let connection = Connection::new(ours, Role::Server, None, &tasks);
        let peer = send(theirs, data);
        let serve = async {
            while let Some(stream) = connection.accept().await {
                let mut stream = stream.accept();
                tasks.spawn("echo", async move {
                    let mut bytes = Vec::new();
                    if stream.read_to_end(&mut bytes).await.is_ok() {
                        drop(stream.write_all(&bytes).await);
                    }
                });
            }
        };
        tokio::join!(peer, serve);
        drop(connection);
        tasks.shut_down(Duration::from_secs(5)).await;
    });
}

/// Sends everything, and reads what comes until the other side closes.
async fn send(io: DuplexStream, data: Vec<u8>) {
    let (mut read, mut write) = tokio::io::split(io);
    let reading = async {
        let mut sink = vec![0; 4096];
        while read.read(&mut sink).await.is_ok_and(|n| n > 0) {}
    };
    let writing = async {
        if write.write_all(&data).await.is_ok() {
            drop(write.shutdown().await);
        }
    };
    tokio::join!(reading, writing);
}

/// Channels over a WebSocket whose handshake is done; the first byte chooses the dialect.
pub fn websocket(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let dialect = Dialect {
        codec: if first & 1 == 0 { Codec::Binary } else { Codec::Base64 },
        close_signal: first & 2 == 0,
    };
    let data = data.to_vec();
    input::wait(async {
        let tasks = Tasks::new();
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let streams = channels::open(ours, channels::Role::Server, dialect, 4, &tasks).await;
        for mut stream in streams {
            tasks.spawn("read", async move {
                let mut bytes = Vec::new();
                drop(stream.read_to_end(&mut bytes).await);
            });
        }
        send(theirs, data).await;
        tasks.shut_down(Duration::from_secs(5)).await;
    });
}

/// A cluster with one service of each sort.
struct Cluster(Vec<Arc<ServiceNames>>, Vec<Arc<SliceNames>>);

impl Cluster {
    fn new() -> Self {
        let service = |name: &str, ip: Option<Ipv4Addr>, external: Option<&str>| {
            Arc::new(ServiceNames {
                key: ObjectKey::new("default", name),
                revision: 1,
                cluster_ips: ip.into_iter().collect(),
                headless: ip.is_none() && external.is_none(),
                external_name: external.map(Into::into),
                ports: vec![NamedPort { name: "http".into(), protocol: "tcp".into(), port: 80 }],
            })
        };
        let endpoints = (1..=40).map(|last| NameEndpoint {
            address: Ipv4Addr::new(10, 42, 0, last),
            hostname: format!("many-{last}").into(),
        });
        let slice = SliceNames {
            key: ObjectKey::new("default", "many-1"),
            revision: 1,
            service: "many".into(),
            ports: vec![NamedPort { name: "http".into(), protocol: "tcp".into(), port: 80 }],
            endpoints: endpoints.collect(),
        };
        let services = vec![
            service("web", Some(Ipv4Addr::new(10, 43, 0, 5)), None),
            service("many", None, None),
            service("ext", None, Some("host.example.com")),
            service("alias", None, Some("web.default.svc.cluster.local")),
            service("loop", None, Some("loop.default.svc.cluster.local")),
        ];
        Self(services, vec![Arc::new(slice)])
    }
}

impl Directory for Cluster {
    fn complete(&self) -> bool {
        true
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<ServiceNames>> {
        let key = ObjectKey::new(namespace, name);
        self.0.iter().find(|service| service.key == key).cloned()
    }

    fn slices(&self, _namespace: &str, service: &str) -> Vec<Arc<SliceNames>> {
        self.1.iter().filter(|slice| &*slice.service == service).cloned().collect()
    }

    fn namespace(&self, name: &str) -> bool {
        name == "default"
    }

    fn services_at(&self, address: Ipv4Addr) -> Vec<Arc<ServiceNames>> {
        self.0.iter().filter(|service| service.cluster_ips.contains(&address)).cloned().collect()
    }

    fn slices_at(&self, address: Ipv4Addr) -> Vec<Arc<SliceNames>> {
        let has = |slice: &&Arc<SliceNames>| slice.endpoints.iter().any(|e| e.address == address);
        self.1.iter().filter(has).cloned().collect()
    }
}

type Answerer = Box<dyn Fn(&[u8], u16) -> Option<Result<Vec<u8>>> + Send + Sync>;

/// A question: its answer can be sent, and is no longer than it may be.
pub fn dns(data: &[u8]) {
    static SERVER: OnceLock<Answerer> = OnceLock::new();
    let answer = SERVER.get_or_init(|| {
        let clock = Arc::new(SystemClock::default());
        let answer = gantry_dns::server::answerer("cluster.local", Arc::new(Cluster::new()), clock);
        Box::new(answer.expect("a domain"))
    });
    for limit in [512, u16::MAX] {
        if let Some(reply) = answer(data, limit) {
            let reply = reply.expect("an answer can be written");
            assert!(reply.len() <= usize::from(limit));
            assert_eq!(reply[..2], data[..2], "the answer is to the question");
        }
    }
}
