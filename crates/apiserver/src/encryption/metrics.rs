//! What is counted of encryption at rest, as `apiserver/pkg/storage/value` and `encryptionconfig` count it.

use std::time::Duration;

use gantry_base::metrics::{CounterVec, Family, GaugeVec, HistogramVec, Stability};

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

pub(crate) static FAMILIES: &[&dyn Family] = &[&OPERATIONS, &SECONDS, &RELOADS, &RELOADED];

/// A value was sealed (`to_storage`) or opened (`from_storage`) under this key of the store.
pub(super) fn transformed(kind: &'static str, key: &str, fine: bool, took: Duration) {
    const PREFIX: &str = "k8s:enc:aesgcm:v1:";
    let (group, resource) = crate::metrics::place(key);
    let name = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let status = if fine { "OK" } else { "Internal" };
    OPERATIONS.with(&[&name, kind, PREFIX, status], |n| n.inc());
    SECONDS.observe(&[kind, PREFIX], took.as_secs_f64());
}

/// The configuration was read again, `at` seconds since the epoch.
pub fn reloaded(fine: bool, at: f64) {
    let status = if fine { "success" } else { "failure" };
    RELOADS.with(&[status, ""], |n| n.inc());
    RELOADED.with(&[status, ""], |time| time.set(at));
}
