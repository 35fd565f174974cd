//! The flags of the audit log; their names are upstream's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_apiserver::audit::{Batch, LogOptions, Options, Truncate, WebhookOptions};
use serde::{Deserialize, Serialize};

use crate::identify_flags::Span;

/// Days, files and MiB that the log has where nobody says otherwise: 300 MiB at most.
const OWN_AGE: i64 = 30;
const OWN_BACKUPS: i64 = 5;
const OWN_SIZE: i64 = 50;

/// One source of them; what it does not say comes from the next.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct AuditFlags {
    /// A Policy (audit.k8s.io/v1): what is audited [default: changes and reads by people and workloads, without bodies].
    #[arg(long, value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// Where audit events are logged; `-` is the standard output, nothing is nowhere [default: <data-dir>/audit/audit.log].
    #[arg(long, value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,
    /// Days after which old audit logs go; 0 for never [default: 366; 30 for the default path].
    #[arg(long, value_name = "DAYS")]
    pub audit_log_maxage: Option<i64>,
    /// Old audit logs that are kept; 0 for all [default: 100; 5 for the default path].
    #[arg(long, value_name = "FILES")]
    pub audit_log_maxbackup: Option<i64>,
    /// MiB of an audit log; 0 for any size [default: 100; 50 for the default path].
    #[arg(long, value_name = "MIB")]
    pub audit_log_maxsize: Option<i64>,
    /// Compress old audit logs [default: false; true for the default path].
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub audit_log_compress: Option<bool>,
    /// How the audit log looks: json or legacy [default: json].
    #[arg(long, value_name = "FORMAT")]
    pub audit_log_format: Option<String>,
    /// The version of its events [default: audit.k8s.io/v1].
    #[arg(long, value_name = "VERSION")]
    pub audit_log_version: Option<String>,
    /// When requests go on: batch, blocking, blocking-strict [default: blocking; batch for the default path].
    #[arg(long, value_name = "MODE")]
    pub audit_log_mode: Option<String>,
    /// Events that wait for the log in mode batch [default: 10000].
    #[arg(long, value_name = "EVENTS")]
    pub audit_log_batch_buffer_size: Option<i64>,
    /// Events of one batch [default: 1].
    #[arg(long, value_name = "EVENTS")]
    pub audit_log_batch_max_size: Option<i64>,
    /// How long a batch is waited for [default: 0s].
    #[arg(long, value_name = "DURATION")]
    pub audit_log_batch_max_wait: Option<Span>,
    /// Whether batches are throttled [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub audit_log_batch_throttle_enable: Option<bool>,
    /// Batches a second.
    #[arg(long, value_name = "NUMBER")]
    pub audit_log_batch_throttle_qps: Option<f64>,
    /// Batches at once.
    #[arg(long, value_name = "NUMBER")]
    pub audit_log_batch_throttle_burst: Option<i64>,
    /// Whether large events lose their objects [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub audit_log_truncate_enabled: Option<bool>,
    /// Bytes of a batch [default: 10485760].
    #[arg(long, value_name = "BYTES")]
    pub audit_log_truncate_max_batch_size: Option<i64>,
    /// Bytes of an event [default: 102400].
    #[arg(long, value_name = "BYTES")]
    pub audit_log_truncate_max_event_size: Option<i64>,
    /// A kubeconfig of a server that is told audit events.
    #[arg(long, value_name = "FILE")]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// The version of its events [default: audit.k8s.io/v1].
    #[arg(long, value_name = "VERSION")]
    pub audit_webhook_version: Option<String>,
    /// How long after a failure it is told again [default: 10s].
    #[arg(long, value_name = "DURATION")]
    pub audit_webhook_initial_backoff: Option<Span>,
    /// When requests go on: batch, blocking, blocking-strict [default: batch].
    #[arg(long, value_name = "MODE")]
    pub audit_webhook_mode: Option<String>,
    /// Events that wait for the webhook in mode batch [default: 10000].
    #[arg(long, value_name = "EVENTS")]
    pub audit_webhook_batch_buffer_size: Option<i64>,
    /// Events of one batch [default: 400].
    #[arg(long, value_name = "EVENTS")]
    pub audit_webhook_batch_max_size: Option<i64>,
    /// How long a batch is waited for [default: 30s].
    #[arg(long, value_name = "DURATION")]
    pub audit_webhook_batch_max_wait: Option<Span>,
    /// Whether batches are throttled [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub audit_webhook_batch_throttle_enable: Option<bool>,
    /// Batches a second [default: 10].
    #[arg(long, value_name = "NUMBER")]
    pub audit_webhook_batch_throttle_qps: Option<f64>,
    /// Batches at once [default: 15].
    #[arg(long, value_name = "NUMBER")]
    pub audit_webhook_batch_throttle_burst: Option<i64>,
    /// Whether large events lose their objects [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub audit_webhook_truncate_enabled: Option<bool>,
    /// Bytes of a batch [default: 10485760].
    #[arg(long, value_name = "BYTES")]
    pub audit_webhook_truncate_max_batch_size: Option<i64>,
    /// Bytes of an event [default: 102400].
    #[arg(long, value_name = "BYTES")]
    pub audit_webhook_truncate_max_event_size: Option<i64>,
}

fn set<T: Clone>(place: &mut T, flag: Option<&T>) {
    if let Some(value) = flag {
        place.clone_from(value);
    }
}

fn wait(place: &mut Duration, flag: Option<Span>) {
    *place = flag.map_or(*place, |span| span.0);
}

