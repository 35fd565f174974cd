//! Functions on optionals. Those that need not look at all of their arguments are in the evaluator.

use std::sync::Arc;

use super::{Allowance, Function};
use crate::error::{EvalError, Result};
use crate::value::{List, Value};

/// The function of a name.
pub fn find(name: &str) -> Option<Function> {
    Some(match name {
        "optional.of" => |args, _| Ok(Value::some(args[0].clone())),
        "optional.none" => |_, _| Ok(Value::Optional(None)),
        "optional.ofNonZeroValue" => |args, _| {
            let empty = is_zero(&args[0]);
            Ok(if empty { Value::Optional(None) } else { Value::some(args[0].clone()) })
        },
        "value" => value,
        "hasValue" => |args, _| match &args[0] {
            Value::Optional(inner) => Ok(Value::Bool(inner.is_some())),
            _ => Err(EvalError::no_overload()),
        },
        "first" => |args, _| end(args, |list| list.get(0)),
        "last" => |args, _| end(args, |list| list.get(list.len().checked_sub(1)?)),
        "optional.unwrap" | "unwrapOpt" => unwrap,
        _ => return None,
    })
}

fn value<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    match &args[0] {
        Value::Optional(Some(inner)) => Ok(inner.as_ref().clone()),
        Value::Optional(None) => Err(EvalError::other("optional.none() dereference")),
        _ => Err(EvalError::no_overload()),
    }
}

fn end<'a>(args: &[Value<'a>], take: impl Fn(&List<'a>) -> Option<Result<Value<'a>>>) -> Result<Value<'a>> {
    let Value::List(list) = &args[0] else { return Err(EvalError::no_overload()) };
    Ok(Value::Optional(take(list).transpose()?.map(Arc::new)))
}

fn unwrap<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    let Value::List(list) = &args[0] else { return Err(EvalError::no_overload()) };
    let mut out = Vec::new();
    for item in list.iter() {
        match item? {
            Value::Optional(Some(inner)) => out.push(inner.as_ref().clone()),
            Value::Optional(None) => {}
            other => {
                let shown = super::convert::shown(&other);
                return Err(EvalError::other(format!("value {shown} is not optional")));
            }
        }
    }
    Ok(Value::list(out))
}

/// Whether a value is the empty one of its type.
fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) | Value::Duration(0) => true,
        Value::Double(d) => *d == 0.0,
        Value::Optional(inner) => inner.is_none(),
        Value::Timestamp(_) => false,
        other => other.size() == Some(0),
    }
}
