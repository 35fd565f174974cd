//! Field names that are no identifiers of the language, and back: `a.b` is `a__dot__b`.

use crate::parse::RESERVED;

/// The identifier for a field; `None` if there is none, so that expressions cannot name the field.
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let width = match c {
            '_' if rest.starts_with("__") => {
                out.push_str("__underscores__");
                2
            }
            '.' => {
                out.push_str("__dot__");
                1
            }
            '-' => {
                out.push_str("__dash__");
                1
            }
            '/' => {
                out.push_str("__slash__");
                1
            }
            '_' => {
                out.push('_');
                1
            }
            c if c.is_ascii_alphanumeric() => {
                out.push(c);
                1
            }
            _ => return None,
        };
        rest = &rest[width..];
    }
    Some(out)
}

/// The field that an identifier stands for; `None` if it has an escape that means nothing.
pub fn unescape(identifier: &str) -> Option<String> {
    let mut out = String::with_capacity(identifier.len());
    let mut rest = identifier;
    while let Some(start) = rest.find("__") {
        let body = &rest[start + 2..];
        // An escape is two underscores, a word without any, and two more.
        let Some(length) = body.find('_').filter(|l| *l > 0 && body[*l..].starts_with("__")) else {
            out.push_str(&rest[..=start]);
            rest = &rest[start + 1..];
            continue;
        };
        out.push_str(&rest[..start]);
        match &body[..length] {
            "underscores" => out.push_str("__"),
            "dot" => out.push('.'),
            "dash" => out.push('-'),
            "slash" => out.push('/'),
            word if RESERVED.contains(&word) && identifier.len() == length + 4 => out.push_str(word),
            _ => return None,
        }
        rest = &body[length + 2..];
    }
    out.push_str(rest);
    Some(out)
}
