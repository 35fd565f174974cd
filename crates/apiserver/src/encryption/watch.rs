//! A watch that opens what it sees. What cannot be opened is told as [`StoreError::Unreadable`] and left out; the watch goes
//! on, so that one value ends nobody else's events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use gantry_base::{Clock as _, SystemClock};
use gantry_store::{Event, Result, Revision, Seen, StoreError, Watch, WatchBatch, WatchSource};

use super::sealer::Sealer;
use super::store::{open, open_known};
use crate::limits::KMS_ASK_AGAIN;

/// The watch.
pub(super) struct Opening {
    inner: Watch,
    sealer: Arc<ArcSwap<Sealer>>,
    clock: SystemClock,
    /// What was seen and needs a plugin to be opened: whoever waits for what is next waits for that.
    waiting: Option<WatchBatch>,
    /// What of it could not be opened, and the rest.
    opened: Seen,
    /// When a plugin was last asked in vain: others do not wait for it again soon.
    in_vain: Option<Duration>,
}

impl Opening {
    /// Opens what `inner` sees, with the keys of the time.
    pub(super) fn new(inner: Watch, sealer: Arc<ArcSwap<Sealer>>) -> Self {
        let clock = SystemClock::default();
        Self { inner, sealer, clock, waiting: None, opened: Seen::default(), in_vain: None }
    }

    fn may_ask(&self) -> bool {
        self.in_vain.is_none_or(|since| self.clock.monotonic().saturating_sub(since) >= KMS_ASK_AGAIN)
    }

    fn keep(&mut self, opened: Seen) {
        let in_vain = |fault: &StoreError| matches!(fault, StoreError::Unreadable { passing: true, .. });
        if self.may_ask() && opened.faults.iter().any(in_vain) {
            self.in_vain = Some(self.clock.monotonic());
        }
        self.waiting = None;
        self.opened = opened;
    }
}

#[async_trait::async_trait]
impl WatchSource for Opening {
    async fn next(&mut self) -> Result<WatchBatch> {
        loop {
            if let Some(told) = self.opened.take() {
                return told;
            }
            if self.waiting.is_none() {
                self.waiting = Some(self.inner.next().await?);
            }
            let Some(batch) = &self.waiting else { return Err(StoreError::Closed) };
            // It is kept until it is open: this may be dropped at any await.
            let opened = opened(&self.sealer.load_full(), batch.clone(), self.may_ask()).await;
            self.keep(opened);
        }
    }

    fn try_next(&mut self) -> Result<Option<WatchBatch>> {
        if self.opened.is_empty() {
            if self.waiting.is_some() {
                return Ok(None);
            }
            let Some(batch) = self.inner.try_next()? else { return Ok(None) };
            match opened(&self.sealer.load_full(), batch.clone(), self.may_ask()).now_or_never() {
                Some(opened) => self.keep(opened),
                None => self.waiting = Some(batch),
            }
        }
        self.opened.take().transpose()
    }

    fn position(&self) -> Revision {
        self.inner.position()
    }
}

async fn opened(sealer: &Sealer, batch: WatchBatch, mut may_ask: bool) -> Seen {
    if !batch.events.iter().any(|event| sealer.covers(&event.key)) {
        return Seen { rest: Some(batch), ..Seen::default() };
    }
    let mut faults = VecDeque::new();
    let mut events = Vec::with_capacity(batch.events.len());
    for event in batch.events.iter() {
        let mut event = event.clone();
        match open_event(sealer, &mut event, may_ask).await {
            Ok(()) => events.push(event),
            Err(fault) => {
                may_ask &= fault.class() != gantry_base::Class::Retry;
                faults.push_back(fault);
            }
        }
    }
    Seen { faults, rest: Some(WatchBatch { events: events.into(), revision: batch.revision }) }
}

async fn open_event(sealer: &Sealer, event: &mut Event, may_ask: bool) -> Result<()> {
    for item in event.current.iter_mut().chain(&mut event.previous) {
        if may_ask {
            open(sealer, item).await?;
        } else {
            open_known(sealer, item)?;
        }
    }
    Ok(())
}
