//! OTLP's messages, as protobuf (`opentelemetry/proto/collector/trace/v1/trace_service.proto`). There are so few of
//! them, and they are only written, that this is shorter than any library.

use super::span::{Finished, Value};

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
/// `Status.STATUS_CODE_ERROR`
const ERROR: u64 = 2;

/// `ExportTraceServiceRequest`
pub(super) fn request(resource: &[(&'static str, Value)], scope: &str, spans: &[Finished]) -> Vec<u8> {
    let mut out = Vec::with_capacity(spans.len() * 256);
    message(&mut out, 1, |resource_spans| {
        message(resource_spans, 1, |out| attributes(out, 1, resource));
        message(resource_spans, 2, |scope_spans| {
            message(scope_spans, 1, |out| bytes(out, 1, scope.as_bytes()));
            for one in spans {
                message(scope_spans, 2, |out| span(out, one));
            }
        });
    });
    out
}

/// `Span`
fn span(out: &mut Vec<u8>, span: &Finished) {
    bytes(out, 1, &span.context.trace.to_be_bytes());
    bytes(out, 2, &span.context.span.to_be_bytes());
    if span.parent != 0 {
        bytes(out, 4, &span.parent.to_be_bytes());
    }
    bytes(out, 5, span.name.as_bytes());
    number(out, 6, span.kind as u64);
    fixed(out, 7, span.start);
    fixed(out, 8, span.end);
    attributes(out, 9, &span.attributes);
    if let Some(link) = span.link {
        message(out, 13, |out| {
            bytes(out, 1, &link.trace.to_be_bytes());
            bytes(out, 2, &link.span.to_be_bytes());
        });
    }
    if let Some(error) = &span.error {
        message(out, 15, |out| {
            bytes(out, 2, error.as_bytes());
            number(out, 3, ERROR);
        });
    }
}

/// `KeyValue`s
fn attributes(out: &mut Vec<u8>, field: u32, attributes: &[(&'static str, Value)]) {
    for (key, value) in attributes {
        message(out, field, |out| {
            bytes(out, 1, key.as_bytes());
            message(out, 2, |out| match value {
                Value::Text(text) => bytes(out, 1, text.as_bytes()),
                Value::Flag(flag) => number(out, 2, u64::from(*flag)),
                Value::Number(n) => number(out, 3, n.cast_unsigned()),
            });
        });
    }
}

fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    bytes(out, field, &inner);
}

fn bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    tag(out, field, BYTES);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, VARINT);
    varint(out, value);
}

fn fixed(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

fn tag(out: &mut Vec<u8>, field: u32, kind: u32) {
    varint(out, u64::from(field << 3 | kind));
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
