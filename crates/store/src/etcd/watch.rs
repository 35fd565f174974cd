//! A watch: one stream of etcd at a time, from member to member, with no event lost or repeated.
//!
//! Each stream covers all keys of the layout, and the watch picks its prefix: the API server has one watch of
//! everything, and only so does the fence (below) arrive in order with the events.
//!
//! **Going on after a lost stream.** The next stream begins *at* the position, the last revision that was delivered
//! in full, and what is not newer is left out. etcd then refuses if compaction has passed the position, also in the
//! one case where the next revision would just still be accepted and its deletes already be gone.
//!
//! **Progress.** Revisions also move by writes that this watch does not see (other clusters, the compaction's mark).
//! When somebody has learnt a revision ([`Shared::wanted`]) and no event brings the watch there, it asks for a
//! progress notification. Those on demand are sent ahead of events by etcd before 3.4.31 and 3.5.13
//! (etcd-io/etcd#15220); there the watch writes the *fence* instead, one key behind all others, whose event tells that
//! all before it have arrived. A stream that stays behind in silence is given up for another member's.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use gantry_base::{Backoff, BackoffPolicy};
use tokio::sync::mpsc;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

use super::Shared;
use super::client::{Fault, Kind, streaming};
use super::proto::{self, WatchAsk, WatchCreate, WatchProgress, WatchRequest, WatchResponse};
use crate::store::{Event, Revision};
use crate::watch::{Seen, WatchBatch, WatchSource};
use crate::{Result, StoreError};

const WATCH: &str = "/etcdserverpb.Watch/Watch";
const PUT: &str = "/etcdserverpb.KV/Put";
/// Opening a stream takes no longer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
/// Events have this long to come by themselves before progress is asked for.
const PATIENCE: Duration = Duration::from_millis(5);
/// Progress is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// A stream that is behind and silent for this long is given up.
const SILENCE: Duration = Duration::from_secs(2);
/// Between attempts to open a stream.
const RETRY: BackoffPolicy =
    BackoffPolicy::doubling(Duration::from_millis(20), Duration::from_secs(2)).with_jitter(0.2);
/// Requests that wait to be sent on a stream.
const REQUESTS: usize = 8;

/// A watch of the keys below a prefix.
pub(super) struct EtcdWatch {
    shared: Arc<Shared>,
    prefix: Box<str>,
    /// Everything up to here has been delivered.
    position: Revision,
    stage: Stage,
    wanted: Receiver<Revision>,
    lag: Option<Lag>,
    /// The fence that is being written.
    fencing: Option<BoxFuture<'static, Result<(), Fault>>>,
    /// The member whose stream it is, or that is tried.
    place: usize,
    backoff: Backoff,
    seen: Seen,
    ended: Option<StoreError>,
}

enum Stage {
    Opening(BoxFuture<'static, Result<Stream, Fault>>),
    Open(Box<Stream>),
}

/// An open stream.
struct Stream {
    messages: Streaming<WatchResponse>,
    requests: mpsc::Sender<WatchRequest>,
    /// Events of the revision that a fragment may have cut in two.
    held: Vec<Event>,
}

/// Revisions are known that have not arrived.
struct Lag {
    /// Nothing has been heard since.
    silent_since: Instant,
    /// When to ask for progress.
    ask_at: Instant,
}

/// What a watch waits for.
enum Heard {
    Opened(Result<Stream, Fault>),
    Message(Result<Option<WatchResponse>, Status>),
    Fenced(Result<(), Fault>),
    /// Time to look at the lag.
    Tick,
    Closed,
}

impl EtcdWatch {
    /// A watch that delivers what is newer than `position`. `start` is where its first stream begins: the revision
    /// after, if that lies in the future for certain, or else the position itself.
    pub(super) fn new(shared: Arc<Shared>, prefix: &str, position: Revision, start: Revision) -> Self {
        let place = shared.client.current();
        let wanted = shared.wanted.subscribe();
        let opening = open(Arc::clone(&shared), place, start, Duration::ZERO);
        Self {
            shared,
            prefix: prefix.into(),
            position,
            stage: Stage::Opening(opening),
            wanted,
            lag: None,
            fencing: None,
            place,
            backoff: Backoff::new(RETRY),
            seen: Seen::default(),
            ended: None,
        }
    }

    /// Waits until its stream is open, or cannot be for now.
    pub(super) async fn opened(&mut self) {
        if let Stage::Opening(opening) = &mut self.stage {
            let opened = opening.await;
            self.settle(opened);
        }
    }

