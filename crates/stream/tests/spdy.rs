//! SPDY: known bytes, malformed bytes, and connections over an in-memory pipe.

mod common;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::{end, pattern};
use gantry_base::Tasks;
use gantry_stream::MuxStream;
use gantry_stream::mux::{RECEIVE_BUFFER, SEND_BUFFER};
use gantry_stream::spdy::frame::{Decoder, Encoder, Frame, FrameError, MAX_CONTROL_FRAME};
use gantry_stream::spdy::{Connection, Role};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Two header blocks of one connection, made with zlib 1.2.13, level 9, and the dictionary of SPDY/3:
/// `streamtype: error`, then `streamtype: data`, `port: 8080`, `requestid: 0`.
const BLOCKS: [&str; 2] = [
    "78f9e3c6a7c202a62346703a2b294a4dcc851625aca9a08006000000ffff",
    "02a5470c295029930829b08bc079c3c2c0c2004873164122381394f0190d00000000ffff",
];

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex digits")).collect()
}

fn syn_stream(id: u32, block: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80, 3, 0, 1, 0];
    frame.extend_from_slice(&(block.len() as u32 + 10).to_be_bytes()[1..]);
    frame.extend_from_slice(&id.to_be_bytes());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(block);
    frame
}

#[test]
fn header_blocks_of_zlib_are_understood_one_after_the_other() {
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&syn_stream(1, &unhex(BLOCKS[0])));
    bytes.extend_from_slice(&syn_stream(3, &unhex(BLOCKS[1])));
    let mut decoder = Decoder::new();
    let first = Frame::SynStream { id: 1, headers: headers(&[("streamtype", "error")]), fin: false };
    assert_eq!(decoder.decode(&mut bytes), Ok(Some(first)));
    let second = headers(&[("streamtype", "data"), ("port", "8080"), ("requestid", "0")]);
    assert_eq!(decoder.decode(&mut bytes), Ok(Some(Frame::SynStream { id: 3, headers: second, fin: false })));
    assert_eq!(decoder.decode(&mut bytes), Ok(None));
}

#[test]
fn our_header_blocks_begin_with_the_dictionarys_checksum_and_end_with_a_flush() {
    let mut out = Vec::new();
    let frame = Frame::SynStream { id: 1, headers: headers(&[("streamtype", "error")]), fin: false };
    Encoder::new().encode(&frame, &mut out).expect("a small frame");
    assert_eq!(&out[..4], [0x80, 3, 0, 1]);
    let block = &out[18..];
    assert_eq!(usize::from(out[7]), block.len() + 10);
    assert_eq!(block[1] & 0x20, 0x20, "the preset dictionary is announced");
    assert_eq!(block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
    assert_eq!(block[block.len() - 4..], [0, 0, 0xff, 0xff]);
}

#[test]
fn plain_frames_have_the_bytes_of_the_specification() {
    let cases: [(Frame, &[u8]); 5] = [
        (Frame::Ping { id: 2 }, &[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 2]),
        (Frame::RstStream { id: 5, status: 5 }, &[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 5]),
        (Frame::GoAway { last: 0, status: 0 }, &[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]),
        (
            Frame::Data { id: 7, bytes: Bytes::from_static(b"hi"), fin: true },
            &[0, 0, 0, 7, 1, 0, 0, 2, b'h', b'i'],
        ),
        (Frame::Data { id: 7, bytes: Bytes::new(), fin: true }, &[0, 0, 0, 7, 1, 0, 0, 0]),
    ];
    for (frame, wire) in cases {
        let mut out = Vec::new();
        Encoder::new().encode(&frame, &mut out).expect("a small frame");
        assert_eq!(out, wire);
        assert_eq!(Decoder::new().decode(&mut BytesMut::from(wire)), Ok(Some(frame)));
    }
}

#[test]
fn wrong_frames_are_errors() {
    let decode = |bytes: &[u8]| Decoder::new().decode(&mut BytesMut::from(bytes));
    assert_eq!(decode(&[0x80, 2, 0, 6, 0, 0, 0, 4]), Err(FrameError::Version(2)));
    assert_eq!(decode(&[0x80, 3, 0, 5, 0, 0, 0, 0]), Err(FrameError::Type(5)));
    assert_eq!(decode(&[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 0]), Err(FrameError::Malformed(6)));
    assert_eq!(decode(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 0]), Err(FrameError::ZeroId));
    assert_eq!(decode(&[0, 0, 0, 0, 0, 0, 0, 1, 0]), Err(FrameError::ZeroId));
    assert_eq!(decode(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]), Err(FrameError::TooLarge(0xff_ffff)));
    assert_eq!(decode(&syn_stream(1, b"no zlib at all")), Err(FrameError::Compression));
    assert_eq!(MAX_CONTROL_FRAME, 65536);
}

