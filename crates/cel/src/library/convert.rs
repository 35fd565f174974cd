//! Conversions between types.

use std::sync::Arc;

use super::{Allowance, Function, time};
use crate::error::{EvalError, Result};
use crate::types::Type;
use crate::value::{Opaque, Value};

/// The function of a name.
pub fn find(name: &str) -> Option<Function> {
    Some(match name {
        "type" => |args, _| Ok(Value::Type(args[0].type_of())),
        "dyn" => |args, _| Ok(args[0].clone()),
        "bool" => to_bool,
        "bytes" => to_bytes,
        "double" => to_double,
        "duration" => to_duration,
        "int" => to_int,
        "string" => to_string,
        "timestamp" => to_timestamp,
        "uint" => to_uint,
        "size" => size,
        _ => return None,
    })
}

fn size<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    args[0].size().map(|n| Value::Int(n as i64)).ok_or_else(EvalError::no_overload)
}

fn wrong<'a>(value: &Value<'a>, target: &str) -> EvalError {
    EvalError::other(format!("type conversion error from '{}' to '{target}'", value.type_name()))
}

fn to_bool<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    match &args[0] {
        Value::Bool(b) => Ok(Value::Bool(*b)),
        Value::String(text) => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => Err(wrong(&args[0], "bool")),
        },
        _ => Err(EvalError::no_overload()),
    }
}

fn to_bytes<'a>(args: &[Value<'a>], allowance: &mut Allowance) -> Result<Value<'a>> {
    match &args[0] {
        Value::Bytes(_) => Ok(args[0].clone()),
        Value::String(text) => {
            allowance.take(text.as_str().len())?;
            Ok(Value::Bytes(Arc::from(text.as_str().as_bytes())))
        }
        _ => Err(EvalError::no_overload()),
    }
}

fn to_double<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    Ok(Value::Double(match &args[0] {
        Value::Double(d) => *d,
        Value::Int(n) => *n as f64,
        Value::Uint(n) => *n as f64,
        Value::String(text) => {
            let text = text.as_str();
            let parsed = text.parse().ok();
            // Digits that are too many for a float are an error; the name of infinity is none.
            let digits = text.bytes().any(|b| b.is_ascii_digit());
            parsed.filter(|d: &f64| !(digits && d.is_infinite())).ok_or_else(|| wrong(&args[0], "double"))?
        }
        _ => return Err(EvalError::no_overload()),
    }))
}

fn to_duration<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    Ok(Value::Duration(match &args[0] {
        Value::Duration(nanos) => *nanos,
        Value::Int(nanos) => *nanos,
        Value::String(text) => time::parse_go_duration(text.as_str())
            .ok_or_else(|| wrong(&args[0], "google.protobuf.Duration"))?,
        _ => return Err(EvalError::no_overload()),
    }))
}

fn to_timestamp<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    Ok(Value::Timestamp(match &args[0] {
        Value::Timestamp(at) => *at,
        Value::Int(seconds) => time::from_seconds(*seconds)?,
        Value::String(text) => {
            let parsed = time::parse_timestamp(text.as_str());
            parsed.ok_or_else(|| wrong(&args[0], "google.protobuf.Timestamp"))?
        }
        _ => return Err(EvalError::no_overload()),
    }))
}

fn to_int<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    let overflow = || EvalError::other("integer overflow");
    Ok(Value::Int(match &args[0] {
        Value::Int(n) => *n,
        Value::Uint(n) => i64::try_from(*n).map_err(|_| overflow())?,
        // The bounds themselves are refused, since floats cannot tell them from their neighbours.
        Value::Double(d) if *d > i64::MIN as f64 && *d < i64::MAX as f64 => *d as i64,
        Value::Double(_) => return Err(overflow()),
        Value::Duration(nanos) => *nanos,
        Value::Timestamp(at) => at.as_second(),
        Value::String(text) => text.as_str().parse().map_err(|_| wrong(&args[0], "int"))?,
        _ => return Err(EvalError::no_overload()),
    }))
}

fn to_uint<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    let overflow = || EvalError::other("unsigned integer overflow");
    Ok(Value::Uint(match &args[0] {
        Value::Uint(n) => *n,
        Value::Int(n) => u64::try_from(*n).map_err(|_| overflow())?,
        Value::Double(d) if *d >= 0.0 && *d < u64::MAX as f64 => *d as u64,
        Value::Double(_) => return Err(overflow()),
        Value::String(text) if !text.as_str().starts_with('+') => {
            text.as_str().parse().map_err(|_| wrong(&args[0], "uint"))?
        }
        Value::String(_) => return Err(wrong(&args[0], "uint")),
        _ => return Err(EvalError::no_overload()),
    }))
}

fn to_string<'a>(args: &[Value<'a>], allowance: &mut Allowance) -> Result<Value<'a>> {
    Ok(Value::text(match &args[0] {
        Value::String(_) => return Ok(args[0].clone()),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(d) => double(*d),
        Value::Bytes(bytes) => {
            allowance.take(bytes.len())?;
            let text = std::str::from_utf8(bytes);
            text.map_err(|_| EvalError::other("invalid UTF-8 in bytes, cannot convert to string"))?.to_owned()
        }
        Value::Duration(nanos) => time::format_duration(*nanos),
        Value::Timestamp(at) => time::format_timestamp(*at),
        Value::Opaque(Opaque::Ip(ip)) => ip.to_string(),
        Value::Opaque(Opaque::Cidr(cidr)) => cidr.to_string(),
        Value::Type(ty) => ty.name().to_owned(),
        _ => return Err(EvalError::no_overload()),
    }))
}

/// A float as Go's `%g` with the shortest digits prints it: exponents from a million on, and below 0.0001.
pub fn double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value}")
}

/// A value as upstream's errors print it.
pub fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => text.as_str().to_owned(),
        Value::Type(ty) => match ty {
            Type::Null => "null_type".to_owned(),
            other => other.name().to_owned(),
        },
        other => match to_string(std::slice::from_ref(other), &mut Allowance::default()) {
            Ok(Value::String(text)) => text.as_str().to_owned(),
            _ => other.type_name().to_owned(),
        },
    }
}
