//! Who may act: several servers run the same controllers, one of them at a time.

use async_trait::async_trait;

/// Tells whether this process leads.
#[async_trait]
pub trait Leadership: Send + Sync + 'static {
    /// Waits until this process leads.
    async fn acquired(&self);
    /// Waits until this process leads no more.
    async fn lost(&self);
}

/// The only server leads always.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysLeader;

#[async_trait]
impl Leadership for AlwaysLeader {
    async fn acquired(&self) {}

    async fn lost(&self) {
        std::future::pending().await
    }
}

/// Elected by a Lease.
#[async_trait]
impl Leadership for gantry_client::Election {
    async fn acquired(&self) {
        Self::acquired(self).await;
    }

    async fn lost(&self) {
        Self::lost(self).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use gantry_api::ObjectKey;
    use gantry_api::coordination::Lease;
    use gantry_base::{SystemClock, Tasks};
    use gantry_client::{Candidate, Election, Terms};

    use crate::model::InMemory;

    fn join(name: &str, transport: &InMemory, tasks: &Tasks) -> Election {
        let candidate = Candidate {
            transport: Arc::new(transport.clone()),
            clock: Arc::new(SystemClock::default()),
            lease: ObjectKey::new("kube-system", "kube-controller-manager"),
            identity: name.to_owned(),
            terms: Terms::default(),
        };
        Election::start(candidate, tasks)
    }

    fn holder(transport: &InMemory) -> (String, i32) {
        let leases = transport.model.lock().all::<Lease>();
        let spec = leases[0].spec.clone().unwrap();
        (spec.holder_identity.unwrap(), spec.lease_transitions.unwrap())
    }

    /// Lets this much time pass; whether the two ever led at once.
    async fn pass(seconds: u32, a: &Election, b: &Election) -> bool {
        let mut both = false;
        for _ in 0..seconds * 10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            both |= a.leads() && b.leads();
        }
        both
    }

    #[tokio::test(start_paused = true)]
    async fn one_leads_until_it_cannot_renew_and_then_the_other() {
        let one = InMemory::default();
        let two = InMemory { model: Arc::clone(&one.model), ..InMemory::default() };
        let (tasks_a, tasks_b) = (Tasks::new(), Tasks::new());
        let a = join("a", &one, &tasks_a);
        a.acquired().await;
        let b = join("b", &two, &tasks_b);
        assert!(!pass(60, &a, &b).await);
        assert!(a.leads() && !b.leads());
        assert_eq!(holder(&one), ("a".into(), 0));

        // The server refuses the writes of one: it stops before the other begins.
        *one.refusal.lock() = Some("no".into());
        a.lost().await;
        assert!(!b.leads());
        assert!(!pass(30, &a, &b).await);
        assert!(!a.leads() && b.leads());
        assert_eq!(holder(&one), ("b".into(), 1));

        // Who ends gives the lease back, and nobody waits for its end.
        *one.refusal.lock() = None;
        assert!(!pass(10, &a, &b).await);
        assert!(tasks_b.shut_down(Duration::from_secs(1)).await);
        assert!(!b.leads());
        assert!(tokio::time::timeout(Duration::from_secs(5), a.acquired()).await.is_ok());
        assert_eq!(holder(&one), ("a".into(), 2));
        assert!(tasks_a.shut_down(Duration::from_secs(1)).await);
    }
}
