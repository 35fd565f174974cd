//! Operators on numbers, times, text and lists.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Allowance, Function, time};
use crate::compare::{add_lists, contains, equal, insert_all, order};
use crate::error::{EvalError, Result};
use crate::value::{Entries, Key, Map, Value};

/// The function of a name.
pub fn find(name: &str) -> Option<Function> {
    Some(match name {
        "_+_" => add,
        "_-_" => subtract,
        "_*_" => multiply,
        "_/_" => divide,
        "_%_" => modulo,
        "-_" => negate,
        "!_" => not,
        "_==_" => |args, _| Ok(Value::Bool(equal(&args[0], &args[1])?)),
        "_!=_" => |args, _| Ok(Value::Bool(!equal(&args[0], &args[1])?)),
        "_<_" => |args, _| ordered(args, Ordering::is_lt),
        "_<=_" => |args, _| ordered(args, Ordering::is_le),
        "_>_" => |args, _| ordered(args, Ordering::is_gt),
        "_>=_" => |args, _| ordered(args, Ordering::is_ge),
        "@in" => member_of,
        "cel.@mapInsert" => map_insert,
        _ => return None,
    })
}

fn ordered<'a>(args: &[Value<'a>], test: fn(Ordering) -> bool) -> Result<Value<'a>> {
    Ok(Value::Bool(test(order(&args[0], &args[1])?)))
}

fn overflow() -> EvalError {
    EvalError::other("integer overflow")
}

fn unsigned_overflow() -> EvalError {
    EvalError::other("unsigned integer overflow")
}

fn add<'a>(args: &[Value<'a>], allowance: &mut Allowance) -> Result<Value<'a>> {
    Ok(match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_add(*b).ok_or_else(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_add(*b).ok_or_else(unsigned_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
        (Value::String(a), Value::String(b)) => {
            allowance.take(a.as_str().len() + b.as_str().len())?;
            Value::text(format!("{}{}", a.as_str(), b.as_str()))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            allowance.take(a.len() + b.len())?;
            Value::Bytes([a.as_ref(), b.as_ref()].concat().into())
        }
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.checked_add(*b).ok_or_else(overflow)?),
        (Value::Timestamp(at), Value::Duration(by)) | (Value::Duration(by), Value::Timestamp(at)) => {
            Value::Timestamp(time::shift(*at, i128::from(*by))?)
        }
        (Value::List(a), Value::List(b)) => {
            allowance.take(a.len() + b.len())?;
            Value::list(add_lists(a, b)?)
        }
        _ => return Err(EvalError::no_overload()),
    })
}

fn subtract<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    Ok(match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_sub(*b).ok_or_else(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_sub(*b).ok_or_else(unsigned_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a - b),
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.checked_sub(*b).ok_or_else(overflow)?),
        (Value::Timestamp(at), Value::Duration(by)) => Value::Timestamp(time::shift(*at, -i128::from(*by))?),
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            let nanos = i64::try_from(a.as_nanosecond() - b.as_nanosecond());
            Value::Duration(nanos.map_err(|_| overflow())?)
        }
        _ => return Err(EvalError::no_overload()),
    })
}

fn multiply<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    Ok(match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_mul(*b).ok_or_else(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_mul(*b).ok_or_else(unsigned_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a * b),
        _ => return Err(EvalError::no_overload()),
    })
}

fn divide<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    let zero = || EvalError::other("division by zero");
    Ok(match (&args[0], &args[1]) {
        (_, Value::Int(0)) if matches!(args[0], Value::Int(_)) => return Err(zero()),
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_div(*b).ok_or_else(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_div(*b).ok_or_else(zero)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a / b),
        _ => return Err(EvalError::no_overload()),
    })
}

fn modulo<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    let zero = || EvalError::other("modulus by zero");
    Ok(match (&args[0], &args[1]) {
        (_, Value::Int(0)) if matches!(args[0], Value::Int(_)) => return Err(zero()),
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_rem(*b).ok_or_else(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_rem(*b).ok_or_else(zero)?),
        _ => return Err(EvalError::no_overload()),
    })
}

fn negate<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    Ok(match &args[0] {
        Value::Int(n) => Value::Int(n.checked_neg().ok_or_else(overflow)?),
        Value::Double(d) => Value::Double(-d),
        Value::Duration(d) => Value::Duration(d.checked_neg().ok_or_else(overflow)?),
        _ => return Err(EvalError::no_overload()),
    })
}

fn not<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    args[0].as_bool().map(|b| Value::Bool(!b)).ok_or_else(EvalError::no_overload)
}

fn member_of<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    Ok(Value::Bool(match &args[1] {
        Value::List(list) => contains(list, &args[0])?,
        Value::Map(map) => match &args[0] {
            Value::String(_) | Value::Int(_) | Value::Uint(_) | Value::Bool(_) | Value::Double(_) => {
                map.get(&args[0])?.is_some()
            }
            _ => false,
        },
        _ => return Err(EvalError::no_overload()),
    }))
}

/// Adds an entry, or all entries of a map.
fn map_insert<'a>(args: &[Value<'a>], allowance: &mut Allowance) -> Result<Value<'a>> {
    let mut into = entries_of(&args[..1])?;
    let more = entries_of(&args[1..])?;
    allowance.take(into.len() + more.len())?;
    insert_all(&mut into, more)?;
    Ok(Value::Map(Map::Values(Arc::new(into))))
}

/// The entries of a map, or the one entry of a key and a value.
pub fn entries_of<'a>(args: &[Value<'a>]) -> Result<Entries<'a>> {
    match args {
        [Value::Map(Map::Values(entries))] => Ok(entries.as_ref().clone()),
        [Value::Map(map)] => {
            let keys = map.keys().into_iter();
            keys.map(|key| {
                let value = map.get(&key)?.ok_or_else(EvalError::no_overload)?;
                Ok((Key::from_value(&key).ok_or_else(EvalError::no_overload)?, value))
            })
            .collect()
        }
        [key, value] => {
            let key = Key::from_value(key).ok_or_else(EvalError::no_overload)?;
            Ok(Entries::from_iter([(key, value.clone())]))
        }
        _ => Err(EvalError::no_overload()),
    }
}
