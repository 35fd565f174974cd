//! What is noted of a request while it is served, wherever in the code that is.

use std::cell::Cell;
use std::time::Duration;

use super::inflight::Inflight;

/// Notes of one request.
#[derive(Default)]
pub(super) struct Notes {
    /// Time that others took: webhooks, the queue. The service level of the server itself does not count it.
    pub(super) excluded: Cell<Duration>,
    /// Whether identity and rights were fine: what is turned away before has no series.
    pub(super) admitted: Cell<bool>,
    /// Whether it was turned away, or broken off, to protect the server.
    pub(super) terminated: Cell<bool>,
    inflight: Cell<Option<Inflight>>,
}

tokio::task_local! {
    static NOTES: Notes;
}

/// Does `work`, and hands out what was noted meanwhile.
pub(super) async fn during<T>(work: impl Future<Output = T>) -> (T, Notes) {
    let work = async {
        let done = work.await;
        // The request takes no seat any more.
        NOTES.with(|notes| notes.inflight.take());
        let kept = NOTES.with(|notes| Notes {
            excluded: Cell::new(notes.excluded.get()),
            admitted: Cell::new(notes.admitted.get()),
            terminated: Cell::new(notes.terminated.get()),
            inflight: Cell::default(),
        });
        (done, kept)
    };
    NOTES.scope(Notes::default(), work).await
}

fn note(with: impl FnOnce(&Notes)) {
    // Outside a request (a write by code in this process) there is nobody to tell.
    NOTES.try_with(with).ok();
}

/// So much of the request's time was spent on others.
pub(crate) fn exclude(took: Duration) {
    note(|notes| notes.excluded.set(notes.excluded.get() + took));
}

/// The user is known and may do this.
pub(crate) fn admitted() {
    note(|notes| notes.admitted.set(true));
}

/// The request is turned away, or broken off, to protect the server.
pub(crate) fn terminated() {
    note(|notes| notes.terminated.set(true));
}

/// The request takes a place among those in flight until it is answered.
pub(super) fn executes(inflight: Inflight) {
    note(|notes| notes.inflight.set(Some(inflight)));
}
