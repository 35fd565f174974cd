//! Kubernetes' quantities.

use gantry_api::quantity::Quantity;

use super::{Allowance, Function, semver};
use crate::error::{EvalError, Result};
use crate::value::{Opaque, Value};

/// The function of a name.
pub fn find(name: &str) -> Option<Function> {
    Some(match name {
        "quantity" => |args, _| {
            let text = args[0].as_str().ok_or_else(EvalError::no_overload)?;
            let parsed = text
                .parse()
                .map_err(|e: gantry_api::quantity::QuantityError| EvalError::other(e.to_string()))?;
            Ok(Value::Opaque(Opaque::Quantity(parsed)))
        },
        "isQuantity" => |args, _| {
            let text = args[0].as_str().ok_or_else(EvalError::no_overload)?;
            Ok(Value::Bool(text.parse::<Quantity>().is_ok()))
        },
        "sign" => |args, _| Ok(Value::Int(i64::from(quantity(&args[0])?.sign()))),
        "asApproximateFloat" => |args, _| Ok(Value::Double(quantity(&args[0])?.as_f64())),
        "isInteger" => |args, _| Ok(Value::Bool(whole(quantity(&args[0])?).is_some())),
        "asInteger" => |args, _| {
            let why = || EvalError::other("cannot convert value to integer");
            whole(quantity(&args[0])?).map(Value::Int).ok_or_else(why)
        },
        "add" => |args, _| Ok(made(quantity(&args[0])?.plus(operand(&args[1])?))),
        "sub" => |args, _| Ok(made(quantity(&args[0])?.minus(operand(&args[1])?))),
        // Versions are compared by the same names.
        "isGreaterThan" => |args, allowance| compared(args, allowance, |o| Value::Bool(o.is_gt())),
        "isLessThan" => |args, allowance| compared(args, allowance, |o| Value::Bool(o.is_lt())),
        "compareTo" => |args, allowance| compared(args, allowance, |o| Value::Int(o as i64)),
        _ => return None,
    })
}

fn quantity(value: &Value<'_>) -> Result<Quantity> {
    match value {
        Value::Opaque(Opaque::Quantity(quantity)) => Ok(*quantity),
        _ => Err(EvalError::no_overload()),
    }
}

fn made<'a>(quantity: Quantity) -> Value<'a> {
    Value::Opaque(Opaque::Quantity(quantity))
}

fn operand(value: &Value<'_>) -> Result<Quantity> {
    match value {
        Value::Int(units) => Ok(Quantity::from_units(*units)),
        other => quantity(other),
    }
}

/// The whole units, if there are no others and 64 bits hold them.
fn whole(quantity: Quantity) -> Option<i64> {
    let units = quantity.value();
    (Quantity::from_units(units) == quantity).then_some(units)
}

fn compared<'a>(
    args: &[Value<'a>],
    _: &mut Allowance,
    result: fn(std::cmp::Ordering) -> Value<'static>,
) -> Result<Value<'a>> {
    if let (Value::Opaque(Opaque::Semver(a)), Value::Opaque(Opaque::Semver(b))) = (&args[0], &args[1]) {
        return Ok(result(semver::Semver::cmp(a, b)));
    }
    Ok(result(quantity(&args[0])?.cmp(&quantity(&args[1])?)))
}
