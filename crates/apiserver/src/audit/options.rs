//! What flags say of the audit log; names, defaults and complaints are upstream's.

use std::path::PathBuf;
use std::time::Duration;

use gantry_base::{Error, Result};

use super::policy::Policy;

/// Events that wait in a buffer.
const BUFFER: i64 = 10_000;

/// What is audited, and who is told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--audit-policy-file`; none: what `docs/adr/0010` says.
    pub policy_file: Option<PathBuf>,
    /// The log, if there is to be one.
    pub log: Option<LogOptions>,
    /// The webhook, if there is one.
    pub webhook: Option<WebhookOptions>,
}

/// The log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// `--audit-log-path`; `-` is the standard output.
    pub path: PathBuf,
    /// `--audit-log-maxage`, in days; 0: whatever their age.
    pub max_age: i64,
    /// `--audit-log-maxbackup`: files besides the one that is written; 0: any number.
    pub max_backups: i64,
    /// `--audit-log-maxsize`, in MiB; 0: one file that grows.
    pub max_size: i64,
    /// `--audit-log-compress`
    pub compress: bool,
    /// `--audit-log-format`
    pub format: String,
    /// `--audit-log-version`
    pub version: String,
    /// `--audit-log-mode`
    pub mode: String,
    /// `--audit-log-batch-*`
    pub batch: Batch,
    /// `--audit-log-truncate-*`
    pub truncate: Truncate,
}

/// The webhook.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// `--audit-webhook-config-file`: a kubeconfig.
    pub config_file: PathBuf,
    /// `--audit-webhook-initial-backoff`
    pub initial_backoff: Duration,
    /// `--audit-webhook-version`
    pub version: String,
    /// `--audit-webhook-mode`
    pub mode: String,
    /// `--audit-webhook-batch-*`
    pub batch: Batch,
    /// `--audit-webhook-truncate-*`
    pub truncate: Truncate,
}

/// How events are buffered.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Events that wait.
    pub buffer_size: i64,
    /// Events that are told at once.
    pub max_size: i64,
    /// How long a batch is waited for; zero: not at all.
    pub max_wait: Duration,
    /// Whether batches come no faster than the following say.
    pub throttle: bool,
    /// Batches a second.
    pub throttle_qps: f64,
    /// Batches at once after a while without any.
    pub throttle_burst: i64,
}

/// What becomes of large events.
#[derive(Clone, Debug)]
pub struct Truncate {
    /// Whether anything does.
    pub enabled: bool,
    /// Bytes of the events that are told at once.
    pub max_batch_size: i64,
    /// Bytes of one event.
    pub max_event_size: i64,
}

/// When a request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// At once.
    Batch,
    /// When the event is told.
    Blocking,
    /// Likewise; and if it cannot be told that the request arrived, not at all.
    BlockingStrict,
}

/// How a log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// One line of text.
    Legacy,
}

impl LogOptions {
    /// Upstream's defaults.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_age: 366,
            max_backups: 100,
            max_size: 100,
            compress: false,
            format: "json".to_owned(),
            version: VERSION.to_owned(),
            mode: "blocking".to_owned(),
            batch: Batch::of_log(),
            truncate: Truncate::default(),
        }
    }

    pub(super) fn format(&self) -> Format {
        if self.format == "legacy" { Format::Legacy } else { Format::Json }
    }
}

impl WebhookOptions {
    /// Upstream's defaults.
    pub fn new(config_file: impl Into<PathBuf>) -> Self {
        Self {
            config_file: config_file.into(),
            initial_backoff: Duration::from_secs(10),
            version: VERSION.to_owned(),
            mode: "batch".to_owned(),
            batch: Batch::of_webhook(),
            truncate: Truncate::default(),
        }
    }
}

impl Batch {
    /// Upstream's defaults for the log.
    pub fn of_log() -> Self {
        Self {
            buffer_size: BUFFER,
            max_size: 1,
            max_wait: Duration::ZERO,
            throttle: false,
            throttle_qps: 0.0,
            throttle_burst: 0,
        }
    }

    /// Upstream's defaults for the webhook.
    pub fn of_webhook() -> Self {
        Self {
            buffer_size: BUFFER,
            max_size: 400,
            max_wait: Duration::from_secs(30),
            throttle: true,
            throttle_qps: 10.0,
            throttle_burst: 15,
        }
    }

