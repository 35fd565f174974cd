//! Every limit of the server, by name.

use std::time::Duration;

/// Largest request body (upstream's `MaxRequestBodyBytes`).
pub const MAX_BODY_BYTES: usize = 3 << 20;
/// Deepest nesting of JSON that is read; serde_json refuses at 128 by itself.
pub const MAX_JSON_DEPTH: usize = 128;
/// Requests that read at one time, watches and other long-running ones not counted. Together with
/// [`MAX_WRITES_IN_FLIGHT`] it is what priority levels share (upstream's `ServerCL`).
pub const MAX_READS_IN_FLIGHT: usize = 400;
/// Requests that write at one time.
pub const MAX_WRITES_IN_FLIGHT: usize = 200;
/// A request that does not run long is broken off after this.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A request waits no longer for its turn (upstream: a quarter of the request's timeout).
pub const MAX_QUEUE_WAIT: Duration = Duration::from_secs(15);
/// A connection that has not sent a request's headers after this is closed.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(32);
/// A TLS handshake takes no longer.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Open connections of one listener.
pub const MAX_CONNECTIONS: usize = 20_000;
/// Streams (requests, watches) of one HTTP/2 connection.
pub const MAX_STREAMS: u32 = 1_000;
/// How long connections may go on if the tasks were told to end and the server was not.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the store may take to show that it is there.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Events that one resource's ring keeps.
pub const RING_EVENTS: usize = 65_536;
/// Superseded bytes that one resource's ring keeps alive.
pub const RING_BYTES: usize = 16 << 20;
/// Events that a watcher takes from the ring at once.
pub const WATCH_BATCH: usize = 512;
/// Frames of a resource's newest events that watchers share, and the largest frame that is shared.
pub const RECENT_FRAMES: usize = 64;
/// See [`RECENT_FRAMES`].
pub const RECENT_FRAME_BYTES: usize = 16 << 10;
/// Bytes of one write of a watch or list.
pub const CHUNK_BYTES: usize = 64 << 10;
/// How often a watch that wants bookmarks gets one.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// The last bookmark comes this long before a watch ends.
pub const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// A watch without `timeoutSeconds` ends after this much, or up to twice as much.
pub const MIN_WATCH_TIMEOUT: Duration = Duration::from_secs(1800);
/// How long a read waits until the watch cache has reached a revision.
pub const FRESHNESS_TIMEOUT: Duration = Duration::from_secs(3);
/// Keys read from the store at once while a page is filled.
pub const RANGE_CHUNK: usize = 500;

/// Tries to find a free generated name (upstream's `maxNameGenerationCreateAttempts`).
pub const NAME_ATTEMPTS: usize = 8;
/// Tries to patch an object that others write as well; upstream has no bound.
pub const PATCH_ATTEMPTS: usize = 1_000;
/// Tries to update without a `resourceVersion`; upstream has no bound.
pub const UPDATE_ATTEMPTS: usize = 1_000;

/// Whoever is called from here (webhooks and the like) answers with no more bytes.
pub const MAX_CALL_ANSWER_BYTES: usize = 64 << 20;
/// Places of which connections are kept (upstream's `defaultCacheSize`).
pub const MAX_CALLERS: usize = 200;
/// A connection to whomever, tunnel and TLS included, takes no longer.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How much is read of a kubelet's reason not to tunnel.
pub(crate) const MAX_TUNNEL_REFUSAL_BYTES: usize = 2048;

/// Bytes of audit events, roughly, that wait for one backend.
pub const AUDIT_BUFFER_BYTES: usize = 64 << 20;
/// Calls of the audit webhook at one time.
pub const AUDIT_CALLS: u32 = 16;

/// How often files that may change are looked at: authorities, certificates, configurations.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(60);

/// Tries of an eviction against a disruption budget that others change as well (upstream's `EvictionsRetry`).
pub const EVICTION_ATTEMPTS: usize = 20;
/// Largest page whose links are rewritten on its way through `proxy`.
pub const MAX_PAGE_BYTES: usize = 16 << 20;
/// Objects that a conversion webhook is given at once.
pub const CONVERSION_BATCH: usize = 500;
/// Decrypted seeds that are kept of a KMS plugin: each key of the plugin and each start of a server has made one.
pub(crate) const MAX_KMS_SOURCES: usize = 1_000;
/// Keys of KMS plugins of which metrics tell, each for sealing and for opening (upstream's `cacheSize`).
pub(crate) const MAX_KMS_KEY_IDS: usize = 100;
/// The events of all resources wait for a KMS plugin that has not answered only this often.
pub(crate) const KMS_ASK_AGAIN: Duration = Duration::from_secs(30);
/// Issuers whose tokens the endpoints of one issuer's distributed claims may answer with; upstream has no bound.
pub(crate) const MAX_CLAIM_ISSUERS: usize = 16;
/// An endpoint of distributed claims answers in this time (upstream's client: 30 s).
pub(crate) const CLAIM_TIMEOUT: Duration = Duration::from_secs(30);
/// Applies that are remembered to change nothing.
pub(crate) const MAX_REPEATED_APPLIES: usize = 8 << 10;

/// How often what a write does to the managers of fields may ask a conversion webhook: each time for what became known to
/// be needed by the time before.
pub const MANAGER_CONVERSIONS: usize = 16;
