//! The sockets: UDP and TCP, with limits on everything that a client can make us hold.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_base::metrics::{Counter, Stability, register};
use gantry_base::{Class, Clock, Error, Result, Tasks, error::Context as _};
use hickory_proto::op::{
    Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode, emit_message_parts,
};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_proto::serialize::binary::BinEncoder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use crate::records::{Resolution, Zone, resolve};
use crate::upstream::{UDP_PAYLOAD, Upstream, servers_of};
use crate::views::Directory;

/// TCP connections at once; further ones wait.
const MAX_CONNECTIONS: usize = 256;
/// A connection without a question for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// Aliases that are followed for one question.
const MAX_ALIASES: usize = 8;
/// What a client without EDNS takes (RFC 1035).
const PLAIN_PAYLOAD: u16 = 512;

/// How a DNS server works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens, UDP and TCP. An answer comes from the address that was asked, so give addresses, not 0.0.0.0.
    pub listen: Vec<SocketAddr>,
    /// The cluster's domain, `cluster.local`.
    pub cluster_domain: String,
    /// Who is asked for other names; if empty, the servers of `/etc/resolv.conf`.
    pub upstreams: Vec<SocketAddr>,
}

/// A running DNS server.
#[derive(Clone, Debug)]
pub struct DnsServer {
    addresses: Vec<SocketAddr>,
}

impl DnsServer {
    /// Listens and answers until `tasks` end. Port 0 takes any free one, the same for UDP and TCP.
    ///
    /// Conflict if somebody else listens there; invalid if the domain is none.
    pub async fn serve(
        options: Options,
        directory: Arc<dyn Directory>,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Self> {
        let zone = Zone::new(&options.cluster_domain)?;
        let mut sockets = Vec::new();
        for address in &options.listen {
            sockets.push(bind(*address).await?);
        }
        let addresses: Vec<SocketAddr> = sockets.iter().map(|(a, _, _)| *a).collect();
        let upstreams =
            if options.upstreams.is_empty() { system_servers(&addresses) } else { options.upstreams };
        info!(listen = ?addresses, domain = options.cluster_domain, ?upstreams, "DNS is up");
        let upstream = Upstream::new(upstreams, clock);
        register_metrics();
        let handler = Arc::new(Handler { zone, directory, upstream });
        for (_, udp, tcp) in sockets {
            let (group, h) = (tasks.clone(), Arc::clone(&handler));
            tasks.spawn("dns udp", async move { serve_udp(Arc::new(udp), &h, &group).await });
            let (group, h) = (tasks.clone(), Arc::clone(&handler));
            tasks.spawn("dns tcp", async move { serve_tcp(tcp, &h, &group).await });
        }
        Ok(Self { addresses })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// An answer in DNS' encoding, if there is one.
type Reply = Option<Result<Vec<u8>>>;

/// Answers questions as the server does, as far as it need not ask anybody: for fuzz targets. The function takes a
/// question's bytes and the most bytes of its answer; `None`: there is no answer, or not from here.
///
/// # Errors
/// The domain is none.
pub fn answerer(
    cluster_domain: &str,
    directory: Arc<dyn Directory>,
    clock: Arc<dyn Clock>,
) -> Result<impl Fn(&[u8], u16) -> Reply + Send + Sync> {
    let zone = Zone::new(cluster_domain)?;
    let upstream = Upstream::new(Vec::new(), clock);
    let handler = Handler { zone, directory, upstream };
    Ok(move |bytes: &[u8], limit: u16| match handler.begin(bytes) {
        Begun::Done(_, reply) => Some(encode(&reply, limit)),
        Begun::Nothing | Begun::Ask(..) => None,
    })
}

fn system_servers(own: &[SocketAddr]) -> Vec<SocketAddr> {
    match std::fs::read_to_string("/etc/resolv.conf") {
        Ok(text) => servers_of(&text, own),
        Err(error) => {
            warn!(%error, "/etc/resolv.conf cannot be read: names outside the cluster do not resolve");
            Vec::new()
        }
    }
}

/// So often is another port tried if a free UDP port is taken for TCP.
const BIND_ATTEMPTS: usize = 16;

async fn bind(address: SocketAddr) -> Result<(SocketAddr, UdpSocket, TcpListener)> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let failed = |e: std::io::Error| {
            let what = format!("listen for DNS at {address}");
            if e.kind() == std::io::ErrorKind::AddrInUse {
                return Error::conflict(format!("{what}: somebody else does")).because(e);
            }
            Error::from(e).while_doing(what)
        };
        let udp = UdpSocket::bind(address).await.map_err(failed)?;
        let bound = udp.local_addr()?;
        match TcpListener::bind(bound).await {
            Ok(tcp) => return Ok((bound, udp, tcp)),
            Err(_) if address.port() == 0 && attempts < BIND_ATTEMPTS => {}
            Err(e) => return Err(failed(e)),
        }
    }
}

struct Handler {
    zone: Zone,
    directory: Arc<dyn Directory>,
    upstream: Upstream,
}

static REQUESTS: Counter = Counter::new("gantry_dns_requests_total", "Questions received.", Stability::Own);
static FORWARDED: Counter =
    Counter::new("gantry_dns_forwarded_total", "Questions asked upstream.", Stability::Own);
static FAILED: Counter =
    Counter::new("gantry_dns_failed_total", "Questions answered with SERVFAIL.", Stability::Own);

/// Lists what a server of names counts; a start does it by itself.
pub fn register_metrics() {
    register("dns", &[&REQUESTS, &FORWARDED, &FAILED]);
}

async fn serve_udp(socket: Arc<UdpSocket>, handler: &Arc<Handler>, tasks: &Tasks) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let (len, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error about an earlier answer.
            Err(error) => {
                debug!(%error, "receiving a DNS question failed");
                continue;
            }
        };
        match handler.begin(&buffer[..len]) {
            Begun::Nothing => {}
            Begun::Done(request, reply) => send_udp(&socket, client, &request, reply).await,
            Begun::Ask(request, so_far, name) => {
                let (socket, handler) = (Arc::clone(&socket), Arc::clone(handler));
                tasks.spawn("dns forward", async move {
                    let reply = handler.finish(&request, so_far, name).await;
                    send_udp(&socket, client, &request, reply).await;
                });
            }
        }
    }
}

