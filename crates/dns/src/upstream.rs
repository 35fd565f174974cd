//! Names outside the cluster: asked of the upstream servers, kept for a short while.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gantry_base::{Class, Clock, Error, Result, error::Context as _};
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// Questions that wait for an upstream server at once; more are answered with a failure.
pub const MAX_IN_FLIGHT: usize = 1024;
/// One server has so long.
const PATIENCE: Duration = Duration::from_secs(2);
/// Answers that are kept.
const CACHE_LIMIT: usize = 8192;
/// The longest an answer is kept, whatever it says.
const MAX_AGE: Duration = Duration::from_secs(30);
/// UDP payload that we accept (DNS flag day 2020).
pub const UDP_PAYLOAD: u16 = 1232;

/// The upstream servers with their cache.
pub struct Upstream {
    servers: Vec<SocketAddr>,
    cache: Mutex<HashMap<Key, Kept>>,
    in_flight: Semaphore,
    clock: Arc<dyn Clock>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    name: Name,
    kind: RecordType,
    /// Whether DNSSEC records were asked for.
    dnssec: bool,
}

#[derive(Clone)]
struct Kept {
    message: Message,
    since: Duration,
    until: Duration,
}

impl Upstream {
    /// Asks `servers` in this order; with none, nothing outside the cluster resolves.
    pub fn new(servers: Vec<SocketAddr>, clock: Arc<dyn Clock>) -> Self {
        Self { servers, cache: Mutex::default(), in_flight: Semaphore::new(MAX_IN_FLIGHT), clock }
    }

    /// The answer that is kept for a question, with what is left of its time to live.
    pub fn cached(&self, question: &Query, dnssec: bool) -> Option<Message> {
        let key = key(question, dnssec);
        let now = self.clock.monotonic();
        let kept = self.cache.lock().get(&key).filter(|k| k.until > now).cloned()?;
        let age = u32::try_from((now - kept.since).as_secs()).unwrap_or(u32::MAX);
        let mut message = kept.message;
        for record in
            [&mut message.answers, &mut message.authorities, &mut message.additionals].into_iter().flatten()
        {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(message)
    }

    /// Asks the servers one after the other until one answers. Retry if none does; refused if too many wait already.
    pub async fn ask(&self, question: &Query, dnssec: bool) -> Result<Message> {
        let _permit = self.in_flight.try_acquire().map_err(|_| {
            Error::refused(format!("{MAX_IN_FLIGHT} questions wait for upstream servers already"))
        })?;
        let mut last = Error::retry("there is no upstream DNS server");
        for server in &self.servers {
            match tokio::time::timeout(PATIENCE, exchange(*server, question, dnssec)).await {
                Ok(Ok(message)) if usable(&message) => {
                    self.keep(question, dnssec, &message);
                    return Ok(message);
                }
                Ok(Ok(message)) => {
                    last = Error::retry(format!("{server} answered {}", message.metadata.response_code));
                }
                Ok(Err(error)) => last = error.while_doing(format!("ask {server}")),
                Err(_) => last = Error::retry(format!("{server} did not answer within {PATIENCE:?}")),
            }
        }
        Err(last)
    }

    fn keep(&self, question: &Query, dnssec: bool, message: &Message) {
        let Some(age) = lifetime(message) else { return };
        let now = self.clock.monotonic();
        let mut cache = self.cache.lock();
        if cache.len() >= CACHE_LIMIT {
            cache.retain(|_, kept| kept.until > now);
            // Still full of fresh ones: start over rather than grow.
            if cache.len() >= CACHE_LIMIT {
                cache.clear();
            }
        }
        let kept = Kept { message: message.clone(), since: now, until: now + age };
        cache.insert(key(question, dnssec), kept);
    }
}

fn key(question: &Query, dnssec: bool) -> Key {
    Key { name: question.name.to_lowercase(), kind: question.query_type, dnssec }
}

/// Whether the next server need not be asked.
fn usable(message: &Message) -> bool {
    !matches!(
        message.metadata.response_code,
        ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp
    )
}

/// How long an answer may be kept; none if not at all.
fn lifetime(message: &Message) -> Option<Duration> {
    if message.metadata.truncation
        || !matches!(message.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
    {
        return None;
    }
    let negative = || {
        message.authorities.iter().find_map(|r| match &r.data {
            RData::SOA(soa) => Some(r.ttl.min(soa.minimum)),
            _ => None,
        })
    };
    let seconds = message.answers.iter().map(|r| r.ttl).min().or_else(negative)?;
    let age = Duration::from_secs(seconds.into()).min(MAX_AGE);
    (!age.is_zero()).then_some(age)
}

async fn exchange(server: SocketAddr, question: &Query, dnssec: bool) -> Result<Message> {
    let mut message = Message::query();
    message.metadata.id = rand::random();
    message.metadata.recursion_desired = true;
    message.add_query(question.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD).set_version(0).set_dnssec_ok(dnssec);
    message.set_edns(edns);
    let bytes = message.to_vec().context(Class::Invalid, "encode the question")?;
    let answer = over_udp(server, &bytes, &message).await?;
    if answer.metadata.truncation { over_tcp(server, &bytes, &message).await } else { Ok(answer) }
}

/// A socket of its own, so that the port is as hard to guess as the id.
async fn over_udp(server: SocketAddr, bytes: &[u8], asked: &Message) -> Result<Message> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let len = socket.recv(&mut buffer).await?;
        // What does not belong to the question may be forged: the right answer may still come.
        if let Some(answer) = Message::from_vec(&buffer[..len]).ok().filter(|a| belongs(a, asked)) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, bytes: &[u8], asked: &Message) -> Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(bytes.len()).context(Class::Invalid, "a question of more than 64 KiB")?;
    stream.write_all(&[&len.to_be_bytes(), bytes].concat()).await?;
    let len = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(len)];
    stream.read_exact(&mut buffer).await?;
    let answer = Message::from_vec(&buffer).context(Class::Retry, "read the answer")?;
    if belongs(&answer, asked) { Ok(answer) } else { Err(Error::retry("the answer is to another question")) }
}

fn belongs(answer: &Message, asked: &Message) -> bool {
    answer.metadata.id == asked.metadata.id
        && match (answer.queries.as_slice(), asked.queries.as_slice()) {
            ([a], [b]) => a.query_type == b.query_type && a.name.to_lowercase() == b.name.to_lowercase(),
            // An error may come without the question.
            ([], _) => answer.metadata.response_code != ResponseCode::NoError,
            _ => false,
        }
}

/// The servers of a resolv.conf(5), without those at `own` addresses, which would ask us again.
pub fn servers_of(resolv_conf: &str, own: &[SocketAddr]) -> Vec<SocketAddr> {
    let lines = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = lines.filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok());
    addresses.map(|ip| SocketAddr::new(ip, 53)).filter(|server| !own.contains(server)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_our_own_address_is_left_out() {
        let text = "# x\nsearch a b\nnameserver 10.42.0.1\n nameserver\t1.1.1.1 # y\nnameserver fd00::1\noptions ndots:5\nnameserver";
        let own = ["10.42.0.1:53".parse().expect("an address")];
        let servers: Vec<_> = servers_of(text, &own).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["1.1.1.1:53", "[fd00::1]:53"]);
    }
}
