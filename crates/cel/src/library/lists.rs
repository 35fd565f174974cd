//! Functions on lists.

use std::cmp::Ordering;

use super::{Allowance, Function};
use crate::compare::{contains, equal, order};
use crate::error::{EvalError, Result};
use crate::value::{List, Value};

/// The function of a name.
pub fn find(name: &str) -> Option<Function> {
    Some(match name {
        "isSorted" => is_sorted,
        "sum" => sum,
        "max" => |args, _| extreme(args, "max", Ordering::Less),
        "min" => |args, _| extreme(args, "min", Ordering::Greater),
        "slice" => slice,
        "flatten" => flatten,
        "sort" => |args, allowance| sort(list(&args[0])?, list(&args[0])?, allowance),
        "@sortByAssociatedKeys" => |args, allowance| sort(list(&args[0])?, list(&args[1])?, allowance),
        "lists.range" => range,
        "reverse" => reverse,
        "distinct" => distinct,
        "sets.contains" => |args, _| Ok(Value::Bool(covers(list(&args[0])?, list(&args[1])?)?)),
        "sets.equivalent" => |args, _| {
            let (a, b) = (list(&args[0])?, list(&args[1])?);
            Ok(Value::Bool(covers(a, b)? && covers(b, a)?))
        },
        "sets.intersects" => intersects,
        _ => return None,
    })
}

fn list<'v, 'a>(value: &'v Value<'a>) -> Result<&'v List<'a>> {
    match value {
        Value::List(list) => Ok(list),
        _ => Err(EvalError::no_overload()),
    }
}

/// The first position of an element, or -1.
pub fn index_of<'a>(list: &List<'a>, item: &Value<'a>) -> Result<Value<'a>> {
    for (i, candidate) in list.iter().enumerate() {
        if equal(&candidate?, item)? {
            return Ok(Value::Int(i as i64));
        }
    }
    Ok(Value::Int(-1))
}

/// The last position of an element, or -1.
pub fn last_index_of<'a>(list: &List<'a>, item: &Value<'a>) -> Result<Value<'a>> {
    for i in (0..list.len()).rev() {
        if let Some(candidate) = list.get(i)
            && equal(&candidate?, item)?
        {
            return Ok(Value::Int(i as i64));
        }
    }
    Ok(Value::Int(-1))
}

fn is_sorted<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    let items = list(&args[0])?.to_vec()?;
    for pair in items.windows(2) {
        if order(&pair[0], &pair[1])?.is_gt() {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(args: &[Value<'a>], allowance: &mut Allowance) -> Result<Value<'a>> {
    let add = super::find("_+_").ok_or_else(EvalError::no_overload)?;
    let mut total: Option<Value<'a>> = None;
    for item in list(&args[0])?.iter() {
        let item = item?;
        total = Some(match total {
            None => item,
            Some(before) => add(&[before, item], allowance)?,
        });
    }
    Ok(total.unwrap_or(Value::Int(0)))
}

fn extreme<'a>(args: &[Value<'a>], name: &str, worse: Ordering) -> Result<Value<'a>> {
    let mut best: Option<Value<'a>> = None;
    for item in list(&args[0])?.iter() {
        let item = item?;
        best = Some(match best {
            Some(before) if order(&before, &item)? != worse => before,
            _ => item,
        });
    }
    best.ok_or_else(|| EvalError::other(format!("{name} called on empty list")))
}

fn slice<'a>(args: &[Value<'a>], allowance: &mut Allowance) -> Result<Value<'a>> {
    let items = list(&args[0])?;
    let (Value::Int(start), Value::Int(end)) = (&args[1], &args[2]) else {
        return Err(EvalError::no_overload());
    };
    let refuse = |why: &str| EvalError::other(format!("cannot slice({start}, {end}), {why}"));
    let (Ok(from), Ok(to)) = (usize::try_from(*start), usize::try_from(*end)) else {
        return Err(refuse("negative indexes not supported"));
    };
    if from > to {
        return Err(refuse("start index must be less than or equal to end index"));
    }
    if items.len() < to {
        return Err(refuse(&format!("list is length {}", items.len())));
    }
    allowance.take(to - from)?;
    Ok(Value::list((from..to).filter_map(|i| items.get(i)).collect::<Result<_>>()?))
}

