//! Semantic versions.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Allowance, Function};
use crate::error::{EvalError, Result};
use crate::value::{Opaque, Value};

/// A version; what follows a `+` takes no part in comparisons.
#[derive(Debug)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<Part>,
}

/// Part of what follows a `-`.
#[derive(Debug)]
enum Part {
    Number(u64),
    Text(String),
}

/// The function of a name.
pub fn find(name: &str) -> Option<Function> {
    Some(match name {
        "semver" => |args, _| {
            let version = read(args)?.map_err(EvalError::other)?;
            Ok(Value::Opaque(Opaque::Semver(Arc::new(version))))
        },
        "isSemver" => |args, _| Ok(Value::Bool(read(args)?.is_ok())),
        "major" => |args, allowance| number(args, allowance, 0),
        "minor" => |args, allowance| number(args, allowance, 1),
        "patch" => |args, allowance| number(args, allowance, 2),
        _ => return None,
    })
}

fn read(args: &[Value<'_>]) -> Result<Result<Semver, String>> {
    let text = args[0].as_str().ok_or_else(EvalError::no_overload)?;
    let normalize = args.get(1).map_or(Some(false), Value::as_bool).ok_or_else(EvalError::no_overload)?;
    Ok(if normalize { normalized(text).and_then(|text| Semver::parse(&text)) } else { Semver::parse(text) })
}

fn number<'a>(args: &[Value<'a>], _: &mut Allowance, index: usize) -> Result<Value<'a>> {
    match &args[0] {
        Value::Opaque(Opaque::Semver(version)) => Ok(Value::Int(version.numbers[index] as i64)),
        _ => Err(EvalError::no_overload()),
    }
}

/// Without a `v` and leading zeros, and with all three numbers.
fn normalized(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text
        .splitn(3, '.')
        .map(|part| {
            if part.len() < 2 {
                return part.to_owned();
            }
            let rest = part.trim_start_matches('0');
            let bare = !rest.starts_with(|c: char| c.is_ascii_digit());
            if bare { format!("0{rest}") } else { rest.to_owned() }
        })
        .collect();
    if parts.len() < 3 && parts.last().is_some_and(|p| p.contains(['+', '-'])) {
        return Err("short version cannot contain PreRelease/Build meta data".to_owned());
    }
    parts.resize(parts.len().max(3), "0".to_owned());
    Ok(parts.join("."))
}

impl Semver {
    /// Reads a version.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("Version string empty".to_owned());
        }
        let parts: Vec<&str> = text.splitn(3, '.').collect();
        let [major, minor, rest] = parts.as_slice() else {
            return Err("No Major.Minor.Patch elements found".to_owned());
        };
        let (rest, build) = rest.split_once('+').map_or((*rest, None), |(rest, build)| (rest, Some(build)));
        let (patch, pre) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
        let numbers = [numeric("Major", major)?, numeric("Minor", minor)?, numeric("Patch", patch)?];
        let pre = pre.map(|p| p.split('.').map(part).collect()).transpose()?.unwrap_or_default();
        for part in build.into_iter().flat_map(|b| b.split('.')) {
            if part.is_empty() {
                return Err("Build meta data is empty".to_owned());
            }
            check(part, "Invalid character(s) found in build meta data")?;
        }
        Ok(Self { numbers, pre })
    }

    /// Which is older.
    pub fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let pairs = self.pre.iter().zip(&other.pre).map(|(a, b)| a.cmp(b));
                let first = pairs.into_iter().find(|o| o.is_ne());
                first.unwrap_or_else(|| self.pre.len().cmp(&other.pre.len()))
            }
        })
    }
}

impl Part {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.cmp(b),
            (Self::Number(_), Self::Text(_)) => Ordering::Less,
            (Self::Text(_), Self::Number(_)) => Ordering::Greater,
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
        }
    }
}

fn numeric(name: &str, text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Err("strconv.ParseUint: parsing \"\": invalid syntax".to_owned());
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {} number {text:?}", name.to_lowercase()));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{name} number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"))
}

fn check(text: &str, complaint: &str) -> Result<(), String> {
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits { Ok(()) } else { Err(format!("{complaint} {text:?}")) }
}

fn part(text: &str) -> Result<Part, String> {
    if text.is_empty() {
        return Err("Prerelease is empty".to_owned());
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        if text.len() > 1 && text.starts_with('0') {
            return Err(format!("Numeric PreRelease version must not contain leading zeroes {text:?}"));
        }
        let parsed = text.parse().map_err(|_| "value out of range".to_owned())?;
        return Ok(Part::Number(parsed));
    }
    check(text, "Invalid character(s) found in prerelease")?;
    Ok(Part::Text(text.to_owned()))
}
