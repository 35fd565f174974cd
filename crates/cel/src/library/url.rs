//! URLs, as Go reads them.

use std::sync::Arc;

use super::{Allowance, Function};
use crate::error::{EvalError, Result};
use crate::value::{Entries, Key, Map, Opaque, Text, Value};

/// A URL in parts.
#[derive(Debug, Default)]
pub struct Url {
    text: String,
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl Url {
    /// The whole.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The function of a name.
pub fn find(name: &str) -> Option<Function> {
    Some(match name {
        "url" => |args, _| {
            let text = args[0].as_str().ok_or_else(EvalError::no_overload)?;
            let why = |why| EvalError::other(format!("URL parse error during conversion from string: {why}"));
            check(text).map_err(why)?;
            // Asked for as a request, a fragment is taken for a part of the path.
            let url = parse(text, false).map_err(why)?;
            Ok(Value::Opaque(Opaque::Url(Arc::new(url))))
        },
        "isURL" => |args, _| {
            let text = args[0].as_str().ok_or_else(EvalError::no_overload)?;
            Ok(Value::Bool(check(text).is_ok()))
        },
        "getScheme" => |args, allowance| part(args, allowance, |url| url.scheme.clone()),
        "getHost" => |args, allowance| part(args, allowance, |url| url.host.clone()),
        "getHostname" => |args, allowance| part(args, allowance, |url| split_port(&url.host).0.to_owned()),
        "getPort" => |args, allowance| part(args, allowance, |url| split_port(&url.host).1.to_owned()),
        "getEscapedPath" => |args, allowance| part(args, allowance, |url| escaped(&url.path)),
        "getQuery" => query,
        _ => return None,
    })
}

fn url<'v>(value: &'v Value<'_>) -> Result<&'v Url> {
    match value {
        Value::Opaque(Opaque::Url(url)) => Ok(url),
        _ => Err(EvalError::no_overload()),
    }
}

fn part<'a>(args: &[Value<'a>], _: &mut Allowance, read: fn(&Url) -> String) -> Result<Value<'a>> {
    Ok(Value::text(read(url(&args[0])?)))
}

fn query<'a>(args: &[Value<'a>], _: &mut Allowance) -> Result<Value<'a>> {
    let mut found: Vec<(String, Vec<Value<'a>>)> = Vec::new();
    for pair in url(&args[0])?.query.split('&').filter(|p| !p.is_empty() && !p.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(key), Some(value)) = (decoded(key, true), decoded(value, true)) else { continue };
        match found.iter_mut().find(|(k, _)| *k == key) {
            Some((_, values)) => values.push(Value::text(value)),
            None => found.push((key, vec![Value::text(value)])),
        }
    }
    let entries: Entries<'a> =
        found.into_iter().map(|(key, values)| (Key::String(Text::from(key)), Value::list(values))).collect();
    Ok(Value::Map(Map::Values(Arc::new(entries))))
}

/// What keeps a text from being an absolute URL or path.
///
/// # Errors
/// The complaint, in Go's words.
pub fn check(text: &str) -> Result<(), String> {
    parse(text, true).map(|_| ())
}

fn parse(text: &str, as_request: bool) -> Result<Url, String> {
    let error = |why: String| format!("parse {text:?}: {why}");
    let body = if as_request { text } else { text.split('#').next().unwrap_or_default() };
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err(error("net/url: invalid control character in URL".to_owned()));
    }
    if body.is_empty() && as_request {
        return Err(error("empty url".to_owned()));
    }
    let (scheme, rest) = scheme(body).map_err(error)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut url = Url {
        text: text.to_owned(),
        scheme: scheme.to_ascii_lowercase(),
        query: query.to_owned(),
        ..Url::default()
    };
    if body == "*" {
        url.path = "*".to_owned();
        return Ok(url);
    }
    if !rest.starts_with('/') {
        if !scheme.is_empty() {
            return Ok(url);
        }
        if as_request {
            return Err(error("invalid URI for request".to_owned()));
        }
    }
    let mut path = rest;
    if (!scheme.is_empty() || !as_request && !rest.starts_with("///"))
        && let Some(after) = rest.strip_prefix("//")
    {
        let end = after.find('/').unwrap_or(after.len());
        let (authority, rest) = after.split_at(end);
        url.host = host(authority).map_err(error)?;
        path = rest;
    }
    decoded(path, false).ok_or_else(|| error(format!("invalid URL escape {:?}", bad_escape(path))))?;
    path.clone_into(&mut url.path);
    Ok(url)
}

fn bad_escape(text: &str) -> &str {
    let bytes = text.as_bytes();
    let is_bad = |at: &usize| !bytes.get(at + 1..at + 3).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit));
    let at = text.match_indices('%').map(|(at, _)| at).find(is_bad).unwrap_or(0);
    text.get(at..(at + 3).min(text.len())).unwrap_or("%")
}

fn scheme(text: &str) -> Result<(&str, &str), String> {
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if i > 0 => {}
            b':' if i == 0 => return Err("missing protocol scheme".to_owned()),
            b':' => return Ok((&text[..i], &text[i + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn host(authority: &str) -> Result<String, String> {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = if let Some(inner) = host.strip_prefix('[') {
        let end = inner.rfind(']').ok_or("missing ']' in host")?;
        &inner[end + 1..]
    } else {
        host.find(':').map_or("", |_| &host[host.rfind(':').unwrap_or(0)..])
    };
    let valid = port.is_empty() || port.starts_with(':') && port[1..].bytes().all(|b| b.is_ascii_digit());
    // More than one colon outside of brackets leaves one in the name.
    let name = &host[..host.len() - port.len()];
    if !valid {
        return Err(format!("invalid port {port:?} after host"));
    }
    if !name.starts_with('[') && name.contains(':') {
        let colon = name.find(':').unwrap_or(0);
        return Err(format!("invalid port {:?} after host", &host[colon..]));
    }
    if let Some(bad) = host.chars().find(|c| " \"<>\\^`{|}".contains(*c)) {
        return Err(format!("invalid character {:?} in host name", bad.to_string()));
    }
    decoded(host, false).ok_or_else(|| format!("invalid URL escape {:?}", bad_escape(host)))
}

fn split_port(host: &str) -> (&str, &str) {
    let (name, port) = match host.rfind(':') {
        Some(at) if host[at + 1..].bytes().all(|b| b.is_ascii_digit()) => (&host[..at], &host[at + 1..]),
        _ => (host, ""),
    };
    (name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name), port)
}

fn decoded(text: &str, plus_is_space: bool) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let digits = text.get(at + 1..at + 3).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
                at += 2;
            }
            b'+' if plus_is_space => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// The path as it was written if it was written well, else with what must not stand in it escaped.
fn escaped(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*[]%".contains(&b);
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