fn flatten<'a>(args: &[Value<'a>], allowance: &mut Allowance) -> Result<Value<'a>> {
    let depth = match args.get(1) {
        None => 1,
        Some(Value::Int(depth)) if *depth < 0 => {
            return Err(EvalError::other("level must be non-negative"));
        }
        Some(Value::Int(depth)) => *depth,
        Some(_) => return Err(EvalError::no_overload()),
    };
    let mut out = Vec::new();
    flatten_into(list(&args[0])?, depth, &mut out, allowance)?;
    Ok(Value::list(out))
}

/// The nesting of values is bounded by that of the data and the expression.
fn flatten_into<'a>(
    items: &List<'a>,
    depth: i64,
    out: &mut Vec<Value<'a>>,
    allowance: &mut Allowance,
) -> Result<()> {
    allowance.take(items.len())?;
    for item in items.iter() {
        match item? {
            Value::List(inner) if depth > 0 => flatten_into(&inner, depth - 1, out, allowance)?,
            other => out.push(other),
        }
    }
    Ok(())
}

fn sort<'a>(items: &List<'a>, keys: &List<'a>, allowance: &mut Allowance) -> Result<Value<'a>> {
    if items.len() != keys.len() {
        return Err(EvalError::other(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} \
             elements respectively",
            items.len(),
            keys.len()
        )));
    }
    allowance.take(items.len())?;
    let keys = keys.to_vec()?;
    if let Some(first) = keys.first() {
        order(first, first).map_err(|_| EvalError::other("list elements must be comparable"))?;
        if keys.iter().any(|k| k.type_name() != first.type_name()) {
            return Err(EvalError::other("list elements must have the same type"));
        }
    }
    let mut pairs: Vec<(Value<'a>, Value<'a>)> = keys.into_iter().zip(items.to_vec()?).collect();
    pairs.sort_by(|(a, _), (b, _)| order(a, b).unwrap_or(Ordering::Equal));
    Ok(Value::list(pairs.into_iter().map(|(_, item)| item).collect()))
}

fn range<'a>(args: &[Value<'a>], allowance: &mut Allowance) -> Result<Value<'a>> {
    let Value::Int(count) = args[0] else { return Err(EvalError::no_overload()) };
    allowance.take(usize::try_from(count).unwrap_or(0))?;
    Ok(Value::list((0..count).map(Value::Int).collect()))
}

fn reverse<'a>(args: &[Value<'a>], allowance: &mut Allowance) -> Result<Value<'a>> {
    let mut items = list(&args[0])?.to_vec()?;
    allowance.take(items.len())?;
    items.reverse();
    Ok(Value::list(items))
}

/// Quadratic, like its cost.
fn distinct<'a>(args: &[Value<'a>], allowance: &mut Allowance) -> Result<Value<'a>> {
    let items = list(&args[0])?;
    // The cost is only counted afterwards: what must exceed it is not begun.
    if items.len() * items.len() > crate::limits::PER_CALL as usize * 4 {
        return Err(EvalError::too_costly());
    }
    allowance.take(items.len())?;
    let mut out: Vec<Value<'a>> = Vec::new();
    'items: for item in items.iter() {
        let item = item?;
        for seen in &out {
            if equal(seen, &item)? {
                continue 'items;
            }
        }
        out.push(item);
    }
    Ok(Value::list(out))
}

/// Whether a list has all elements of another.
fn covers<'a>(items: &List<'a>, others: &List<'a>) -> Result<bool> {
    if items.len().saturating_mul(others.len()) > crate::limits::PER_CALL as usize * 4 {
        return Err(EvalError::too_costly());
    }
    for other in others.iter() {
        if !contains(items, &other?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn intersects<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    let (items, others) = (list(&args[0])?, list(&args[1])?);
    if items.len().saturating_mul(others.len()) > crate::limits::PER_CALL as usize * 4 {
        return Err(EvalError::too_costly());
    }
    for item in items.iter() {
        if contains(others, &item?)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}
