//! Traces: a collector takes the spans of a request that a client began to trace.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use gantry_apiserver::admission::AdmissionOptions;
use gantry_apiserver::testing::http;
use gantry_base::trace::{self, Options, Protocol};
use gantry_base::{SystemClock, Tasks};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::Cluster;

// The few fields of OTLP's messages that are looked at, as the standard numbers them.

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(int64, optional, tag = "3")]
    number: Option<i64>,
}

/// A collector that speaks gRPC; it hands on what it is sent.
async fn collector(tasks: &Tasks) -> (SocketAddr, mpsc::UnboundedReceiver<Export>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sender, receiver) = mpsc::unbounded_channel();
    let group = tasks.clone();
    tasks.spawn("collector", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            group.spawn("collector connection", async move {
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let sender = sender.clone();
                    async move { Ok::<_, Infallible>(take(request, &sender).await) }
                });
                let connection = Builder::new(TokioExecutor::new());
                connection.serve_connection(TokioIo::new(stream), service).await.unwrap_or_default();
            });
        }
    });
    (address, receiver)
}

type Frames = StreamBody<futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn take(request: Request<Incoming>, sender: &mpsc::UnboundedSender<Export>) -> Response<Frames> {
    assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let body = request.into_body().collect().await.expect("a whole body").to_bytes();
    let length = u32::from_be_bytes(body[1..5].try_into().expect("four bytes")) as usize;
    assert_eq!((body[0], body.len()), (0, length + 5), "one frame, not compressed");
    sender.send(Export::decode(&body[5..]).expect("OTLP")).expect("the test listens");
    let trailers =
        HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
    let frames = vec![Ok(Frame::data(Bytes::from_static(&[0; 5]))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

#[tokio::test]
async fn a_collector_takes_the_spans_of_a_request() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let tasks = Tasks::new();
    let (address, mut exports) = collector(&tasks).await;
    // Nothing is sampled but what the client wants: other tests run beside this one.
    let options = Options {
        endpoint: address.to_string(),
        protocol: Protocol::Grpc,
        per_million: 0,
        resource: vec![("service.name", "apiserver".into())],
    };
    let exporter = Tasks::new();
    trace::start(options, Arc::new(SystemClock::default()), &exporter).expect("an endpoint");
    let cluster = Cluster::admitting(AdmissionOptions::default()).await;
    cluster.namespace("traced").await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let map = serde_json::json!({"metadata": {"name": "m"}}).to_string();
    let path = "/api/v1/namespaces/traced/configmaps";
    let answer = http(&cluster.server, "POST", path, &[("traceparent", &parent)], map).await;
    assert_eq!(answer.code, 201, "{}", answer.json());

    let mut spans: HashMap<String, Span> = HashMap::new();
    while !spans.values().any(|span| span.kind == 2) {
        let export = exports.recv().await.expect("the collector hears something");
        for resource in export.resource_spans {
            let service = &resource.resource.expect("who sends").attributes[0];
            assert_eq!(service.key, "service.name");
            let sent = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(sent.map(|span| (span.name.clone(), span)));
        }
    }
    let trace: Vec<u8> =
        (0..16).map(|i| u8::from_str_radix(&TRACE[2 * i..2 * i + 2], 16).expect("hex")).collect();
    assert!(spans.values().all(|span| span.trace_id == trace && span.start > 0 && span.end >= span.start));
    let root = &spans["POST /api/v1/namespaces/{:namespace}/configmaps"];
    assert_eq!(root.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    let attribute = |key: &str| {
        let found = root.attributes.iter().find(|a| a.key == key);
        found.and_then(|a| a.value.clone()).unwrap_or_else(|| panic!("{key} is missing"))
    };
    assert_eq!(attribute("http.status_code").number, Some(201));
    assert_eq!(attribute("http.target").text.as_deref(), Some(path));
    for child in ["Admit", "Validate", "Create etcd3"] {
        let span = spans.get(child).unwrap_or_else(|| panic!("{child} is missing among {:?}", spans.keys()));
        assert_eq!(span.parent_span_id, root.span_id, "{child}");
    }
    assert!(exporter.shut_down(std::time::Duration::from_secs(20)).await);
    cluster.end().await;
    assert!(tasks.shut_down(std::time::Duration::from_secs(20)).await);
}
