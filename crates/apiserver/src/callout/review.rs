//! The reviews that webhooks answer with, read as upstream's codecs read them: as JSON, or else as YAML.

use bytes::Bytes;
use serde_json::Value;

use crate::verbs::decode;

/// The answer as a tree that is an object.
///
/// # Errors
/// Why it is none.
pub(crate) fn tree(body: &[u8]) -> Result<Value, String> {
    let json = match serde_json::from_slice::<Value>(body) {
        Ok(tree) => return object(tree, body),
        // What does not look like JSON may be YAML, of which any text is an instance.
        Err(_) if body.trim_ascii_start().first().is_none_or(|c| *c != b'{') => {
            decode::yaml(&Bytes::copy_from_slice(body)).map_err(|why| decode::untyped(&why))?
        }
        Err(error) => {
            let why = gantry_api::go_json::unreadable(body, &error);
            return Err(decode::untyped(&why));
        }
    };
    let tree = serde_json::from_slice(&json).map_err(|e| decode::untyped(&e.to_string()))?;
    object(tree, &json)
}

fn object(tree: Value, json: &[u8]) -> Result<Value, String> {
    if tree.is_object() { Ok(tree) } else { Err(decode::untyped(&decode::no_object(json))) }
}
