//! The types of objects for CEL, from the schemas that the server has.

use std::collections::BTreeMap;

use gantry_api::schema::{self, TypeDef};
use gantry_cel::{Fields, Object, Type, escape};
use gantry_kinds::AnyKind;

use crate::structural::object_type;

/// Types may contain themselves (`JSONSchemaProps`): below this depth, anything goes.
const MAX_DEPTH: usize = 12;

/// The type of a kind's objects; `None` if there is no schema.
pub(super) fn of_kind(kind: &dyn AnyKind) -> Option<Type> {
    if let Some(structural) = kind.structural() {
        return object_type(&structural, &kind.resource().kind);
    }
    let definition = kind.definition().and_then(|name| schema::lookup(&name))?;
    Some(object(definition, 0))
}

fn object(definition: &TypeDef, depth: usize) -> Type {
    if depth == MAX_DEPTH {
        return Type::Dyn;
    }
    let fields = definition.fields.iter();
    let known: BTreeMap<String, Type> =
        fields.filter_map(|field| Some((escape(field.name)?, place(&field.ty, depth + 1)))).collect();
    Type::Object(Object::new(definition.name(), Fields::Known(known)))
}

fn place(ty: &schema::Type, depth: usize) -> Type {
    match ty {
        schema::Type::String => Type::String,
        schema::Type::Int32 | schema::Type::Int64 => Type::Int,
        schema::Type::Double => Type::Double,
        schema::Type::Bool => Type::Bool,
        schema::Type::Bytes => Type::Bytes,
        schema::Type::Time | schema::Type::MicroTime => Type::Timestamp,
        // Text or number.
        schema::Type::Quantity | schema::Type::IntOrString => Type::Dyn,
        schema::Type::AnyObject(_) | schema::Type::Any(_) => Type::Dyn,
        schema::Type::Array(of) => Type::list(place(of, depth)),
        schema::Type::Map(of) => Type::map(place(of, depth)),
        schema::Type::Ref(_) => ty.definition().map_or(Type::Dyn, |definition| object(definition, depth)),
    }
}