#[test]
fn a_header_block_that_explodes_is_refused() {
    let mut bomb = HeaderMap::new();
    bomb.insert("a", HeaderValue::from_bytes(&vec![b'x'; 100_000]).expect("visible ASCII"));
    let mut out = Vec::new();
    let frame = Frame::SynStream { id: 1, headers: bomb, fin: false };
    Encoder::new().encode(&frame, &mut out).expect("it compresses well");
    assert_eq!(Decoder::new().decode(&mut BytesMut::from(&out[..])), Err(FrameError::HeadersTooLarge));
}

fn any_headers() -> impl Strategy<Value = HeaderMap> {
    proptest::collection::vec(("[a-z][a-z0-9-]{0,20}", "[ -~]{0,60}"), 0..8).prop_map(|pairs| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a valid name");
            headers.append(name, HeaderValue::from_str(&value).expect("visible ASCII"));
        }
        headers
    })
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let id = 1_u32..0x7fff_ffff;
    prop_oneof![
        (id.clone(), any_headers(), any::<bool>()).prop_map(|(id, headers, fin)| Frame::SynStream {
            id,
            headers,
            fin
        }),
        (id.clone(), any_headers(), any::<bool>()).prop_map(|(id, headers, fin)| Frame::SynReply {
            id,
            headers,
            fin
        }),
        (id.clone(), 1_u32..12).prop_map(|(id, status)| Frame::RstStream { id, status }),
        id.clone().prop_map(|id| Frame::Ping { id }),
        (id, proptest::collection::vec(any::<u8>(), 0..200), any::<bool>())
            .prop_map(|(id, bytes, fin)| Frame::Data { id, bytes: bytes.into(), fin }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn frames_survive_the_wire_however_it_is_cut(
        frames in proptest::collection::vec(any_frame(), 1..10),
        cut in 1_usize..64,
    ) {
        let (mut encoder, mut wire) = (Encoder::new(), Vec::new());
        for frame in &frames {
            encoder.encode(frame, &mut wire).expect("small frames");
        }
        let (mut decoder, mut buffer, mut decoded) = (Decoder::new(), BytesMut::new(), Vec::new());
        for piece in wire.chunks(cut) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = decoder.decode(&mut buffer).expect("valid frames") {
                decoded.push(frame);
            }
        }
        prop_assert!(buffer.is_empty() && decoder.is_between_frames());
        prop_assert_eq!(joined(decoded), frames);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), control in any::<bool>()) {
        let mut buffer = BytesMut::from(&bytes[..]);
        if control && buffer.len() >= 8 {
            let kind = buffer[3] % 10;
            buffer[..6].copy_from_slice(&[0x80, 3, 0, kind, 0, 0]);
            buffer[6] %= 4;
        }
        let mut decoder = Decoder::new();
        while let Ok(Some(_)) = decoder.decode(&mut buffer) {}
    }

    #[test]
    fn damaged_frames_never_panic(frame in any_frame(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut wire = Vec::new();
        Encoder::new().encode(&frame, &mut wire).expect("a small frame");
        let at = at.index(wire.len());
        wire[at] = with;
        let (mut buffer, mut decoder) = (BytesMut::from(&wire[..]), Decoder::new());
        while let Ok(Some(_)) = decoder.decode(&mut buffer) {}
    }
}

/// Joins the pieces of data frames.
fn joined(frames: Vec<Frame>) -> Vec<Frame> {
    let mut whole: Vec<Frame> = Vec::new();
    let mut open = false;
    for frame in frames {
        match (whole.last_mut(), frame) {
            (Some(Frame::Data { id, bytes, fin }), Frame::Data { id: next, bytes: more, fin: end })
                if open && *id == next =>
            {
                *bytes = [&bytes[..], &more[..]].concat().into();
                *fin = end;
            }
            (_, frame) => whole.push(frame),
        }
        // Pieces of one frame follow each other; a new frame of the same stream would be joined wrongly, but
        // stream numbers are drawn from two thousand million.
        open = matches!(whole.last(), Some(Frame::Data { .. }));
    }
    whole
}

fn pair(tasks: &Tasks) -> (Connection, Connection) {
    let (a, b) = tokio::io::duplex(64 * 1024);
    (Connection::new(a, Role::Client, None, tasks), Connection::new(b, Role::Server, None, tasks))
}

