//! The flags that say how long things may take, how the server ends and who is told of its traces; their names are
//! upstream's.

use std::path::PathBuf;

use gantry_apiserver::lifecycle::Timing;
use gantry_base::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::identify_flags::Span;

/// The largest chance of a GOAWAY (upstream's bound).
const MAX_GOAWAY_CHANCE: f64 = 0.02;

/// One source of them; what it does not say comes from the next.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ServeFlags {
    /// How long a request may take that does not run long [default: 1m].
    #[arg(long, value_name = "DURATION")]
    pub request_timeout: Option<Span>,
    /// In seconds: a watch ends after this much, or up to twice as much, if its client sets no time [default: 1800].
    #[arg(long, value_name = "SECONDS")]
    pub min_request_timeout: Option<u64>,
    /// How long the server goes on serving, not ready, after it was told to end [default: 0s].
    #[arg(long, value_name = "DURATION")]
    pub shutdown_delay_duration: Option<Span>,
    /// Over how long watches end when the server does [default: 0s].
    #[arg(long, value_name = "DURATION")]
    pub shutdown_watch_termination_grace_period: Option<Span>,
    /// Tell new requests to come back later while old ones end [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub shutdown_send_retry_after: Option<bool>,
    /// The chance, up to 0.02, that a request makes its HTTP/2 client connect anew, perhaps to another server [default: 0].
    #[arg(long, value_name = "CHANCE")]
    pub goaway_chance: Option<f64>,
    /// A TracingConfiguration (apiserver.config.k8s.io/v1): where traces go, and how many.
    #[arg(long, value_name = "FILE")]
    pub tracing_config_file: Option<PathBuf>,
}

impl ServeFlags {
    /// Each flag from the first layer that says something.
    pub fn merged<'a>(layers: impl Iterator<Item = &'a Self>) -> Self {
        first_said!(
            layers,
            request_timeout,
            min_request_timeout,
            shutdown_delay_duration,
            shutdown_watch_termination_grace_period,
            shutdown_send_retry_after,
            goaway_chance,
            tracing_config_file
        )
    }

    /// The same, if it makes sense.
    ///
    /// # Errors
    /// Names the flag that does not.
    pub fn checked(self) -> Result<Self> {
        let chance = self.goaway_chance.unwrap_or(0.0);
        if !(0.0..=MAX_GOAWAY_CHANCE).contains(&chance) {
            return Err(Error::invalid(format!(
                "--goaway-chance {chance}: it is between 0 and {MAX_GOAWAY_CHANCE}"
            )));
        }
        if self.request_timeout.as_ref().is_some_and(|span| span.0.is_zero()) {
            return Err(Error::invalid("--request-timeout 0s: requests need some time"));
        }
        Ok(self)
    }

    /// How long things may take.
    pub fn timing(&self) -> Timing {
        let usual = Timing::default();
        let span = |span: &Option<Span>| span.as_ref().map(|s| s.0);
        Timing {
            request_timeout: span(&self.request_timeout).unwrap_or(usual.request_timeout),
            min_request_timeout: self
                .min_request_timeout
                .map_or(usual.min_request_timeout, std::time::Duration::from_secs),
            shutdown_delay: span(&self.shutdown_delay_duration).unwrap_or(usual.shutdown_delay),
            watch_grace: span(&self.shutdown_watch_termination_grace_period).unwrap_or(usual.watch_grace),
            send_retry_after: self.shutdown_send_retry_after.unwrap_or(usual.send_retry_after),
            goaway_chance: self.goaway_chance.unwrap_or(usual.goaway_chance),
        }
    }
}
