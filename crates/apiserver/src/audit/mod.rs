//! The audit log: who did what, when, and what came of it (`audit.k8s.io/v1`).
//!
//! A policy says how much of a request is told. A [`Trail`] follows a request that is audited; admission and others
//! leave [`Notes`] on the way, by way of [`crate::warnings::Warnings`]. At each stage an event goes to the backends: a
//! file of JSON lines, and a webhook. An event is written as JSON once, by whoever needs it first; where a backend
//! buffers, that is not the request.

mod bodies;
mod event;
mod file;
mod latency;
mod log;
pub(crate) mod metrics;
mod notes;
mod options;
mod policy;
mod queue;
mod requests;
mod sink;
mod stage;
mod trail;
mod webhook;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use gantry_base::{Clock, Result, Tasks};
use gantry_client::Transport;

pub(crate) use bodies::{document, for_reply, object_body, request_body, request_patch};
pub(crate) use event::Impersonated;
pub(crate) use latency::go_duration;
pub(crate) use notes::{Notes, Tally};
pub use options::{Batch, Format, LogOptions, Mode, Options, Truncate, WebhookOptions};
pub(crate) use requests::{Arrival, failed, message, not_stored, panicked};
pub(crate) use stage::Level;
pub(crate) use trail::{Came, Trail};

use event::Event;
use policy::Policy;
use sink::Sink;

/// Tells the backends what the policy wants to be told.
pub struct Auditor {
    /// `None` where there is no backend.
    policy: Option<Policy>,
    sinks: Vec<Sink>,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    /// Requests that are being audited: while there are any, buffers stay open.
    open: Arc<AtomicUsize>,
}

impl Auditor {
    /// Tells nobody anything.
    pub fn silent(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { policy: None, sinks: Vec::new(), clock, tasks: Tasks::new(), open: Arc::default() })
    }

    /// Reads the policy and starts the backends, which work until `tasks` end and no audited request is left.
    ///
    /// # Errors
    /// An option, a file or the policy cannot be used; the text is upstream's.
    pub fn start(
        options: &Options,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>> {
        options.validate()?;
        let open = Arc::<AtomicUsize>::default();
        let setting =
            sink::Setting { clock: Arc::clone(&clock), tasks: tasks.clone(), open: Arc::clone(&open) };
        let sinks = sink::all(options, transport, &setting)?;
        if sinks.is_empty() {
            return Ok(Self::silent(clock));
        }
        let policy = match &options.policy_file {
            Some(path) => Policy::from_file(path)?,
            None => Policy::usual()?,
        };
        Ok(Arc::new(Self { policy: Some(policy), sinks, clock, tasks: tasks.clone(), open }))
    }

    /// Tells all backends; false if one that must not fail did.
    async fn emit(&self, event: Arc<Event>) -> bool {
        metrics::event();
        let mut stored = true;
        for sink in &self.sinks {
            stored &= sink.put(&event).await;
        }
        stored
    }

    /// Tells them without anybody waiting for it.
    fn emit_later(self: &Arc<Self>, events: Vec<Arc<Event>>) {
        if events.is_empty() {
            return;
        }
        let buffered = self.sinks.iter().all(Sink::is_buffered);
        if buffered {
            for event in &events {
                metrics::event();
                self.sinks.iter().for_each(|sink| sink.offer(event));
            }
            return;
        }
        let this = Arc::clone(self);
        self.tasks.spawn_graceful("audit", move |_| async move {
            for event in events {
                this.emit(event).await;
            }
        });
    }
}
