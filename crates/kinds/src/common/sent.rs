//! What was sent, where the typed form cannot tell.

use serde_json::Value;

/// Keeps in mind that a list was sent empty, and not left out. `at` is its pointer in `sent`, the JSON of the object.
pub fn recall_list<T>(list: &mut Option<Vec<T>>, at: &str, sent: &[u8]) {
    if list.is_none()
        && let Ok(sent) = serde_json::from_slice::<Value>(sent)
        && sent.pointer(at).is_some_and(Value::is_array)
    {
        *list = Some(Vec::new());
    }
}
