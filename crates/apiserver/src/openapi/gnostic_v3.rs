//! The v3 document of one group and version as protobuf: `openapi.v3.Document` of gnostic-models.

use serde_json::Value;

use super::gnostic::{self, EXTENSIONS, Kind, Message, TEXTS};
use Kind::{Any, Bool, Default, Double, Each, Int, Named, OrReference, Text, Wrapped};

const SCHEMA: Kind = Kind::Schema3OrReference;

static DOCUMENT: &Message = &[
    ("openapi", 1, Text),
    ("info", 2, Kind::Message(INFO)),
    ("paths", 4, Kind::Message(PATHS)),
    ("components", 5, Kind::Message(COMPONENTS)),
    ("security", 6, Each(&Wrapped(&Named(&Wrapped(&TEXTS))))),
    (EXTENSIONS, 9, Any),
];

static INFO: &Message =
    &[("title", 1, Text), ("description", 2, Text), ("version", 6, Text), (EXTENSIONS, 7, Any)];

/// All its members are paths.
static PATHS: &Message = &[("/", 1, Kind::Message(PATH_ITEM))];

static COMPONENTS: &Message = &[
    ("schemas", 1, Wrapped(&Named(&SCHEMA))),
    ("responses", 2, Wrapped(&Named(&OrReference(RESPONSE)))),
    ("parameters", 3, Wrapped(&Named(&OrReference(PARAMETER)))),
    ("securitySchemes", 7, Wrapped(&Named(&OrReference(SECURITY)))),
];

static SECURITY: &Message = &[
    ("type", 1, Text),
    ("description", 2, Text),
    ("name", 3, Text),
    ("in", 4, Text),
    ("scheme", 5, Text),
    ("bearerFormat", 6, Text),
];

static PATH_ITEM: &Message = &[
    ("summary", 2, Text),
    ("description", 3, Text),
    ("get", 4, Kind::Message(OPERATION)),
    ("put", 5, Kind::Message(OPERATION)),
    ("post", 6, Kind::Message(OPERATION)),
    ("delete", 7, Kind::Message(OPERATION)),
    ("options", 8, Kind::Message(OPERATION)),
    ("head", 9, Kind::Message(OPERATION)),
    ("patch", 10, Kind::Message(OPERATION)),
    ("parameters", 13, Each(&OrReference(PARAMETER))),
    (EXTENSIONS, 14, Any),
];

static OPERATION: &Message = &[
    ("tags", 1, TEXTS),
    ("summary", 2, Text),
    ("description", 3, Text),
    ("operationId", 5, Text),
    ("parameters", 6, Each(&OrReference(PARAMETER))),
    ("requestBody", 7, OrReference(BODY)),
    ("responses", 8, Kind::Message(RESPONSES)),
    ("deprecated", 10, Bool),
    (EXTENSIONS, 13, Any),
];

/// One for all, and one for each code: every code begins with a digit.
static RESPONSES: &Message = &[("default", 1, OrReference(RESPONSE)), ("0", 2, OrReference(RESPONSE))];

static RESPONSE: &Message =
    &[("description", 1, Text), ("content", 3, Wrapped(&Named(&Kind::Message(MEDIA_TYPE))))];

static MEDIA_TYPE: &Message = &[("schema", 1, SCHEMA), ("example", 2, Any)];

static BODY: &Message = &[
    ("description", 1, Text),
    ("content", 2, Wrapped(&Named(&Kind::Message(MEDIA_TYPE)))),
    ("required", 3, Bool),
];

static PARAMETER: &Message = &[
    ("name", 1, Text),
    ("in", 2, Text),
    ("description", 3, Text),
    ("required", 4, Bool),
    ("deprecated", 5, Bool),
    ("allowEmptyValue", 6, Bool),
    ("style", 7, Text),
    ("explode", 8, Bool),
    ("schema", 10, SCHEMA),
];

static EXTERNAL_DOCS: &Message = &[("description", 1, Text), ("url", 2, Text)];

/// A schema.
pub(super) static SCHEMA3: &Message = &[
    ("nullable", 1, Bool),
    ("externalDocs", 6, Kind::Message(EXTERNAL_DOCS)),
    ("example", 7, Any),
    ("deprecated", 8, Bool),
    ("title", 9, Text),
    ("multipleOf", 10, Double),
    ("maximum", 11, Double),
    ("exclusiveMaximum", 12, Bool),
    ("minimum", 13, Double),
    ("exclusiveMinimum", 14, Bool),
    ("maxLength", 15, Int),
    ("minLength", 16, Int),
    ("pattern", 17, Text),
    ("maxItems", 18, Int),
    ("minItems", 19, Int),
    ("uniqueItems", 20, Bool),
    ("maxProperties", 21, Int),
    ("minProperties", 22, Int),
    ("required", 23, TEXTS),
    ("enum", 24, Each(&Any)),
    ("type", 25, Text),
    ("allOf", 26, Each(&SCHEMA)),
    ("oneOf", 27, Each(&SCHEMA)),
    ("anyOf", 28, Each(&SCHEMA)),
    ("not", 29, Kind::Schema3),
    ("items", 30, Wrapped(&SCHEMA)),
    ("properties", 31, Wrapped(&Named(&SCHEMA))),
    ("additionalProperties", 32, Kind::Schema3OrBool),
    ("default", 33, Default),
    ("description", 34, Text),
    ("format", 35, Text),
    (EXTENSIONS, 36, Any),
];

/// The document in protobuf.
pub fn document(json: &Value) -> Vec<u8> {
    gnostic::encoded(DOCUMENT, json)
}

/// The members of an object that no table knows.
#[cfg(test)]
pub fn unknown(json: &Value) -> Vec<String> {
    gnostic::unknown_of(DOCUMENT, json)
}
