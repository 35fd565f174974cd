//! KMS v2 (KEP-3299): values are sealed with keys that a plugin beside the server knows.
//!
//! The server makes a random seed, has the plugin encrypt it once, and derives a key for each value from it
//! ([`seed`]). With the value stands what the plugin made of the seed ([`envelope`]), so that any server with that
//! plugin opens it. [`Provider`] keeps the seed that writes, renews it when the plugin names another key, and
//! remembers the seeds that it had decrypted for reading.

mod cache;
mod client;
mod envelope;
mod provider;
mod seed;

pub(super) use envelope::Envelope;
pub(super) use provider::Provider;

use gantry_api::field::quote;
use gantry_base::{Error, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Each call to the plugin, unless the configuration says otherwise (upstream's `defaultTimeout`).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// `kms` of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Kms {
    /// `v2`; without it, it is `v1`, which is off (as upstream's feature gate `KMSv1`).
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    /// Stands in front of each value that it sealed.
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cachesize: Option<i32>,
    /// `unix:///path`
    endpoint: String,
    /// Of each call: `3s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
}

impl Kms {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> &str {
        if self.api_version.is_empty() { "v1" } else { &self.api_version }
    }

    fn patience(&self) -> Option<Duration> {
        match self.timeout.as_deref() {
            None => Some(DEFAULT_TIMEOUT),
            Some(text) => crate::authorize::parse_duration(text).filter(|timeout| !timeout.is_zero()),
        }
    }

    /// The socket's path; `@name` for one without a file.
    fn socket(&self) -> std::result::Result<String, String> {
        if self.endpoint.is_empty() {
            return Err("Invalid value: \"\": endpoint is a mandatory field for a kms".to_owned());
        }
        let (scheme, rest) = self.endpoint.split_once(':').unwrap_or(("", &self.endpoint));
        if scheme != "unix" {
            let why =
                format!("unsupported scheme {} for KMS provider, only unix is supported", quote(scheme));
            return Err(format!("Invalid value: {}: {why}", quote(&self.endpoint)));
        }
        // What stands between `//` and the path is a host, and means nothing.
        let path = rest.strip_prefix("//").map_or(rest, |rest| rest.find('/').map_or("", |at| &rest[at..]));
        Ok(path.strip_prefix('/').filter(|name| name.starts_with('@')).unwrap_or(path).to_owned())
    }

    /// What is wrong with it, with upstream's texts; `path` is where it stands, `names` the providers before it.
    ///
    /// # Errors
    /// The first fault.
    pub(super) fn check(&self, path: &str, names: &[&str]) -> Result<()> {
        let fault = |text: String| Err(Error::invalid(format!("{path}{text}")));
        let name = quote(&self.name);
        if self.name.is_empty() {
            return fault(".name: Required value: name is a mandatory field for a provider".to_owned());
        }
        if self.version() != "v1" && self.name.contains(':') {
            let why = format!("invalid KMS provider name {}, must not contain ':'", self.name);
            return fault(format!(".name: Invalid value: {name}: {why}"));
        }
        if names.contains(&self.name.as_str()) {
            let why = format!("duplicate KMS provider name {}, names must be unique", self.name);
            return fault(format!(".name: Invalid value: {name}: {why}"));
        }
        if self.patience().is_none() {
            let shown = quote(self.timeout.as_deref().unwrap_or_default());
            return fault(format!(".timeout: Invalid value: {shown}: timeout should be a positive value"));
        }
        if let Err(why) = self.socket() {
            return fault(format!(".endpoint: {why}"));
        }
        if let Some(size) = self.cachesize.filter(|_| self.version() != "v1") {
            return fault(format!(".cachesize: Invalid value: {size}: cachesize is not supported in v2"));
        }
        match self.version() {
            "v2" => Ok(()),
            "v1" => Err(Error::invalid(
                "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.  Set --feature-gates=KMSv1=true to use the deprecated KMSv1 feature.",
            )),
            // (The field's name instead of its value is upstream's.)
            other => fault(format!(
                ".apiVersion: Invalid value: {}: unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported",
                quote(other)
            )),
        }
    }
}
