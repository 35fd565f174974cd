//! Leader election by a Lease, compatible with client-go's `leaderelection`: of several processes that do the same
//! work, one does it.
//!
//! A holder that could not renew the lease within [`Terms::renew_deadline`] stops leading, before the others, who
//! wait [`Terms::duration`] after the last change that they have seen, may take it over. No clocks are compared.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::coordination::{Lease, LeaseSpec};
use gantry_api::status::Result;
use gantry_api::{ObjectKey, time};
use gantry_base::{Clock, Shutdown, Tasks};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{Api, Transport};

/// How long a term lasts, by client-go's names and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Others take the lease over when it has not changed for this long (15 s).
    pub duration: Duration,
    /// A holder that has not renewed it for this long leads no more (10 s); shorter than the duration.
    pub renew_deadline: Duration,
    /// Between attempts (2 s).
    pub retry_period: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Who is elected, for what.
pub struct Candidate {
    /// Reads and writes the lease.
    pub transport: Arc<dyn Transport>,
    /// Tells the time that is written into the lease.
    pub clock: Arc<dyn Clock>,
    /// The lease.
    pub lease: ObjectKey,
    /// Who is asking; no other process has this name.
    pub identity: String,
    /// How long terms last.
    pub terms: Terms,
}

/// A running election. Cheap to clone.
#[derive(Clone)]
pub struct Election {
    leads: watch::Receiver<bool>,
}

impl Election {
    /// Takes part until `tasks` end, and gives the lease back then.
    pub fn start(candidate: Candidate, tasks: &Tasks) -> Self {
        let (told, leads) = watch::channel(false);
        tasks.spawn_graceful("election", |shutdown| async move {
            let api = Api::new(Arc::clone(&candidate.transport), candidate.identity.clone());
            let mut member = Member { api, candidate, told, held: None, seen: None };
            member.run(&shutdown).await;
            member.release().await;
        });
        Self { leads }
    }

    /// Whether this process leads now.
    pub fn leads(&self) -> bool {
        *self.leads.borrow()
    }

    /// Waits until this process leads.
    pub async fn acquired(&self) {
        self.wait_for(true).await;
    }

    /// Waits until it leads no more.
    pub async fn lost(&self) {
        self.wait_for(false).await;
    }

    async fn wait_for(&self, wanted: bool) {
        if self.leads.clone().wait_for(|leads| *leads == wanted).await.is_err() && wanted {
            // The election is over; nobody will lead.
            std::future::pending().await
        }
    }
}

struct Member {
    api: Api<Lease>,
    candidate: Candidate,
    told: watch::Sender<bool>,
    /// The lease as this process wrote it last.
    held: Option<Arc<Lease>>,
    /// The lease as it was last seen in another's hands, and since when it is so.
    seen: Option<(Arc<Lease>, Instant)>,
}

