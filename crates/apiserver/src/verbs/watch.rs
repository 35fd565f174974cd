//! GET of a collection with `watch`: what is there (if wanted), then what happens.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::ApiError;
use gantry_api::status::Result;
use gantry_client::WatchKind;
use tokio::time::Instant;

use super::Call;
use super::list::selection;
use crate::cache::{Cursor, Entry, Seen, Selection};
use crate::limits::{BOOKMARK_BEFORE_END, BOOKMARK_INTERVAL, MIN_WATCH_TIMEOUT};
use crate::query::ListOptions;

/// A watch under way.
pub(crate) struct Watching {
    /// Why the watch never began; the client learns it from its only event.
    refused: Option<ApiError>,
    /// `None` once it ended.
    cursor: Option<Cursor>,
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// After the initial events: the revision of the bookmark that ends them.
    initial_end: Option<u64>,
    bookmarks: bool,
    bookmark_at: Option<Instant>,
    deadline: Instant,
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

/// Begins a watch. What hinders it once its options are understood becomes an `ERROR` event, as upstream does it:
/// `Expired` if the revision is no longer kept, 504 if the initial events of a future revision are wanted.
///
/// # Errors
/// 400 or 422 for bad options.
pub(crate) async fn watch(call: &Call<'_>, options: &ListOptions) -> Result<Watching> {
    options.validate(true)?;
    let selection = selection(call, options)?;
    let now = Instant::now();
    let timeout = options.timeout.unwrap_or_else(|| MIN_WATCH_TIMEOUT.mul_f64(1.0 + rand::random::<f64>()));
    let deadline = now + timeout;
    let mut watching = Watching {
        refused: None,
        cursor: None,
        initial: Vec::new().into_iter(),
        initial_end: None,
        bookmarks: options.bookmarks,
        bookmark_at: None,
        deadline,
    };
    match begin(call, options, selection).await {
        Ok((initial, cursor, end)) => {
            watching.initial = initial.into_iter();
            watching.cursor = Some(cursor);
            watching.initial_end = end;
            watching.bookmark_at = watching.next_bookmark(now);
        }
        Err(error) => watching.refused = Some(error),
    }
    Ok(watching)
}

async fn begin(
    call: &Call<'_>,
    options: &ListOptions,
    selection: Selection,
) -> Result<(Vec<Arc<Entry>>, Cursor, Option<u64>)> {
    let cache = &call.served.entry.cache;
    let wants_initial = options.wants_initial_events();
    match options.revision {
        None => drop(call.core.hub.catch_up().await?),
        Some(revision) if revision > 0 && wants_initial => call.core.hub.wait_for(revision).await?,
        // Who wants only what comes may wait for it here as well as anywhere.
        Some(_) => {}
    }
    if wants_initial {
        let (snapshot, cursor) = cache.snapshot_and_watch(selection)?;
        return Ok((snapshot.entries, cursor, options.bookmarks.then_some(snapshot.revision)));
    }
    let from = match options.revision {
        None | Some(0) => cache.revision(),
        Some(revision) => revision,
    };
    Ok((Vec::new(), cache.watch(selection, from)?, None))
}

impl Watching {
    /// Whether the initial events are over: what comes next, others see at the same time.
    pub(crate) fn is_live(&self) -> bool {
        self.initial.len() == 0
    }

    /// What comes next; `None` at the end. An error is the last thing.
    pub(crate) async fn next(&mut self) -> Option<Result<Told>> {
        if let Some(error) = self.refused.take() {
            return Some(Err(error));
        }
        let initial: Vec<Seen> = self.initial.by_ref().take(INITIAL_BATCH).map(added).collect();
        if !initial.is_empty() {
            return Some(Ok(Told::Events(initial)));
        }
        if let Some(revision) = self.initial_end.take() {
            return Some(Ok(Told::Bookmark(revision, true)));
        }
        let wake_at = self.bookmark_at.map_or(self.deadline, |at| at.min(self.deadline));
        match tokio::time::timeout_at(wake_at, self.cursor.as_mut()?.next()).await {
            Ok(Ok(seen)) => Some(Ok(Told::Events(seen))),
            Ok(Err(error)) => {
                self.cursor = None;
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
        self.bookmark_at = self.next_bookmark(now);
        let cursor = self.cursor.as_mut()?;
        Some(cursor.take().map(|seen| match seen.is_empty() {
            true => Told::Bookmark(cursor.position(), false),
            false => Told::Events(seen),
        }))
    }

    /// About every minute, and shortly before the end, so that the client can go on from there.
    fn next_bookmark(&self, now: Instant) -> Option<Instant> {
        let last = self.deadline.checked_sub(BOOKMARK_BEFORE_END).filter(|last| *last > now)?;
        self.bookmarks.then(|| last.min(now + BOOKMARK_INTERVAL))
    }

    /// What else is there already, without waiting.
    pub(crate) fn more(&mut self) -> Result<Vec<Seen>, ApiError> {
        let initial: Vec<Seen> = self.initial.by_ref().take(INITIAL_BATCH).map(added).collect();
        if !initial.is_empty() || self.initial_end.is_some() {
            return Ok(initial);
        }
        self.cursor.as_mut().map_or_else(|| Ok(Vec::new()), Cursor::take)
    }

    /// Sends bookmarks this often: for watchers in the same process, which wait for revisions.
    pub(crate) fn with_deadline(mut self, after: Duration) -> Self {
        let now = Instant::now();
        self.deadline = now + after;
        self.bookmark_at = self.next_bookmark(now);
        self
    }
}

fn added(entry: Arc<Entry>) -> Seen {
    Seen { kind: WatchKind::Added, entry }
}
