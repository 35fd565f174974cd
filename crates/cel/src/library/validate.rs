//! Named formats: `format.dns1123Label().validate(name)`.

use base64::Engine as _;
use gantry_api::names;

use super::{Function, time, url};
use crate::error::{EvalError, Result};
use crate::value::{Opaque, Value};

/// A named format.
#[derive(Debug)]
pub struct Format {
    /// How expressions name it.
    pub name: &'static str,
    /// The length of a pattern that would do the same, for costs.
    pub pattern_length: u64,
    complain: fn(&str) -> Result<(), String>,
}

const fn format(name: &'static str, pattern_length: u64, complain: fn(&str) -> Result<(), String>) -> Format {
    Format { name, pattern_length, complain }
}

static FORMATS: [Format; 13] = [
    format("dns1123Label", 30, names::dns1123_label),
    format("dns1123Subdomain", 60, names::dns1123_subdomain),
    format("dns1035Label", 30, names::dns1035_label),
    format("qualifiedName", 60, names::qualified_name),
    format("dns1123LabelPrefix", 30, |text| names::dns1123_label(masked(text))),
    format("dns1123SubdomainPrefix", 60, |text| names::dns1123_subdomain(masked(text))),
    format("dns1035LabelPrefix", 30, |text| names::dns1035_label(masked(text))),
    format("labelValue", 40, names::label_value),
    format("uri", 1103, url::check),
    format("uuid", 70, |text| holds(is_uuid(text), "does not match the UUID format")),
    format("byte", 84, |text| {
        let fits = !text.is_empty() && base64::engine::general_purpose::STANDARD.decode(text).is_ok();
        holds(fits, "invalid base64")
    }),
    format("date", 71, |text| {
        let fits = text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok();
        holds(fits, "invalid date")
    }),
    format("datetime", 71, |text| holds(time::parse_timestamp(text).is_some(), "invalid datetime")),
];

fn holds(fits: bool, complaint: &str) -> Result<(), String> {
    if fits { Ok(()) } else { Err(complaint.to_owned()) }
}

/// A prefix may end in a dash, which a generated suffix follows.
fn masked(text: &str) -> &str {
    if text.len() > 1 { text.strip_suffix('-').unwrap_or(text) } else { text }
}

fn is_uuid(text: &str) -> bool {
    let hex = text.bytes().filter(|b| *b != b'-').collect::<Vec<_>>();
    let dashes: Vec<usize> = text.bytes().enumerate().filter(|(_, b)| *b == b'-').map(|(i, _)| i).collect();
    hex.len() == 32
        && hex.iter().all(u8::is_ascii_hexdigit)
        && (dashes.is_empty() || dashes == [8, 13, 18, 23])
}

/// The function of a name.
pub fn find(name: &str) -> Option<Function> {
    Some(match name {
        "validate" => |args, _| {
            let (Value::Opaque(Opaque::Format(format)), Value::String(text)) = (&args[0], &args[1]) else {
                return Err(EvalError::no_overload());
            };
            Ok(match (format.complain)(text.as_str()) {
                Ok(()) => Value::Optional(None),
                Err(complaint) => Value::some(Value::list(vec![Value::text(complaint)])),
            })
        },
        "format.named" => |args, _| {
            let name = args[0].as_str().ok_or_else(EvalError::no_overload)?;
            let found = FORMATS.iter().find(|f| f.name == name);
            Ok(found.map_or(Value::Optional(None), |f| Value::some(Value::Opaque(Opaque::Format(f)))))
        },
        "format.dns1123Label" => |_, _| named(0),
        "format.dns1123Subdomain" => |_, _| named(1),
        "format.dns1035Label" => |_, _| named(2),
        "format.qualifiedName" => |_, _| named(3),
        "format.dns1123LabelPrefix" => |_, _| named(4),
        "format.dns1123SubdomainPrefix" => |_, _| named(5),
        "format.dns1035LabelPrefix" => |_, _| named(6),
        "format.labelValue" => |_, _| named(7),
        "format.uri" => |_, _| named(8),
        "format.uuid" => |_, _| named(9),
        "format.byte" => |_, _| named(10),
        "format.date" => |_, _| named(11),
        "format.datetime" => |_, _| named(12),
        _ => return None,
    })
}

fn named<'a>(index: usize) -> Result<Value<'a>> {
    Ok(Value::Opaque(Opaque::Format(&FORMATS[index])))
}
