//! The DNS server over real sockets on loopback, with an upstream server of the test's own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gantry_api::ObjectKey;
use gantry_base::{ManualClock, Result, Tasks};
use gantry_client::Informer;
use gantry_dns::{DnsServer, InformerDirectory, NameEndpoint, NamedPort, Options, ServiceNames, SliceNames};
use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(10);

struct Lab {
    server: SocketAddr,
    directory: InformerDirectory,
    asked: Arc<AtomicUsize>,
    clock: Arc<ManualClock>,
    tasks: Tasks,
}

impl Lab {
    async fn start() -> Result<Self> {
        let tasks = Tasks::new();
        let asked = Arc::new(AtomicUsize::new(0));
        let upstream = upstream(Arc::clone(&asked), &tasks).await?;
        let directory = InformerDirectory {
            services: Informer::detached(),
            slices: Informer::detached(),
            namespaces: Informer::detached(),
        };
        let options = Options {
            listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
            cluster_domain: "cluster.local".into(),
            upstreams: vec![upstream],
        };
        let clock = Arc::new(ManualClock::at(Duration::from_secs(1_000_000)));
        let server = DnsServer::serve(options, Arc::new(directory.clone()), clock.clone(), &tasks).await?;
        Ok(Self { server: server.addresses()[0], directory, asked, clock, tasks })
    }

    fn fill(&self) {
        let service = |name: &str, headless, external: Option<&str>| {
            Arc::new(ServiceNames {
                key: ObjectKey::new("default", name),
                revision: 1,
                cluster_ips: if headless || external.is_some() {
                    vec![]
                } else {
                    vec![Ipv4Addr::new(10, 43, 0, 5)]
                },
                headless,
                external_name: external.map(Into::into),
                ports: vec![NamedPort { name: "http".into(), protocol: "tcp".into(), port: 80 }],
            })
        };
        let services = vec![
            service("web", false, None),
            service("many", true, None),
            service("ext", false, Some("host.example.com")),
            service("alias", false, Some("web.default.svc.cluster.local")),
            service("loop", false, Some("loop.default.svc.cluster.local")),
        ];
        self.directory.services.replace(services, 1);
        let endpoints = (0..200u8).map(|last| NameEndpoint {
            address: Ipv4Addr::new(10, 42, 0, last),
            hostname: format!("many-{last}").into(),
        });
        let slice = SliceNames {
            key: ObjectKey::new("default", "many-1"),
            revision: 1,
            service: "many".into(),
            ports: vec![],
            endpoints: endpoints.collect(),
        };
        self.directory.slices.replace(vec![Arc::new(slice)], 1);
        self.directory.namespaces.replace(vec![], 1);
    }

    async fn udp(&self, message: &Message) -> Result<Message> {
        let bytes = message.to_vec().expect("encoded");
        let answer = self.udp_bytes(&bytes).await?;
        Ok(Message::from_vec(&answer).expect("an answer"))
    }

    async fn udp_bytes(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.send_to(bytes, self.server).await?;
        let mut buffer = vec![0; 65_535];
        let received = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await;
        let len = received.expect("an answer in time")?;
        buffer.truncate(len);
        Ok(buffer)
    }

    async fn tcp(&self, messages: &[Message]) -> Result<Vec<Message>> {
        let mut stream = TcpStream::connect(self.server).await?;
        let mut answers = Vec::new();
        for message in messages {
            let bytes = message.to_vec().expect("encoded");
            stream.write_u16(u16::try_from(bytes.len()).expect("short")).await?;
            stream.write_all(&bytes).await?;
            let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut buffer).await?;
            answers.push(Message::from_vec(&buffer).expect("an answer"));
        }
        Ok(answers)
    }

    async fn stop(self) {
        assert!(self.tasks.shut_down(PATIENCE).await);
    }
}

/// A server that knows `*.example.com`, says that `big.example.com` is too long for UDP, and counts.
async fn upstream(asked: Arc<AtomicUsize>, tasks: &Tasks) -> Result<SocketAddr> {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = udp.local_addr()?;
    let tcp = TcpListener::bind(address).await?;
    let answer = move |bytes: &[u8], udp: bool| {
        let question = Message::from_vec(bytes).expect("a question");
        let name = question.queries[0].name.clone();
        let mut answer = question.clone().into_response();
        if name.to_ascii().starts_with("missing") {
            answer.metadata.response_code = ResponseCode::NXDomain;
        } else if udp && name.to_ascii().starts_with("big") {
            answer.metadata.truncation = true;
        } else {
            let record = Record::from_rdata(name, 20, RData::A(A(Ipv4Addr::new(192, 0, 2, 7))));
            answer.answers.push(record);
        }
        answer.to_vec().expect("encoded")
    };
    let count = Arc::clone(&asked);
    tasks.spawn("upstream udp", async move {
        let mut buffer = vec![0; 4096];
        while let Ok((len, from)) = udp.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::SeqCst);
            udp.send_to(&answer(&buffer[..len], true), from).await.expect("sent");
        }
    });
    tasks.spawn("upstream tcp", async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let mut buffer = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
            stream.read_exact(&mut buffer).await.expect("a question");
            let bytes = answer(&buffer, false);
            stream.write_u16(u16::try_from(bytes.len()).expect("short")).await.expect("sent");
            stream.write_all(&bytes).await.expect("sent");
        }
    });
    Ok(address)
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 4711;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message
}

fn with_edns(mut message: Message, payload: u16, version: u8) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_version(version);
    message.set_edns(edns);
    message
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|r| format!("{} {}", r.record_type(), r.data)).collect()
}