async fn open(client: &Connection, server: &Connection) -> (MuxStream, MuxStream) {
    let accept = async {
        let stream = server.accept().await.expect("a stream comes");
        assert_eq!(stream.header("streamtype"), Some("data"));
        stream.accept()
    };
    let (ours, theirs) = tokio::join!(client.open(headers(&[("streamtype", "data")])), accept);
    (ours.expect("the server accepts"), theirs)
}

#[tokio::test]
async fn each_direction_of_a_stream_is_closed_on_its_own() {
    let tasks = Tasks::new();
    let (client, server) = pair(&tasks);
    let (mut ours, mut theirs) = open(&client, &server).await;
    ours.write_all(b"question").await.expect("the stream is open");
    ours.shutdown().await.expect("the stream is open");
    assert!(ours.write_all(b"more").await.is_err(), "our direction is closed");
    let mut question = String::new();
    theirs.read_to_string(&mut question).await.expect("an orderly end");
    theirs.write_all(b"answer").await.expect("the other direction is open");
    drop(theirs);
    let mut answer = String::new();
    ours.read_to_string(&mut answer).await.expect("an orderly end");
    assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
    end(tasks).await;
}

#[tokio::test]
async fn a_refused_stream_is_an_error_and_the_next_one_works() {
    let tasks = Tasks::new();
    let (client, server) = pair(&tasks);
    let refuse = async { server.accept().await.expect("a stream comes").refuse() };
    let (refused, ()) = tokio::join!(client.open(HeaderMap::new()), refuse);
    assert_eq!(refused.expect_err("refused").kind(), std::io::ErrorKind::ConnectionRefused);
    let (mut ours, mut theirs) = open(&client, &server).await;
    ours.write_all(b"x").await.expect("the stream is open");
    assert_eq!(theirs.read_u8().await.expect("a byte comes"), b'x');
    let monitor = server.monitor();
    drop(server);
    assert!(client.open(HeaderMap::new()).await.is_err(), "nobody accepts any more");
    theirs.write_all(b"y").await.expect("accepted streams live on");
    assert_eq!(ours.read_u8().await.expect("a byte comes"), b'y');
    drop(theirs);
    monitor.closed().await;
    end(tasks).await;
}

#[tokio::test]
async fn a_reset_ends_both_directions_of_its_stream_only() {
    let tasks = Tasks::new();
    let (client, server) = pair(&tasks);
    let (ours, mut theirs) = open(&client, &server).await;
    let (mut other, mut other_end) = open(&client, &server).await;
    ours.reset();
    assert_eq!(theirs.read(&mut [0; 8]).await.expect("a cancelled stream just ends"), 0);
    assert!(theirs.write_all(b"x").await.is_err());
    other.write_all(b"y").await.expect("the stream is open");
    assert_eq!(other_end.read_u8().await.expect("a byte comes"), b'y');
    end(tasks).await;
}

#[tokio::test]
async fn what_was_written_arrives_although_everything_is_dropped() {
    let tasks = Tasks::new();
    let (client, server) = pair(&tasks);
    let (ours, mut theirs) = open(&client, &server).await;
    let sent = pattern(100_000, 1);
    let writer = async {
        let mut ours = ours;
        ours.write_all(&sent).await.expect("the stream is open");
        drop(ours);
        drop(client);
    };
    let mut received = Vec::new();
    let (read, ()) = tokio::join!(theirs.read_to_end(&mut received), writer);
    read.expect("an orderly end");
    assert_eq!(received, sent);
    server.monitor().closed().await;
    assert!(server.accept().await.is_none());
    end(tasks).await;
}

#[tokio::test]
async fn a_lost_connection_is_an_error_for_its_streams() {
    let tasks = Tasks::new();
    let (a, b) = tokio::io::duplex(1024);
    let client = Connection::new(a, Role::Client, None, &tasks);
    let peer = async {
        let mut b = b;
        // The frame that opens stream 1; then an answer with an empty header block, then nothing more.
        let mut header = [0; 8];
        b.read_exact(&mut header).await.expect("a frame comes");
        let mut body = vec![0; usize::from(u16::from_be_bytes([header[6], header[7]]))];
        b.read_exact(&mut body).await.expect("a frame comes");
        let mut reply = Vec::new();
        let frame = Frame::SynReply { id: 1, headers: HeaderMap::new(), fin: false };
        Encoder::new().encode(&frame, &mut reply).expect("a small frame");
        b.write_all(&reply).await.expect("the client reads");
    };
    let (stream, ()) = tokio::join!(client.open(headers(&[("streamtype", "data")])), peer);
    let mut stream = stream.expect("the stream was accepted");
    let error = stream.read(&mut [0; 8]).await.expect_err("no end was announced");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
    assert_eq!(stream.write(b"x").await.expect_err("nobody reads").kind(), std::io::ErrorKind::BrokenPipe);
    assert!(client.open(HeaderMap::new()).await.is_err());
    end(tasks).await;
}

