//! The fields that the creator of an object comes to own, read from the object's JSON without a tree of it.
//!
//! What comes out is what [`walk::compare`](super::walk::compare) finds between nothing and the object.

use std::fmt;

use gantry_api::schema::{Keys, ListShape, Node, Shape};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Value};

use super::fields::{self, FieldSet};
use crate::json_key::Text;

/// Every field of a new object.
///
/// # Errors
/// The text is no JSON.
pub fn fields_of_new(json: &[u8], node: Node<'_>) -> Result<FieldSet, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let found = Place { node, before: None, keys: None }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(found.below)
}

/// What was found at a place.
#[derive(Default)]
struct Found {
    /// Whether the place itself is new or has another value.
    changed: bool,
    /// What is new below it.
    below: FieldSet,
    /// The value, if there is nothing below it.
    value: Option<Value>,
}

/// A place that is about to be read.
struct Place<'n, 'k> {
    node: Node<'n>,
    /// What Go writes of the field when it is not there, if it writes it.
    before: Option<&'static Value>,
    /// Takes the values of these fields if it is an object: the element of a list that is known by them.
    keys: Option<(Keys<'n>, &'k mut Map<String, Value>)>,
}

impl Place<'_, '_> {
    /// A value with nothing below it.
    fn leaf(self, value: Value) -> Found {
        Found {
            changed: self.before.is_none_or(|before| !super::equal(before, &value)),
            below: FieldSet::new(),
            value: Some(value),
        }
    }

    /// A value that is owned as a whole.
    fn whole(self) -> Found {
        // What stands for an absent list or object is empty or null, and this is not.
        Found { changed: true, ..Found::default() }
    }

    /// A value with something below it.
    fn parent(&self, below: FieldSet) -> Found {
        Found { changed: self.before.is_none(), below, value: None }
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_, '_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Found, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_, '_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Found, E> {
        Ok(self.leaf(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Found, E> {
        Ok(self.leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Found, E> {
        Ok(self.leaf(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Found, E> {
        Ok(self.leaf(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Found, E> {
        Ok(self.leaf(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(self.leaf(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
        let shape = match self.node.shape() {
            Shape::List(shape @ (ListShape::Set | ListShape::Map(_))) => shape,
            _ => {
                let mut is_empty = true;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    is_empty = false;
                }
                return Ok(if is_empty { self.leaf(Value::Array(Vec::new())) } else { self.whole() });
            }
        };
        let item = self.node.item();
        let keys = match shape {
            ListShape::Map(keys) => Some(keys),
            _ => None,
        };
        let (mut below, mut is_empty) = (FieldSet::new(), true);
        loop {
            let mut captured = Map::new();
            let keys = keys.map(|keys| (keys, &mut captured));
            let place = Place { node: item, before: None, keys };
            let Some(found) = list.next_element_seed(place)? else { break };
            is_empty = false;
            let value = found.value.unwrap_or(Value::Object(captured));
            // An element that cannot be told apart belongs to nobody.
            let Ok(element) = fields::element(&value, shape, item) else { continue };
            match below.entry(element) {
                // Duplicates count as one leaf.
                Entry::Occupied(mut first) => drop(first.insert(Value::Object(FieldSet::new()))),
                Entry::Vacant(free) => drop(free.insert(fields::owned(found.below))),
            }
        }
        Ok(if is_empty { self.leaf(Value::Array(Vec::new())) } else { self.parent(below) })
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Found, A::Error> {
        let granular = match self.node.shape() {
            Shape::Scalar | Shape::List(_) => false,
            Shape::Object { atomic } | Shape::Any { atomic } => !atomic,
        };
        let (mut below, mut is_empty) = (FieldSet::new(), true);
        while let Some(Text(name)) = map.next_key()? {
            is_empty = false;
            let wanted = self.keys.as_ref().is_some_and(|(keys, _)| keys.iter().any(|key| key == name));
            if !granular && !wanted {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let inner = self.node.child(&name).unwrap_or(Node::ANY);
            let before = self.node.absent(&name);
            let found = map.next_value_seed(Place { node: inner, before, keys: None })?;
            if granular && (found.changed || !found.below.is_empty()) {
                fields::insert(&mut below, fields::field(&name), found.changed, found.below);
            }
            if let (true, Some((_, captured)), Some(value)) = (wanted, &mut self.keys, found.value) {
                captured.insert(name.into_owned(), value);
            }
        }
        Ok(match (is_empty, granular) {
            (true, _) => self.leaf(Value::Object(Map::new())),
            (_, false) => self.whole(),
            (_, true) => self.parent(below),
        })
    }
}
