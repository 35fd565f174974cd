//! Texts for the `Warning` header of a response.

use parking_lot::Mutex;

/// Most bytes of warnings in one response.
const MAX_BYTES: usize = 4 << 10;

/// Collects the warnings of one request, each once.
#[derive(Debug, Default)]
pub struct Warnings {
    texts: Mutex<Vec<String>>,
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
