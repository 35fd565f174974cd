//! What is counted of encryption at rest, as `apiserver/pkg/storage/value` and `encryptionconfig` count it.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use gantry_base::metrics::{Counter, CounterVec, Family, GaugeVec, HistogramVec, Stability};
use gantry_base::{Clock, SystemClock};
use parking_lot::Mutex;

use crate::limits::MAX_KMS_KEY_IDS;

static OPERATIONS: CounterVec = CounterVec::new(
    "apiserver_storage_transformation_operations_total",
    "Total number of transformations. Successful transformation will have a status 'OK' and a varied status string when the transformation fails. The status, resource, and transformation_type fields can be used for alerting purposes. For example, you can monitor for encryption/decryption failures using the transformation_type (e.g., from_storage for decryption and to_storage for encryption). Additionally, these fields can be used to ensure that the correct transformers are applied to each resource.",
    Stability::Alpha,
    &["resource", "transformation_type", "transformer_prefix", "status"],
);
static SECONDS: HistogramVec = HistogramVec::new(
    "apiserver_storage_transformation_duration_seconds",
    "Latencies in seconds of value transformation operations.",
    Stability::Alpha,
    &["transformation_type", "transformer_prefix"],
    &[
        5e-6, 1e-5, 2e-5, 4e-5, 8e-5, 0.00016, 0.00032, 0.00064, 0.00128, 0.00256, 0.00512, 0.01024, 0.02048,
        0.04096, 0.08192, 0.16384, 0.32768, 0.65536, 1.31072, 2.62144, 5.24288, 10.48576, 20.97152, 41.94304,
        83.88608,
    ],
);
static RELOADS: CounterVec = CounterVec::new(
    "apiserver_encryption_config_controller_automatic_reloads_total",
    "Total number of reload successes and failures of encryption configuration split by apiserver identity.",
    Stability::Alpha,
    &["status", "apiserver_id_hash"],
);
static RELOADED: GaugeVec = GaugeVec::new(
    "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds",
    "Timestamp of the last successful or failed automatic reload of encryption configuration split by apiserver identity.",
    Stability::Alpha,
    &["status", "apiserver_id_hash"],
);

static KMS_SECONDS: HistogramVec = HistogramVec::new(
    "apiserver_envelope_encryption_kms_operations_latency_seconds",
    "KMS operation duration with gRPC error code status total.",
    Stability::Alpha,
    &["provider_name", "method_name", "grpc_status_code"],
    &[
        0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048,
        0.4096, 0.8192, 1.6384, 3.2768, 6.5536, 13.1072, 26.2144, 52.4288,
    ],
);
static KEY_IDS: CounterVec = CounterVec::new(
    "apiserver_envelope_encryption_key_id_hash_total",
    "Number of times a keyID is used split by transformation type, provider, and apiserver identity.",
    Stability::Alpha,
    &["transformation_type", "provider_name", "key_id_hash", "apiserver_id_hash"],
);
static KEY_ID_USED: GaugeVec = GaugeVec::new(
    "apiserver_envelope_encryption_key_id_hash_last_timestamp_seconds",
    "The last time in seconds when a keyID was used.",
    Stability::Alpha,
    &["transformation_type", "provider_name", "key_id_hash", "apiserver_id_hash"],
);
static KEY_ID_NAMED: GaugeVec = GaugeVec::new(
    "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds",
    "The last time in seconds when a keyID was returned by the Status RPC call.",
    Stability::Alpha,
    &["provider_name", "key_id_hash", "apiserver_id_hash"],
);
static INVALID_KEY_IDS: CounterVec = CounterVec::new(
    "apiserver_envelope_encryption_invalid_key_id_from_status_total",
    "Number of times an invalid keyID is returned by the Status RPC call split by error.",
    Stability::Alpha,
    &["provider_name", "error"],
);
static SOURCES: GaugeVec = GaugeVec::new(
    "apiserver_envelope_encryption_dek_source_cache_size",
    "Number of records in data encryption key (DEK) source cache. On a restart, this value is an approximation of the number of decrypt RPC calls the server will make to the KMS plugin.",
    Stability::Alpha,
    &["provider_name"],
);
static MISSES: Counter = Counter::new(
    "apiserver_storage_envelope_transformation_cache_misses_total",
    "Total number of cache misses while accessing key decryption key(KEK).",
    Stability::Alpha,
);

pub(crate) static FAMILIES: &[&dyn Family] = &[
    &OPERATIONS,
    &SECONDS,
    &RELOADS,
    &RELOADED,
    &KMS_SECONDS,
    &KEY_IDS,
    &KEY_ID_USED,
    &KEY_ID_NAMED,
    &INVALID_KEY_IDS,
    &SOURCES,
    &MISSES,
];

