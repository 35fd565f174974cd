//! The webhook: somebody else is told, by EventLists.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_base::{Result, Tasks};
use gantry_client::Transport;

use super::event::Event;
use super::options::WebhookOptions;
use super::sink::Backend;
use crate::callout::{Caller, Callout, Config};
use crate::reach::Reach;

/// How long one call may take (upstream's `defaultRequestTimeout`).
const TIMEOUT: Duration = Duration::from_secs(30);
/// Tries, and how the time between them grows (upstream's `DefaultRetryBackoffWithInitialDelay`).
const ATTEMPTS: u32 = 5;
const FACTOR: f64 = 1.5;
const JITTER: f64 = 0.2;

const HEAD: &[u8] = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;

/// Whoever is told.
pub(super) struct Webhook {
    caller: Caller,
    initial_backoff: Duration,
    /// Keeps the connections: they outlive the server's other tasks, so that the last events can be told.
    _connections: Tasks,
}

impl Webhook {
    /// The one of the kubeconfig.
    ///
    /// # Errors
    /// It cannot be read or used.
    pub(super) fn new(options: &WebhookOptions, transport: Arc<dyn Transport>) -> Result<Self> {
        let doing = "initializing audit webhook";
        let connections = Tasks::new();
        let config = Config::from_kubeconfig(&options.config_file).map_err(|e| e.while_doing(doing))?;
        let caller = Callout::new(Reach::direct(transport), connections.clone()).caller(&config);
        Ok(Self {
            caller: caller.map_err(|e| e.while_doing(doing))?,
            initial_backoff: options.initial_backoff,
            _connections: connections,
        })
    }
}

#[async_trait]
impl Backend for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    async fn tell(&self, events: &[Arc<Event>]) -> std::result::Result<(), (usize, String)> {
        let body = list(events);
        let mut wait = self.initial_backoff;
        for _ in 1..ATTEMPTS {
            let Err(error) = self.caller.post_json(body.clone(), TIMEOUT).await else { return Ok(()) };
            tracing::debug!(%error, "the audit webhook is called again");
            tokio::time::sleep(wait.mul_f64(1.0 + rand::random_range(0.0..JITTER))).await;
            wait = wait.mul_f64(FACTOR);
        }
        let last = self.caller.post_json(body, TIMEOUT).await;
        last.map(drop).map_err(|error| (events.len(), error.to_string()))
    }
}

fn list(events: &[Arc<Event>]) -> Bytes {
    let size: usize = events.iter().map(|event| event.json().len() + 1).sum();
    let mut body = Vec::with_capacity(HEAD.len() + size + 2);
    body.extend_from_slice(HEAD);
    for (i, event) in events.iter().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        let (head, rest) = event.item();
        body.extend_from_slice(head);
        body.extend_from_slice(&rest);
    }
    body.extend_from_slice(b"]}");
    Bytes::from(body)
}
