//! One object in the watch cache: its bytes, and beside them what selectors ask for.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, LazyLock};

use gantry_api::Encoded;
use gantry_kinds::AnyKind;
use parking_lot::Mutex;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::json_key::Text;

/// One revision of one object. Immutable; shared by the map, the ring, lists and watchers.
pub(crate) struct Entry {
    pub(crate) key: Arc<str>,
    pub(crate) encoded: Arc<Encoded>,
    labels: Box<[(Arc<str>, Arc<str>)]>,
    /// The values of the kind's selectable paths, in their order.
    fields: Box<[Arc<str>]>,
    namespace_at: u16,
    name_at: u16,
}

impl Entry {
    /// Reads what selectors need from the object's bytes, which a `kind` wrote.
    pub(crate) fn new(key: Arc<str>, prefix_len: usize, encoded: Arc<Encoded>, kind: &dyn AnyKind) -> Self {
        let summary = Summary::read(encoded.bytes(), kind);
        let namespaced = kind.resource().namespaced;
        let slash = key[prefix_len..].find('/').filter(|_| namespaced).map(|at| prefix_len + at + 1);
        let small = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        Self {
            namespace_at: small(prefix_len),
            name_at: small(slash.unwrap_or(prefix_len)),
            key,
            encoded,
            labels: summary.labels,
            fields: summary.fields,
        }
    }

    /// The same object with other bytes.
    pub(crate) fn with_encoded(&self, encoded: Arc<Encoded>) -> Self {
        Self {
            key: Arc::clone(&self.key),
            encoded,
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            namespace_at: self.namespace_at,
            name_at: self.name_at,
        }
    }

    /// Empty for cluster-scoped objects.
    pub(crate) fn namespace(&self) -> &str {
        let (from, to) = (usize::from(self.namespace_at), usize::from(self.name_at));
        if from == to { "" } else { &self.key[from..to - 1] }
    }

    pub(crate) fn name(&self) -> &str {
        &self.key[usize::from(self.name_at)..]
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.labels[at].1)
    }

    /// The value of the kind's selectable path number `index`.
    pub(crate) fn field(&self, index: usize) -> &str {
        self.fields.get(index).map_or("", |v| v)
    }

    pub(crate) fn field_arc(&self, index: usize) -> Option<&Arc<str>> {
        self.fields.get(index)
    }

    pub(crate) fn size(&self) -> usize {
        self.encoded.bytes().len() + 256
    }
}

#[derive(Default)]
struct Summary {
    labels: Box<[(Arc<str>, Arc<str>)]>,
    fields: Box<[Arc<str>]>,
}

impl Summary {
    fn read(json: &[u8], kind: &dyn AnyKind) -> Self {
        let wants_fields = !kind.selectable().is_empty();
        if wants_fields && kind.definition().is_none() {
            return Self::decode(json, kind);
        }
        let mut shallow = Shallow { labels: Vec::new(), scalars: wants_fields.then(Map::new) };
        let mut reader = serde_json::Deserializer::from_slice(json);
        if Top(&mut shallow).deserialize(&mut reader).is_err() {
            // Bytes that the server wrote can be read; if not, nothing but the key is known of the object.
            tracing::error!(kind = %kind.resource().kind, "an object in the store is no JSON object");
            return Self::default();
        }
        let fields = shallow.scalars.and_then(|scalars| {
            let object = kind.decode_value(Value::Object(scalars)).ok()?;
            Some(kind.selectable_values(&*object).iter().map(|v| intern(v)).collect())
        });
        let mut labels: Vec<_> = shallow.labels;
        labels.sort_unstable();
        Self { labels: labels.into(), fields: fields.unwrap_or_default() }
    }

    /// The long way: custom resources may select by fields anywhere.
    fn decode(json: &[u8], kind: &dyn AnyKind) -> Self {
        let Ok(decoded) = kind.decode(json, false) else { return Self::default() };
        let labels = decoded.object.metadata().labels.iter().flatten();
        Self {
            labels: labels.map(|(k, v)| (intern(k), intern(v))).collect(),
            fields: kind.selectable_values(&*decoded.object).iter().map(|v| intern(v)).collect(),
        }
    }
}

/// Label keys and values and field values repeat over and over: one copy of each.
fn intern(text: &str) -> Arc<str> {
    static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(|| Mutex::new(Pool::default()));
    POOL.lock().intern(text)
}

#[derive(Default)]
struct Pool {
    texts: HashSet<Arc<str>>,
    /// Sweep out what nobody else holds when there are this many.
    sweep_at: usize,
}

impl Pool {
    fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(found) = self.texts.get(text) {
            return Arc::clone(found);
        }
        if self.texts.len() >= self.sweep_at.max(1024) {
            self.texts.retain(|t| Arc::strong_count(t) > 1);
            self.sweep_at = self.texts.len() * 2;
        }
        let new: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&new));
        new
    }
}

/// The labels of an object and its scalars of the first two levels (`type`, `spec.nodeName`, `status.phase`): all
/// that the selectable fields of built-in kinds are made of.
struct Shallow {
    labels: Vec<(Arc<str>, Arc<str>)>,
    scalars: Option<Map<String, Value>>,
}

struct Top<'a>(&'a mut Shallow);

impl<'de> DeserializeSeed<'de> for Top<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            if key == "metadata" {
                map.next_value_seed(Metadata(self.0))?;
                if self.0.scalars.is_none() {
                    // Nothing behind the metadata matters, but the reader wants to see the end.
                    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                    return Ok(());
                }
                continue;
            }
            let Some(scalars) = &mut self.0.scalars else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if let Some(value) = map.next_value_seed(Level(2))? {
                scalars.insert(key.into_owned(), value);
            }
        }
        Ok(())
    }
}

struct Metadata<'a>(&'a mut Shallow);

impl<'de> DeserializeSeed<'de> for Metadata<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Metadata<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metadata")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            if key == "labels" {
                map.next_value_seed(Labels(&mut self.0.labels))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Labels<'a>(&'a mut Vec<(Arc<str>, Arc<str>)>);

impl<'de> DeserializeSeed<'de> for Labels<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Labels<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((Text(key), Text(value))) = map.next_entry()? {
            self.0.push((intern(&key), intern(&value)));
        }
        Ok(())
    }
}

/// Keeps scalars, and objects of scalars down to this many levels; everything else is skipped.
struct Level(u8);

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Option<Value>;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Option<Value>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Self::Value, E> {
        Ok(Some(Value::Bool(v)))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Self::Value, E> {
        Ok(Some(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Self::Value, E> {
        Ok(Some(v.into()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Self::Value, E> {
        Ok(Some(v.into()))
    }
    fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
        Ok(Some(v.into()))
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        if self.0 < 2 {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(None);
        }
        let mut scalars = Map::new();
        while let Some(Text(key)) = map.next_key()? {
            if let Some(value) = map.next_value_seed(Level(self.0 - 1))? {
                scalars.insert(key.into_owned(), value);
            }
        }
        Ok(Some(Value::Object(scalars)))
    }
}
