//! The etcd engine: several servers share one store.
//!
//! Reads are linearizable, each batch is one transaction, revisions are etcd's (the writes of a batch share one).
//! The parts: `layout` says how keys and values look there, `client` whom to ask and what to try again, `txn` and
//! `watch` speak for themselves, `compaction` decides which server compacts.
//!
//! All writes are durable before they are acknowledged: [`Durability::Lazy`](crate::Durability::Lazy) makes no
//! difference. Limits are etcd's: [`MAX_TXN_OPS`] operations in a batch, 1.5 MiB in a request unless etcd is told
//! otherwise.
//!
//! A write whose outcome is unknown (the member fell silent, or lost its leader) is
//! [`StoreError::Unavailable`] or [`StoreError::TimedOut`]; it may or may not have happened.

mod client;
mod compaction;
mod connect;
mod layout;
mod proto;
mod txn;
mod watch;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gantry_base::{Clock, Shutdown, SystemClock, Tasks};
use parking_lot::Mutex;
use tokio::sync::watch as channel;

use crate::store::{Batch, Committed, KeyValue, Range, RangeRequest, Read, Revision, Store, within};
use crate::watch::Watch;
use crate::{Result, StoreError};
use client::{Client, Fault, Kind};
use compaction::Compactor;
use connect::Member;
use layout::{Layout, Span};
use watch::EtcdWatch;

pub use connect::EtcdTls;

/// Most operations in a batch: etcd's `--max-txn-ops`.
pub const MAX_TXN_OPS: usize = 128;

const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";
/// Keys read by one request; a longer range takes several, all at one revision.
const PAGE: usize = 1000;
/// Reads of the present that are begun anew when compaction overtakes them.
const RANGE_ATTEMPTS: usize = 3;
/// How long the first contact may take.
const FIRST_CONTACT: Duration = Duration::from_secs(5);
/// Between health checks.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// Every so many health checks the watches are brought up to date, so that compaction never overtakes them.
const PROBES_PER_PROGRESS: u32 = 5;
/// How long background work may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// How an etcd is reached and used.
#[derive(Clone)]
pub struct EtcdOptions {
    /// Its members: `http://host:port` or `https://host:port`.
    pub servers: Vec<String>,
    /// For members with `https`.
    pub tls: EtcdTls,
    /// What all keys begin with in the store; empty, or with a slash at the end.
    pub root: String,
    /// What they begin with in etcd instead; clusters that share an etcd each have one of their own.
    pub prefix: String,
    /// How long history is kept (it may be up to twice as long); zero for somebody else compacting.
    pub compaction_interval: Duration,
    /// How long a health check may take.
    pub healthcheck_timeout: Duration,
    /// How long a call may take in all. Default: 10 s, a little more than etcd itself waits for a quorum.
    pub call_timeout: Duration,
    /// Tells when compaction is due.
    pub clock: Arc<dyn Clock>,
}