    fn validate(&self, plugin: &str) -> Result<()> {
        let positive = |what: &str, value: i64| match value {
            1.. => Ok(()),
            _ => Err(Error::invalid(format!(
                "invalid audit batch {plugin} {what} {value}, must be a positive number"
            ))),
        };
        positive("buffer size", self.buffer_size)?;
        positive("max batch size", self.max_size)?;
        if !self.throttle {
            return Ok(());
        }
        if self.throttle_qps.is_nan() || self.throttle_qps <= 0.0 {
            let qps = self.throttle_qps;
            return Err(Error::invalid(format!(
                "invalid audit batch {plugin} throttle QPS {qps}, must be a positive number"
            )));
        }
        positive("throttle burst", self.throttle_burst)
    }
}

impl Default for Truncate {
    fn default() -> Self {
        Self { enabled: false, max_batch_size: 10 << 20, max_event_size: 100 << 10 }
    }
}

impl Truncate {
    fn validate(&self, plugin: &str) -> Result<()> {
        let (batch, event) = (self.max_batch_size, self.max_event_size);
        if event <= 0 {
            return Err(Error::invalid(format!(
                "invalid audit truncate {plugin} max event size {event}, must be a positive number"
            )));
        }
        if batch < event {
            return Err(Error::invalid(format!(
                "invalid audit truncate {plugin} max batch size {batch}, must be greater than max event size ({event})"
            )));
        }
        Ok(())
    }
}

const VERSION: &str = "audit.k8s.io/v1";

impl Mode {
    pub(super) fn read(plugin: &str, name: &str) -> Result<Self> {
        match name {
            "batch" => Ok(Self::Batch),
            "blocking" => Ok(Self::Blocking),
            "blocking-strict" => Ok(Self::BlockingStrict),
            _ => Err(Error::invalid(format!(
                "invalid audit {plugin} mode {name}, allowed modes are \"batch,blocking,blocking-strict\""
            ))),
        }
    }
}

fn check_common(plugin: &str, mode: &str, batch: &Batch, truncate: &Truncate, version: &str) -> Result<()> {
    if Mode::read(plugin, mode)? == Mode::Batch {
        batch.validate(plugin)?;
    }
    truncate.validate(plugin)?;
    if version != VERSION {
        return Err(Error::invalid(format!("invalid group version, allowed versions are [\"{VERSION}\"]")));
    }
    Ok(())
}

impl Options {
    /// Whether all of it makes sense, the policy too.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<()> {
        self.validate()?;
        self.policy_file.as_deref().map_or(Ok(()), |path| Policy::from_file(path).map(drop))
    }

    /// Whether the values make sense.
    ///
    /// # Errors
    /// What does not, in upstream's words.
    pub fn validate(&self) -> Result<()> {
        if let Some(log) = &self.log {
            check_common("log", &log.mode, &log.batch, &log.truncate, &log.version)?;
            if !["json", "legacy"].contains(&log.format.as_str()) {
                return Err(Error::invalid(format!(
                    "invalid audit log format {}, allowed formats are \"legacy,json\"",
                    log.format
                )));
            }
            for (flag, value) in
                [("maxage", log.max_age), ("maxbackup", log.max_backups), ("maxsize", log.max_size)]
            {
                if value < 0 {
                    return Err(Error::invalid(format!(
                        "--audit-log-{flag} {value} can't be a negative number"
                    )));
                }
            }
        }
        if let Some(hook) = &self.webhook {
            check_common("webhook", &hook.mode, &hook.batch, &hook.truncate, &hook.version)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_upstreams() {
        let fault = |change: fn(&mut LogOptions)| {
            let mut log = LogOptions::new("/a");
            change(&mut log);
            let options = Options { log: Some(log), ..Options::default() };
            options.validate().expect_err("it makes no sense").to_string()
        };
        for (found, text) in [
            (
                fault(|l| l.mode = "lazy".into()),
                "invalid audit log mode lazy, allowed modes are \"batch,blocking,blocking-strict\"",
            ),
            (
                fault(|l| (l.mode, l.batch.buffer_size) = ("batch".into(), 0)),
                "invalid audit batch log buffer size 0, must be a positive number",
            ),
            (
                fault(|l| l.truncate.max_batch_size = 5),
                "invalid audit truncate log max batch size 5, must be greater than max event size (102400)",
            ),
            (
                fault(|l| l.format = "xml".into()),
                "invalid audit log format xml, allowed formats are \"legacy,json\"",
            ),
            (fault(|l| l.max_size = -1), "--audit-log-maxsize -1 can't be a negative number"),
        ] {
            assert_eq!(found, text);
        }
        let whole = Options { log: Some(LogOptions::new("-")), webhook: None, policy_file: None };
        assert!(whole.validate().is_ok());
    }
}