#[tokio::test]
async fn rubbish_from_the_peer_ends_the_connection() {
    let tasks = Tasks::new();
    let (a, mut b) = tokio::io::duplex(1024);
    let server = Connection::new(a, Role::Server, None, &tasks);
    b.write_all(b"GET / HTTP/1.1\r\n\r\n\x80\x7f\0\x01").await.expect("the server reads");
    b.write_all(&[0x80, 9, 9, 9, 0, 0, 0, 0]).await.expect("the server reads");
    drop(b);
    assert!(server.accept().await.is_none());
    end(tasks).await;
}

#[tokio::test]
async fn megabytes_both_ways_over_many_streams_at_once() {
    const STREAMS: u8 = 10;
    const LENGTH: usize = 2 * 1024 * 1024;
    let tasks = Tasks::new();
    let (client, server) = pair(&tasks);
    let mut echoes = Vec::new();
    for seed in 0..STREAMS {
        let (ours, theirs) = open(&client, &server).await;
        tasks.spawn("echo", async move {
            let (mut read, mut write) = tokio::io::split(theirs);
            tokio::io::copy(&mut read, &mut write).await.expect("the client reads");
            write.shutdown().await.expect("the client reads");
        });
        echoes.push(async move {
            let sent = pattern(LENGTH, seed);
            let (mut read, mut write) = tokio::io::split(ours);
            let writing = async {
                write.write_all(&sent).await.expect("the server reads");
                write.shutdown().await.expect("the server reads");
            };
            let mut received = Vec::with_capacity(LENGTH);
            let (_, result) = tokio::join!(writing, read.read_to_end(&mut received));
            result.expect("an orderly end");
            assert!(received == sent, "stream {seed} brings back its own bytes");
        });
    }
    futures::future::join_all(echoes).await;
    end(tasks).await;
}

#[tokio::test]
async fn a_stream_without_a_reader_holds_nobody_up() {
    let tasks = Tasks::new();
    let (client, server) = pair(&tasks);
    let (mut ignored, theirs) = open(&client, &server).await;
    let (mut ours, mut other) = open(&client, &server).await;
    drop(theirs);
    ignored.write_all(&vec![0; 4 * 1024 * 1024]).await.expect("it is discarded");
    ours.write_all(b"z").await.expect("the stream is open");
    assert_eq!(other.read_u8().await.expect("a byte comes"), b'z');
    end(tasks).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_keep_up_stops_the_writer_and_loses_nothing() {
    const LENGTH: usize = 8 * 1024 * 1024;
    let tasks = Tasks::new();
    let (client, server) = pair(&tasks);
    let (mut ours, mut theirs) = open(&client, &server).await;
    let sent = pattern(LENGTH, 4);
    let mut written = 0;
    // The clock goes on by itself only when nothing else can: then the writer is really stopped.
    while let Ok(result) = tokio::time::timeout(Duration::from_secs(1), ours.write(&sent[written..])).await {
        written += result.expect("the stream is open");
        assert!(written < LENGTH, "everything was taken although nobody reads");
    }
    assert!((RECEIVE_BUFFER..RECEIVE_BUFFER + SEND_BUFFER + 512 * 1024).contains(&written), "{written}");
    let rest = async {
        ours.write_all(&sent[written..]).await.expect("the stream is open");
        ours.shutdown().await.expect("the stream is open");
    };
    let mut received = Vec::new();
    let ((), read) = tokio::join!(rest, theirs.read_to_end(&mut received));
    read.expect("an orderly end");
    assert!(received == sent);
    end(tasks).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_pings_is_given_up() {
    let tasks = Tasks::new();
    let (a, _b) = tokio::io::duplex(64 * 1024);
    let client = Connection::new(a, Role::Client, Some(Duration::from_secs(5)), &tasks);
    client.monitor().closed().await;
    end(tasks).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_is_kept() {
    let tasks = Tasks::new();
    let (a, b) = tokio::io::duplex(64 * 1024);
    let client = Connection::new(a, Role::Client, Some(Duration::from_secs(5)), &tasks);
    let server = Connection::new(b, Role::Server, None, &tasks);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!client.monitor().is_closed());
    let (mut ours, mut theirs) = open(&client, &server).await;
    ours.write_all(b"x").await.expect("the stream is open");
    assert_eq!(theirs.read_u8().await.expect("a byte comes"), b'x');
    end(tasks).await;
}