impl AuditFlags {
    /// Each flag from the first layer that says something.
    pub fn merged<'a>(layers: impl Iterator<Item = &'a Self>) -> Self {
        first_said!(
            layers,
            audit_policy_file,
            audit_log_path,
            audit_log_maxage,
            audit_log_maxbackup,
            audit_log_maxsize,
            audit_log_compress,
            audit_log_format,
            audit_log_version,
            audit_log_mode,
            audit_log_batch_buffer_size,
            audit_log_batch_max_size,
            audit_log_batch_max_wait,
            audit_log_batch_throttle_enable,
            audit_log_batch_throttle_qps,
            audit_log_batch_throttle_burst,
            audit_log_truncate_enabled,
            audit_log_truncate_max_batch_size,
            audit_log_truncate_max_event_size,
            audit_webhook_config_file,
            audit_webhook_version,
            audit_webhook_initial_backoff,
            audit_webhook_mode,
            audit_webhook_batch_buffer_size,
            audit_webhook_batch_max_size,
            audit_webhook_batch_max_wait,
            audit_webhook_batch_throttle_enable,
            audit_webhook_batch_throttle_qps,
            audit_webhook_batch_throttle_burst,
            audit_webhook_truncate_enabled,
            audit_webhook_truncate_max_batch_size,
            audit_webhook_truncate_max_event_size
        )
    }

    /// What the API server wants to know.
    pub fn options(&self, data_dir: &Path) -> Options {
        Options {
            policy_file: self.audit_policy_file.clone(),
            log: self.log(data_dir),
            webhook: self.audit_webhook_config_file.as_deref().map(|file| self.webhook(file)),
        }
    }

    fn log(&self, data_dir: &Path) -> Option<LogOptions> {
        let mut log = match &self.audit_log_path {
            Some(path) if path.as_os_str().is_empty() => return None,
            Some(path) => LogOptions::new(path),
            None => LogOptions {
                max_age: OWN_AGE,
                max_backups: OWN_BACKUPS,
                max_size: OWN_SIZE,
                compress: true,
                mode: "batch".to_owned(),
                ..LogOptions::new(data_dir.join("audit").join("audit.log"))
            },
        };
        set(&mut log.max_age, self.audit_log_maxage.as_ref());
        set(&mut log.max_backups, self.audit_log_maxbackup.as_ref());
        set(&mut log.max_size, self.audit_log_maxsize.as_ref());
        set(&mut log.compress, self.audit_log_compress.as_ref());
        set(&mut log.format, self.audit_log_format.as_ref());
        set(&mut log.version, self.audit_log_version.as_ref());
        set(&mut log.mode, self.audit_log_mode.as_ref());
        let Batch { buffer_size, max_size, max_wait, throttle, throttle_qps, throttle_burst } =
            &mut log.batch;
        set(buffer_size, self.audit_log_batch_buffer_size.as_ref());
        set(max_size, self.audit_log_batch_max_size.as_ref());
        wait(max_wait, self.audit_log_batch_max_wait);
        set(throttle, self.audit_log_batch_throttle_enable.as_ref());
        set(throttle_qps, self.audit_log_batch_throttle_qps.as_ref());
        set(throttle_burst, self.audit_log_batch_throttle_burst.as_ref());
        let Truncate { enabled, max_batch_size, max_event_size } = &mut log.truncate;
        set(enabled, self.audit_log_truncate_enabled.as_ref());
        set(max_batch_size, self.audit_log_truncate_max_batch_size.as_ref());
        set(max_event_size, self.audit_log_truncate_max_event_size.as_ref());
        Some(log)
    }

    fn webhook(&self, config_file: &Path) -> WebhookOptions {
        let mut hook = WebhookOptions::new(config_file);
        wait(&mut hook.initial_backoff, self.audit_webhook_initial_backoff);
        set(&mut hook.version, self.audit_webhook_version.as_ref());
        set(&mut hook.mode, self.audit_webhook_mode.as_ref());
        let Batch { buffer_size, max_size, max_wait, throttle, throttle_qps, throttle_burst } =
            &mut hook.batch;
        set(buffer_size, self.audit_webhook_batch_buffer_size.as_ref());
        set(max_size, self.audit_webhook_batch_max_size.as_ref());
        wait(max_wait, self.audit_webhook_batch_max_wait);
        set(throttle, self.audit_webhook_batch_throttle_enable.as_ref());
        set(throttle_qps, self.audit_webhook_batch_throttle_qps.as_ref());
        set(throttle_burst, self.audit_webhook_batch_throttle_burst.as_ref());
        let Truncate { enabled, max_batch_size, max_event_size } = &mut hook.truncate;
        set(enabled, self.audit_webhook_truncate_enabled.as_ref());
        set(max_batch_size, self.audit_webhook_truncate_max_batch_size.as_ref());
        set(max_event_size, self.audit_webhook_truncate_max_event_size.as_ref());
        hook
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_log_is_bounded_and_a_path_of_ones_own_has_upstreams_defaults() {
        let log = |flags: AuditFlags| flags.options(Path::new("/data")).log;
        let own = log(AuditFlags::default()).expect("a log");
        assert_eq!(own.path, Path::new("/data/audit/audit.log"));
        assert_eq!((own.max_size, own.max_backups, own.compress, own.mode.as_str()), (50, 5, true, "batch"));
        let flags = AuditFlags { audit_log_maxsize: Some(7), ..AuditFlags::default() };
        assert_eq!(log(flags).expect("a log").max_size, 7);
        let path = |path: &str| AuditFlags { audit_log_path: Some(path.into()), ..AuditFlags::default() };
        let theirs = log(path("/var/log/audit")).expect("a log");
        assert_eq!((theirs.max_size, theirs.max_backups, theirs.max_age), (100, 100, 366));
        assert_eq!((theirs.compress, theirs.mode.as_str()), (false, "blocking"));
        assert!(log(path("")).is_none());
    }
}