    fn settle(&mut self, opened: Result<Stream, Fault>) {
        match opened {
            Ok(stream) => {
                self.backoff.reset();
                self.stage = Stage::Open(Box::new(stream));
            }
            Err(fault) => self.reopen(&fault.to_string()),
        }
    }

    /// Gives up the stream and opens another one, at the next member.
    fn reopen(&mut self, why: &str) {
        tracing::debug!(
            member = self.shared.client.member(self.place).name,
            why,
            "a watch of etcd is opened anew"
        );
        self.shared.client.leave(self.place);
        self.place = (self.place + 1) % self.shared.client.len();
        // The first time at once: another member will do.
        let delay = self.backoff.next_delay();
        let delay = if self.backoff.failures() == 1 { Duration::ZERO } else { delay };
        self.lag = None;
        self.stage = Stage::Opening(open(Arc::clone(&self.shared), self.place, self.position.max(1), delay));
    }

    async fn hear(&mut self) -> Heard {
        let behind = *self.wanted.borrow_and_update() > self.position;
        if !behind {
            self.lag = None;
        }
        let stream = match &mut self.stage {
            Stage::Opening(opening) => {
                return tokio::select! {
                    opened = opening => Heard::Opened(opened),
                    () = self.shared.closed.cancelled() => Heard::Closed,
                };
            }
            Stage::Open(stream) => stream,
        };
        let now = Instant::now();
        let lag = behind.then(|| self.lag.get_or_insert(Lag { silent_since: now, ask_at: now + PATIENCE }));
        let tick = lag.map(|lag| lag.ask_at.min(lag.silent_since + SILENCE));
        let fencing = async {
            match &mut self.fencing {
                Some(fencing) => fencing.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = stream.messages.message() => Heard::Message(message),
            fenced = fencing => Heard::Fenced(fenced),
            // The sender lives as long as the store.
            _ = self.wanted.changed() => Heard::Tick,
            () = sleep_until(tick) => Heard::Tick,
            () = self.shared.closed.cancelled() => Heard::Closed,
        }
    }

    fn tick(&mut self) {
        let (Some(lag), Stage::Open(stream)) = (&mut self.lag, &mut self.stage) else { return };
        let now = Instant::now();
        if now >= lag.silent_since + SILENCE {
            return self.reopen("it is behind and silent");
        }
        if now < lag.ask_at {
            return;
        }
        lag.ask_at = now + ASK_AGAIN;
        if self.shared.tells_progress() {
            let ask = WatchRequest { ask: Some(WatchAsk::Progress(WatchProgress {})) };
            // If it is full, it has been asked for already.
            stream.requests.try_send(ask).ok();
        } else if self.fencing.is_none() {
            self.fencing = Some(fence(Arc::clone(&self.shared)).boxed());
        }
    }

    /// Takes in a message: the events in it, or none if they only move the position.
    fn take(&mut self, message: WatchResponse) -> Result<Option<WatchBatch>> {
        if let Some(lag) = &mut self.lag {
            lag.silent_since = Instant::now();
        }
        if message.canceled {
            return self.canceled(&message).map(|()| None);
        }
        if message.created {
            return Ok(None);
        }
        let before = self.position;
        let mut events = self.unfinished();
        match message.events.last().and_then(|event| event.kv.as_ref()) {
            Some(last) => {
                let last = proto::unsigned(last.mod_revision);
                self.read_events(&message.events, &mut events);
                if message.fragment {
                    let cut = events.partition_point(|event| event.revision < last);
                    self.hold(events.split_off(cut));
                    self.position = self.position.max(last.saturating_sub(1));
                } else {
                    self.position = self.position.max(last);
                }
            }
            None => self.position = self.position.max(proto::revision(message.header.as_ref())),
        }
        if self.position == before && events.is_empty() {
            return Ok(None);
        }
        Ok(Some(WatchBatch { events: events.into(), revision: self.position }))
    }

    fn unfinished(&mut self) -> Vec<Event> {
        match &mut self.stage {
            Stage::Open(stream) => std::mem::take(&mut stream.held),
            Stage::Opening(_) => Vec::new(),
        }
    }

    fn hold(&mut self, events: Vec<Event>) {
        if let Stage::Open(stream) = &mut self.stage {
            stream.held = events;
        }
    }

    /// The events that are new and below the prefix.
    fn read_events(&mut self, found: &[proto::Event], into: &mut Vec<Event>) {
        let layout = &self.shared.layout;
        for event in found {
            let Some(kv) = &event.kv else { continue };
            let Some((key, revision)) = layout.read_deleted(kv) else { continue };
            if revision <= self.position || !key.starts_with(&*self.prefix) {
                continue;
            }
            let current = if event.kind == 0 { layout.read(kv) } else { Ok(None) };
            let previous = event.prev_kv.as_ref().map_or(Ok(None), |kv| layout.read(kv));
            match (current, previous) {
                (Ok(current), Ok(previous)) => into.push(Event { key, revision, current, previous }),
                (Err(fault), _) | (_, Err(fault)) => self.seen.faults.push_back(fault),
            }
        }
    }

    fn canceled(&mut self, message: &WatchResponse) -> Result<()> {
        if message.compact_revision > 0 {
            let compacted = proto::unsigned(message.compact_revision);
            return Err(self.shared.compacted(self.position + 1, compacted));
        }
        self.reopen(&message.cancel_reason);
        Ok(())
    }

    async fn advance(&mut self) -> Result<WatchBatch> {
        loop {
            match self.hear().await {
                Heard::Closed => return Err(StoreError::Closed),
                Heard::Opened(opened) => self.settle(opened),
                Heard::Tick => self.tick(),
                Heard::Fenced(outcome) => {
                    self.fencing = None;
                    if let Err(fault) = outcome {
                        tracing::debug!(%fault, "the fence of a watch of etcd cannot be written");
                    }
                }
                Heard::Message(Ok(Some(message))) => {
                    if let Some(batch) = self.take(message)? {
                        return Ok(batch);
                    }
                }
                Heard::Message(Ok(None)) => self.reopen("the stream ended"),
                Heard::Message(Err(status)) => self.reopen(&Fault::Status(status).to_string()),
            }
        }
    }
}

#[async_trait::async_trait]
impl WatchSource for EtcdWatch {
    async fn next(&mut self) -> Result<WatchBatch> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        if self.seen.is_empty() {
            let batch = self.advance().await;
            self.ended = batch.as_ref().err().cloned();
            self.seen.rest = Some(batch?);
        }
        self.seen.take().unwrap_or(Err(StoreError::Closed))
    }

