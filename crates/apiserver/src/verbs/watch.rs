//! GET of a collection with `watch`: what is there (if wanted), then what happens.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::ApiError;
use gantry_api::status::Result;
use gantry_client::WatchKind;
use tokio::time::Instant;

use super::Call;
use crate::cache::{Cursor, Entry, Seen, Selection};
use crate::limits::{BOOKMARK_INTERVAL, MIN_WATCH_TIMEOUT};
use crate::query::ListOptions;

/// A watch under way.
pub(crate) struct Watching {
    cursor: Cursor,
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// After the initial events: the revision of the bookmark that ends them.
    initial_end: Option<u64>,
    bookmark_at: Option<Instant>,
    deadline: Instant,
    failed: bool,
}

/// What a watcher is told.
pub(crate) enum Told {
    /// Something happened.
    Events(Vec<Seen>),
    /// Nothing more up to this revision; the flag: and the initial events end here.
    Bookmark(u64, bool),
}

/// Events that go out at once while the initial ones are sent.
const INITIAL_BATCH: usize = 256;

/// Begins a watch.
///
/// # Errors
/// `Expired` if the revision is no longer kept, 504 if it lies in the future, 400/422 for bad options.
pub(crate) async fn watch(call: &Call<'_>, options: &ListOptions) -> Result<Watching> {
    options.validate(true)?;
    let selection = Selection::new(&*call.served.kind, call.namespace, &options.labels, &options.fields)?
        .named(call.name);
    let cache = &call.served.entry.cache;
    match options.revision {
        None => drop(call.core.hub.catch_up().await?),
        Some(0) => {}
        Some(revision) => call.core.hub.wait_for(revision).await?,
    }
    let wants_initial = options.initial_events.unwrap_or(options.revision.unwrap_or(0) == 0);
    let (initial, cursor, initial_end) = if wants_initial {
        let (snapshot, cursor) = cache.snapshot_and_watch(selection)?;
        let end = (options.initial_events == Some(true) && options.bookmarks).then_some(snapshot.revision);
        (snapshot.entries, cursor, end)
    } else {
        let from = match options.revision {
            None | Some(0) => cache.revision(),
            Some(revision) => revision,
        };
        (Vec::new(), cache.watch(selection, from)?, None)
    };
    let now = Instant::now();
    let timeout = options.timeout.unwrap_or_else(|| MIN_WATCH_TIMEOUT.mul_f64(1.0 + rand::random::<f64>()));
    Ok(Watching {
        cursor,
        initial: initial.into_iter(),
        initial_end,
        bookmark_at: options.bookmarks.then(|| now + BOOKMARK_INTERVAL),
        deadline: now + timeout,
        failed: false,
    })
}

impl Watching {
    /// Whether the initial events are over: what comes next, others see at the same time.
    pub(crate) fn is_live(&self) -> bool {
        self.initial.len() == 0
    }

    /// What comes next; `None` at the end. An error is the last thing.
    pub(crate) async fn next(&mut self) -> Option<Result<Told>> {
        if self.failed {
            return None;
        }
        let initial: Vec<Seen> = self.initial.by_ref().take(INITIAL_BATCH).map(added).collect();
        if !initial.is_empty() {
            return Some(Ok(Told::Events(initial)));
        }
        if let Some(revision) = self.initial_end.take() {
            return Some(Ok(Told::Bookmark(revision, true)));
        }
        let wake_at = self.bookmark_at.map_or(self.deadline, |at| at.min(self.deadline));
        match tokio::time::timeout_at(wake_at, self.cursor.next()).await {
            Ok(Ok(seen)) => Some(Ok(Told::Events(seen))),
            Ok(Err(error)) => {
                self.failed = true;
                Some(Err(error))
            }
            Err(_elapsed) => self.timer(),
        }
    }

    fn timer(&mut self) -> Option<Result<Told>> {
        let now = Instant::now();
        if now >= self.deadline {
            return None;
        }
        self.bookmark_at = Some(now + BOOKMARK_INTERVAL);
        Some(self.cursor.take().map(|seen| match seen.is_empty() {
            true => Told::Bookmark(self.cursor.position(), false),
            false => Told::Events(seen),
        }))
    }

    /// What else is there already, without waiting.
    pub(crate) fn more(&mut self) -> Result<Vec<Seen>, ApiError> {
        let initial: Vec<Seen> = self.initial.by_ref().take(INITIAL_BATCH).map(added).collect();
        if !initial.is_empty() || self.initial_end.is_some() {
            return Ok(initial);
        }
        self.cursor.take()
    }

    /// Sends bookmarks this often: for watchers in the same process, which wait for revisions.
    pub(crate) fn with_deadline(mut self, after: Duration) -> Self {
        self.deadline = Instant::now() + after;
        self
    }
}

fn added(entry: Arc<Entry>) -> Seen {
    Seen { kind: WatchKind::Added, entry }
}
