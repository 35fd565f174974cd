//! Types, as the checker knows them and as errors print them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A type.
#[derive(Clone, Debug)]
pub enum Type {
    /// Whatever it turns out to be.
    Dyn,
    /// Of what is already reported to be wrong.
    Error,
    /// `null`
    Null,
    /// `bool`
    Bool,
    /// 64 bits with sign.
    Int,
    /// 64 bits without.
    Uint,
    /// 64-bit float.
    Double,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// A span of time.
    Duration,
    /// A point in time.
    Timestamp,
    /// Of elements.
    List(Arc<Type>),
    /// From keys to values.
    Map(Arc<Type>, Arc<Type>),
    /// With named fields.
    Object(Object),
    /// Known by its name and parameters only; `optional_type` is one.
    Opaque(&'static str, Vec<Type>),
    /// The type of a type.
    Kind(Option<Arc<Type>>),
    /// Any one type, the same wherever the letter stands in a declaration.
    Param(char),
    /// A type that is still to be found out.
    Free(usize),
}

/// A type with named fields; equal if the names are.
#[derive(Clone)]
pub struct Object(Arc<Shape>);

struct Shape {
    name: String,
    fields: Fields,
}

/// The fields of an object type.
pub enum Fields {
    /// These.
    Known(BTreeMap<String, Type>),
    /// Any, of any type.
    Any,
}

impl Object {
    /// A type of a name with fields.
    pub fn new(name: impl Into<String>, fields: Fields) -> Self {
        Self(Arc::new(Shape { name: name.into(), fields }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The type of a field.
    pub fn field(&self, name: &str) -> Option<Type> {
        match &self.0.fields {
            Fields::Any => Some(Type::Dyn),
            Fields::Known(fields) => fields.get(name).cloned(),
        }
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of the type of optional values.
pub const OPTIONAL: &str = "optional_type";

impl Type {
    /// A list of.
    #[must_use]
    pub fn list(of: Self) -> Self {
        Self::List(Arc::new(of))
    }

    /// A map from text to.
    #[must_use]
    pub fn map(value: Self) -> Self {
        Self::Map(Arc::new(Self::String), Arc::new(value))
    }

    /// Perhaps a.
    #[must_use]
    pub fn optional(of: Self) -> Self {
        Self::Opaque(OPTIONAL, vec![of])
    }

    /// An object type with these fields.
    pub fn object<const N: usize>(name: &str, fields: [(&str, Type); N]) -> Self {
        let fields = fields.into_iter().map(|(name, ty)| (name.to_owned(), ty)).collect();
        Self::Object(Object::new(name, Fields::Known(fields)))
    }

    /// What an optional is perhaps.
    pub fn unwrap_optional(&self) -> Option<&Self> {
        match self {
            Self::Opaque(OPTIONAL, params) => params.first(),
            _ => None,
        }
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// Whether two types are the same, letter for letter.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(a), Self::List(b)) => a.same(b),
            (Self::Map(k, v), Self::Map(l, w)) => k.same(l) && v.same(w),
            (Self::Object(a), Self::Object(b)) => a.name() == b.name(),
            (Self::Opaque(a, p), Self::Opaque(b, q)) => {
                a == b && p.len() == q.len() && p.iter().zip(q).all(|(a, b)| a.same(b))
            }
            (Self::Kind(Some(a)), Self::Kind(Some(b))) => a.same(b),
            (Self::Param(a), Self::Param(b)) => a == b,
            (Self::Free(a), Self::Free(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    /// Whether every value takes the same space: numbers, times and truth.
    pub(crate) fn is_scalar(&self) -> bool {
        match self {
            Self::Bool | Self::Double | Self::Duration | Self::Int | Self::Timestamp | Self::Uint => true,
            other => other.unwrap_optional().is_some_and(Self::is_scalar),
        }
    }

    /// The name without parameters, as a running expression knows the type.
    pub fn name(&self) -> &str {
        match self {
            Self::Dyn => "dyn",
            Self::Error => "!error!",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Duration => "google.protobuf.Duration",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(..) => "map",
            Self::Object(object) => object.name(),
            Self::Opaque(name, _) => name,
            Self::Kind(_) => "type",
            Self::Param(_) | Self::Free(_) => "",
        }
    }
}

/// As errors print it.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Duration => f.write_str("duration"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::List(of) => write!(f, "list({of})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Kind(Some(of)) => write!(f, "type({of})"),
            Self::Opaque(name, params) if !params.is_empty() => {
                let params: Vec<String> = params.iter().map(Self::to_string).collect();
                write!(f, "{name}({})", params.join(", "))
            }
            Self::Param(letter) => write!(f, "{letter}"),
            Self::Free(number) => write!(f, "_var{number}"),
            other => f.write_str(other.name()),
        }
    }
}