async fn send_udp(socket: &UdpSocket, client: SocketAddr, request: &Request, reply: Message) {
    let limit =
        request.edns.as_ref().map_or(PLAIN_PAYLOAD, |e| e.max_payload().clamp(PLAIN_PAYLOAD, UDP_PAYLOAD));
    match encode(&reply, limit) {
        Ok(bytes) => {
            if let Err(error) = socket.send_to(&bytes, client).await {
                debug!(%error, %client, "sending a DNS answer failed");
            }
        }
        Err(error) => warn!(%error, "a DNS answer could not be encoded"),
    }
}

async fn serve_tcp(listener: TcpListener, handler: &Arc<Handler>, tasks: &Tasks) {
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let handler = Arc::clone(handler);
                tasks.spawn("dns connection", async move {
                    if let Err(error) = serve_connection(stream, &handler).await {
                        debug!(%error, %client, "a DNS connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "accepting a DNS connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(mut stream: TcpStream, handler: &Handler) -> Result<()> {
    loop {
        let read = async {
            let len = stream.read_u16().await?;
            let mut bytes = vec![0; usize::from(len)];
            stream.read_exact(&mut bytes).await.map(|_| bytes)
        };
        let bytes = match tokio::time::timeout(IDLE, read).await {
            Ok(read) => read?,
            Err(_) => return Ok(()),
        };
        let reply = match handler.begin(&bytes) {
            Begun::Nothing => return Ok(()),
            Begun::Done(_, reply) => reply,
            Begun::Ask(request, so_far, name) => handler.finish(&request, so_far, name).await,
        };
        let bytes = encode(&reply, u16::MAX)?;
        let len = u16::try_from(bytes.len()).context(Class::Bug, "an answer of more than 64 KiB")?;
        let framed = [&len.to_be_bytes(), bytes.as_slice()].concat();
        tokio::time::timeout(IDLE, stream.write_all(&framed))
            .await
            .context(Class::Retry, "the client does not read")??;
    }
}

/// Encodes an answer; one that is too long is cut, and says so.
fn encode(reply: &Message, limit: u16) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(512);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    emit_message_parts(
        &reply.metadata,
        &mut reply.queries.iter(),
        &mut reply.answers.iter(),
        &mut reply.authorities.iter(),
        &mut reply.additionals.iter(),
        reply.edns.as_ref(),
        None,
        &mut encoder,
    )
    .context(Class::Bug, "encode a DNS answer")?;
    Ok(bytes)
}

/// What of a question its answer needs.
struct Request {
    metadata: Metadata,
    question: Query,
    edns: Option<Edns>,
}

impl Request {
    fn reply(&self, code: ResponseCode, answers: Vec<Record>) -> Message {
        let mut metadata = Metadata::response_from_request(&self.metadata);
        metadata.recursion_available = true;
        metadata.response_code = code;
        let mut reply = Message::new(metadata.id, MessageType::Response, metadata.op_code);
        reply.metadata = metadata;
        reply.queries.push(self.question.clone());
        reply.answers = answers;
        if let Some(asked) = &self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_PAYLOAD).set_version(0).set_dnssec_ok(asked.flags().dnssec_ok);
            reply.edns = Some(edns);
        }
        reply
    }

    fn dnssec(&self) -> bool {
        self.edns.as_ref().is_some_and(|e| e.flags().dnssec_ok)
    }
}

/// How far a question could be answered without waiting.
enum Begun {
    /// It is no question: nobody waits for an answer.
    Nothing,
    Done(Box<Request>, Message),
    /// These records so far, and this name is to be asked upstream.
    Ask(Box<Request>, Vec<Record>, Name),
}

impl Handler {
    fn begin(&self, bytes: &[u8]) -> Begun {
        REQUESTS.inc();
        let message = match Message::from_vec(bytes) {
            Ok(message) => message,
            Err(_) => return malformed(bytes),
        };
        if message.metadata.message_type != MessageType::Query {
            return Begun::Nothing;
        }
        let question = message.queries.first().cloned().unwrap_or_default();
        let request = Box::new(Request { metadata: message.metadata, question, edns: message.edns });
        let refusal = match (message.metadata.op_code, message.queries.len()) {
            (OpCode::Query, 1) if request.edns.as_ref().is_some_and(|e| e.version() > 0) => {
                Some(ResponseCode::BADVERS)
            }
            (OpCode::Query, 1) if request.question.query_class != DNSClass::IN => Some(ResponseCode::Refused),
            (OpCode::Query, 1) => None,
            (OpCode::Query, _) => Some(ResponseCode::FormErr),
            _ => Some(ResponseCode::NotImp),
        };
        match refusal {
            Some(code) => {
                let reply = request.reply(code, Vec::new());
                Begun::Done(request, reply)
            }
            None => self.look_up(request),
        }
    }

    fn look_up(&self, request: Box<Request>) -> Begun {
        let kind = request.question.query_type;
        let mut name = request.question.name.clone();
        let mut so_far = Vec::new();
        for _ in 0..MAX_ALIASES {
            match resolve(&self.zone, &*self.directory, &name, kind) {
                Resolution::Forward => return self.cached_or_ask(request, so_far, name, kind),
                _ if !self.directory.complete() => return self.failed(request),
                Resolution::Alias(record, target) => {
                    so_far.push(*record);
                    name = *target;
                }
                Resolution::Answer(answer) => {
                    let nothing = answer.answers.is_empty();
                    so_far.extend(answer.answers);
                    let mut reply = request.reply(answer.code, so_far);
                    reply.metadata.authoritative = true;
                    reply.additionals = answer.additionals;
                    if nothing {
                        reply.authorities.push(self.zone.soa());
                    }
                    return Begun::Done(request, reply);
                }
            }
        }
        self.failed(request)
    }

    fn cached_or_ask(
        &self,
        request: Box<Request>,
        so_far: Vec<Record>,
        name: Name,
        kind: RecordType,
    ) -> Begun {
        match self.upstream.cached(&Query::query(name.clone(), kind), request.dnssec()) {
            Some(message) => {
                let reply = merge(&request, so_far, message);
                Begun::Done(request, reply)
            }
            None => Begun::Ask(request, so_far, name),
        }
    }

    fn failed(&self, request: Box<Request>) -> Begun {
        FAILED.inc();
        let reply = request.reply(ResponseCode::ServFail, Vec::new());
        Begun::Done(request, reply)
    }

    async fn finish(&self, request: &Request, so_far: Vec<Record>, name: Name) -> Message {
        FORWARDED.inc();
        let question = Query::query(name, request.question.query_type);
        match self.upstream.ask(&question, request.dnssec()).await {
            Ok(message) => merge(request, so_far, message),
            Err(error) => {
                FAILED.inc();
                debug!(%error, question = %question.name, "a DNS question could not be forwarded");
                request.reply(ResponseCode::ServFail, Vec::new())
            }
        }
    }
}

/// An upstream server's answer as ours, behind the aliases that led to it.
fn merge(request: &Request, mut so_far: Vec<Record>, message: Message) -> Message {
    so_far.extend(message.answers);
    let mut reply = request.reply(message.metadata.response_code, so_far);
    reply.metadata.authentic_data = message.metadata.authentic_data;
    reply.authorities = message.authorities;
    reply.additionals = message.additionals;
    reply
}

/// FORMERR for what at least has a question's header.
fn malformed(bytes: &[u8]) -> Begun {
    let Some(&[high, low, flags]) = bytes.get(..3).filter(|_| bytes.len() >= 12) else {
        return Begun::Nothing;
    };
    if flags & 0x80 != 0 {
        return Begun::Nothing;
    }
    let metadata = Metadata::new(u16::from_be_bytes([high, low]), MessageType::Query, OpCode::Query);
    let request = Box::new(Request { metadata, question: Query::default(), edns: None });
    let mut reply = request.reply(ResponseCode::FormErr, Vec::new());
    reply.queries.clear();
    Begun::Done(request, reply)
}
