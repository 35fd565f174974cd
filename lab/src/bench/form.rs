//! The encodings in which clients talk to the server.

use anyhow::Context;
use bytes::Bytes;
use gantry_client::https::Request;
use http::Method;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const PROTOBUF_STREAM: &str =
    "application/vnd.kubernetes.protobuf;stream=watch,application/vnd.kubernetes.protobuf";

/// An encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// What most clients speak.
    Json,
    /// What client-go speaks of the built-in kinds.
    Protobuf,
}

/// Both.
pub(super) const FORMS: [Form; 2] = [Form::Json, Form::Protobuf];

impl Form {
    /// What a row says of it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Protobuf => "protobuf",
        }
    }

    /// A document in this form.
    pub(super) fn encode(self, json: Bytes) -> anyhow::Result<Bytes> {
        match self {
            Self::Json => Ok(json),
            Self::Protobuf => Ok(gantry_api::protobuf::from_json(&json).context("as protobuf")?.into()),
        }
    }

    /// Creates what was encoded in this form.
    pub(super) fn create(self, path: &str, body: Bytes) -> Request {
        match self {
            Self::Json => Request::send(Method::POST, path, "application/json", body),
            Self::Protobuf => Request::send(Method::POST, path, PROTOBUF, body).accepting(PROTOBUF),
        }
    }

    /// Reads.
    pub(super) fn get(self, path: impl Into<String>) -> Request {
        match self {
            Self::Json => Request::get(path),
            Self::Protobuf => Request::get(path).accepting(PROTOBUF),
        }
    }

    /// Watches.
    pub(super) fn watch(self, path: impl Into<String>) -> Request {
        match self {
            Self::Json => Request::get(path),
            Self::Protobuf => Request::get(path).accepting(PROTOBUF_STREAM),
        }
    }
}

/// Cuts a stream into the frames of a watch.
pub(super) struct Frames {
    form: Form,
    /// The beginning of a frame whose end is still to come.
    rest: Vec<u8>,
}

impl Frames {
    pub(super) fn new(form: Form) -> Self {
        Self { form, rest: Vec::new() }
    }

    /// Calls back with every frame that ends in what came.
    pub(super) fn push(&mut self, bytes: &[u8], mut with: impl FnMut(&[u8])) {
        if self.rest.is_empty() {
            let used = cut(self.form, bytes, &mut with);
            self.rest.extend_from_slice(&bytes[used..]);
            return;
        }
        self.rest.extend_from_slice(bytes);
        let used = cut(self.form, &self.rest, &mut with);
        self.rest.drain(..used);
    }
}

/// Calls back with every whole frame; how many bytes they have.
fn cut(form: Form, bytes: &[u8], with: &mut impl FnMut(&[u8])) -> usize {
    let mut used = 0;
    while let Some(end) = end_of_first(form, &bytes[used..]) {
        with(&bytes[used..used + end]);
        used += end;
    }
    used
}

fn end_of_first(form: Form, bytes: &[u8]) -> Option<usize> {
    match form {
        Form::Json => memchr::memchr(b'\n', bytes).map(|at| at + 1),
        Form::Protobuf => {
            let (length, rest) = bytes.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            (rest.len() >= length).then_some(4 + length)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_wherever_the_stream_is() {
        let json = b"{\"a\":1}\n{\"b\":2}\n".as_slice();
        let protobuf = b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01c".as_slice();
        for (form, stream, count) in [(Form::Json, json, 2), (Form::Protobuf, protobuf, 3)] {
            for size in 1..=stream.len() {
                let (mut frames, mut seen) = (Frames::new(form), Vec::new());
                for chunk in stream.chunks(size) {
                    frames.push(chunk, |frame| seen.push(frame.to_vec()));
                }
                assert_eq!((seen.len(), seen.concat()), (count, stream.to_vec()), "{form:?} by {size}");
            }
        }
    }
}
