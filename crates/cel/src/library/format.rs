//! `'%s is %d'.format([a, b])`.

use std::fmt::Write as _;

use super::{Allowance, convert, time};
use crate::clauses::{self, Clause, Part, Verb};
use crate::error::{EvalError, Result};
use crate::value::{Key, List, Map, Value};

/// Digits after the point, if the clause names none.
const DEFAULT_PRECISION: usize = 6;

/// Formats the arguments of a list.
pub fn format<'a>(args: &[Value<'a>], allowance: &mut Allowance) -> Result<Value<'a>> {
    let (Value::String(pattern), Value::List(list)) = (&args[0], &args[1]) else {
        return Err(EvalError::no_overload());
    };
    let mut out = String::new();
    clauses::read(
        pattern.as_str(),
        list.len(),
        |index| {
            list.get(index).unwrap_or_else(|| Err(EvalError::other(format!("index {index} out of range"))))
        },
        |part| {
            let before = out.len();
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Clause(clause, arg) => {
                    let text = formatted(clause, &arg);
                    out.push_str(
                        &text.map_err(|why| EvalError::other(format!("error during formatting: {why}")))?,
                    );
                }
            }
            allowance.take(out.len() - before)
        },
    )?;
    Ok(Value::text(out))
}

fn formatted(Clause { verb, precision }: Clause, arg: &Value<'_>) -> Result<String, String> {
    let text = match verb {
        Verb::Text => return display(arg),
        Verb::Decimal => decimal(arg),
        Verb::Fixed => float(arg).map(|value| fixed(value, precision.unwrap_or(DEFAULT_PRECISION))),
        Verb::Scientific => float(arg).map(|value| scientific(value, precision.unwrap_or(DEFAULT_PRECISION))),
        Verb::Binary => binary(arg),
        Verb::Hex => hex(arg),
        Verb::UpperHex => hex(arg).map(|text| text.to_uppercase()),
        Verb::Octal => octal(arg),
    };
    text.ok_or_else(|| verb.refusal(arg.type_name()))
}

fn display(arg: &Value<'_>) -> Result<String, String> {
    match arg {
        Value::Null => Ok("null".to_owned()),
        Value::List(list) => list_text(list),
        Value::Map(map) => map_text(map),
        Value::String(_) | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) => {
            Ok(convert::shown(arg))
        }
        Value::Bytes(bytes) => String::from_utf8(bytes.to_vec())
            .map_err(|_| "invalid UTF-8 in bytes, cannot convert to string".to_owned()),
        Value::Timestamp(at) => Ok(time::format_timestamp(*at)),
        Value::Duration(nanos) => Ok(time::format_duration(*nanos)),
        Value::Type(ty) => Ok(ty.name().to_owned()),
        other => Err(Verb::Text.refusal(other.type_name())),
    }
}

/// An element of a list or map: as a literal of the language.
fn literal(value: &Value<'_>) -> Result<String, String> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    Ok(match value {
        Value::String(text) => quoted(text.as_str()),
        Value::Bytes(_) => format!("b{}", quoted(&display(value)?)),
        Value::Double(d) if d.is_finite() => format!("{d:.DEFAULT_PRECISION$}"),
        Value::Double(d) => quoted(&convert::double(*d)),
        Value::Timestamp(_) => format!("timestamp({})", quoted(&display(value)?)),
        Value::Duration(_) => format!("duration({})", quoted(&display(value)?)),
        Value::Opaque(_) | Value::Optional(_) | Value::Preserved(_) => {
            return Err(format!("no formatting function for {}", value.type_name()));
        }
        other => display(other)?,
    })
}

fn list_text(list: &List<'_>) -> Result<String, String> {
    let items = list.iter().map(|item| literal(&item.map_err(|e| e.to_string())?));
    Ok(format!("[{}]", items.collect::<Result<Vec<_>, _>>()?.join(", ")))
}

fn map_text(map: &Map<'_>) -> Result<String, String> {
    let mut pairs = Vec::new();
    for key in map.keys() {
        let value = map.get(&key).map_err(|e| e.to_string())?.unwrap_or(Value::Null);
        debug_assert!(Key::from_value(&key).is_some());
        pairs.push((literal(&key)?, literal(&value)?));
    }
    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
    let pairs: Vec<String> = pairs.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
    Ok(format!("{{{}}}", pairs.join(", ")))
}

fn decimal(arg: &Value<'_>) -> Option<String> {
    match arg {
        Value::Int(n) => Some(n.to_string()),
        Value::Uint(n) => Some(n.to_string()),
        _ => None,
    }
}

fn float(arg: &Value<'_>) -> Option<f64> {
    match arg {
        Value::Double(d) => Some(*d),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// What is no number, as upstream's locale prints it.
fn not_finite(value: f64) -> Option<String> {
    if value.is_nan() {
        return Some("NaN".to_owned());
    }
    value.is_infinite().then(|| if value > 0.0 { "∞" } else { "-∞" }.to_owned())
}

fn fixed(value: f64, precision: usize) -> String {
    if let Some(text) = not_finite(value) {
        return text;
    }
    // The English locale parts thousands.
    let text = format!("{:.precision$}", value.abs());
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(w, f)| (w, Some(f)));
    let mut out = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    if value.is_sign_negative() { format!("-{out}") } else { out }
}

/// What upstream takes for the precision is the width of the text; six digits follow the point.
fn scientific(value: f64, width: usize) -> String {
    let text = not_finite(value).unwrap_or_else(|| {
        let text = format!("{value:.DEFAULT_PRECISION$e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(("", exponent), |e| ("⁻", e));
        // The locale writes powers of ten out.
        let raised: String = format!("{exponent:0>2}").chars().map(superscript).collect();
        format!("{digits}×10{sign}{raised}")
    });
    format!("{text:>width$}")
}

fn superscript(c: char) -> char {
    ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][c.to_digit(10).unwrap_or(0) as usize]
}

fn signed(value: i64, digits: impl Fn(u64) -> String) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", digits(value.unsigned_abs()))
}

fn binary(arg: &Value<'_>) -> Option<String> {
    match arg {
        Value::Int(n) => Some(signed(*n, |n| format!("{n:b}"))),
        Value::Uint(n) => Some(format!("{n:b}")),
        Value::Bool(b) => Some(u8::from(*b).to_string()),
        _ => None,
    }
}

fn octal(arg: &Value<'_>) -> Option<String> {
    match arg {
        Value::Int(n) => Some(signed(*n, |n| format!("{n:o}"))),
        Value::Uint(n) => Some(format!("{n:o}")),
        _ => None,
    }
}

fn hex(arg: &Value<'_>) -> Option<String> {
    let bytes = |bytes: &[u8]| {
        bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            // Writing to a string cannot fail.
            write!(out, "{byte:02x}").expect("a string takes what is written");
            out
        })
    };
    match arg {
        Value::Int(n) => Some(signed(*n, |n| format!("{n:x}"))),
        Value::Uint(n) => Some(format!("{n:x}")),
        Value::String(text) => Some(bytes(text.as_str().as_bytes())),
        Value::Bytes(data) => Some(bytes(data)),
        _ => None,
    }
}
