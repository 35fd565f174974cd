//! How keys and values look in etcd.
//!
//! A key `<root><rest>` of the store is `<prefix><rest>` there, so that several clusters may share one etcd.
//!
//! A value ends with one byte more: [`PLAIN`] after the value itself, or [`STAMPED`] after a template and, as four
//! bytes, the place where the revision of the write goes. The revision is known only when the write has happened, so
//! it is inserted on reading; there is one write. The mark is at the end so that tools which look at the beginning
//! (`{`, `k8s:enc:`) see what they expect.

use bytes::{BufMut, Bytes, BytesMut};

use super::proto;
use crate::store::{KeyValue, Revision, Value};
use crate::{Result, StoreError};

/// Ends a value that is stored as it is.
const PLAIN: u8 = 0;
/// Ends a template.
const STAMPED: u8 = 1;

/// Where the store's keys are in etcd.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// What the store's keys begin with; empty or with a slash at the end.
    root: String,
    /// What stands there instead in etcd; with a slash at the end.
    prefix: String,
}

/// A half-open range of etcd's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) key: Bytes,
    pub(super) range_end: Bytes,
}

impl Span {
    pub(super) fn is_empty(&self) -> bool {
        self.key >= self.range_end
    }
}

impl Layout {
    pub(super) fn new(root: &str, prefix: &str) -> Self {
        let prefix = format!("/{}/", prefix.trim_matches('/'));
        let prefix = if prefix == "//" { "/".to_owned() } else { prefix };
        Self { root: root.to_owned(), prefix }
    }

    /// The key in etcd.
    ///
    /// # Errors
    /// It is outside of the root.
    pub(super) fn key(&self, key: &str) -> Result<Bytes> {
        match key.strip_prefix(&self.root) {
            Some(rest) => Ok(format!("{}{rest}", self.prefix).into()),
            None => Err(StoreError::Invalid(format!("{key:?} does not begin with {:?}", self.root))),
        }
    }

    /// What is read for the keys with this prefix after that one.
    pub(super) fn span(&self, prefix: &str, after: Option<&str>) -> Span {
        let Some(rest) = prefix.strip_prefix(&self.root) else {
            if self.root.starts_with(prefix) {
                return self.span(&self.root, after);
            }
            return Span { key: Bytes::new(), range_end: Bytes::new() };
        };
        let first = format!("{}{rest}", self.prefix);
        let range_end = end_of(first.as_bytes());
        // A cursor in front of the prefix is as good as none.
        let cursor =
            after.filter(|after| *after >= prefix).map(|after| match after.strip_prefix(&self.root) {
                Some(rest) => Bytes::from(format!("{}{rest}\0", self.prefix)),
                None => range_end.clone(),
            });
        Span { key: cursor.unwrap_or_else(|| first.into()), range_end }
    }

    /// What is watched: everything, and [`Layout::fence`], which is the one key behind it.
    pub(super) fn watched(&self) -> Span {
        let fence = self.fence();
        let range_end = [&*fence, b"\0"].concat().into();
        Span { key: Bytes::copy_from_slice(self.prefix.as_bytes()), range_end }
    }

    /// A key right behind all of ours: it is in what is watched and in nothing that is read.
    pub(super) fn fence(&self) -> Bytes {
        end_of(self.prefix.as_bytes())
    }

    /// The store's key; `None` for what is not among its keys.
    fn read_key(&self, key: &[u8]) -> Option<std::sync::Arc<str>> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?;
        Some(format!("{}{}", self.root, str::from_utf8(rest).ok()?).into())
    }

    /// A key and value as the store knows it; `None` for what is not among its keys.
    ///
    /// # Errors
    /// The value was not written by this engine.
    pub(super) fn read(&self, kv: &proto::KeyValue) -> Result<Option<KeyValue>> {
        let Some(key) = self.read_key(&kv.key) else { return Ok(None) };
        let modified = proto::unsigned(kv.mod_revision);
        let value = decode(&kv.value, modified).ok_or_else(|| StoreError::Unreadable {
            key: std::sync::Arc::clone(&key),
            detail: format!("the value of {key} in etcd was not written by Gantry"),
            passing: false,
        })?;
        Ok(Some(KeyValue { key, value, created: proto::unsigned(kv.create_revision), modified }))
    }

    /// The key of a delete.
    pub(super) fn read_deleted(&self, kv: &proto::KeyValue) -> Option<(std::sync::Arc<str>, Revision)> {
        Some((self.read_key(&kv.key)?, proto::unsigned(kv.mod_revision)))
    }
}

