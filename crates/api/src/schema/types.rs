//! What the table holds.

use serde_json::Value;

use super::node::Node;
use super::table;

/// What every definition's name begins with; the table leaves it out.
pub(crate) const PREFIX: &str = "io.k8s.";

/// A named type of the API.
#[derive(Debug)]
pub struct TypeDef {
    /// The name without the leading `io.k8s.`.
    pub(crate) name: &'static str,
    /// Group, version and kind, if it is a kind.
    pub gvk: Option<Gvk>,
    /// Its fields, in the order of their names.
    pub fields: Vec<Field>,
    /// Markers on the type itself.
    pub markers: &'static Markers,
    /// A reference to itself, from which walking starts.
    pub(crate) this: Type,
    /// Where its descriptions begin.
    pub(crate) ordinal: u32,
}

/// Group, version and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gvk {
    /// The API group; the core group is `""`.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The kind.
    pub kind: &'static str,
}

/// A field of a type.
#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// What it holds.
    pub ty: Type,
    /// Whether it must be present.
    pub required: bool,
    /// Its number in protobuf, after those of the messages that JSON flattens; empty if it has none.
    pub tag: Vec<u16>,
    /// A scalar whose zero, written in protobuf, means something else than its absence.
    pub pointer: bool,
    /// How it merges.
    pub markers: &'static Markers,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Text.
    String,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A floating-point number.
    Double,
    /// `true` or `false`.
    Bool,
    /// Base64 text.
    Bytes,
    /// A resource quantity, text or number.
    Quantity,
    /// A number or text.
    IntOrString,
    /// RFC 3339, seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// An object of any content; the full name of its definition.
    AnyObject(&'static str),
    /// Any JSON value; the full name of its definition.
    Any(&'static str),
    /// A list.
    Array(&'static Type),
    /// A map with text as its keys.
    Map(&'static Type),
    /// Another type of the table.
    Ref(u16),
}

/// The definitions that are no structs.
const SPECIAL: [(&str, Type); 12] = [
    (QUANTITY, Type::Quantity),
    (MICRO_TIME, Type::MicroTime),
    (TIME, Type::Time),
    (INT_OR_STRING, Type::IntOrString),
    any_object("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"),
    any_object("io.k8s.apimachinery.pkg.apis.meta.v1.Patch"),
    any_object("io.k8s.apimachinery.pkg.runtime.RawExtension"),
    any_object("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceSubresourceStatus"),
    any("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON"),
    any("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray"),
    any("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool"),
    any("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray"),
];

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

const fn any_object(name: &'static str) -> (&'static str, Type) {
    (name, Type::AnyObject(name))
}

const fn any(name: &'static str) -> (&'static str, Type) {
    (name, Type::Any(name))
}

impl Type {
    /// The full name of the definition of a value that has a codec of its own.
    pub fn special_name(&self) -> Option<&'static str> {
        match self {
            Type::Quantity => Some(QUANTITY),
            Type::MicroTime => Some(MICRO_TIME),
            Type::Time => Some(TIME),
            Type::IntOrString => Some(INT_OR_STRING),
            Type::AnyObject(name) | Type::Any(name) => Some(name),
            _ => None,
        }
    }

    /// The definition a reference points to.
    pub fn definition(&self) -> Option<&'static TypeDef> {
        match self {
            Type::Ref(index) => table().defs.get(usize::from(*index)),
            _ => None,
        }
    }

    /// Whether a value of the type has no inner structure.
    pub fn is_scalar(&self) -> bool {
        !matches!(self, Type::AnyObject(_) | Type::Any(_) | Type::Array(_) | Type::Map(_) | Type::Ref(_))
    }
}

/// How a list is merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// As a whole.
    #[default]
    Atomic,
    /// Each scalar is an element of its own.
    Set,
    /// Each object is known by its key fields.
    Map,
}

/// What Go writes for an absent field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// Nothing, though the field is required.
    Omitted,
    /// This JSON, though the field is optional.
    Written(&'static str),
}

/// What the API says about merging a field.
#[derive(Debug, Default)]
pub struct Markers {
    /// `x-kubernetes-list-type`; `None` where the API says nothing, which means atomic.
    pub list_type: Option<ListType>,
    /// `x-kubernetes-list-map-keys`.
    pub list_map_keys: Vec<&'static str>,
    /// `x-kubernetes-map-type`, or on a definition the struct type, is `atomic`.
    pub atomic: bool,
    /// `x-kubernetes-map-type: granular` is written out.
    pub granular: bool,
    /// A struct that is there even when it is empty.
    pub by_value: bool,
    /// `x-kubernetes-patch-strategy` as written: `merge`, `replace`, `retainKeys` or `merge,retainKeys`.
    pub patch_strategy: Option<&'static str>,
    /// `x-kubernetes-patch-merge-key`.
    pub patch_merge_key: Option<&'static str>,
    /// The default that the API declares.
    pub default: Option<Value>,
    /// The texts that the field or its elements may hold; empty if any.
    pub enumeration: Vec<String>,
    /// What Go writes for the absent field, where that does not follow from the rest.
    pub zero: Option<Zero>,
}

impl Field {
    /// What Go writes for the field when it is absent: a struct that is there even when it is empty is `{}`,
    /// whatever is in it.
    pub fn zero(&self) -> Option<&'static str> {
        match self.markers.zero {
            Some(Zero::Omitted) => None,
            Some(Zero::Written(text)) => Some(text),
            None if self.markers.by_value => Some("{}"),
            None => self.required.then_some(match self.ty {
                Type::String => "\"\"",
                Type::Int32 | Type::Int64 | Type::Double | Type::IntOrString => "0",
                Type::Bool => "false",
                Type::Quantity => "\"0\"",
                _ => "null",
            }),
        }
    }
}

impl TypeDef {
    /// The full name: `io.k8s.api.core.v1.Pod`.
    pub fn name(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }

    /// A field by its JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| f.name.cmp(name)).ok().map(|i| &self.fields[i])
    }

    /// Where walking an object of the type starts.
    pub fn node(&'static self) -> Node<'static> {
        Node::Static(&self.this, self.markers)
    }

    /// What the definition is, if it is no struct but a value with a codec of its own.
    pub(crate) fn special(name: &str) -> Option<Type> {
        let full = SPECIAL.iter().find(|(full, _)| full.strip_prefix(PREFIX) == Some(name));
        full.map(|(_, ty)| *ty)
    }

    /// What an instance of the definition is: [`Type::Ref`] for a struct.
    pub fn instance(&self) -> Type {
        Self::special(self.name).unwrap_or(self.this)
    }
}