    fn try_next(&mut self) -> Result<Option<WatchBatch>> {
        while let Some(batch) = self.next().now_or_never().transpose()? {
            if !batch.events.is_empty() {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    fn position(&self) -> Revision {
        self.position
    }
}

/// Opens a stream at the member at `place`, after a while.
fn open(
    shared: Arc<Shared>,
    place: usize,
    start: Revision,
    delay: Duration,
) -> BoxFuture<'static, Result<Stream, Fault>> {
    async move {
        tokio::time::sleep(delay).await;
        let member = shared.client.member(place);
        let opened = tokio::time::timeout(OPEN_TIMEOUT, open_now(&shared, place, start)).await;
        opened.unwrap_or_else(|_| Err(Fault::Silence { member: member.name.clone() }))
    }
    .boxed()
}

async fn open_now(shared: &Shared, place: usize, start: Revision) -> Result<Stream, Fault> {
    let (requests, waiting) = mpsc::channel(REQUESTS);
    let span = shared.layout.watched();
    let create = WatchCreate {
        key: span.key,
        range_end: span.range_end,
        start_revision: proto::signed(start),
        progress_notify: true,
        prev_kv: true,
        fragment: true,
    };
    let create = WatchRequest { ask: Some(WatchAsk::Create(create)) };
    let asked = futures::stream::once(std::future::ready(create))
        .chain(futures::stream::unfold(waiting, |mut waiting| async move {
            waiting.recv().await.map(|request| (request, waiting))
        }));
    // A connection of its own: a slow watcher is not to hold up anything else.
    let channel = shared.client.member(place).channel();
    let mut messages: Streaming<WatchResponse> =
        streaming(channel, WATCH, asked).await.map_err(Fault::Status)?;
    let first = messages.message().await.map_err(Fault::Status)?;
    if first.as_ref().is_some_and(|message| message.created && !message.canceled) {
        return Ok(Stream { messages, requests, held: Vec::new() });
    }
    let why = first.map_or_else(|| "the stream ended".to_owned(), |message| message.cancel_reason);
    Err(Fault::Status(Status::new(Code::Unavailable, why)))
}

/// Writes the fence: its event comes after all that were before.
async fn fence(shared: Arc<Shared>) -> Result<(), Fault> {
    let value = bytes::Bytes::from_static(b"written when a watch has to know that it has seen everything");
    let put = proto::PutRequest { key: shared.layout.fence(), value, prev_kv: false };
    shared.client.call::<_, proto::PutResponse>(PUT, put, Kind::Write).await.map(drop)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
