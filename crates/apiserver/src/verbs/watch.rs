//! GET of a collection with `watch`: what is there (if wanted), then what happens.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::ApiError;
use gantry_api::status::Result;
use gantry_client::WatchKind;
use tokio::time::Instant;

use super::Call;
use super::list::selection;
use crate::cache::{Cursor, Entry, Seen, Selection};
use crate::callout::Callout;
use crate::limits::{BOOKMARK_BEFORE_END, BOOKMARK_INTERVAL};
use crate::query::ListOptions;
use crate::resources::Served;

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
    translator: Option<Translator>,
    /// Whose initial events are sent, and since when, until they are.
    listing: Option<Listing>,
}

/// A list that is sent as a watch.
struct Listing {
    served: Served,
    scope: &'static str,
    began: Instant,
}

/// Shows objects in a version that a webhook makes.
struct Translator {
    served: Served,
    callout: Callout,
    /// What is asked of fields of that version, and the keys of the objects for which it holds.
    fields: Option<(Selection, HashSet<Arc<str>>)>,
}

impl Translator {
    async fn new(call: &Call<'_>, selection: &Selection, initial: bool) -> Result<Option<Self>> {
        if call.served.converter().is_none() {
            return Ok(None);
        }
        let (served, callout) = (call.served.clone(), call.core.callout.clone());
        let Some(coarse) = selection.of_any_version() else {
            return Ok(Some(Self { served, callout, fields: None }));
        };
        let mut shown = HashSet::new();
        if !initial {
            let entries = call.served.entry.cache.snapshot(&coarse, 0, None)?.entries;
            let entries = served.translated(&callout, entries).await?;
            shown.extend(entries.iter().filter(|e| selection.matches(e)).map(|e| Arc::clone(&e.key)));
        }
        Ok(Some(Self { served, callout, fields: Some((selection.clone(), shown)) }))
    }

    async fn translate(&mut self, seen: Vec<Seen>) -> Result<Vec<Seen>> {
        let kinds: Vec<WatchKind> = seen.iter().map(|s| s.kind).collect();
        let entries = seen.into_iter().map(|s| s.entry).collect();
        let entries = self.served.translated(&self.callout, entries).await?;
        let pairs = kinds.into_iter().zip(entries);
        let Some((selection, shown)) = &mut self.fields else {
            return Ok(pairs.map(|(kind, entry)| Seen { kind, entry }).collect());
        };
        let view = |(kind, entry): (WatchKind, Arc<Entry>)| {
            let now = kind != WatchKind::Deleted && selection.matches(&entry);
            let before = if now { !shown.insert(Arc::clone(&entry.key)) } else { shown.remove(&entry.key) };
            let kind = match (before, now) {
                (false, true) => WatchKind::Added,
                (true, true) => WatchKind::Modified,
                (true, false) => WatchKind::Deleted,
                (false, false) => return None,
            };
            Some(Seen { kind, entry })
        };
        Ok(pairs.filter_map(view).collect())
    }
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
/// `Expired` if the revision is no longer kept, 500 if a value of the resource cannot be opened, 504 if the initial events of a future revision are wanted.
///
/// # Errors
/// 400 or 422 for bad options.
pub(crate) async fn watch(call: &Call<'_>, options: &ListOptions) -> Result<Watching> {
    options.validate(true)?;
    let selection = selection(call, options)?;
    let now = Instant::now();
    let timeout = options.timeout.unwrap_or_else(|| {
        let least = call.core.timing.load().min_request_timeout;
        least.mul_f64(1.0 + rand::random::<f64>())
    });
    let deadline = now + timeout;
    let mut watching = Watching {
        refused: None,
        cursor: None,
        initial: Vec::new().into_iter(),
        initial_end: None,
        bookmarks: options.bookmarks,
        bookmark_at: None,
        deadline,
        translator: None,
        listing: options.wants_initial_events().then(|| Listing {
            served: call.served.clone(),
            scope: scope(call),
            began: now,
        }),
    };
    match begin(call, options, selection).await {
        Ok((initial, cursor, end, translator)) => {
            watching.translator = translator;
            watching.initial = initial.into_iter();
            watching.cursor = Some(cursor);
            watching.initial_end = end;
            watching.bookmark_at = watching.next_bookmark(now);
        }
        Err(error) => watching.refused = Some(error),
    }
    Ok(watching)
}

/// What is listed, as metrics name it.
fn scope(call: &Call<'_>) -> &'static str {
    match (call.name, call.namespace) {
        ("", "") => "cluster",
        ("", _) => "namespace",
        _ => "resource",
    }
}

async fn begin(
    call: &Call<'_>,
    options: &ListOptions,
    selection: Selection,
) -> Result<(Vec<Arc<Entry>>, Cursor, Option<u64>, Option<Translator>)> {
    let cache = &call.served.entry.cache;
    let wants_initial = options.wants_initial_events();
    match options.revision {
        None => drop(call.core.hub.catch_up().await?),
        Some(revision) if revision > 0 && wants_initial => call.core.hub.wait_for(revision).await?,
        // Who wants only what comes may wait for it here as well as anywhere.
        Some(_) => {}
    }
    let translator = Translator::new(call, &selection, wants_initial).await?;
    let selection = match &translator {
        Some(_) => selection.of_any_version().unwrap_or(selection),
        None => selection,
    };
    if wants_initial {
        let (snapshot, cursor) = cache.snapshot_and_watch(selection)?;
        return Ok((snapshot.entries, cursor, options.bookmarks.then_some(snapshot.revision), translator));
    }
    let from = match options.revision {
        None | Some(0) => cache.revision(),
        Some(revision) => revision,
    };
    Ok((Vec::new(), cache.watch(selection, from)?, None, translator))
}

impl Watching {
    /// Whether the initial events are over: what comes next, others see at the same time.
    pub(crate) fn is_live(&self) -> bool {
        self.initial.len() == 0
    }

    /// What comes next; `None` at the end. An error is the last thing.
    pub(crate) async fn next(&mut self) -> Option<Result<Told>> {
        loop {
            let told = self.next_stored().await?;
            let (Some(translator), Ok(Told::Events(_))) = (&mut self.translator, &told) else {
                return Some(told);
            };
            let Ok(Told::Events(seen)) = told else { continue };
            match translator.translate(seen).await {
                Ok(seen) if seen.is_empty() => {}
                Ok(seen) => return Some(Ok(Told::Events(seen))),
                Err(error) => {
                    self.cursor = None;
                    self.initial = Vec::new().into_iter();
                    self.initial_end = None;
                    return Some(Err(error));
                }
            }
        }
    }

    async fn next_stored(&mut self) -> Option<Result<Told>> {
        if let Some(error) = self.refused.take() {
            return Some(Err(error));
        }
        let initial: Vec<Seen> = self.initial.by_ref().take(INITIAL_BATCH).map(added).collect();
        if !initial.is_empty() {
            return Some(Ok(Told::Events(initial)));
        }
        if let Some(revision) = self.initial_end.take() {
            if let Some(listing) = self.listing.take() {
                let names = listing.served.resource();
                let labels = [&*names.group, &*names.version, &*names.plural, listing.scope];
                crate::metrics::watch_list(labels, listing.began.elapsed());
            }
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
        if self.translator.is_some() {
            return Ok(Vec::new());
        }
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
