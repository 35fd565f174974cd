//! What a request leaves behind besides its answer: texts for the `Warning` header, and notes for the audit log.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use crate::audit::{Level, Notes, Tally};

/// Most characters of warnings in one response, before each is cut.
const MAX_CHARS: usize = 4 << 10;
/// Most characters of one warning, where they are cut.
const MAX_CHARS_EACH: usize = 256;

/// It is not known yet whether the request is audited.
const UNDECIDED: u8 = 0;
/// Beside the level: managed fields are left out.
const OMITS: u8 = 0x80;

/// Collects the warnings of one request, each once, and its audit annotations.
#[derive(Debug, Default)]
pub struct Warnings {
    texts: Mutex<Vec<String>>,
    /// [`UNDECIDED`], or one more than the level, with [`OMITS`].
    level: AtomicU8,
    notes: OnceLock<Arc<Notes>>,
}

impl Warnings {
    /// Adds one, unless it is empty or there already; once there are too many, all of them are cut.
    pub fn add(&self, text: impl Into<String>) {
        let (text, mut texts) = (text.into(), self.texts.lock());
        let is_full = are_cut(&texts) && chars(&texts, MAX_CHARS_EACH) >= MAX_CHARS;
        if !(text.is_empty() || is_full || texts.contains(&text)) {
            texts.push(text);
        }
    }

    /// Whether there is nothing to warn of.
    pub fn is_empty(&self) -> bool {
        self.texts.lock().is_empty()
    }

    /// Forgets them all: for a write that is tried again.
    pub fn clear(&self) {
        self.texts.lock().clear();
    }

    /// Adds an annotation for the audit log; the first value of a key stays, as upstream has it.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        self.annotate_from(Level::Metadata, key, value);
    }

    /// The same for an annotation that less detailed events do not show.
    pub(crate) fn annotate_from(&self, level: Level, key: impl Into<String>, value: impl Into<String>) {
        if self.audited().is_none_or(|audited| audited >= level) {
            self.notes().annotate(key.into(), value.into(), level);
        }
    }

    /// The annotations for the audit log.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.notes.get().map(|notes| notes.annotations()).unwrap_or_default()
    }

    /// Says how much of the request is audited.
    pub(crate) fn audited_at(&self, level: Level, omit_managed_fields: bool) {
        let omits = if omit_managed_fields { OMITS } else { 0 };
        self.level.store((level as u8 + 1) | omits, Ordering::Release);
    }

    /// How much of the request is audited; `None` as long as nobody knows.
    pub(crate) fn audited(&self) -> Option<Level> {
        match self.level.load(Ordering::Acquire) & !OMITS {
            UNDECIDED => None,
            1 => Some(Level::None),
            2 => Some(Level::Metadata),
            3 => Some(Level::Request),
            _ => Some(Level::RequestResponse),
        }
    }

    pub(crate) fn omits_managed_fields(&self) -> bool {
        self.level.load(Ordering::Acquire) & OMITS != 0
    }

    /// The notes for the audit log.
    pub(crate) fn notes(&self) -> Arc<Notes> {
        Arc::clone(self.notes.get_or_init(Arc::default))
    }

    /// Notes how long a part of the work took, if the request is audited: `authorization`, `mutating-webhook`.
    pub(crate) fn took(&self, part: &'static str, time: Duration, tally: Tally) {
        if self.audited() != Some(Level::None) {
            self.notes().took(part, time, tally);
        }
    }

    /// The `Warning` header values.
    pub fn headers(&self) -> Vec<http::HeaderValue> {
        let texts = self.texts.lock();
        let most = if are_cut(&texts) { MAX_CHARS_EACH } else { usize::MAX };
        let value = |text: &String| {
            let text: String = text.chars().take(most).collect();
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            http::HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()).ok()
        };
        texts.iter().filter(|text| can_be_sent(text)).filter_map(value).collect()
    }
}

/// Characters that are sent if no warning has more than `most` (`endpoints/filters/warning.go`).
fn chars(texts: &[String], most: usize) -> usize {
    texts.iter().filter(|text| can_be_sent(text)).map(|text| text.chars().count().min(most)).sum()
}

/// Whether each is cut, since they are too many.
fn are_cut(texts: &[String]) -> bool {
    chars(texts, usize::MAX) > MAX_CHARS
}

/// A header holds no control characters.
fn can_be_sent(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
