//! A body that says when it ends.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::serve::{Body, BodyError};

/// Counts what goes through, and tells `ended` when nothing more will, whatever the reason.
pub(super) struct Watched<F: FnOnce(u64)> {
    body: Body,
    bytes: u64,
    ended: Option<F>,
}

impl<F: FnOnce(u64) + Send + Unpin + 'static> Watched<F> {
    pub(super) fn body(body: Body, ended: F) -> Body {
        Self { body, bytes: 0, ended: Some(ended) }.boxed_unsync()
    }
}

impl<F: FnOnce(u64) + Unpin> HttpBody for Watched<F> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<F: FnOnce(u64)> Drop for Watched<F> {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended(self.bytes);
        }
    }
}