impl EtcdOptions {
    /// Upstream's defaults for these members.
    pub fn new(servers: Vec<String>) -> Self {
        Self {
            servers,
            tls: EtcdTls::default(),
            root: "/registry/".to_owned(),
            prefix: "/registry".to_owned(),
            compaction_interval: Duration::from_secs(300),
            healthcheck_timeout: Duration::from_secs(2),
            call_timeout: Duration::from_secs(10),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

/// A store in etcd. Dropping it ends its watches.
pub struct Etcd {
    shared: Arc<Shared>,
    compactor: Arc<Compactor>,
    options: EtcdOptions,
    tasks: Tasks,
}

/// What the store, its watches and its background work share.
struct Shared {
    client: Client,
    layout: Layout,
    /// The newest revision that somebody has been told and that watches are to reach.
    wanted: channel::Sender<Revision>,
    /// The newest revision seen in an answer.
    seen: AtomicU64,
    /// A revision that is known to be compacted; what was compacted since is not known.
    compacted: AtomicU64,
    /// Whether all members tell a watch's progress rightly.
    tells_progress: AtomicBool,
    /// What the last health check said.
    health: Mutex<std::result::Result<(), String>>,
    closed: Shutdown,
}

impl Etcd {
    /// Connects. Background work (health checks, compaction) ends when the store is closed.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for addresses that make no sense; [`StoreError::Unreachable`] if no member answers
    /// within 5 seconds.
    pub async fn connect(options: EtcdOptions) -> Result<Self> {
        let tls = Arc::new(options.tls.clone());
        let members =
            options.servers.iter().map(|text| Member::parse(text, &tls)).collect::<Result<Vec<_>>>()?;
        if members.is_empty() {
            return Err(StoreError::Invalid("there is no etcd server".to_owned()));
        }
        // Several servers are not all to ask the same member.
        let first = usize::try_from(RandomState::new().hash_one(std::process::id()) >> 32).unwrap_or(0);
        let tasks = Tasks::new();
        let shared = Arc::new(Shared {
            client: Client::new(members, first, options.call_timeout),
            layout: Layout::new(&options.root, &options.prefix),
            wanted: channel::Sender::new(0),
            seen: AtomicU64::new(0),
            compacted: AtomicU64::new(1),
            tells_progress: AtomicBool::new(false),
            health: Mutex::new(Ok(())),
            closed: tasks.shutdown_signal(),
        });
        shared.first_contact(options.call_timeout).await?;
        let etcd = Self { shared, compactor: Arc::default(), options, tasks };
        etcd.start();
        Ok(etcd)
    }

    /// What the last health check said; they are made every two seconds.
    ///
    /// # Errors
    /// What is wrong.
    pub fn health(&self) -> std::result::Result<(), String> {
        self.shared.health.lock().clone()
    }

    /// Compacts if it is this server's turn. The store does it by itself; a test that has moved its clock may.
    ///
    /// # Errors
    /// etcd does not do it.
    pub async fn maintain(&self) -> Result<()> {
        let now = self.options.clock.monotonic();
        Ok(self.compactor.maintain(&self.shared, now, self.options.compaction_interval).await?)
    }

    fn start(&self) {
        self.tasks.spawn("etcd health", probe(Arc::clone(&self.shared), self.options.healthcheck_timeout));
        let interval = self.options.compaction_interval;
        if interval.is_zero() {
            return;
        }
        let (shared, compactor) = (Arc::clone(&self.shared), Arc::clone(&self.compactor));
        let clock = Arc::clone(&self.options.clock);
        self.tasks.spawn("etcd compaction", async move {
            loop {
                tokio::time::sleep(interval).await;
                if let Err(fault) = compactor.maintain(&shared, clock.monotonic(), interval).await {
                    tracing::warn!(%fault, "etcd was not compacted");
                }
            }
        });
    }
}

impl Shared {
    fn open(&self) -> Result<()> {
        if self.closed.is_cancelled() { Err(StoreError::Closed) } else { Ok(()) }
    }

    async fn first_contact(&self, patience: Duration) -> Result<()> {
        match tokio::time::timeout(patience.min(FIRST_CONTACT), self.now()).await {
            Ok(Ok(_)) => {
                self.learn_versions().await;
                Ok(())
            }
            Ok(Err(fault)) => Err(self.unreachable(fault.to_string())),
            Err(_) => {
                // Which of the attempts counts? The one at whoever is asked now, said briefly.
                let place = self.client.current();
                let last = self.client.call_member::<_, proto::RangeResponse>(
                    place,
                    RANGE,
                    proto::RangeRequest { key: self.layout.fence(), count_only: true, ..Default::default() },
                    Duration::from_millis(500),
                );
                Err(self.unreachable(last.await.err().map_or_else(|| "no quorum".into(), |f| f.to_string())))
            }
        }
    }

    fn unreachable(&self, detail: String) -> StoreError {
        StoreError::Unreachable { servers: self.client.names(), detail }
    }

    /// The revision of this moment.
    async fn now(&self) -> std::result::Result<Revision, Fault> {
        // Any key will do.
        let request = proto::RangeRequest {
            key: self.layout.fence(),
            count_only: true,
            ..proto::RangeRequest::default()
        };
        let answer: proto::RangeResponse = self.client.call(RANGE, request, Kind::Read).await?;
        Ok(self.note(proto::revision(answer.header.as_ref())))
    }

    /// Whether the past of this revision can still be read.
    async fn is_readable(&self, revision: Revision) -> Result<bool> {
        let request = proto::RangeRequest {
            key: self.layout.fence(),
            count_only: true,
            revision: proto::signed(revision),
            ..proto::RangeRequest::default()
        };
        match self.client.call::<_, proto::RangeResponse>(RANGE, request, Kind::Read).await {
            Ok(_) => Ok(true),
            Err(fault) if fault.is_compacted() => Ok(false),
            Err(fault) => Err(fault.into()),
        }
    }

    async fn read(&self, request: proto::RangeRequest) -> Result<proto::RangeResponse> {
        self.open()?;
        let at = proto::unsigned(request.revision);
        match self.client.call::<_, proto::RangeResponse>(RANGE, request, Kind::Read).await {
            Ok(answer) => {
                self.note(proto::revision(answer.header.as_ref()));
                Ok(answer)
            }
            Err(fault) if fault.is_compacted() => Err(self.compacted(at, at + 1)),
            Err(fault) if fault.is_future() => {
                Err(StoreError::FutureRevision { requested: at, current: self.now().await? })
            }
            Err(fault) => Err(fault.into()),
        }
    }

    /// Remembers that this revision exists.
    fn note(&self, revision: Revision) -> Revision {
        self.seen.fetch_max(revision, Ordering::Relaxed);
        revision
    }

    /// Has watches come as far as this.
    fn want(&self, revision: Revision) {
        self.wanted.send_if_modified(|wanted| {
            let newer = revision > *wanted;
            *wanted = revision.max(*wanted);
            newer
        });
    }

    fn note_compacted(&self, revision: Revision) {
        self.compacted.fetch_max(revision, Ordering::Relaxed);
    }

    /// The error for what is compacted at least up to `compacted`.
    fn compacted(&self, requested: Revision, compacted: Revision) -> StoreError {
        self.note_compacted(compacted);
        StoreError::Compacted {
            requested,
            compacted: self.compacted.load(Ordering::Relaxed),
            current: self.seen.load(Ordering::Relaxed),
        }
    }

    fn tells_progress(&self) -> bool {
        self.tells_progress.load(Ordering::Relaxed)
    }

    /// Finds out whether all members tell progress rightly. Whether they do if one cannot be asked is not known.
    async fn learn_versions(&self) {
        let ask = |place| {
            let status = proto::StatusRequest {};
            self.client.call_member::<_, proto::StatusResponse>(place, STATUS, status, Duration::from_secs(1))
        };
        let answers = futures::future::join_all((0..self.client.len()).map(ask)).await;
        let all = answers.iter().all(|answer| answer.as_ref().is_ok_and(|status| is_recent(&status.version)));
        self.tells_progress.store(all, Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl Store for Etcd {
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Read> {
        let request = proto::RangeRequest {
            key: self.shared.layout.key(key)?,
            revision: proto::signed(at.unwrap_or(0)),
            ..proto::RangeRequest::default()
        };
        let answer = self.shared.read(request).await?;
        let item = answer.kvs.first().map_or(Ok(None), |kv| self.shared.layout.read(kv))?;
        Ok(Read { item, revision: as_of(at, &answer) })
    }

    async fn range(&self, request: RangeRequest<'_>) -> Result<Range> {
        let mut attempt = 1;
        loop {
            match self.range_once(request).await {
                // Compaction overtook a read of the present.
                Err(StoreError::Compacted { .. })
                    if request.at.is_none_or(|at| at == 0) && attempt < RANGE_ATTEMPTS =>
                {
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        self.shared.open()?;
        batch.validate()?;
        within("batch (operations)", batch.ops.len(), MAX_TXN_OPS)?;
        if batch.ops.is_empty() {
            return Ok(Committed { results: Vec::new() });
        }
        let txn = txn::request(&self.shared.layout, &batch)?;
        let answer: proto::TxnResponse = self.shared.client.call(TXN, txn, Kind::Write).await?;
        self.shared.note(proto::revision(answer.header.as_ref()));
        txn::outcome(&self.shared.layout, &batch, answer)
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        self.shared.open()?;
        let now = self.shared.now().await?;
        let from = if from == 0 { now + 1 } else { from };
        let position = from - 1;
        if position == 0 || (position <= now && !self.shared.is_readable(position).await?) {
            return Err(self.shared.compacted(from, from));
        }
        let start = if from > now { from } else { position };
        let mut watch = EtcdWatch::new(Arc::clone(&self.shared), prefix, position, start);
        watch.opened().await;
        Ok(Watch::new(watch))
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.shared.open()?;
        match compaction::compact(&self.shared, revision).await {
            Err(fault) if fault.is_future() => {
                Err(StoreError::FutureRevision { requested: revision, current: self.shared.now().await? })
            }
            other => Ok(other?),
        }
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.shared.open()?;
        let now = self.shared.now().await?;
        self.shared.want(now);
        Ok(now)
    }

    async fn compacted_revision(&self) -> Result<Revision> {
        self.shared.open()?;
        // Everything below `first` is known to be gone.
        let mut first = self.shared.compacted.load(Ordering::Relaxed);
        if self.shared.is_readable(first).await? {
            return Ok(first);
        }
        let mut last = self.shared.now().await?;
        while first < last {
            let middle = first + (last - first) / 2;
            if self.shared.is_readable(middle).await? {
                last = middle;
            } else {
                first = middle + 1;
            }
        }
        self.shared.note_compacted(first);
        Ok(first)
    }

    async fn close(&self) -> Result<()> {
        if !self.tasks.shut_down(GRACE).await {
            tracing::warn!("background work of the store has not ended");
        }
        Ok(())
    }
}

impl Etcd {
    async fn range_once(&self, request: RangeRequest<'_>) -> Result<Range> {
        let layout = &self.shared.layout;
        let mut span = layout.span(request.prefix, request.start_after);
        let mut range =
            Range { items: Vec::new(), revision: request.at.unwrap_or(0), more: false, remaining: 0 };
        if span.is_empty() {
            // Nothing can be there, but whether the revision is readable must be known.
            span = Span { key: layout.fence(), range_end: layout.fence() };
        }
        let limit = if request.limit == 0 { usize::MAX } else { request.limit };
        loop {
            let wanted = PAGE.min(limit - range.items.len());
            let answer = self
                .shared
                .read(proto::RangeRequest {
                    key: span.key.clone(),
                    range_end: span.range_end.clone(),
                    limit: i64::try_from(wanted).unwrap_or(i64::MAX),
                    revision: proto::signed(range.revision),
                    count_only: false,
                })
                .await?;
            if range.revision == 0 {
                range.revision = as_of(request.at, &answer);
            }
            let items = answer.kvs.iter().filter_map(|kv| layout.read(kv).transpose());
            range.items.extend(items.collect::<Result<Vec<KeyValue>>>()?);
            range.more = answer.more;
            range.remaining = proto::unsigned(answer.count).saturating_sub(answer.kvs.len() as u64);
            let Some(last) = answer.kvs.last().filter(|_| answer.more && range.items.len() < limit) else {
                return Ok(range);
            };
            span.key = [&*last.key, b"\0"].concat().into();
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}

/// The revision that an answer is about.
fn as_of(at: Option<Revision>, answer: &proto::RangeResponse) -> Revision {
    at.filter(|at| *at > 0).unwrap_or_else(|| proto::revision(answer.header.as_ref()))
}

/// Whether progress on demand tells the truth in this version (upstream's `feature_support_checker.go`).
fn is_recent(version: &str) -> bool {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0u32));
    let mut next = || parts.next().unwrap_or(0);
    match (next(), next(), next()) {
        (3, 4, patch) => patch >= 31,
        (3, 5, patch) => patch >= 13,
        version => version >= (3, 6, 0),
    }
}

/// Looks after the members for as long as the store is open.
async fn probe(shared: Arc<Shared>, patience: Duration) {
    let mut count = 0u32;
    loop {
        tokio::time::sleep(PROBE_INTERVAL).await;
        count = count.wrapping_add(1);
        let found = match tokio::time::timeout(patience, shared.now()).await {
            Ok(Ok(revision)) => {
                if count.is_multiple_of(PROBES_PER_PROGRESS) {
                    shared.want(revision);
                    if !shared.tells_progress() {
                        shared.learn_versions().await;
                    }
                }
                Ok(())
            }
            Ok(Err(fault)) => Err(fault.to_string()),
            Err(_) => Err("context deadline exceeded".to_owned()),
        };
        let mut health = shared.health.lock();
        match (&*health, &found) {
            (Ok(()), Err(why)) => tracing::error!(servers = shared.client.names(), why, "etcd fails"),
            (Err(_), Ok(())) => tracing::info!("etcd works again"),
            _ => {}
        }
        *health = found;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_versions_that_tell_progress_rightly_are_asked_for_it() {
        for (version, want) in [
            ("3.4.23", false),
            ("3.4.31", true),
            ("3.5.0", false),
            ("3.5.13", true),
            ("3.6.0-rc.1", true),
            ("4.0.0", true),
            ("", false),
        ] {
            assert_eq!(super::is_recent(version), want, "{version}");
        }
    }
}
