//! The formats of values that schemas of definitions may ask for. One that is not known asks for nothing.
//! What each asks for stands in the API server's `structural::formats`: a format belongs into both.

use gantry_api::apiextensions::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use gantry_api::field::quote;

/// Formats of texts, without dashes.
const OF_TEXT: [&str; 26] = [
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8slongname",
    "k8sshortname",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

/// What a client is told of such a format.
pub(super) fn warning(format: &str) -> String {
    format!("unrecognized format {}", quote(format))
}

/// The formats in a definition's schemas that nobody knows, each once.
pub(super) fn unrecognized(crd: &CustomResourceDefinition) -> Vec<String> {
    let mut found = Vec::new();
    for version in &crd.spec.versions {
        if let Some(schema) = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()) {
            look(schema, &mut found);
        }
    }
    found
}

fn is_known(format: &str, ty: &str) -> bool {
    match ty {
        "" | "string" => OF_TEXT.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

fn look(schema: &JSONSchemaProps, found: &mut Vec<String>) {
    let format = schema.format.as_deref().unwrap_or("");
    if !format.is_empty()
        && !is_known(format, schema.type_.as_deref().unwrap_or(""))
        && !found.iter().any(|known| known == format)
    {
        found.push(format.to_owned());
    }
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => look(item, found),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter().for_each(|item| look(item, found)),
        None => {}
    }
    let lists = [&schema.all_of, &schema.any_of, &schema.one_of];
    lists.into_iter().flatten().flatten().for_each(|inner| look(inner, found));
    schema.not.iter().for_each(|inner| look(inner, found));
    schema.properties.iter().flatten().for_each(|(_, inner)| look(inner, found));
    if let Some(JSONSchemaPropsOrBool::Schema(inner)) = &schema.additional_properties {
        look(inner, found);
    }
}
