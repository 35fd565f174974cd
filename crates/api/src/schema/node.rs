//! A place in a schema, whoever brought the schema.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::structural::{Additional, Structural, StructuralType};
use super::types::{Field, ListType, Markers, Type, TypeDef};

/// A place in a schema: cheap to copy, walked from the root of an object along field names, keys and elements.
#[derive(Clone, Copy, Debug)]
pub enum Node<'a> {
    /// A place in a type of the table, and the markers of the field it was reached by.
    Static(&'static Type, &'static Markers),
    /// A place in a custom resource's schema.
    Owned(&'a Structural),
    /// No schema: maps merge by key unless `atomic`, lists are replaced.
    Untyped {
        /// Whether maps are replaced as well.
        atomic: bool,
    },
}

/// How a value at a place is put together.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'a> {
    /// Nothing below it.
    Scalar,
    /// An object or map.
    Object {
        /// Merged as a whole.
        atomic: bool,
    },
    /// A list.
    List(ListShape<'a>),
    /// Whatever the value is.
    Any {
        /// Objects are merged as a whole.
        atomic: bool,
    },
}

/// How the elements of a list are told apart.
#[derive(Clone, Copy, Debug)]
pub enum ListShape<'a> {
    /// Not at all: the list is merged as a whole.
    Atomic,
    /// By their value.
    Set,
    /// By these fields of theirs.
    Map(Keys<'a>),
}

/// The names of key fields.
#[derive(Clone, Copy, Debug)]
pub enum Keys<'a> {
    /// Of a type of the table.
    Static(&'static [&'static str]),
    /// Of a custom resource.
    Owned(&'a [String]),
}

impl<'a> Keys<'a> {
    /// The names, in the schema's order.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        let (fixed, owned): (&[&str], &[String]) = match self {
            Keys::Static(keys) => (keys, &[]),
            Keys::Owned(keys) => (&[], keys),
        };
        fixed.iter().copied().chain(owned.iter().map(String::as_str))
    }
}

static NO_MARKERS: Markers = Markers {
    list_type: None,
    list_map_keys: Vec::new(),
    atomic: false,
    granular: false,
    by_value: false,
    patch_strategy: None,
    patch_merge_key: None,
    default: None,
    enumeration: Vec::new(),
    zero: None,
};

impl<'a> Node<'a> {
    /// A place about which nothing is known.
    pub const ANY: Node<'static> = Node::Untyped { atomic: false };