/// The first key that does not begin with `prefix`, which ends with a byte below 0xff: it is UTF-8.
fn end_of(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    end.into()
}

/// A value as it is stored.
pub(super) fn encode(value: &Value) -> Bytes {
    let (body, at) = match value {
        Value::Bytes(bytes) => (bytes, None),
        Value::Stamped { template, at } => (template, Some(*at)),
    };
    let mut stored = BytesMut::with_capacity(body.len() + 5);
    stored.put_slice(body);
    match at {
        // A template is at most 4 MiB.
        Some(at) => {
            stored.put_u32(u32::try_from(at).unwrap_or(u32::MAX));
            stored.put_u8(STAMPED);
        }
        None => stored.put_u8(PLAIN),
    }
    stored.freeze()
}

/// A stored value as of its revision. The bytes are copied: a slice would keep the whole answer alive.
fn decode(stored: &Bytes, revision: Revision) -> Option<Bytes> {
    match stored.split_last()? {
        (&PLAIN, body) => Some(Bytes::copy_from_slice(body)),
        (&STAMPED, rest) => {
            let (template, at) = rest.split_last_chunk::<4>()?;
            let at = u32::from_be_bytes(*at) as usize;
            (at <= template.len()).then_some(())?;
            let template = stored.slice(..template.len());
            Some(Value::Stamped { template, at }.at_revision(revision))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_move_below_the_prefix_and_back() {
        for (prefix, want) in [("/registry", "/registry/a"), ("cluster/b/", "/cluster/b/a"), ("", "/a")] {
            let layout = Layout::new("/registry/", prefix);
            let key = layout.key("/registry/a").expect("a key");
            assert_eq!(key, want);
            assert_eq!(layout.read_key(&key).as_deref(), Some("/registry/a"));
        }
        let layout = Layout::new("/registry/", "/x");
        assert!(layout.key("/other/a").is_err());
        assert_eq!(layout.read_key(b"/y/a"), None);
        assert_eq!(layout.read_key(&layout.fence()), None);
    }

    #[test]
    fn spans_hold_what_is_asked_for() {
        let layout = Layout::new("/r/", "/x");
        let span = |prefix, after| {
            let Span { key, range_end } = layout.span(prefix, after);
            let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("text");
            (text(&key), text(&range_end))
        };
        let want = |key: &str, end: &str| (key.to_owned(), end.to_owned());
        assert_eq!(span("/r/", None), want("/x/", "/x0"));
        assert_eq!(span("", None), want("/x/", "/x0"));
        assert_eq!(span("/r/pods/", Some("/r/pods/a")), want("/x/pods/a\0", "/x/pods0"));
        assert_eq!(span("/r/pods/", Some("/r/a")), want("/x/pods/", "/x/pods0"));
        assert_eq!(span("/r/", Some("/z")), want("/x0", "/x0"));
        assert_eq!(span("/s", None), want("", ""));
        let watched = layout.watched();
        assert!(watched.key <= layout.fence() && layout.fence() < watched.range_end);
    }

    #[test]
    fn values_carry_the_place_of_their_revision() {
        let plain = Value::Bytes(Bytes::from_static(b"{}"));
        assert_eq!(decode(&encode(&plain), 7).expect("a value"), "{}");
        let stamped = Value::Stamped { template: Bytes::from_static(b"ab"), at: 1 };
        assert_eq!(decode(&encode(&stamped), 12).expect("a value"), "a12b");
        for broken in [&b""[..], b"x", b"\0\0\0\x09\x01", b"\x01"] {
            assert_eq!(decode(&Bytes::copy_from_slice(broken), 1), None, "{broken:?}");
        }
    }
}
