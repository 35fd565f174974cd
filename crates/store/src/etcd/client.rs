//! Calls to an etcd of several members: which member is asked, how long it may take, and what is tried again.
//!
//! One member is asked until it disappoints; then the next one is. A call that only reads may be tried again at
//! will. One that writes is tried again only if it is certain that it had no effect; otherwise the caller learns that
//! the outcome is unknown, as upstream does it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gantry_base::{Backoff, BackoffPolicy};
use prost::Message;
use tokio::time::Instant;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::connect::Member;
use crate::StoreError;

/// How long one member may take to answer a read: another one is soon asked.
const READ_ATTEMPT: Duration = Duration::from_secs(2);
/// How long one member may take to do a write: longer than etcd itself waits for a quorum (7 s).
const WRITE_ATTEMPT: Duration = Duration::from_secs(9);
/// Waiting when all members have been asked in vain.
const RETRY: BackoffPolicy =
    BackoffPolicy::doubling(Duration::from_millis(20), Duration::from_secs(1)).with_jitter(0.1);
/// Largest answer that is read: a page of the largest values.
const MAX_ANSWER_BYTES: usize = 1 << 30;
/// The largest request that etcd takes unless it is told otherwise (its `--max-request-bytes`).
pub(super) const MAX_REQUEST_BYTES: usize = 3 << 19;

/// Whether a call writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

/// Why a call failed.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// What the member or the connection said.
    Status(Status),
    /// Nothing was said in time.
    Silence { member: String },
}

/// The members of an etcd.
pub(super) struct Client {
    members: Vec<(Member, Channel)>,
    current: AtomicUsize,
    /// A call gives up after this, whatever it has tried.
    deadline: Duration,
}

impl Client {
    /// A client that asks this one first, the others when it fails.
    pub(super) fn new(members: Vec<Member>, first: usize, deadline: Duration) -> Self {
        let members = members
            .into_iter()
            .map(|member| {
                let channel = member.channel();
                (member, channel)
            })
            .collect();
        Self { members, current: AtomicUsize::new(first), deadline }
    }

    /// How many members there are.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The place of the member that is asked now.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.members.len()
    }

    /// The member at this place.
    pub(super) fn member(&self, place: usize) -> &Member {
        &self.members[place % self.members.len()].0
    }

    /// All members' addresses, for messages.
    pub(super) fn names(&self) -> String {
        self.members.iter().map(|(member, _)| member.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Calls `method`, on another member if one fails.
    pub(super) async fn call<Q, A>(&self, method: &'static str, message: Q, kind: Kind) -> Result<A, Fault>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let end = Instant::now() + self.deadline;
        let mut backoff = Backoff::new(RETRY);
        let mut tried = 0;
        loop {
            let place = self.current();
            let attempt = if kind == Kind::Read { READ_ATTEMPT } else { WRITE_ATTEMPT };
            let patience = attempt.min(end.saturating_duration_since(Instant::now()));
            let fault = match self.call_member(place, method, message.clone(), patience).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            if fault.blames_member() {
                self.leave(place);
            }
            tried += 1;
            let delay = if tried % self.members.len() == 0 { backoff.next_delay() } else { Duration::ZERO };
            if !fault.may_retry(kind) || Instant::now() + delay >= end {
                return Err(fault);
            }
            tracing::debug!(method, member = self.member(place).name, %fault, "trying again");
            tokio::time::sleep(delay).await;
        }
    }

    /// Calls `method` on one member, once.
    pub(super) async fn call_member<Q, A>(
        &self,
        place: usize,
        method: &'static str,
        message: Q,
        patience: Duration,
    ) -> Result<A, Fault>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let (member, channel) = &self.members[place % self.members.len()];
        let answer = tokio::time::timeout(patience, unary(channel.clone(), method, message)).await;
        match answer {
            Ok(answer) => answer.map_err(Fault::Status),
            Err(_) => Err(Fault::Silence { member: member.name.clone() }),
        }
    }

    /// Asks another member from now on, unless that has happened already.
    pub(super) fn leave(&self, place: usize) {
        let current = self.current.load(Ordering::Relaxed);
        if current % self.members.len() == place {
            // If it fails, somebody else has left.
            self.current
                .compare_exchange(current, current.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed)
                .ok();
        }
    }
}

async fn unary<Q, A>(channel: Channel, method: &'static str, message: Q) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = ready(channel).await?;
    let codec = ProstCodec::<Q, A>::default();
    let answer = grpc.unary(led(Request::new(message)), PathAndQuery::from_static(method), codec).await?;
    Ok(answer.into_inner())
}

