//! What is known about the JSON behind a variable: how values are read, which fields expressions see, and how large things
//! may get. Upstream calls the last two a declaration type.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::escape::escape;
use crate::limits::REQUEST_BYTES;
use crate::types::{Fields, Object, Type};

/// A place in the data.
#[derive(Debug)]
pub struct Data {
    /// How a value is read.
    pub kind: DataKind,
    /// Whether `null` is a value here.
    pub nullable: bool,
    /// The most elements or characters; 0 for what has none.
    pub max_elements: u64,
    /// The fewest bytes of JSON that a value takes.
    pub min_bytes: u64,
    /// The type that expressions see; `None` if they do not see the place at all.
    pub ty: Option<Type>,
}

/// How a value is read.
#[derive(Debug)]
pub enum DataKind {
    /// By what it is.
    Untyped,
    /// A number or text, decided by what it is.
    IntOrString,
    /// Truth.
    Bool,
    /// A whole number.
    Int,
    /// A float, even if it is written as a whole number.
    Double,
    /// Text.
    String,
    /// Text in base64.
    Bytes,
    /// Text such as `1h30m`.
    Duration,
    /// Text such as `2024-01-31`.
    Date,
    /// Text such as `2024-01-31T12:00:00Z`.
    DateTime,
    /// A list.
    List {
        /// Its elements.
        item: Arc<Data>,
        /// How they are told apart.
        list: ListKind,
    },
    /// A map.
    Map(Arc<Data>),
    /// An object: fields by their name in JSON.
    Object(BTreeMap<String, Arc<Data>>),
    /// Data without a schema, which can be compared and nothing else.
    Preserved,
}

/// How the elements of a list are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// By position.
    Atomic,
    /// By value.
    Set,
    /// By these fields of theirs.
    Map(Vec<String>),
}

const QUOTES: u64 = 2;

impl Data {
    fn simple(kind: DataKind, ty: Type, max_elements: u64, min_bytes: u64) -> Self {
        Self { kind, nullable: false, max_elements, min_bytes, ty: Some(ty) }
    }

    /// Anything, read by what it is.
    pub fn untyped() -> Self {
        Self::simple(DataKind::Untyped, Type::Dyn, 0, 1)
    }

    /// Data that is kept without a schema.
    pub fn preserved() -> Self {
        Self { kind: DataKind::Preserved, nullable: true, max_elements: 0, min_bytes: 1, ty: None }
    }

    /// A number or text of at most so many characters.
    pub fn int_or_string(max_length: Option<u64>) -> Self {
        let max = max_length.map_or(REQUEST_BYTES - QUOTES, |max| max.saturating_mul(4));
        Self::simple(DataKind::IntOrString, Type::Dyn, max, 1)
    }

    /// Truth.
    pub fn bool() -> Self {
        Self::simple(DataKind::Bool, Type::Bool, 0, 4)
    }

    /// A whole number.
    pub fn int() -> Self {
        Self::simple(DataKind::Int, Type::Int, 0, 1)
    }

    /// A float.
    pub fn double() -> Self {
        Self::simple(DataKind::Double, Type::Double, 0, 1)
    }

    /// Text of at most so many characters, or one of a few texts.
    pub fn string(max_length: Option<u64>, longest_choice: Option<u64>) -> Self {
        // A character may take four bytes.
        let max = max_length.map(|max| max.saturating_mul(4)).or(longest_choice);
        Self::simple(DataKind::String, Type::String, max.unwrap_or(REQUEST_BYTES - QUOTES), 2)
    }

    /// Bytes.
    pub fn bytes(max_length: Option<u64>) -> Self {
        Self::simple(DataKind::Bytes, Type::Bytes, max_length.unwrap_or(REQUEST_BYTES - QUOTES), 2)
    }

    /// A span of time.
    pub fn duration() -> Self {
        Self::simple(DataKind::Duration, Type::Duration, 32, 3)
    }

    /// A day.
    pub fn date() -> Self {
        Self::simple(DataKind::Date, Type::Timestamp, 12, 12)
    }

    /// A point in time.
    pub fn date_time() -> Self {
        Self::simple(DataKind::DateTime, Type::Timestamp, 32, 21)
    }

    /// A list of at most so many elements.
    pub fn list(item: Arc<Self>, max_items: Option<u64>, list: ListKind) -> Self {
        let max = max_items.unwrap_or((REQUEST_BYTES - 2) / (item.min_bytes + 1));
        let ty = item.ty.clone().map(Type::list);
        let kind = DataKind::List { item, list };
        Self { kind, nullable: false, max_elements: max, min_bytes: 2, ty }
    }

    /// A map of at most so many entries.
    pub fn map(value: Arc<Self>, max_entries: Option<u64>) -> Self {
        let max = max_entries.unwrap_or((REQUEST_BYTES - 2) / (value.min_bytes + 6));
        let ty = value.ty.clone().map(Type::map);
        Self { kind: DataKind::Map(value), nullable: false, max_elements: max, min_bytes: 2, ty }
    }

    /// The same place where `null` is a value.
    #[must_use]
    pub fn nullable(mut self, nullable: bool) -> Self {
        self.nullable |= nullable;
        self
    }

    /// An object of a type name; `required` are the fields that are always written.
    pub fn object(type_name: &str, fields: BTreeMap<String, Arc<Self>>, required: &[String]) -> Self {
        let mut seen = BTreeMap::new();
        let mut min_bytes = 2;
        for (name, field) in &fields {
            let Some(ty) = &field.ty else { continue };
            if let Some(identifier) = escape(name) {
                seen.insert(identifier, ty.clone());
            }
            if required.contains(name) {
                min_bytes += name.len() as u64 + field.min_bytes + 4;
            }
        }
        let ty = Type::Object(Object::new(type_name, Fields::Known(seen)));
        Self { kind: DataKind::Object(fields), nullable: false, max_elements: 0, min_bytes, ty: Some(ty) }
    }

    /// How often a value of this place may occur in one request.
    pub fn max_cardinality(&self) -> u64 {
        REQUEST_BYTES / (self.min_bytes + 1)
    }

    /// The place at one step of a path: an identifier, `@items`, `@values` or `@keys`.
    pub(crate) fn step(&self, step: &str) -> Option<&Self> {
        const KEY: Data = Data {
            kind: DataKind::String,
            nullable: false,
            max_elements: 0,
            min_bytes: 2,
            ty: Some(Type::String),
        };
        static KEYS: Data = KEY;
        match (&self.kind, step) {
            (DataKind::List { item, .. }, "@items") => Some(item),
            (DataKind::Map(value), "@values") => Some(value),
            (DataKind::Map(_), "@keys") => Some(&KEYS),
            (DataKind::Object(fields), name) => fields
                .get(crate::escape::unescape(name)?.as_str())
                .map(Arc::as_ref)
                .filter(|f| f.ty.is_some()),
            _ => None,
        }
    }
}
