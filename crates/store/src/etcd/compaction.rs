//! Compaction by one of several servers, by upstream's scheme (apiserver's `etcd3/compact.go`), so that servers of
//! either kind may share an etcd.
//!
//! The version of one key is the time of a clock that all servers share: who finds it where it was last seen moves
//! it on, by a transaction, and compacts to the revision that was current at its own last round. Who finds it moved
//! waits for the next round.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;

use super::Shared;
use super::client::{Fault, Kind};
use super::proto::{
    self, Compare, Request, RequestOp, Response, Target, TxnRequest, TxnResponse, comparison,
};
use crate::store::Revision;

const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
/// Upstream's key.
const MARK: &[u8] = b"compact_rev_key";

/// What a server remembers from round to round.
#[derive(Default)]
pub(super) struct Compactor {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The mark's version when it was last seen.
    version: i64,
    /// The revision that was current then.
    revision: i64,
    /// When the next round is due, by the monotonic clock.
    due: Option<Duration>,
}

impl Compactor {
    /// A round, if `interval` has passed since the last one.
    pub(super) async fn maintain(
        &self,
        shared: &Shared,
        now: Duration,
        interval: Duration,
    ) -> Result<(), Fault> {
        let mut state = self.state.lock().await;
        if state.due.is_some_and(|due| now < due) {
            return Ok(());
        }
        state.due = Some(now + interval);
        state.round(shared).await
    }
}

impl State {
    async fn round(&mut self, shared: &Shared) -> Result<(), Fault> {
        let key = Bytes::from_static(MARK);
        let put = proto::PutRequest {
            key: key.clone(),
            value: self.revision.to_string().into(),
            ..proto::PutRequest::default()
        };
        let read = proto::RangeRequest { key: key.clone(), ..proto::RangeRequest::default() };
        let unmoved = Compare {
            result: comparison::EQUAL,
            target: comparison::VERSION,
            key,
            to: Some(Target::Version(self.version)),
        };
        let txn = TxnRequest {
            compare: vec![unmoved],
            success: vec![RequestOp { request: Some(Request::Put(put)) }],
            failure: vec![RequestOp { request: Some(Request::Range(read)) }],
        };
        let answer: TxnResponse = shared.client.call(TXN, txn, Kind::Write).await?;
        let now = proto::revision(answer.header.as_ref());
        let before = std::mem::replace(&mut self.revision, proto::signed(now));
        if answer.succeeded {
            self.version += 1;
            // The first round only looks.
            return if before == 0 { Ok(()) } else { compact(shared, proto::unsigned(before)).await };
        }
        if let Some(Some(Response::Range(range))) = answer.responses.into_iter().next().map(|op| op.response)
            && let Some(mark) = range.kvs.first()
        {
            self.version = mark.version;
            let theirs = str::from_utf8(&mark.value).ok().and_then(|text| text.parse().ok());
            shared.note_compacted(theirs.unwrap_or(0));
        }
        Ok(())
    }
}

/// Compacts, unless that has happened already.
pub(super) async fn compact(shared: &Shared, revision: Revision) -> Result<(), Fault> {
    let request = proto::CompactionRequest { revision: proto::signed(revision) };
    match shared.client.call::<_, proto::CompactionResponse>(COMPACT, request, Kind::Write).await {
        Err(fault) if !fault.is_compacted() => Err(fault),
        _ => {
            shared.note_compacted(revision);
            Ok(())
        }
    }
}