    /// How a value here is put together.
    pub fn shape(self) -> Shape<'a> {
        match self {
            Node::Static(ty, markers) => static_shape(ty, markers),
            Node::Owned(schema) => owned_shape(schema),
            Node::Untyped { atomic } => Shape::Any { atomic },
        }
    }

    /// The place of a field or map entry; `None` if the schema knows no such field.
    pub fn child(self, name: &str) -> Option<Node<'a>> {
        match self {
            Node::Static(ty, _) => match ty {
                Type::Ref(_) => self.field(name).map(|f| Node::Static(&f.ty, f.markers)),
                Type::Map(value) => Some(Node::Static(value, &NO_MARKERS)),
                Type::Any(_) | Type::AnyObject(_) => Some(Node::ANY),
                _ => None,
            },
            Node::Owned(schema) => owned_child(schema, name),
            Node::Untyped { .. } => Some(self),
        }
    }

    /// The place of a list's elements.
    pub fn item(self) -> Node<'a> {
        match self {
            Node::Static(Type::Array(item), _) => Node::Static(item, &NO_MARKERS),
            Node::Owned(schema) => schema.items.as_deref().map_or(Node::ANY, Node::Owned),
            // What lies in a list without a schema is replaced with it.
            _ => Node::Untyped { atomic: true },
        }
    }

    /// The definition at this place, if it is a struct of the table.
    pub fn definition(self) -> Option<&'static TypeDef> {
        match self {
            Node::Static(ty, _) => ty.definition(),
            _ => None,
        }
    }

    /// The table's field of a name, if the place is a struct of the table.
    pub fn field(self, name: &str) -> Option<&'static Field> {
        self.definition()?.field(name)
    }

    /// Whether Go's view of a value ends here: an embedded object is what nobody looks into.
    pub fn is_opaque(self) -> bool {
        matches!(self, Node::Static(Type::AnyObject(name), _) if name.ends_with(".RawExtension"))
    }

    /// The markers of the field by which the place was reached.
    pub fn markers(self) -> &'static Markers {
        match self {
            Node::Static(_, markers) => markers,
            _ => &NO_MARKERS,
        }
    }

    /// What a key field of this (list element's) place is when it is absent.
    pub fn default_of(self, name: &str) -> Option<Cow<'a, Value>> {
        match self {
            Node::Static(..) => {
                let field = self.field(name)?;
                match (&field.markers.default, field.ty) {
                    (Some(default), _) => Some(Cow::Borrowed(default)),
                    // Go writes the zero of what is required.
                    (None, Type::String) if field.required => Some(Cow::Owned(Value::from(""))),
                    (None, Type::Int32 | Type::Int64) if field.required => Some(Cow::Owned(Value::from(0))),
                    _ => None,
                }
            }
            Node::Owned(schema) => schema.properties.get(name)?.default.as_ref().map(Cow::Borrowed),
            Node::Untyped { .. } => None,
        }
    }

    /// What an absent field of a built-in type stands for: what Go writes for it when it is not optional.
    pub fn absent(self, name: &str) -> Option<&'static Value> {
        static EMPTY: LazyLock<HashMap<&str, Value>> = LazyLock::new(|| {
            let texts = ["{}", "\"\"", "0", "\"0\"", "false", "null"];
            texts.into_iter().filter_map(|text| Some((text, serde_json::from_str(text).ok()?))).collect()
        });
        EMPTY.get(self.field(name)?.zero()?)
    }

    /// Whether the schema names the field itself, so that it is no entry of a map.
    pub fn declares(self, name: &str) -> bool {
        match self {
            Node::Static(..) => self.field(name).is_some(),
            Node::Owned(schema) => {
                let embedded = schema.embedded_resource && matches!(name, "apiVersion" | "kind" | "metadata");
                embedded || schema.properties.contains_key(name)
            }
            Node::Untyped { .. } => false,
        }
    }

    /// Whether fields that the schema does not know are kept.
    pub fn keeps_unknown(self) -> bool {
        match self {
            Node::Static(ty, _) => matches!(ty, Type::Any(_) | Type::AnyObject(_)),
            Node::Owned(schema) => schema.preserve_unknown_fields,
            Node::Untyped { .. } => true,
        }
    }
}

fn static_shape(ty: &'static Type, markers: &'static Markers) -> Shape<'static> {
    match ty {
        Type::Array(_) => Shape::List(match markers.list_type.unwrap_or_default() {
            ListType::Atomic => ListShape::Atomic,
            ListType::Set => ListShape::Set,
            ListType::Map => ListShape::Map(Keys::Static(&markers.list_map_keys)),
        }),
        Type::Map(_) => Shape::Object { atomic: markers.atomic },
        Type::Ref(_) => {
            let own = ty.definition().is_some_and(|def| def.markers.atomic);
            // The field's word goes before the type's.
            Shape::Object { atomic: markers.atomic || own && !markers.granular }
        }
        Type::Any(_) | Type::AnyObject(_) => Shape::Any { atomic: markers.atomic },
        _ => Shape::Scalar,
    }
}

fn owned_shape(schema: &Structural) -> Shape<'_> {
    let atomic = schema.map_type.as_deref() == Some("atomic");
    match schema.ty {
        StructuralType::Object => Shape::Object { atomic },
        StructuralType::Array => Shape::List(match schema.list_type.unwrap_or_default() {
            ListType::Atomic => ListShape::Atomic,
            ListType::Set => ListShape::Set,
            ListType::Map => ListShape::Map(Keys::Owned(&schema.list_map_keys)),
        }),
        StructuralType::Unset if !schema.int_or_string => Shape::Any { atomic },
        _ => Shape::Scalar,
    }
}

fn owned_child<'a>(schema: &'a Structural, name: &str) -> Option<Node<'a>> {
    if schema.embedded_resource && name == "metadata" {
        return Some(super::object_meta());
    }
    if let Some(found) = schema.properties.get(name) {
        return Some(Node::Owned(found));
    }
    if schema.embedded_resource && matches!(name, "apiVersion" | "kind") {
        return Some(Node::Static(&Type::String, &NO_MARKERS));
    }
    match &schema.additional {
        Some(Additional::Schema(value)) => return Some(Node::Owned(value)),
        Some(Additional::Allowed(true)) => return Some(Node::ANY),
        _ => {}
    }
    schema.preserve_unknown_fields.then_some(Node::ANY)
}
