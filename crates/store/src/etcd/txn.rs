//! A batch as one transaction of etcd.

use super::layout::{self, Layout};
use super::proto::{
    self, Compare, Request, RequestOp, Response, Target, TxnRequest, TxnResponse, comparison,
};
use crate::store::{Batch, Committed, Expect, KeyValue, Op, OpResult, Revision};
use crate::{Result, StoreError};

/// The transaction that does `batch` if all of its expectations hold, and reads the keys with expectations if not.
///
/// # Errors
/// A key is outside of the root.
pub(super) fn request(layout: &Layout, batch: &Batch) -> Result<TxnRequest> {
    let mut txn = TxnRequest::default();
    for op in &batch.ops {
        let key = layout.key(op.key())?;
        if let Some(compare) = compare(&key, op.expect()) {
            txn.compare.push(compare);
            let read = proto::RangeRequest { key: key.clone(), ..proto::RangeRequest::default() };
            txn.failure.push(RequestOp { request: Some(Request::Range(read)) });
        }
        let request = match op {
            Op::Put { value, .. } => {
                Request::Put(proto::PutRequest { key, value: layout::encode(value), prev_kv: true })
            }
            Op::Delete { .. } => Request::DeleteRange(proto::DeleteRangeRequest { key, prev_kv: true }),
        };
        txn.success.push(RequestOp { request: Some(request) });
    }
    Ok(txn)
}

fn compare(key: &bytes::Bytes, expect: Expect) -> Option<Compare> {
    let (result, revision) = match expect {
        Expect::Any => return None,
        Expect::Absent => (comparison::EQUAL, 0),
        Expect::Present => (comparison::GREATER, 0),
        // No write has revision 0, which to etcd means that the key does not exist.
        Expect::At(0) => (comparison::EQUAL, i64::MAX),
        Expect::At(revision) => (comparison::EQUAL, proto::signed(revision)),
    };
    let to = Some(Target::ModRevision(revision));
    Some(Compare { result, target: comparison::MOD, key: key.clone(), to })
}

/// What the transaction did.
///
/// # Errors
/// [`StoreError::Conflict`]; a value that was not written by this engine.
pub(super) fn outcome(layout: &Layout, batch: &Batch, answer: TxnResponse) -> Result<Committed> {
    let revision = proto::revision(answer.header.as_ref());
    let mut responses = answer.responses.into_iter().map(|op| op.response);
    if !answer.succeeded {
        return Err(conflict(layout, batch, responses));
    }
    let results = batch
        .ops
        .iter()
        .map(|op| result(layout, op, responses.next().flatten(), revision))
        .collect::<Result<_>>()?;
    Ok(Committed { results })
}

fn result(layout: &Layout, op: &Op, response: Option<Response>, revision: Revision) -> Result<OpResult> {
    match (op, response) {
        (Op::Put { key, value, .. }, Some(Response::Put(put))) => {
            let previous = read(layout, put.prev_kv.as_ref())?;
            let created = previous.as_ref().map_or(revision, |kv| kv.created);
            let value = value.at_revision(revision);
            let current = KeyValue { key: key.clone(), value, created, modified: revision };
            Ok(OpResult::Put { current, previous })
        }
        (Op::Delete { .. }, Some(Response::DeleteRange(deleted))) => {
            Ok(match read(layout, deleted.prev_kvs.first())? {
                Some(previous) => OpResult::Deleted { previous, revision },
                None => OpResult::Absent,
            })
        }
        _ => Err(unexpected()),
    }
}

fn conflict(layout: &Layout, batch: &Batch, mut reads: impl Iterator<Item = Option<Response>>) -> StoreError {
    for (index, op) in batch.ops.iter().enumerate().filter(|(_, op)| op.expect() != Expect::Any) {
        let Some(Some(Response::Range(range))) = reads.next() else { return unexpected() };
        let current = match read(layout, range.kvs.first()) {
            Ok(current) => current,
            Err(error) => return error,
        };
        if !op.expect().holds(current.as_ref().map(|kv| kv.modified)) {
            return StoreError::Conflict { index, key: op.key().clone(), current: current.map(Box::new) };
        }
    }
    unexpected()
}

fn read(layout: &Layout, kv: Option<&proto::KeyValue>) -> Result<Option<KeyValue>> {
    kv.map_or(Ok(None), |kv| layout.read(kv))
}

fn unexpected() -> StoreError {
    StoreError::Unavailable("etcd answered something else than it was asked".to_owned())
}
