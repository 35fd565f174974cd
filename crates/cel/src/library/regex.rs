//! Regular expressions in RE2's syntax, as Go reads it.

use regex::{Regex, RegexBuilder};

use super::{Allowance, Function};
use crate::error::{EvalError, Result};
use crate::limits;
use crate::value::{Text, Value};

/// The function of a name, for patterns that are known only when it runs.
pub fn find(name: &str) -> Option<Function> {
    Some(match name {
        "matches" => |args, _| {
            let (text, pattern) = texts(args)?;
            Ok(matches(text, &compiled(pattern)?))
        },
        "find" => |args, allowance| {
            let (text, pattern) = texts(args)?;
            first(text, &compiled(pattern)?, allowance)
        },
        "findAll" => |args, allowance| {
            let (text, pattern) = texts(args)?;
            all(text, &compiled(pattern)?, args.get(2), allowance)
        },
        _ => return None,
    })
}

/// Calls one of the functions with a pattern that is compiled already.
pub fn call<'a>(
    name: &str,
    args: &[Value<'a>],
    pattern: &Regex,
    allowance: &mut Allowance,
) -> Result<Value<'a>> {
    let text = args[0].as_str().ok_or_else(EvalError::no_overload)?;
    match name {
        "matches" => Ok(matches(text, pattern)),
        "find" => first(text, pattern, allowance),
        _ => all(text, pattern, args.get(2), allowance),
    }
}

fn texts<'v>(args: &'v [Value<'_>]) -> Result<(&'v str, &'v str)> {
    match (args[0].as_str(), args[1].as_str()) {
        (Some(text), Some(pattern)) => Ok((text, pattern)),
        _ => Err(EvalError::no_overload()),
    }
}

fn compiled(pattern: &str) -> Result<Regex> {
    compile(pattern).map_err(|why| EvalError::other(format!("error parsing regexp: {why}")))
}

fn matches<'a>(text: &str, pattern: &Regex) -> Value<'a> {
    Value::Bool(pattern.is_match(text))
}

fn first<'a>(text: &str, pattern: &Regex, allowance: &mut Allowance) -> Result<Value<'a>> {
    let found = pattern.find(text).map_or("", |m| m.as_str());
    allowance.take(found.len())?;
    Ok(Value::text(found))
}

fn all<'a>(
    text: &str,
    pattern: &Regex,
    limit: Option<&Value<'_>>,
    allowance: &mut Allowance,
) -> Result<Value<'a>> {
    let limit = match limit {
        None => usize::MAX,
        Some(Value::Int(limit)) => usize::try_from(*limit).unwrap_or(usize::MAX),
        Some(_) => return Err(EvalError::no_overload()),
    };
    let mut found = Vec::new();
    for part in pattern.find_iter(text).take(limit) {
        allowance.take(part.len() + 1)?;
        found.push(Value::String(Text::from(part.as_str().to_owned())));
    }
    Ok(Value::list(found))
}

/// Compiles a pattern.
///
/// # Errors
/// It is none, or too large.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(&translate(pattern))
        .size_limit(limits::REGEX_BYTES)
        .dfa_size_limit(limits::REGEX_BYTES)
        .build()
        .map_err(|e| e.to_string())
}

/// The same pattern for the `regex` crate: classes by letter are ASCII in RE2, and `\Q…\E` quotes.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        let mut width = c.len_utf8();
        match c {
            '\\' => {
                let next = rest[1..].chars().next().unwrap_or_default();
                width += next.len_utf8() * usize::from(next != '\0');
                if next == 'Q' && !in_class {
                    let body = &rest[2..];
                    let end = body.find("\\E");
                    out.push_str(&regex::escape(&body[..end.unwrap_or(body.len())]));
                    rest = end.map_or("", |e| &body[e + 2..]);
                    continue;
                }
                out.push_str(&escape(next, in_class).unwrap_or_else(|| rest[..width].to_owned()));
            }
            '[' if in_class && !rest.starts_with("[:") => out.push_str("\\["),
            '[' if in_class => {
                let end = rest.find(":]").map_or(1, |e| e + 2);
                out.push_str(&rest[..end]);
                width = end;
            }
            '[' => {
                in_class = true;
                let head = ["[^]", "[]", "[^", "["].into_iter().find(|h| rest.starts_with(h)).unwrap_or("[");
                out.push_str(&head.replace(']', "\\]"));
                width = head.len();
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            // Of the crate's own set operators RE2 knows none.
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '-' if in_class && rest.starts_with("--") => out.push_str("\\-"),
            other => out.push(other),
        }
        rest = &rest[width..];
    }
    out
}

fn escape(letter: char, in_class: bool) -> Option<String> {
    let (body, negated) = match letter {
        'd' => ("0-9", false),
        'D' => ("0-9", true),
        'w' => ("0-9A-Za-z_", false),
        'W' => ("0-9A-Za-z_", true),
        's' => ("\\t\\n\\f\\r ", false),
        'S' => ("\\t\\n\\f\\r ", true),
        'b' if !in_class => return Some("(?-u:\\b)".to_owned()),
        'B' if !in_class => return Some("(?-u:\\B)".to_owned()),
        _ => return None,
    };
    Some(match (negated, in_class) {
        (false, true) => body.to_owned(),
        (false, false) => format!("[{body}]"),
        (true, _) => format!("[^{body}]"),
    })
}
