//! Functions on text. Positions count characters.

use super::{Allowance, Function, lists};
use crate::error::{EvalError, Result};
use crate::value::{List, Text, Value};

/// The function of a name.
pub fn find(name: &str) -> Option<Function> {
    Some(match name {
        "contains" => |args, _| test(args, |text, part| text.contains(part)),
        "endsWith" => |args, _| test(args, |text, part| text.ends_with(part)),
        "startsWith" => |args, _| test(args, |text, part| text.starts_with(part)),
        "charAt" => char_at,
        "indexOf" => |args, _| match &args[0] {
            Value::List(list) => lists::index_of(list, &args[1]),
            _ => index_of(args),
        },
        "lastIndexOf" => |args, _| match &args[0] {
            Value::List(list) => lists::last_index_of(list, &args[1]),
            _ => last_index_of(args),
        },
        "lowerAscii" => |args, allowance| changed(args, allowance, str::to_ascii_lowercase),
        "upperAscii" => |args, allowance| changed(args, allowance, str::to_ascii_uppercase),
        "trim" => |args, allowance| changed(args, allowance, |t| t.trim().to_owned()),
        "strings.quote" => |args, allowance| changed(args, allowance, quote),
        "replace" => replace,
        "split" => split,
        "substring" => substring,
        "join" => join,
        "format" => super::format::format,
        "jsonpatch.escapeKey" => {
            |args, allowance| changed(args, allowance, |t| t.replace('~', "~0").replace('/', "~1"))
        }
        _ => return None,
    })
}

fn text<'v>(value: &'v Value<'_>) -> Result<&'v str> {
    value.as_str().ok_or_else(EvalError::no_overload)
}

fn int(value: &Value<'_>) -> Result<i64> {
    match value {
        Value::Int(n) => Ok(*n),
        _ => Err(EvalError::no_overload()),
    }
}

fn test<'a>(args: &[Value<'a>], test: fn(&str, &str) -> bool) -> Result<Value<'a>> {
    Ok(Value::Bool(test(text(&args[0])?, text(&args[1])?)))
}

fn changed<'a>(
    args: &[Value<'a>],
    allowance: &mut Allowance,
    change: fn(&str) -> String,
) -> Result<Value<'a>> {
    let text = text(&args[0])?;
    allowance.take(text.len() * 2)?;
    Ok(Value::text(change(text)))
}

fn out_of_range(index: i64) -> EvalError {
    EvalError::other(format!("index out of range: {index}"))
}

/// The byte offset of a character, or of the end; `None` beyond it.
fn offset(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    if text.is_ascii() {
        return (index <= text.len()).then_some(index);
    }
    text.char_indices().map(|(i, _)| i).chain([text.len()]).nth(index)
}

fn char_at<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    let (text, index) = (text(&args[0])?, int(&args[1])?);
    let at = offset(text, index).ok_or_else(|| out_of_range(index))?;
    Ok(Value::text(text[at..].chars().take(1).collect::<String>()))
}

fn chars_before(text: &str, at: usize) -> i64 {
    text[..at].chars().count() as i64
}

fn index_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let (text, part) = (text(&args[0])?, text(&args[1])?);
    let from = args.get(2).map_or(Ok(0), int)?;
    if part.is_empty() {
        return Ok(Value::Int(from));
    }
    if from < 0 {
        return Err(out_of_range(from));
    }
    let found = offset(text, from).and_then(|start| Some(start + text[start..].find(part)?));
    Ok(Value::Int(found.map_or(-1, |at| chars_before(text, at))))
}

fn last_index_of<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let (text, part) = (text(&args[0])?, text(&args[1])?);
    let length = text.chars().count() as i64;
    let from = args.get(2).map(int).transpose()?;
    if part.is_empty() {
        return Ok(Value::Int(from.unwrap_or(length)));
    }
    if let Some(from) = from.filter(|f| *f < 0) {
        return Err(out_of_range(from));
    }
    if from.is_some_and(|from| from >= length) {
        return Ok(Value::Int(-1));
    }
    let mut found = -1;
    for (at, _) in text.match_indices(part.chars().next().unwrap_or_default()) {
        let index = chars_before(text, at);
        if from.is_some_and(|from| index > from) {
            break;
        }
        if text[at..].starts_with(part) {
            found = index;
        }
    }
    Ok(Value::Int(found))
}

fn replace<'a>(args: &[Value<'a>], allowance: &mut Allowance) -> Result<Value<'a>> {
    let (text, old, new) = (text(&args[0])?, text(&args[1])?, text(&args[2])?);
    let limit = args.get(3).map(int).transpose()?.and_then(|n| usize::try_from(n).ok());
    let times = match old.is_empty() {
        true => text.chars().count() + 1,
        false => text.matches(old).count(),
    };
    let times = times.min(limit.unwrap_or(usize::MAX));
    allowance.take(text.len().saturating_add(times.saturating_mul(new.len())))?;
    Ok(Value::text(text.replacen(old, new, times)))
}

fn split<'a>(args: &[Value<'a>], allowance: &mut Allowance) -> Result<Value<'a>> {
    let (text, by) = (text(&args[0])?, text(&args[1])?);
    let limit = args.get(2).map(int).transpose()?.unwrap_or(-1);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    allowance.take(text.len() + 1)?;
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    // Splitting at nothing gives the characters, with no empty text before and after.
    let parts: Vec<&str> = if by.is_empty() {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let width = if parts.len() + 1 == limit { rest.len() } else { c.len_utf8() };
            parts.push(&rest[..width]);
            rest = &rest[width..];
        }
        parts
    } else {
        text.splitn(limit, by).collect()
    };
    Ok(Value::list(parts.into_iter().map(Value::text).collect()))
}

fn substring<'a>(args: &[Value<'a>], allowance: &mut Allowance) -> Result<Value<'a>> {
    let (text, start) = (text(&args[0])?, int(&args[1])?);
    let end = args.get(2).map(int).transpose()?;
    if let Some(end) = end.filter(|end| start > *end) {
        return Err(EvalError::other(format!("invalid substring range. start: {start}, end: {end}")));
    }
    let from = offset(text, start).ok_or_else(|| out_of_range(start))?;
    let to = match end {
        Some(end) => offset(text, end).ok_or_else(|| out_of_range(end))?,
        None => text.len(),
    };
    allowance.take(to - from)?;
    Ok(Value::text(&text[from..to]))
}

fn join<'a>(args: &[Value<'a>], allowance: &mut Allowance) -> Result<Value<'a>> {
    let Value::List(list) = &args[0] else { return Err(EvalError::no_overload()) };
    let by = args.get(1).map_or(Ok(""), text)?;
    let mut out = String::new();
    for (i, item) in List::iter(list).enumerate() {
        let item = item?;
        let Value::String(part) = &item else {
            let shown = super::convert::shown(&item);
            return Err(EvalError::other(format!("join: invalid input: {shown}")));
        };
        allowance.take(part.as_str().len() + by.len())?;
        if i > 0 {
            out.push_str(by);
        }
        out.push_str(part.as_str());
    }
    Ok(Value::String(Text::from(out)))
}

/// The text as a literal of the language.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
