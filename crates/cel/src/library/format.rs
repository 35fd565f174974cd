//! `'%s is %d'.format([a, b])`.

use std::fmt::Write as _;

use super::{Allowance, convert, time};
use crate::error::{EvalError, Result};
use crate::limits;
use crate::value::{Key, List, Map, Value};

/// Digits after the point, if the clause names none.
const DEFAULT_PRECISION: usize = 6;

/// Formats the arguments of a list.
pub fn format<'a>(args: &[Value<'a>], allowance: &mut Allowance) -> Result<Value<'a>> {
    let (Value::String(pattern), Value::List(list)) = (&args[0], &args[1]) else {
        return Err(EvalError::no_overload());
    };
    let mut out = String::new();
    let mut rest = pattern.as_str();
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let arg = list.get(next).ok_or_else(|| EvalError::other(format!("index {next} out of range")))??;
        if rest.is_empty() {
            return Err(EvalError::other("unexpected end of string"));
        }
        let before = out.len();
        rest = clause(rest, &arg, &mut out)?;
        allowance.take(out.len() - before)?;
        next += 1;
    }
    out.push_str(rest);
    allowance.take(out.len())?;
    Ok(Value::text(out))
}

/// Formats one argument by the clause at the start, and gives what follows the clause.
fn clause<'t>(text: &'t str, arg: &Value<'_>, out: &mut String) -> Result<&'t str> {
    let parse = |why: &str| EvalError::other(format!("could not parse formatting clause: {why}"));
    let (precision, text) = match text.strip_prefix('.') {
        None => (DEFAULT_PRECISION, text),
        Some(text) => {
            let end = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| {
                parse("error while parsing precision: could not find end of precision specifier")
            })?;
            let precision = text[..end].parse().ok().filter(|p| *p <= limits::PRECISION);
            let bad = || parse("error while parsing precision: error while converting precision to integer");
            (precision.ok_or_else(bad)?, &text[end..])
        }
    };
    let verb = text.chars().next().unwrap_or_default();
    let mut put = |text: String| out.push_str(&text);
    let during = |why: String| EvalError::other(format!("error during formatting: {why}"));
    match verb {
        's' => put(display(arg).map_err(during)?),
        'd' => put(decimal(arg).map_err(during)?),
        'f' => put(fixed(arg, precision).map_err(during)?),
        'e' => put(scientific(arg, precision).map_err(during)?),
        'b' => put(binary(arg).map_err(during)?),
        'x' | 'X' => {
            let text = hex(arg).map_err(during)?;
            put(if verb == 'X' { text.to_uppercase() } else { text });
        }
        'o' => put(octal(arg).map_err(during)?),
        other => return Err(parse(&format!("unrecognized formatting clause \"{other}\""))),
    }
    Ok(&text[verb.len_utf8()..])
}

fn unsupported(clause: &str, wanted: &str, arg: &Value<'_>) -> String {
    format!("{clause} clause can only be used on {wanted}, was given {}", arg.type_name())
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
        other => Err(unsupported(
            "string",
            "strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps",
            other,
        )),
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

fn decimal(arg: &Value<'_>) -> Result<String, String> {
    match arg {
        Value::Int(n) => Ok(n.to_string()),
        Value::Uint(n) => Ok(n.to_string()),
        other => Err(unsupported("decimal", "ints and uints", other)),
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

fn fixed(arg: &Value<'_>, precision: usize) -> Result<String, String> {
    let value = float(arg).ok_or_else(|| unsupported("fixed-point", "doubles", arg))?;
    if let Some(text) = not_finite(value) {
        return Ok(text);
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
    Ok(if value.is_sign_negative() { format!("-{out}") } else { out })
}

fn scientific(arg: &Value<'_>, precision: usize) -> Result<String, String> {
    let value = float(arg).ok_or_else(|| unsupported("scientific", "doubles", arg))?;
    if let Some(text) = not_finite(value) {
        return Ok(text);
    }
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(("", exponent), |e| ("⁻", e));
    // The English locale writes powers of ten out.
    let raised: String = format!("{exponent:0>2}").chars().map(superscript).collect();
    Ok(format!("{digits}\u{202f}×\u{202f}10{sign}{raised}"))
}

fn superscript(c: char) -> char {
    ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][c.to_digit(10).unwrap_or(0) as usize]
}

fn signed(value: i64, digits: impl Fn(u64) -> String) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", digits(value.unsigned_abs()))
}

fn binary(arg: &Value<'_>) -> Result<String, String> {
    match arg {
        Value::Int(n) => Ok(signed(*n, |n| format!("{n:b}"))),
        Value::Uint(n) => Ok(format!("{n:b}")),
        Value::Bool(b) => Ok(u8::from(*b).to_string()),
        other => Err(unsupported("binary", "integers and bools", other)),
    }
}

fn octal(arg: &Value<'_>) -> Result<String, String> {
    match arg {
        Value::Int(n) => Ok(signed(*n, |n| format!("{n:o}"))),
        Value::Uint(n) => Ok(format!("{n:o}")),
        other => Err(unsupported("octal", "integers", other)),
    }
}

fn hex(arg: &Value<'_>) -> Result<String, String> {
    let bytes = |bytes: &[u8]| {
        bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            // Writing to a string cannot fail.
            write!(out, "{byte:02x}").expect("a string takes what is written");
            out
        })
    };
    match arg {
        Value::Int(n) => Ok(signed(*n, |n| format!("{n:x}"))),
        Value::Uint(n) => Ok(format!("{n:x}")),
        Value::String(text) => Ok(bytes(text.as_str().as_bytes())),
        Value::Bytes(data) => Ok(bytes(data)),
        other => Err(unsupported("hex", "integers, byte buffers, and strings", other)),
    }
}
