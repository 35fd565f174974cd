//! Strict field validation: what a decoder would drop without a word.

use std::collections::HashSet;
use std::fmt;

use gantry_api::Quantity;
use gantry_api::schema::{Node, Shape, Type};
use granit_parser::{Event, Parser};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

pub use gantry_api::schema::{MAX_PROBLEMS, unknown_fields};

/// A JSON text, read.
#[derive(Debug)]
pub struct Read {
    /// What it says; of a key that stands twice, the later value.
    pub tree: Value,
    /// What strict decoding complains of, in the order of the text and each once.
    pub problems: Vec<String>,
    /// Whether a text stands in place of a quantity and is none: who decodes the kind takes any text.
    pub no_quantity: bool,
}

/// Reads a JSON text and notes the keys that stand twice (`duplicate field "spec.replicas"`) and, by a schema of a
/// built-in kind, those that it does not know (`unknown field "spec.foo"`): one pass for both.
///
/// # Errors
/// The text is no JSON.
pub fn read(json: &[u8], node: Option<Node<'_>>) -> Result<Read, serde_json::Error> {
    let mut scan = Scan { path: String::new(), found: Vec::new(), seen: HashSet::new(), no_quantity: false };
    let mut reader = serde_json::Deserializer::from_slice(json);
    let place = node.map_or(Place::Free, Place::Known);
    let tree = Build { scan: &mut scan, place }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(Read { tree, problems: scan.found, no_quantity: scan.no_quantity })
}

/// The keys that stand twice in one object of a JSON text. Text that is no JSON has none: whoever parses it says so.
pub fn duplicate_fields(json: &[u8]) -> Vec<String> {
    read(json, None).map(|read| read.problems).unwrap_or_default()
}

/// The keys that stand twice in one mapping of a YAML text, with their lines, as upstream's reader names them:
/// `line 5: key "name" already set in map`. Text that is no YAML has none.
pub fn yaml_duplicates(text: &str) -> Vec<String> {
    /// An open collection.
    enum Open {
        List,
        /// The keys so far, and whether a value comes next.
        Map(HashSet<String>, bool),
    }
    let mut open: Vec<Open> = Vec::new();
    let mut found = Vec::new();
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { return Vec::new() };
        match event {
            Event::MappingEnd | Event::SequenceEnd => {
                open.pop();
                continue;
            }
            Event::Scalar(..) | Event::Alias(..) | Event::MappingStart(..) | Event::SequenceStart(..) => {}
            _ => continue,
        }
        if let Some(Open::Map(keys, is_value)) = open.last_mut() {
            if let (Event::Scalar(key, ..), false) = (&event, *is_value)
                && !keys.insert(key.to_string())
            {
                let line = span.start.line();
                found.push(format!("line {line}: key {} already set in map", super::go_text::go_quote(key)));
            }
            *is_value = !*is_value;
        }
        match event {
            Event::MappingStart(..) => open.push(Open::Map(HashSet::new(), false)),
            Event::SequenceStart(..) => open.push(Open::List),
            _ => {}
        }
    }
    found
}

struct Scan {
    path: String,
    found: Vec<String>,
    /// What was reported: each is, once.
    seen: HashSet<String>,
    no_quantity: bool,
}

impl Scan {
    fn note(&mut self, what: &str) {
        if self.found.len() < MAX_PROBLEMS {
            let text = format!("{what} field {}", gantry_api::field::quote(&self.path));
            if self.seen.insert(text.clone()) {
                self.found.push(text);
            }
        }
    }

    fn push_name(&mut self, name: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
    }
}

/// What is known of a place.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// The schema.
    Known(Node<'a>),
    /// Nothing, but keys stand once.
    Free,
    /// Nothing, and nobody looks.
    Ignored,
}

impl<'a> Place<'a> {
    pub(super) fn item(self) -> Place<'a> {
        match self {
            Place::Known(node) => match node.shape() {
                Shape::List(_) => Place::Known(node.item()),
                _ => Place::Ignored,
            },
            other => other,
        }
    }

    /// Whether the place is that of a quantity and the text is none.
    pub(super) fn refuses(self, text: &str) -> bool {
        matches!(self, Place::Known(Node::Static(Type::Quantity, _)))
            && text.trim().parse::<Quantity>().is_err()
    }

    /// The place as an object: content without a schema of its own is somebody else's matter.
    pub(super) fn as_object(self) -> Place<'a> {
        match self {
            Place::Known(node) if !matches!(node.shape(), Shape::Object { .. }) => Place::Ignored,
            other => other,
        }
    }
}

/// Builds a tree while it looks at what it reads.
struct Build<'s, 'n> {
    scan: &'s mut Scan,
    place: Place<'n>,
}

impl<'de> DeserializeSeed<'de> for Build<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a JSON number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        self.scan.no_quantity |= self.place.refuses(value);
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        self.scan.no_quantity |= self.place.refuses(&value);
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let length = self.scan.path.len();
        let place = self.place.item();
        let mut out = Vec::new();
        loop {
            use fmt::Write as _;
            write!(self.scan.path, "[{}]", out.len()).map_err(A::Error::custom)?;
            let next = list.next_element_seed(Build { scan: self.scan, place })?;
            self.scan.path.truncate(length);
            match next {
                Some(value) => out.push(value),
                None => return Ok(Value::Array(out)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let length = self.scan.path.len();
        let here = self.place.as_object();
        let mut out = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            self.scan.push_name(&key);
            let inner = match here {
                Place::Known(node) => node.child(&key).map(Place::Known),
                other => Some(other),
            };
            if inner.is_none() {
                self.scan.note("unknown");
            } else if !matches!(here, Place::Ignored) && out.contains_key(&key) {
                self.scan.note("duplicate");
            }
            let place = inner.unwrap_or(Place::Ignored);
            let value = map.next_value_seed(Build { scan: self.scan, place })?;
            out.insert(key, value);
            self.scan.path.truncate(length);
        }
        Ok(Value::Object(out))
    }
}
