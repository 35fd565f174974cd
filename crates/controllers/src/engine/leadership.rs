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
