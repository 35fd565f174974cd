//! Watches: one JSON document per line, handed on in the batches in which they arrive.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use gantry_api::ApiError;
use gantry_api::metav1::Status;
use gantry_api::status::Result;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::request::ByteStream;
use super::{HttpsTransport, Request};

/// The largest event taken, in bytes.
pub const MAX_FRAME: usize = 16 << 20;

/// One event as it stands on the wire. `ERROR` events never get this far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchFrame {
    /// `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`.
    pub kind: String,
    /// The object's JSON.
    pub object: Bytes,
}

/// Batches of events. Ends after an error.
pub type FrameStream = BoxStream<'static, Result<Vec<WatchFrame>>>;

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl HttpsTransport {
    /// Follows a collection: `request` asks for a watch in its query.
    ///
    /// # Errors
    /// Whatever the server refuses.
    pub async fn watch_frames(&self, request: Request) -> Result<FrameStream> {
        Ok(frames(self.stream(request).await?))
    }
}

struct Reader {
    bytes: ByteStream,
    buffer: BytesMut,
    /// Up to here the buffer has no line end.
    searched: usize,
    ended: bool,
}

/// The events in a stream of lines.
pub(super) fn frames(bytes: ByteStream) -> FrameStream {
    let reader = Reader { bytes, buffer: BytesMut::new(), searched: 0, ended: false };
    stream::unfold(reader, |mut reader| async move { reader.next().await.map(|batch| (batch, reader)) })
        .boxed()
}

impl Reader {
    async fn next(&mut self) -> Option<Result<Vec<WatchFrame>>> {
        while !self.ended {
            let mut batch = Vec::new();
            let result = self.take_lines(&mut batch);
            // What came before an error is handed on first; the error is found again in the buffer's place.
            match result {
                Ok(()) if batch.is_empty() => {}
                Ok(()) => return Some(Ok(batch)),
                Err(error) => {
                    self.ended = true;
                    if batch.is_empty() {
                        return Some(Err(error));
                    }
                    self.bytes = stream::once(async move { Err(error) }).boxed();
                    self.buffer.clear();
                    self.searched = 0;
                    self.ended = false;
                    return Some(Ok(batch));
                }
            }
            match self.bytes.next().await {
                Some(Ok(more)) => self.buffer.extend_from_slice(&more),
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                None => self.ended = true,
            }
        }
        None
    }

    fn take_lines(&mut self, batch: &mut Vec<WatchFrame>) -> Result<()> {
        while let Some(end) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
            let line = self.buffer.split_to(self.searched + end + 1);
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                batch.push(parse(&line)?);
            }
        }
        self.searched = self.buffer.len();
        if self.buffer.len() > MAX_FRAME {
            return Err(ApiError::internal(format!("a watch event is larger than {MAX_FRAME} bytes")));
        }
        Ok(())
    }
}

fn parse(line: &[u8]) -> Result<WatchFrame> {
    let frame: Frame<'_> = serde_json::from_slice(line)
        .map_err(|e| ApiError::internal(format!("a watch event cannot be read: {e}")))?;
    if frame.kind == "ERROR" {
        let status: Status = serde_json::from_str(frame.object.get())
            .map_err(|e| ApiError::internal(format!("the error of a watch cannot be read: {e}")))?;
        return Err(ApiError::from_status(status));
    }
    // A copy: a slice would keep the whole of what came with it.
    Ok(WatchFrame {
        kind: frame.kind.to_owned(),
        object: Bytes::copy_from_slice(frame.object.get().as_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(chunks: &[&'static str]) -> Vec<Result<Vec<String>>> {
        let chunks: Vec<Result<Bytes>> =
            chunks.iter().map(|c| Ok(Bytes::from_static(c.as_bytes()))).collect();
        let batches = frames(stream::iter(chunks).boxed()).map(|batch| {
            batch.map(|frames| {
                frames.iter().map(|f| format!("{} {}", f.kind, String::from_utf8_lossy(&f.object))).collect()
            })
        });
        batches.collect().await
    }

    #[tokio::test]
    async fn lines_are_joined_and_batched_as_they_arrive() {
        let got = read(&[
            "{\"type\":\"ADDED\",\"object\":{\"a\":1}}\n{\"type\":\"MODI",
            "FIED\",\"object\":{\"a\":2}}",
            "\n{\"type\":\"DELETED\",\"object\":{}}\n",
        ])
        .await;
        let got: Vec<Vec<String>> = got.into_iter().map(|b| b.expect("no error")).collect();
        assert_eq!(
            got,
            [
                vec!["ADDED {\"a\":1}".to_owned()],
                vec!["MODIFIED {\"a\":2}".to_owned(), "DELETED {}".to_owned()]
            ]
        );
    }

    #[tokio::test]
    async fn an_error_event_ends_the_watch_after_what_came_before_it() {
        let got = read(&[
            "{\"type\":\"ADDED\",\"object\":{}}\n{\"type\":\"ERROR\",\"object\":{\"status\":\"Failure\",\"reason\":\"Expired\",\"code\":410}}\n{\"type\":\"ADDED\",\"object\":{}}\n",
        ]).await;
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].as_ref().expect("the batch").len(), 1);
        assert!(got[1].as_ref().expect_err("the error").is_expired());
    }
}
