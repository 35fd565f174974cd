//! What calls cost when they run, as upstream counts.

use crate::ast::operators;
use crate::value::{List, Map, Opaque, Value};

/// Reading a variable or a field.
pub const SELECT: u64 = 1;
/// Making a list.
pub const LIST: u64 = 10;
/// Making a map.
pub const MAP: u64 = 30;
/// Making a struct.
pub const STRUCT: u64 = 40;
/// Reading a character.
pub const CHARACTER: f64 = 0.1;
/// A character of a regular expression.
pub const REGEX_CHARACTER: f64 = 0.25;
/// Asking an authorizer: two questions are allowed in one evaluation.
pub const CHECK: u64 = 350_000;

/// How the cost of a call follows from its arguments and result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// One.
    One,
    /// A fixed cost.
    Fixed(u64),
    /// The first argument is read so many times.
    Read(f64),
    /// Conversions: text and bytes are read.
    Convert,
    /// The result is read twice.
    Join,
    /// The text times the pattern.
    Regex,
    /// The text times the part.
    Contains,
    /// As many as there are elements.
    In,
    /// The shorter of two is read.
    Compare,
    /// Both texts are read.
    Add,
    /// A selector is parsed.
    Selector,
    /// All of the first argument is read.
    Traverse,
    /// A list of the result's size is made.
    Result,
    /// As many levels as the second argument says.
    Flatten,
    /// Each element of an argument is compared with each.
    SelfCompare(usize),
    /// Each element of one list is compared with each of another.
    Sets(f64),
    /// An address is read, unless it is that of a network.
    Ip,
    /// Addresses are compared.
    ContainsIp,
    /// Networks are compared.
    ContainsCidr,
    /// The text times the format's pattern.
    Validate,
}

impl Rule {
    /// Whether upstream knows the cost by the signature, not by the function: where types leave open which signature
    /// is called, the call costs one.
    pub fn is_of_signature(self) -> bool {
        matches!(
            self,
            Self::In | Self::Compare | Self::Add | Self::Convert | Self::SelfCompare(_) | Self::Flatten
        )
    }
}

/// The rule of a function.
pub fn rule(function: &str) -> Rule {
    match function {
        "check" => Rule::Fixed(CHECK),
        "fieldSelector" | "labelSelector" => Rule::Selector,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => Rule::Traverse,
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "jsonpatch.escapeKey" => Rule::Read(1.0),
        "cidr" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver" => Rule::Read(1.0),
        "startsWith" | "endsWith" | "strings.quote" | "format" => Rule::Read(1.0),
        "replace" | "split" | "ip.isCanonical" => Rule::Read(2.0),
        "string" | "bytes" => Rule::Convert,
        "join" => Rule::Join,
        "find" | "findAll" | "matches" => Rule::Regex,
        "contains" => Rule::Contains,
        "@in" => Rule::In,
        "_<_" | "_<=_" | "_>_" | "_>=_" | operators::EQUALS | "_!=_" => Rule::Compare,
        operators::ADD => Rule::Add,
        "slice" | "lists.range" | "reverse" => Rule::Result,
        "flatten" => Rule::Flatten,
        "distinct" | "sort" => Rule::SelfCompare(0),
        "@sortByAssociatedKeys" => Rule::SelfCompare(1),
        "sets.contains" | "sets.intersects" => Rule::Sets(1.0),
        "sets.equivalent" => Rule::Sets(2.0),
        "ip" => Rule::Ip,
        "containsIP" => Rule::ContainsIp,
        "containsCIDR" => Rule::ContainsCidr,
        "validate" => Rule::Validate,
        _ => Rule::One,
    }
}

