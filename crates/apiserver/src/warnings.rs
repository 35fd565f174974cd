//! What a request leaves behind besides its answer: texts for the `Warning` header, and notes for the audit log.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Most bytes of warnings in one response.
const MAX_BYTES: usize = 4 << 10;

/// Most audit annotations of one request.
const MAX_ANNOTATIONS: usize = 64;

/// Collects the warnings of one request, each once, and its audit annotations.
#[derive(Debug, Default)]
pub struct Warnings {
    texts: Mutex<Vec<String>>,
    annotations: Mutex<BTreeMap<String, String>>,
}

impl Warnings {
    /// Adds one, unless it is there already or there are too many.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut texts = self.texts.lock();
        let size: usize = texts.iter().map(String::len).sum();
        if !texts.contains(&text) && size + text.len() <= MAX_BYTES {
            texts.push(text);
        }
    }

    /// Forgets them all: for a write that is tried again.
    pub fn clear(&self) {
        self.texts.lock().clear();
    }

    /// Adds an annotation for the audit log; the first value of a key stays, as upstream has it.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        let mut annotations = self.annotations.lock();
        if annotations.len() < MAX_ANNOTATIONS {
            annotations.entry(key.into()).or_insert_with(|| value.into());
        }
    }

    /// The annotations for the audit log.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.annotations.lock().clone()
    }

    /// The `Warning` header values.
    pub fn headers(&self) -> Vec<http::HeaderValue> {
        let value = |text: &String| {
            let clean: String = text.chars().filter(|c| !c.is_control()).collect();
            let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
            http::HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()).ok()
        };
        self.texts.lock().iter().filter_map(value).collect()
    }
}
