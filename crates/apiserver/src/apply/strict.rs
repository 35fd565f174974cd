//! Strict field validation: what a decoder would drop without a word.

use std::collections::HashSet;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

pub use gantry_api::schema::{MAX_PROBLEMS, unknown_fields};

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// The keys that occur twice in one object of a JSON text: `duplicate field "spec.replicas"`. Text that is no JSON has
/// none.
pub fn duplicate_fields(json: &[u8]) -> Vec<String> {
    let mut scan = Scan { path: String::new(), found: Vec::new(), seen: HashSet::new() };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    // Malformed text is reported by the one who parses it.
    match Place(&mut scan).deserialize(&mut deserializer) {
        Ok(()) => scan.found,
        Err(_) => Vec::new(),
    }
}

struct Scan {
    path: String,
    found: Vec<String>,
    /// What was reported: each path is, once.
    seen: HashSet<String>,
}

struct Place<'a>(&'a mut Scan);

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let length = self.0.path.len();
        for i in 0.. {
            self.0.path.push_str(&format!("[{i}]"));
            let next = list.next_element_seed(Place(self.0))?;
            self.0.path.truncate(length);
            if next.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let length = self.0.path.len();
        let mut keys: HashSet<String> = HashSet::new();
        while let Some(Key(key)) = map.next_key()? {
            push_name(&mut self.0.path, &key);
            if !keys.insert(key)
                && self.0.found.len() < MAX_PROBLEMS
                && self.0.seen.insert(self.0.path.clone())
            {
                let text = format!("duplicate field \"{}\"", self.0.path);
                self.0.found.push(text);
            }
            map.next_value_seed(Place(self.0))?;
            self.0.path.truncate(length);
        }
        Ok(())
    }
}

/// A key, whatever its content.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Key)
    }
}
