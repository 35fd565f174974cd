//! Field paths and the errors that validation reports on them.
//!
//! Texts and types equal upstream's (`apimachinery/pkg/util/validation/field`), since clients read them.

use std::fmt;

use serde_json::Value;

/// Where in an object: `spec.template.spec.containers[0].ports[1].name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path of one element.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// A field below.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// A list element.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// A map entry.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The text of the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Upstream's nil path.
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// A value that must refer to something does not.
    NotFound,
    /// A required value is absent.
    Required,
    /// A value that must be unique is not.
    Duplicate,
    /// A malformed value.
    Invalid,
    /// Not one of the allowed values.
    NotSupported,
    /// A value that would be valid, but not here or now.
    Forbidden,
    /// Longer than allowed.
    TooLong,
    /// More items than allowed.
    TooMany,
    /// Fewer items than required.
    TooFew,
    /// Shorter than required.
    TooShort,
    /// Our own fault.
    Internal,
    /// Not of the type that the schema asks for.
    TypeInvalid,
}

impl ErrorType {
    /// The `type` of the cause in a `Status`.
    pub fn cause(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TooFew => "FieldValueTooFew",
            Self::TooShort => "FieldValueTooShort",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::TooFew => "Too few",
            Self::TooShort => "Too short",
            Self::Internal => "Internal error",
        }
    }
}

/// One thing that is wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// What kind of fault.
    pub kind: ErrorType,
    /// Which field.
    pub path: Path,
    /// The offending value, where the text shows it.
    pub value: Option<Value>,
    /// The rest of the text.
    pub detail: String,
}

impl Error {
    fn of(kind: ErrorType, path: &Path, value: Option<Value>, detail: impl Into<String>) -> Self {
        Self { kind, path: path.clone(), value, detail: detail.into() }
    }

    /// `Required value`
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::of(ErrorType::Required, path, None, detail)
    }

    /// `Invalid value: "x": …`
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::of(ErrorType::Invalid, path, Some(value.into()), detail)
    }

    /// `Invalid value: "x": …` with the cause type of a schema mismatch.
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::of(ErrorType::TypeInvalid, path, Some(value.into()), detail)
    }

    /// `Duplicate value: "x"`
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::of(ErrorType::Duplicate, path, Some(value.into()), "")
    }

    /// `Not found: "x"`
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::of(ErrorType::NotFound, path, Some(value.into()), "")
    }

    /// `Unsupported value: "x": supported values: "a", "b"`
    pub fn not_supported(path: &Path, value: impl Into<Value>, allowed: &[&str]) -> Self {
        let detail = if allowed.is_empty() {
            String::new()
        } else {
            let quoted: Vec<String> = allowed.iter().map(|v| quote(v)).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        Self::of(ErrorType::NotSupported, path, Some(value.into()), detail)
    }

    /// `Forbidden: …`
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::of(ErrorType::Forbidden, path, None, detail)
    }

    /// `Too long: may not be more than N bytes`
    pub fn too_long(path: &Path, max_bytes: usize) -> Self {
        let unit = if max_bytes == 1 { "byte" } else { "bytes" };
        Self::of(ErrorType::TooLong, path, None, format!("may not be more than {max_bytes} {unit}"))
    }

    /// `Too many: N: must have at most M items`
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::of(ErrorType::TooMany, path, Some(actual.into()), format!("must have at most {max} {unit}"))
    }

    /// The text without the field: the message of a cause.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if let Some(value) = &self.value {
            text.push_str(": ");
            match value {
                Value::String(s) => text.push_str(&quote(s)),
                other => match shown_text(other) {
                    Some(shown) => text.push_str(shown),
                    None => go_json(&mut text, other),
                },
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// JSON with the fields of a label selector in the order of their declaration.
fn go_json(text: &mut String, value: &Value) {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<(&String, &Value)> = map.iter().collect();
            fields.sort_by_key(|(name, _)| *name == "matchExpressions");
            text.push('{');
            for (i, (name, value)) in fields.into_iter().enumerate() {
                text.push_str(if i > 0 { "," } else { "" });
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                go_json(text, value);
            }
            text.push('}');
        }
        Value::Array(list) => {
            text.push('[');
            for (i, value) in list.iter().enumerate() {
                text.push_str(if i > 0 { "," } else { "" });
                go_json(text, value);
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

/// The marker of a value that is shown in a text form of its own.
const ORDERED: &str = "\u{0}ordered";

/// An object whose fields are shown in this order: upstream shows some values by the fields of its internal types.
pub fn ordered(fields: &[(&str, Value)]) -> Value {
    let text = |value: &Value| shown_text(value).map_or_else(|| value.to_string(), str::to_owned);
    let list: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}:{}", Value::from(*name), text(value))).collect();
    verbatim(format!("{{{}}}", list.join(",")))
}

/// A value that is shown as this text.
pub fn verbatim(text: String) -> Value {
    let mut object = serde_json::Map::new();
    object.insert(ORDERED.to_owned(), Value::from(text));
    Value::Object(object)
}

/// A list of values, some of which are shown in a text form of their own.
pub fn ordered_list(values: impl IntoIterator<Item = Value>) -> Value {
    let text = |value: Value| shown_text(&value).map_or_else(|| value.to_string(), str::to_owned);
    let list: Vec<String> = values.into_iter().map(text).collect();
    verbatim(format!("[{}]", list.join(",")))
}

/// The text that such a value is shown as.
pub fn shown_text(value: &Value) -> Option<&str> {
    value.get(ORDERED)?.as_str()
}

/// Several errors as one text: alone as it is, more than one in brackets, the same text only once.
pub fn aggregate(errors: &[Error]) -> String {
    let mut texts: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) }
}

/// A string as Go's `%q` writes it.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_equal_upstreams() {
        let path = Path::new("spec").child("containers").index(0).child("name");
        assert_eq!(Error::required(&path, "").to_string(), "spec.containers[0].name: Required value");
        assert_eq!(
            Error::not_supported(&path, "x", &["a", "b"]).to_string(),
            r#"spec.containers[0].name: Unsupported value: "x": supported values: "a", "b""#
        );
        assert_eq!(
            Error::invalid(&path, -1, "must be greater than or equal to 0").body(),
            "Invalid value: -1: must be greater than or equal to 0"
        );
        let twice = [Error::required(&path, ""), Error::required(&path, "")];
        assert_eq!(aggregate(&twice), "spec.containers[0].name: Required value");
    }
}
