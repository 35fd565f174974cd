//! Values: borrowed from the data or the program wherever possible.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use gantry_api::quantity::Quantity;
use indexmap::IndexMap;
use serde_json::Value as Json;

use crate::data::Data;
use crate::library::authorizer::{GroupCheck, Outcome, PathCheck, ResourceCheck, Subject};
use crate::library::net::Cidr;
use crate::library::semver::Semver;
use crate::library::time::Timestamp;
use crate::library::url::Url;
use crate::library::validate::Format;
use crate::types::Type;

/// A value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// Truth.
    Bool(bool),
    /// A number with sign.
    Int(i64),
    /// A number without.
    Uint(u64),
    /// A float.
    Double(f64),
    /// Text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A point in time, between the years 1 and 9999.
    Timestamp(Timestamp),
    /// A span of time, in nanoseconds.
    Duration(i64),
    /// A list.
    List(List<'a>),
    /// A map or object.
    Map(Map<'a>),
    /// A type.
    Type(Type),
    /// Perhaps a value.
    Optional(Option<Arc<Value<'a>>>),
    /// What a library made.
    Opaque(Opaque),
    /// Data without a schema.
    Preserved(&'a Json),
}

/// What a library made.
#[derive(Clone, Debug)]
pub enum Opaque {
    /// An amount.
    Quantity(Quantity),
    /// An address.
    Ip(std::net::IpAddr),
    /// A network.
    Cidr(Cidr),
    /// A URL.
    Url(Arc<Url>),
    /// A semantic version.
    Semver(Arc<Semver>),
    /// A named format.
    Format(&'static Format),
    /// Who is asked about.
    Authorizer(Arc<Subject>),
    /// What is asked, by path.
    PathCheck(Arc<PathCheck>),
    /// What is asked, by API group.
    GroupCheck(Arc<GroupCheck>),
    /// What is asked, by resource.
    ResourceCheck(Arc<ResourceCheck>),
    /// The answer.
    Decision(Arc<Outcome>),
}

/// Text, borrowed or shared.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// Somebody else's.
    Borrowed(&'a str),
    /// Made by the expression.
    Shared(Arc<str>),
}

impl Text<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self::Shared(text.into())
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self::Borrowed(text)
    }
}

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// Of JSON.
    Json(&'a [Json], Option<&'a Data>),
    /// Of values.
    Values(Arc<Vec<Value<'a>>>),
}

/// A map or object.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// Of JSON.
    Json(&'a serde_json::Map<String, Json>, Option<&'a Data>),
    /// Of values.
    Values(Arc<Entries<'a>>),
    /// A struct that the expression built: its type and fields.
    Struct(Arc<str>, Arc<Entries<'a>>),
}

/// The entries of a map, in the order in which they were put in.
pub type Entries<'a> = IndexMap<Key<'a>, Value<'a>>;

/// A key of a map. Numbers of different types are equal if they are the same number.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    /// Truth.
    Bool(bool),
    /// A number with sign.
    Int(i64),
    /// A number without.
    Uint(u64),
    /// Text.
    String(Text<'a>),
}

impl Key<'_> {
    fn number(&self) -> Option<i128> {
        match self {
            Self::Int(n) => Some(i128::from(*n)),
            Self::Uint(n) => Some(i128::from(*n)),
            _ => None,
        }
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::String(a), Self::String(b)) => a.as_str() == b.as_str(),
            _ => self.number().is_some() && self.number() == other.number(),
        }
    }
}

impl Eq for Key<'_> {}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Bool(value) => value.hash(state),
            Self::String(text) => text.as_str().hash(state),
            _ => self.number().hash(state),
        }
    }
}

impl<'a> Key<'a> {
    /// The key that a value is; `None` for values that are no keys. A float that is a whole number is that number.
    pub fn from_value(value: &Value<'a>) -> Option<Self> {
        Some(match value {
            Value::Bool(b) => Self::Bool(*b),
            Value::Int(n) => Self::Int(*n),
            Value::Uint(n) => Self::Uint(*n),
            Value::String(text) => Self::String(text.clone()),
            Value::Double(d) if d.fract() == 0.0 && d.abs() < 9.0e18 => Self::Int(*d as i64),
            _ => return None,
        })
    }

    /// The key as a value.
    pub fn to_value(&self) -> Value<'a> {
        match self {
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(n) => Value::Int(*n),
            Self::Uint(n) => Value::Uint(*n),
            Self::String(text) => Value::String(text.clone()),
        }
    }
}

impl<'a> Value<'a> {
    /// Text made by an expression.
    pub fn text(text: impl Into<String>) -> Self {
        Self::String(Text::from(text.into()))
    }

    /// A list of values.
    pub fn list(values: Vec<Self>) -> Self {
        Self::List(List::Values(Arc::new(values)))
    }

    /// An optional with a value.
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// The truth, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &str {
        match self {
            Self::Map(Map::Struct(name, _)) => name,
            Self::Preserved(_) => "unknown",
            other => match other.type_of() {
                Type::Null => "null_type",
                Type::Bool => "bool",
                Type::Int => "int",
                Type::Uint => "uint",
                Type::Double => "double",
                Type::String => "string",
                Type::Bytes => "bytes",
                Type::Duration => "google.protobuf.Duration",
                Type::Timestamp => "google.protobuf.Timestamp",
                Type::List(_) => "list",
                Type::Map(..) => "map",
                Type::Kind(_) => "type",
                Type::Opaque(name, _) => name,
                _ => self.opaque_name(),
            },
        }
    }

    fn opaque_name(&self) -> &'static str {
        match self {
            Self::Opaque(opaque) => opaque.type_name(),
            _ => "dyn",
        }
    }

    /// Its type; parameters are not known when an expression runs.
    pub fn type_of(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Timestamp(_) => Type::Timestamp,
            Self::Duration(_) => Type::Duration,
            Self::List(_) => Type::list(Type::Dyn),
            Self::Map(Map::Struct(name, _)) => crate::declare::library_type(name),
            Self::Map(_) => Type::Map(Type::Dyn.into(), Type::Dyn.into()),
            Self::Type(_) => Type::Kind(None),
            Self::Optional(_) => Type::optional(Type::Dyn),
            Self::Opaque(Opaque::Ip(_)) => Type::Opaque("net.IP", Vec::new()),
            Self::Opaque(Opaque::Cidr(_)) => Type::Opaque("net.CIDR", Vec::new()),
            Self::Opaque(opaque) => crate::declare::library_type(opaque.type_name()),
            Self::Preserved(_) => Type::Dyn,
        }
    }

    /// The number of characters, bytes, elements or entries; `None` for what has no size.
    pub fn size(&self) -> Option<u64> {
        Some(match self {
            Self::String(text) => text.as_str().chars().count() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.len() as u64,
            Self::Map(map) => map.len() as u64,
            _ => return None,
        })
    }
}

impl Opaque {
    /// The name of the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Authorizer(_) => "kubernetes.authorization.Authorizer",
            Self::PathCheck(_) => "kubernetes.authorization.PathCheck",
            Self::GroupCheck(_) => "kubernetes.authorization.GroupCheck",
            Self::ResourceCheck(_) => "kubernetes.authorization.ResourceCheck",
            Self::Decision(_) => "kubernetes.authorization.Decision",
        }
    }
}

impl List<'_> {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(list, _) => list.len(),
            Self::Values(list) => list.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Map<'_> {
    /// The number of entries.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(map, _) => map.len(),
            Self::Values(map) | Self::Struct(_, map) => map.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
