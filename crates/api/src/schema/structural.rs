//! The structural schema of a custom resource.

use std::collections::BTreeMap;

use serde_json::Value;

use super::types::ListType;

/// One place in a custom resource's schema.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Structural {
    /// What a value must be.
    pub ty: StructuralType,
    /// A short name, shown in OpenAPI.
    pub title: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Whether `null` is a value.
    pub nullable: bool,
    /// What an absent value becomes.
    pub default: Option<Value>,
    /// The fields of an object.
    pub properties: BTreeMap<String, Structural>,
    /// What other fields of an object may hold.
    pub additional: Option<Additional>,
    /// What the elements of a list are.
    pub items: Option<Box<Structural>>,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown_fields: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded_resource: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-list-type`.
    pub list_type: Option<ListType>,
    /// `x-kubernetes-list-map-keys`.
    pub list_map_keys: Vec<String>,
    /// `x-kubernetes-map-type`.
    pub map_type: Option<String>,
    /// `x-kubernetes-validations`, as written.
    pub validations: Vec<Value>,
    /// What a value must satisfy.
    pub validation: ValueValidation,
}

/// The `type` of a place; [`StructuralType::Unset`] only where int-or-string or preserve-unknown-fields allow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StructuralType {
    /// No `type` is given.
    #[default]
    Unset,
    /// An object.
    Object,
    /// A list.
    Array,
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
}

impl StructuralType {
    /// The word in JSON schema; `""` if none is given.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// `additionalProperties`.
#[derive(Clone, Debug, PartialEq)]
pub enum Additional {
    /// `true` or `false`.
    Allowed(bool),
    /// A schema for each of them.
    Schema(Box<Structural>),
}

/// The part of a schema that only judges values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ValueValidation {
    /// The format of text or a number.
    pub format: Option<String>,
    /// The largest number.
    pub maximum: Option<f64>,
    /// The number must be smaller than [`Self::maximum`].
    pub exclusive_maximum: bool,
    /// The smallest number.
    pub minimum: Option<f64>,
    /// The number must be larger than [`Self::minimum`].
    pub exclusive_minimum: bool,
    /// The most characters.
    pub max_length: Option<i64>,
    /// The fewest characters.
    pub min_length: Option<i64>,
    /// A regular expression that text must contain.
    pub pattern: Option<String>,
    /// The most elements.
    pub max_items: Option<i64>,
    /// The fewest elements.
    pub min_items: Option<i64>,
    /// No two elements may be equal.
    pub unique_items: bool,
    /// The number must be a multiple.
    pub multiple_of: Option<f64>,
    /// The allowed values.
    pub enumeration: Vec<Value>,
    /// The most fields.
    pub max_properties: Option<i64>,
    /// The fewest fields.
    pub min_properties: Option<i64>,
    /// The fields that must be present.
    pub required: Vec<String>,
    /// Every one must hold.
    pub all_of: Vec<Nested>,
    /// Exactly one must hold.
    pub one_of: Vec<Nested>,
    /// At least one must hold.
    pub any_of: Vec<Nested>,
    /// It must not hold.
    pub not: Option<Box<Nested>>,
}

/// A schema below `allOf`, `oneOf`, `anyOf` or `not`: it judges, and adds no fields.
pub type Nested = Structural;