/// The cost of a call.
pub fn call(rule: Rule, args: &[Value<'_>], result: &Value<'_>) -> u64 {
    let first = || args.first().map_or(1, size);
    let second = || args.get(1).map_or(1, size);
    match rule {
        Rule::One => 1,
        Rule::Fixed(cost) => cost,
        Rule::Read(times) => read(first(), times),
        Rule::Convert => match (args.first(), result) {
            (Some(Value::String(_)), Value::Bytes(_)) | (Some(Value::Bytes(_)), Value::String(_)) => {
                read(first(), 1.0)
            }
            _ => 1,
        },
        Rule::Join => read(size(result), 2.0),
        Rule::Regex => {
            let text = ((1.0 + first() as f64) * CHARACTER).ceil() as u64;
            text.saturating_mul((second() as f64 * REGEX_CHARACTER).ceil() as u64)
        }
        Rule::Contains => read(first(), 1.0).saturating_mul(read(second(), 1.0)),
        Rule::In => match args.get(1) {
            Some(Value::List(list)) => list.len() as u64,
            _ => 1,
        },
        Rule::Compare => match (&args[0], &args[1]) {
            (Value::Opaque(_), _) => 1,
            _ => read(first().min(second()), 1.0),
        },
        Rule::Add => match (&args[0], &args[1]) {
            (Value::String(_), Value::String(_)) | (Value::Bytes(_), Value::Bytes(_)) => {
                read(first() + second(), 1.0)
            }
            _ => 1,
        },
        Rule::Selector => {
            let length = second();
            let requirements = (length as f64 * 0.5).ceil();
            LIST + read(length, 1.0) + (requirements * (LIST + STRUCT) as f64).ceil() as u64
        }
        Rule::Traverse => args.first().map_or(0, traversal),
        Rule::Result => allocating(1.0, size(result)),
        Rule::Flatten => match args.get(1) {
            Some(Value::Int(depth)) => allocating(*depth as f64, first()),
            _ => allocating(1.0, first()),
        },
        Rule::SelfCompare(index) => self_compare(args.get(index)),
        Rule::Sets(factor) => 1 + (first().saturating_mul(second()) as f64 * factor) as u64,
        Rule::Ip => match args.first() {
            Some(Value::String(_)) => read(first(), 1.0),
            _ => 1,
        },
        Rule::ContainsIp => read(2 * first(), 1.0) + parsed(args),
        Rule::ContainsCidr => read(2 * first(), 1.0) + read(first(), 1.0) + 1 + parsed(args),
        Rule::Validate => match args.first() {
            Some(Value::Opaque(Opaque::Format(format))) => {
                let text = ((1.0 + second() as f64) * CHARACTER).ceil() as u64;
                text.saturating_mul((format.pattern_length as f64 * REGEX_CHARACTER).ceil() as u64)
            }
            _ => 1,
        },
    }
}

fn read(size: u64, times: f64) -> u64 {
    (size as f64 * times * CHARACTER).ceil() as u64
}

fn parsed(args: &[Value<'_>]) -> u64 {
    match args.get(1) {
        Some(text @ Value::String(_)) => read(size(text), 1.0),
        _ => 0,
    }
}

fn allocating(factor: f64, count: u64) -> u64 {
    (count as f64 * factor) as u64 + 1 + LIST
}

fn self_compare(list: Option<&Value<'_>>) -> u64 {
    let Some(Value::List(list)) = list else { return 1 };
    let first = list.get(0);
    let text = matches!(first, Some(Ok(Value::String(_) | Value::Bytes(_))));
    let count = list.len() as u64;
    allocating(if text { 2.0 + CHARACTER } else { 2.0 }, count.saturating_mul(count))
}

/// The size of a value; 1 for what has none.
fn size(value: &Value<'_>) -> u64 {
    match value {
        Value::Optional(Some(inner)) => size(inner),
        Value::Opaque(Opaque::Ip(ip)) => {
            if ip.is_ipv4() {
                4
            } else {
                16
            }
        }
        Value::Opaque(Opaque::Cidr(cidr)) => cidr.prefix_bytes(),
        // An ASCII text need not be counted.
        Value::String(text) if text.as_str().is_ascii() => text.as_str().len() as u64,
        other => other.size().unwrap_or(1),
    }
}

/// The cost of reading everything in a value.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.as_str().len() as f64 * CHARACTER) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * CHARACTER) as u64,
        Value::List(list) => List::iter(list).flatten().map(|item| traversal(&item)).sum(),
        Value::Map(map) => traverse_map(map),
        _ => 1,
    }
}

fn traverse_map(map: &Map<'_>) -> u64 {
    map.keys()
        .iter()
        .map(|key| {
            let value = map.get(key).ok().flatten();
            traversal(key) + value.map_or(0, |v| traversal(&v))
        })
        .sum()
}
