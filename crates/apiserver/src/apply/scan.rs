//! Strict field validation of a body that is read into a type: what is complained of, and nothing kept of the rest.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use gantry_api::schema::Node;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use super::strict::{MAX_PROBLEMS, Place};
use crate::json_key::Text;

/// As many keys are compared one by one; of more, a table is made.
const FEW_KEYS: usize = 16;

/// What strict decoding complains of in a JSON text, in the order of the text and each once: keys that stand twice
/// (`duplicate field "spec.replicas"`) and, by a schema of a built-in kind, those that it does not know
/// (`unknown field "spec.foo"`). One pass, which keeps nothing of what it reads.
///
/// # Errors
/// The text is no JSON.
pub fn complaints(json: &[u8], node: Option<Node<'_>>) -> Result<Complaints, serde_json::Error> {
    let mut notes = Notes::default();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let place = node.map_or(Place::Free, Place::Known);
    Look { notes: &mut notes, place, path: None }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(Complaints { problems: notes.found, no_quantity: notes.no_quantity })
}

/// What [`complaints`] finds.
#[derive(Debug, Default)]
pub struct Complaints {
    /// Duplicate and unknown fields.
    pub problems: Vec<String>,
    /// Whether a text stands in place of a quantity and is none: who decodes the kind takes any text.
    pub no_quantity: bool,
}

#[derive(Default)]
struct Notes {
    found: Vec<String>,
    /// What was reported: each is, once.
    seen: HashSet<String>,
    no_quantity: bool,
}

impl Notes {
    fn note(&mut self, what: &str, path: &Step<'_>) {
        if self.found.len() < MAX_PROBLEMS {
            let text = format!("{what} field {}", gantry_api::field::quote(&path.text()));
            if self.seen.insert(text.clone()) {
                self.found.push(text);
            }
        }
    }
}

/// The way to a place. It is written out only if there is something to say of the place.
struct Step<'a> {
    above: Option<&'a Step<'a>>,
    here: Segment<'a>,
}

enum Segment<'a> {
    Name(&'a str),
    Index(usize),
}

impl Step<'_> {
    fn text(&self) -> String {
        let mut text = self.above.map(Step::text).unwrap_or_default();
        match self.here {
            Segment::Name(name) if text.is_empty() => text.push_str(name),
            Segment::Name(name) => text.extend([".", name]),
            Segment::Index(index) => text.push_str(&format!("[{index}]")),
        }
        text
    }
}

/// The keys of one object so far.
#[derive(Default)]
struct Keys<'de> {
    few: SmallVec<[Cow<'de, str>; FEW_KEYS]>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Keys<'de> {
    /// Adds a key; whether it was there.
    fn note(&mut self, key: Cow<'de, str>) -> bool {
        if self.few.contains(&key) || self.many.contains(&key) {
            return true;
        }
        if self.few.len() < FEW_KEYS {
            self.few.push(key);
        } else {
            self.many.insert(key);
        }
        false
    }
}

/// Looks at a value and forgets it.
struct Look<'s, 'n> {
    notes: &'s mut Notes,
    place: Place<'n>,
    path: Option<&'s Step<'s>>,
}

impl<'de> DeserializeSeed<'de> for Look<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.notes.no_quantity |= self.place.refuses(text);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let place = self.place.item();
        for index in 0.. {
            let step = Step { above: self.path, here: Segment::Index(index) };
            let look = Look { notes: &mut *self.notes, place, path: Some(&step) };
            if list.next_element_seed(look)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let here = self.place.as_object();
        let mut keys = Keys::default();
        while let Some(Text(key)) = map.next_key()? {
            let inner = match here {
                Place::Known(node) => node.child(&key).map(Place::Known),
                other => Some(other),
            };
            let twice = !matches!(here, Place::Ignored) && keys.note(key.clone());
            let step = Step { above: self.path, here: Segment::Name(&key) };
            if inner.is_none() {
                self.notes.note("unknown", &step);
            } else if twice {
                self.notes.note("duplicate", &step);
            }
            let place = inner.unwrap_or(Place::Ignored);
            map.next_value_seed(Look { notes: &mut *self.notes, place, path: Some(&step) })?;
        }
        Ok(())
    }
}
