//! Taking an input apart.

use std::future::Future;
use std::sync::OnceLock;

use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

/// The input as text; the bytes that are no UTF-8 are not worth an engine's time.
pub fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// An input of several texts: they stand between lines with nothing but `---`.
pub fn parts<const N: usize>(data: &[u8]) -> Option<[&str; N]> {
    let mut parts = text(data)?.splitn(N, "\n---\n");
    let mut found = [""; N];
    for place in &mut found {
        *place = parts.next().unwrap_or("");
    }
    Some(found)
}

/// A part as JSON.
pub fn json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// Runs what waits for nothing but itself.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime =
        RUNTIME.get_or_init(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));
    runtime.block_on(future)
}