/// Times what is done to values.
static CLOCK: LazyLock<SystemClock> = LazyLock::new(SystemClock::default);

/// What a future gives, and how long it took.
pub(super) async fn timed<F: Future>(work: F) -> (F::Output, Duration) {
    let since = CLOCK.monotonic();
    let output = work.await;
    (output, CLOCK.monotonic().saturating_sub(since))
}

/// The same of what waits for nobody.
pub(super) fn timed_now<R>(work: impl FnOnce() -> R) -> (R, Duration) {
    let since = CLOCK.monotonic();
    let output = work();
    (output, CLOCK.monotonic().saturating_sub(since))
}

/// A value was sealed (`to_storage`) or opened (`from_storage`) by the provider with this prefix, under this key of the
/// store.
pub(super) fn transformed(kind: &'static str, prefix: &str, key: &str, fine: bool, took: Duration) {
    let (group, resource) = crate::metrics::place(key);
    let name = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let status = if fine { "OK" } else { "unknown-non-grpc" };
    OPERATIONS.with(&[&name, kind, prefix, status], |n| n.inc());
    if fine {
        SECONDS.observe(&[kind, prefix], took.as_secs_f64());
    }
}

/// A plugin was called.
pub(super) fn kms_called(provider: &str, method: &str, code: &str, took: Duration) {
    KMS_SECONDS.observe(&[provider, method, code], took.as_secs_f64());
}

/// A plugin was asked for a seed.
pub(super) fn kms_missed() {
    MISSES.inc();
}

/// So many seeds are known.
pub(super) fn kms_sources(provider: &str, known: usize) {
    SOURCES.with(&[provider], |size| size.set(count(known)));
}

/// A plugin's key stands with a value that was sealed or opened.
pub(super) fn kms_key_used(kind: &'static str, provider: &str, key: &str, at: SystemTime) {
    static LATEST: Latest = Latest::new();
    let labels = [kind, provider, key, ""];
    let mut latest = LATEST.0.lock();
    Latest::note(&mut latest, &labels, |gone| {
        KEY_IDS.forget_where(|labels| gone == labels);
        KEY_ID_USED.forget_where(|labels| gone == labels);
    });
    KEY_IDS.with(&labels, |n| n.inc());
    KEY_ID_USED.with(&labels, |last| last.set(seconds(at)));
}

/// A plugin has named the key that it encrypts with.
pub(super) fn kms_key_named(provider: &str, key: &str, at: SystemTime) {
    static LATEST: Latest = Latest::new();
    let labels = [provider, key, ""];
    let mut latest = LATEST.0.lock();
    Latest::note(&mut latest, &labels, |gone| KEY_ID_NAMED.forget_where(|labels| gone == labels));
    KEY_ID_NAMED.with(&labels, |last| last.set(seconds(at)));
}

/// The keys that were met last: plugins go on to others for ever, and the series of those that nobody meets any more are
/// forgotten, as upstream forgets them.
struct Latest(Mutex<VecDeque<Box<[Box<str>]>>>);

impl Latest {
    const fn new() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }

    /// Puts these labels in front; `forget` gets those that have no place any more.
    fn note(latest: &mut VecDeque<Box<[Box<str>]>>, labels: &[&str], forget: impl FnOnce(&[&str])) {
        let is_it = |known: &[Box<str>]| known.iter().map(|label| &**label).eq(labels.iter().copied());
        let known = match latest.iter().position(|known| is_it(known)) {
            Some(0) => return,
            Some(at) => latest.remove(at),
            None => None,
        };
        let known = known.unwrap_or_else(|| labels.iter().map(|label| Box::from(*label)).collect());
        latest.push_front(known);
        if latest.len() > MAX_KMS_KEY_IDS
            && let Some(gone) = latest.pop_back()
        {
            forget(&gone.iter().map(|label| &**label).collect::<Vec<_>>());
        }
    }
}

/// A plugin has named a key by no name.
pub(super) fn kms_invalid_key_id(provider: &str, code: &str) {
    INVALID_KEY_IDS.with(&[provider, code], |n| n.inc());
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn count(n: usize) -> f64 {
    n as f64
}

/// The configuration was read again, `at` seconds since the epoch.
pub fn reloaded(fine: bool, at: f64) {
    let status = if fine { "success" } else { "failure" };
    RELOADS.with(&[status, ""], |n| n.inc());
    RELOADED.with(&[status, ""], |time| time.set(at));
}