impl Member {
    async fn run(&mut self, shutdown: &Shutdown) {
        let Terms { renew_deadline, retry_period, .. } = self.candidate.terms;
        let mut renewed = Instant::now();
        loop {
            let began = Instant::now();
            let leads = *self.told.borrow();
            let since = if leads { renewed } else { began };
            let attempt = tokio::time::timeout_at(since + renew_deadline, self.attempt());
            let outcome = tokio::select! {
                outcome = attempt => outcome,
                () = shutdown.cancelled() => return,
            };
            match outcome {
                Ok(Ok(true)) => {
                    // Counted from before the write: others may have seen it since then.
                    renewed = began;
                    self.tell(true);
                }
                Ok(Ok(false)) => self.tell(false),
                Ok(Err(error)) => tracing::debug!(lease = %self.candidate.lease, %error, "cannot renew"),
                Err(_) => tracing::debug!(lease = %self.candidate.lease, "cannot renew in time"),
            }
            // Not a moment longer than the deadline, though the next attempt is not due yet.
            let mut pause = Instant::now() + retry_period;
            if *self.told.borrow() {
                pause = pause.min(renewed + renew_deadline);
            }
            if Instant::now() >= renewed + renew_deadline {
                self.tell(false);
            }
            tokio::select! {
                () = tokio::time::sleep_until(pause) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn tell(&self, leads: bool) {
        let changed = self.told.send_if_modified(|told| std::mem::replace(told, leads) != leads);
        let (lease, identity) = (&self.candidate.lease, &self.candidate.identity);
        match (changed, leads) {
            (true, true) => tracing::info!(%lease, identity, "became leader"),
            (true, false) => tracing::warn!(%lease, identity, "stopped leading"),
            (false, _) => {}
        }
    }

    /// Takes or renews the lease if it may; whether it is held now.
    async fn attempt(&mut self) -> Result<bool> {
        if let Some(held) = self.held.take() {
            match self.api.update(&self.renewal(&held)).await {
                Ok(lease) => {
                    self.held = Some(lease);
                    return Ok(true);
                }
                // Somebody else wrote it, or took it: look.
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => {
                    self.held = Some(held);
                    return Err(error);
                }
            }
        }
        let Some(current) = self.api.find(&self.candidate.lease).await? else {
            let made = self.api.create(&self.first()).await;
            return self.settle(made);
        };
        if !self.is_free(&current) {
            return Ok(false);
        }
        let next = if holder(&current) == self.candidate.identity {
            self.renewal(&current)
        } else {
            self.succession(&current)
        };
        let written = self.api.update(&next).await;
        self.settle(written)
    }

    /// Somebody else may have been faster.
    fn settle(&mut self, written: Result<Arc<Lease>>) -> Result<bool> {
        match written {
            Ok(lease) => {
                self.held = Some(lease);
                Ok(true)
            }
            Err(error) if error.is_conflict() || error.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether nobody else holds the lease, or it has not changed for as long as it says.
    fn is_free(&mut self, current: &Arc<Lease>) -> bool {
        let now = Instant::now();
        let since = match &self.seen {
            Some((seen, since)) if seen.spec == current.spec => *since,
            _ => now,
        };
        self.seen = Some((Arc::clone(current), since));
        let seconds = current.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let duration = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        let holder = holder(current);
        holder.is_empty()
            || holder == self.candidate.identity
            || now >= since + duration.unwrap_or(self.candidate.terms.duration)
    }

    fn first(&self) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.name = Some(self.candidate.lease.name.to_string());
        lease.metadata.namespace = Some(self.candidate.lease.namespace.to_string());
        lease.spec = Some(LeaseSpec { lease_transitions: Some(0), ..self.term() });
        lease
    }

    /// A term that begins now.
    fn term(&self) -> LeaseSpec {
        let now = time::micro_time(self.candidate.clock.now());
        let seconds = self.candidate.terms.duration.as_secs().max(1);
        LeaseSpec {
            holder_identity: Some(self.candidate.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }

    fn renewal(&self, lease: &Lease) -> Lease {
        let mut next = lease.clone();
        let old = lease.spec.clone().unwrap_or_default();
        next.spec = Some(LeaseSpec {
            acquire_time: old.acquire_time,
            lease_transitions: old.lease_transitions,
            ..self.term()
        });
        next
    }

    fn succession(&self, lease: &Lease) -> Lease {
        let mut next = lease.clone();
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
        next.spec = Some(LeaseSpec { lease_transitions: Some(transitions.saturating_add(1)), ..self.term() });
        next
    }

    /// Gives the lease back, so that another need not wait.
    async fn release(&mut self) {
        let Some(held) = self.held.take() else { return self.tell(false) };
        self.tell(false);
        let mut next = self.renewal(&held);
        if let Some(spec) = &mut next.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        let released = tokio::time::timeout(self.candidate.terms.retry_period, self.api.update(&next)).await;
        if !matches!(released, Ok(Ok(_))) {
            tracing::debug!(lease = %self.candidate.lease, "the lease could not be given back");
        }
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}