#[tokio::test]
async fn cluster_names_are_answered_with_authority() -> Result<()> {
    let lab = Lab::start().await?;
    let early = lab.udp(&question("web.default.svc.cluster.local.", RecordType::A)).await?;
    assert_eq!(early.metadata.response_code, ResponseCode::ServFail, "the informers have not synced");
    lab.fill();
    // The case of the question comes back: some resolvers check it.
    let answer = lab.udp(&question("wEb.default.svc.cluster.LOCAL.", RecordType::A)).await?;
    assert_eq!((answer.metadata.id, answer.metadata.authoritative), (4711, true));
    assert!(answer.metadata.recursion_available && answer.metadata.recursion_desired);
    assert_eq!(answer.queries[0].name.to_ascii(), "wEb.default.svc.cluster.LOCAL.");
    assert_eq!(addresses(&answer), ["A 10.43.0.5"]);
    let nothing = lab.udp(&question("web.default.svc.cluster.local.", RecordType::AAAA)).await?;
    assert_eq!(nothing.metadata.response_code, ResponseCode::NoError);
    assert_eq!(nothing.authorities[0].record_type(), RecordType::SOA);
    let missing = lab.udp(&question("no.default.svc.cluster.local.", RecordType::A)).await?;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
    assert_eq!(lab.asked.load(Ordering::SeqCst), 0);
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn long_answers_are_cut_on_udp_and_whole_on_tcp() -> Result<()> {
    let lab = Lab::start().await?;
    lab.fill();
    let ask = question("many.default.svc.cluster.local.", RecordType::A);
    let plain = lab.udp_bytes(&ask.to_vec().expect("encoded")).await?;
    assert!(plain.len() <= 512, "{}", plain.len());
    assert!(Message::from_vec(&plain).expect("an answer").metadata.truncation);
    let edns = lab.udp_bytes(&with_edns(ask.clone(), 4096, 0).to_vec().expect("encoded")).await?;
    assert!(edns.len() > 512 && edns.len() <= 1232, "{}", edns.len());
    let whole = lab.tcp(&[ask.clone(), question("web.default.svc.cluster.local.", RecordType::A)]).await?;
    assert!(!whole[0].metadata.truncation);
    assert_eq!((whole[0].answers.len(), whole[1].answers.len()), (200, 1));
    let answered =
        lab.udp(&with_edns(question("web.default.svc.cluster.local.", RecordType::A), 4096, 0)).await?;
    assert!(answered.edns.is_some_and(|e| e.version() == 0));
    let newer = lab.udp(&with_edns(ask, 4096, 1)).await?;
    // 16 is BADVERS here; hickory reads it as BADSIG, which has the same number.
    assert_eq!(u16::from(newer.metadata.response_code), 16);
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn other_names_are_forwarded_and_kept_as_long_as_they_live() -> Result<()> {
    let lab = Lab::start().await?;
    let ask = question("www.example.com.", RecordType::A);
    let first = lab.udp(&ask).await?;
    assert_eq!(addresses(&first), ["A 192.0.2.7"]);
    assert!(!first.metadata.authoritative && first.metadata.recursion_available);
    lab.clock.advance(Duration::from_secs(15));
    let second = lab.udp(&ask).await?;
    assert_eq!((second.answers[0].ttl, lab.asked.load(Ordering::SeqCst)), (5, 1));
    lab.clock.advance(Duration::from_secs(6));
    assert_eq!((lab.udp(&ask).await?.answers[0].ttl, lab.asked.load(Ordering::SeqCst)), (20, 2));
    let missing = lab.tcp(&[question("missing.example.com.", RecordType::A)]).await?;
    assert_eq!(missing[0].metadata.response_code, ResponseCode::NXDomain);
    let big = lab.udp(&question("big.example.com.", RecordType::A)).await?;
    assert_eq!(addresses(&big), ["A 192.0.2.7"], "a cut answer is asked for again over TCP");
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn external_names_are_followed() -> Result<()> {
    let lab = Lab::start().await?;
    lab.fill();
    let outside = lab.udp(&question("ext.default.svc.cluster.local.", RecordType::A)).await?;
    assert_eq!(addresses(&outside), ["CNAME host.example.com.", "A 192.0.2.7"]);
    let inside = lab.udp(&question("alias.default.svc.cluster.local.", RecordType::A)).await?;
    assert_eq!(addresses(&inside), ["CNAME web.default.svc.cluster.local.", "A 10.43.0.5"]);
    let cname = lab.udp(&question("ext.default.svc.cluster.local.", RecordType::CNAME)).await?;
    assert_eq!(addresses(&cname), ["CNAME host.example.com."]);
    let round = lab.udp(&question("loop.default.svc.cluster.local.", RecordType::A)).await?;
    assert_eq!(round.metadata.response_code, ResponseCode::ServFail);
    lab.stop().await;
    Ok(())
}

#[tokio::test]
async fn what_is_no_question_is_refused_or_ignored() -> Result<()> {
    let lab = Lab::start().await?;
    let mut update = question("web.default.svc.cluster.local.", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(lab.udp(&update).await?.metadata.response_code, ResponseCode::NotImp);
    let mut none = question("x.", RecordType::A);
    none.queries.clear();
    assert_eq!(lab.udp(&none).await?.metadata.response_code, ResponseCode::FormErr);
    let mut torn = question("example.com.", RecordType::A).to_vec().expect("encoded");
    torn.truncate(20);
    let answer = Message::from_vec(&lab.udp_bytes(&torn).await?).expect("an answer");
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (4711, ResponseCode::FormErr));
    lab.stop().await;
    Ok(())
}
