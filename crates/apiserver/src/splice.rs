//! Finds and replaces the few places of an object's JSON that the server writes without reading the rest:
//! `metadata.resourceVersion` and `apiVersion`. One pass over the bytes, no tree.

use std::ops::Range;

use bytes::Bytes;

/// Where the text of `metadata.resourceVersion` stands, without its quotes.
pub(crate) fn revision_span(json: &[u8]) -> Option<Range<usize>> {
    let metadata = member(json, 0, b"metadata")?;
    text_at(json, member(json, metadata, b"resourceVersion")?)
}

/// Whether `metadata` has this member.
pub(crate) fn has_metadata(json: &[u8], name: &[u8]) -> bool {
    member(json, 0, b"metadata").and_then(|at| member(json, at, name)).is_some()
}

/// The same JSON with another revision.
pub(crate) fn with_revision(json: &Bytes, revision: u64) -> Option<Bytes> {
    Some(replace(json, revision_span(json)?, revision.to_string().as_bytes()))
}

/// The same JSON without its revision, and where that goes; the whole where there is none.
pub(crate) fn unstamped(json: &Bytes) -> gantry_store::Value {
    match revision_span(json) {
        Some(span) => {
            let at = span.start;
            gantry_store::Value::Stamped { template: replace(json, span, b""), at }
        }
        None => gantry_store::Value::Bytes(json.clone()),
    }
}

/// The same JSON with another `apiVersion`.
pub(crate) fn with_api_version(json: &Bytes, version: &str) -> Option<Bytes> {
    let span = text_at(json, member(json, 0, b"apiVersion")?)?;
    if json[span.clone()] == *version.as_bytes() {
        return Some(json.clone());
    }
    Some(replace(json, span, version.as_bytes()))
}

/// The top-level strings `apiVersion` and `kind`; empty where there is none.
pub(crate) fn type_meta(json: &[u8]) -> (String, String) {
    let read = |name: &[u8]| {
        let span = text_at(json, member(json, 0, name)?)?;
        Some(String::from_utf8_lossy(&json[span]).into_owned())
    };
    (read(b"apiVersion").unwrap_or_default(), read(b"kind").unwrap_or_default())
}

fn replace(json: &[u8], span: Range<usize>, with: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(json.len() - span.len() + with.len());
    out.extend_from_slice(&json[..span.start]);
    out.extend_from_slice(with);
    out.extend_from_slice(&json[span.end..]);
    Bytes::from(out)
}

/// Where the value of member `name` of the object that begins at or after `at` begins.
fn member(json: &[u8], at: usize, name: &[u8]) -> Option<usize> {
    let mut at = blanks(json, at);
    if *json.get(at)? != b'{' {
        return None;
    }
    at = blanks(json, at + 1);
    while *json.get(at)? == b'"' {
        let end = string_end(json, at)?;
        let key = &json[at + 1..end - 1];
        at = blanks(json, end);
        if *json.get(at)? != b':' {
            return None;
        }
        at = blanks(json, at + 1);
        if key == name {
            return Some(at);
        }
        at = blanks(json, value_end(json, at)?);
        if *json.get(at)? != b',' {
            return None;
        }
        at = blanks(json, at + 1);
    }
    None
}

fn text_at(json: &[u8], at: usize) -> Option<Range<usize>> {
    (*json.get(at)? == b'"').then_some(())?;
    Some(at + 1..string_end(json, at)? - 1)
}

fn blanks(json: &[u8], mut at: usize) -> usize {
    while matches!(json.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// The end of the string whose opening quote is at `at`.
fn string_end(json: &[u8], at: usize) -> Option<usize> {
    let mut i = at + 1;
    loop {
        i += memchr::memchr2(b'"', b'\\', json.get(i..)?)?;
        if json[i] == b'"' {
            return Some(i + 1);
        }
        i += 2;
    }
}

/// The end of the value that begins at `at`.
fn value_end(json: &[u8], at: usize) -> Option<usize> {
    match json.get(at)? {
        b'"' => string_end(json, at),
        b'{' | b'[' => {
            let mut depth = 0usize;
            let mut i = at;
            loop {
                match json.get(i)? {
                    b'"' => i = string_end(json, i)? - 1,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Some(i + 1);
                        }
                    }
                    _ => {}
                }
                i += 1;
            }
        }
        _ => {
            let mut i = at;
            while !matches!(json.get(i)?, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') {
                i += 1;
            }
            Some(i)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_real_revision_is_replaced() {
        let json = Bytes::from_static(
            br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"annotations":{"resourceVersion":"7","x":"\"resourceVersion\":\"7\""},"name":"a","resourceVersion":"7"},"data":{"resourceVersion":"7"}}"#,
        );
        let new = with_revision(&json, 123).expect("a revision");
        let value: serde_json::Value = serde_json::from_slice(&new).expect("JSON");
        assert_eq!(value["metadata"]["resourceVersion"], "123");
        assert_eq!(value["metadata"]["annotations"]["resourceVersion"], "7");
        assert_eq!(value["data"]["resourceVersion"], "7");
        assert_eq!(type_meta(&json), ("v1".to_owned(), "ConfigMap".to_owned()));
        assert_eq!(type_meta(b"{ \"kind\" : \"X\" }"), (String::new(), "X".to_owned()));
        assert_eq!(revision_span(b"{\"metadata\":{\"name\":\"x\"}}"), None);
        assert_eq!(revision_span(b"{\"metadata\":"), None);
    }

    #[test]
    fn the_api_version_is_replaced_where_it_differs() {
        let json = Bytes::from_static(br#"{"apiVersion":"a/v1","kind":"K","metadata":{}}"#);
        assert_eq!(
            with_api_version(&json, "a/v2").expect("one"),
            r#"{"apiVersion":"a/v2","kind":"K","metadata":{}}"#
        );
    }
}
