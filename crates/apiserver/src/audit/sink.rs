//! A backend and the way to it: cut down, buffered, or waited for.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use gantry_base::{Clock, Result, Tasks};
use gantry_client::Transport;

use super::event::Event;
use super::options::{Mode, Options, Truncate};
use super::queue::Queue;
use super::stage::Level;
use super::{log, metrics, webhook};

/// Tells somebody about events.
#[async_trait]
pub(super) trait Backend: Send + Sync + 'static {
    /// What it is called in metrics.
    fn name(&self) -> &'static str;
    /// Tells them all; the error says how many it could not, and why.
    async fn tell(&self, events: &[Arc<Event>]) -> std::result::Result<(), (usize, String)>;
}

/// What all sinks share.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tasks: Tasks,
    /// Requests that are being audited.
    pub(super) open: Arc<AtomicUsize>,
}

/// A backend and the way to it.
pub(super) struct Sink {
    truncate: Option<Limits>,
    way: Way,
}

#[derive(Clone, Copy)]
struct Limits {
    event: usize,
}

enum Way {
    Buffered(Queue),
    Direct { backend: Arc<dyn Backend>, strict: bool },
}

/// Those that the options name.
///
/// # Errors
/// A file cannot be opened, or the kubeconfig not be used.
pub(super) fn all(options: &Options, transport: Arc<dyn Transport>, setting: &Setting) -> Result<Vec<Sink>> {
    let mut sinks = Vec::new();
    if let Some(log) = &options.log {
        let backend = Arc::new(log::Log::open(log, Arc::clone(&setting.clock))?);
        let way = match Mode::read("log", &log.mode)? {
            // The log takes batches as they come: it is fastest with whatever there is.
            Mode::Batch => Way::Buffered(Queue::start(backend, &log.batch, None, false, setting)),
            mode => Way::Direct { backend, strict: mode == Mode::BlockingStrict },
        };
        sinks.push(Sink { truncate: limits(&log.truncate), way });
    }
    if let Some(hook) = &options.webhook {
        let backend = Arc::new(webhook::Webhook::new(hook, transport)?);
        let largest = hook.truncate.enabled.then_some(hook.truncate.max_batch_size);
        let largest = largest.and_then(|bytes| usize::try_from(bytes).ok());
        let way = match Mode::read("webhook", &hook.mode)? {
            Mode::Batch => Way::Buffered(Queue::start(backend, &hook.batch, largest, true, setting)),
            mode => Way::Direct { backend, strict: mode == Mode::BlockingStrict },
        };
        sinks.push(Sink { truncate: limits(&hook.truncate), way });
    }
    Ok(sinks)
}

fn limits(truncate: &Truncate) -> Option<Limits> {
    let event = usize::try_from(truncate.max_event_size).unwrap_or(usize::MAX);
    truncate.enabled.then_some(Limits { event })
}

impl Sink {
    pub(super) fn is_buffered(&self) -> bool {
        matches!(self.way, Way::Buffered(_))
    }

    /// Tells of an event; false if that must not fail and did.
    pub(super) async fn put(&self, event: &Arc<Event>) -> bool {
        let Some(event) = self.cut_down(event) else { return true };
        match &self.way {
            Way::Buffered(queue) => {
                queue.offer(event);
                true
            }
            Way::Direct { backend, strict } => told(&**backend, &[event]).await || !strict,
        }
    }

    /// The same for one that is buffered.
    pub(super) fn offer(&self, event: &Arc<Event>) {
        if let (Way::Buffered(queue), Some(event)) = (&self.way, self.cut_down(event)) {
            queue.offer(event);
        }
    }

    /// The event as large as it may be; `None` for one that is too large in any case.
    fn cut_down(&self, event: &Arc<Event>) -> Option<Arc<Event>> {
        let Some(limits) = self.truncate else { return Some(Arc::clone(event)) };
        if event.json().len() <= limits.event {
            return Some(Arc::clone(event));
        }
        if event.level >= Level::Request {
            let smaller = event.truncated();
            if smaller.json().len() <= limits.event {
                return Some(Arc::new(smaller));
            }
        }
        metrics::failed("truncate", 1, "event is too large even after truncating");
        None
    }
}

/// Tells a backend; whether it worked. What did not is counted.
pub(super) async fn told(backend: &dyn Backend, events: &[Arc<Event>]) -> bool {
    match backend.tell(events).await {
        Ok(()) => true,
        Err((lost, why)) => {
            metrics::failed(backend.name(), lost, &why);
            false
        }
    }
}