/// Calls `method` with a stream of messages; its answer is a stream.
pub(super) async fn streaming<S, Q, A>(
    channel: Channel,
    method: &'static str,
    messages: S,
) -> Result<Streaming<A>, Status>
where
    S: futures::Stream<Item = Q> + Send + 'static,
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = ready(channel).await?;
    let codec = ProstCodec::<Q, A>::default();
    let answer =
        grpc.streaming(led(Request::new(messages)), PathAndQuery::from_static(method), codec).await?;
    Ok(answer.into_inner())
}

async fn ready(channel: Channel) -> Result<tonic::client::Grpc<Channel>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    Ok(grpc)
}

/// A member without a leader is to refuse at once, in place of waiting for one or answering from the past.
fn led<T>(mut request: Request<T>) -> Request<T> {
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

impl Fault {
    /// What etcd said, if it did.
    fn said(&self) -> Option<&Status> {
        match self {
            Self::Status(status) if status.message().starts_with("etcdserver: ") => Some(status),
            _ => None,
        }
    }

    fn says(&self, texts: &[&str]) -> bool {
        self.said().is_some_and(|status| texts.iter().any(|text| status.message().ends_with(text)))
    }

    /// History before the revision is gone.
    pub(super) fn is_compacted(&self) -> bool {
        self.says(&["required revision has been compacted"])
    }

    /// The revision has not been reached.
    pub(super) fn is_future(&self) -> bool {
        self.says(&["required revision is a future revision"])
    }

    /// No connection was made, so nothing was sent.
    fn is_unsent(&self) -> bool {
        let Self::Status(status) = self else { return false };
        let mut source = std::error::Error::source(status);
        while let Some(error) = source {
            if error.is::<tonic::ConnectError>() {
                return true;
            }
            source = error.source();
        }
        false
    }

    /// Certain to have had no effect (upstream's `retriableWriteErrorSuffixes`).
    fn is_without_effect(&self) -> bool {
        self.is_unsent()
            || self.says(&["leader changed", "no leader"])
            || matches!(self, Self::Status(status) if status.message().ends_with("raft proposal dropped"))
    }

    /// Another member may do better.
    fn blames_member(&self) -> bool {
        match self {
            Self::Silence { .. } => true,
            Self::Status(status) => match self.said() {
                Some(said) => said.code() == Code::Unavailable && !self.says(&["leader changed"]),
                None => matches!(
                    status.code(),
                    Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
                ),
            },
        }
    }

    fn may_retry(&self, kind: Kind) -> bool {
        self.is_without_effect() || (kind == Kind::Read && self.blames_member())
    }

    /// What went wrong, the innermost cause for a connection.
    fn text(&self) -> String {
        match self {
            Self::Silence { member } => format!("{member} does not answer"),
            Self::Status(status) => {
                let mut innermost = None;
                let mut source = std::error::Error::source(status);
                while let Some(error) = source {
                    innermost = Some(error.to_string());
                    source = error.source();
                }
                innermost.filter(|_| self.said().is_none()).unwrap_or_else(|| status.message().to_owned())
            }
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        let too_large = |what| Self::TooLarge { what, size: MAX_REQUEST_BYTES + 1, limit: MAX_REQUEST_BYTES };
        match &fault {
            Fault::Silence { .. } => Self::TimedOut(fault.text()),
            Fault::Status(status) => match status.code() {
                Code::InvalidArgument if fault.says(&["request is too large"]) => {
                    too_large("request (bytes)")
                }
                // What exceeds the limit by far does not even reach etcd's own check.
                Code::ResourceExhausted if status.message().contains("larger than max") => {
                    too_large("request (bytes)")
                }
                Code::InvalidArgument => Self::Invalid(fault.text()),
                _ => Self::Unavailable(fault.text()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_had_no_effect_is_written_again() {
        let status = |code, text: &str| Fault::Status(Status::new(code, text));
        for (fault, read, write) in [
            (status(Code::Unavailable, "etcdserver: leader changed"), true, true),
            (status(Code::Unavailable, "etcdserver: no leader"), true, true),
            (status(Code::Unknown, "raft proposal dropped"), true, true),
            (status(Code::Unavailable, "etcdserver: request timed out"), true, false),
            (status(Code::Unavailable, "etcdserver: server stopped"), true, false),
            (status(Code::Unknown, "transport error"), true, false),
            (Fault::Silence { member: "a".into() }, true, false),
            (status(Code::InvalidArgument, "etcdserver: request is too large"), false, false),
            (status(Code::PermissionDenied, "etcdserver: permission denied"), false, false),
        ] {
            assert_eq!((fault.may_retry(Kind::Read), fault.may_retry(Kind::Write)), (read, write), "{fault}");
        }
    }
}
