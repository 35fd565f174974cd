//! The formats of text that schemas may ask for. An unknown format asks for nothing.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine as _;
use regex::Regex;

/// Whether text has a format.
pub fn accepts(format: &str, text: &str) -> bool {
    // Names are compared without dashes: `date-time` is `datetime`.
    match format.replace('-', "").as_str() {
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok() && text.contains(':'),
        "cidr" => is_cidr(text),
        "mac" => matches(&MAC, text),
        "uuid" => matches(&UUID, text),
        "uuid3" => matches(&UUID, text) && version(text) == Some('3'),
        "uuid4" => matches(&UUID, text) && version(text) == Some('4'),
        "uuid5" => matches(&UUID, text) && version(text) == Some('5'),
        "email" => matches(&EMAIL, text),
        "hostname" => text.len() <= 255 && matches(&HOSTNAME, text),
        "uri" => matches(&URI, text),
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
        "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "duration" => matches(&DURATION, text),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "hexcolor" => matches(&HEX_COLOR, text),
        "rgbcolor" => matches(&RGB_COLOR, text),
        "ssn" => matches(&SSN, text),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "creditcard" => matches(&CREDIT_CARD, &digits(text)),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "k8sshortname" => text.len() <= 63 && matches(&LABEL, text),
        "k8slongname" => text.len() <= 253 && text.split('.').all(|part| matches(&LABEL, part)),
        _ => true,
    }
}

type Pattern = LazyLock<Regex>;

fn compile(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is a constant")
}

fn matches(pattern: &Pattern, text: &str) -> bool {
    pattern.is_match(text)
}

static MAC: Pattern = LazyLock::new(|| {
    compile(
        "^([0-9a-fA-F]{2}[:-]){5}([0-9a-fA-F]{2}|([0-9a-fA-F]{2}[:-]){2}[0-9a-fA-F]{2})$|^([0-9a-fA-F]{4}\\.){2,3}[0-9a-fA-F]{4}$",
    )
});
static UUID: Pattern =
    LazyLock::new(|| compile("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"));
static EMAIL: Pattern = LazyLock::new(|| compile("^(?:.*<)?[^\\s@<>]+@[^\\s@<>]+>?$"));
static HOSTNAME: Pattern = LazyLock::new(|| {
    compile(
        "^([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]{0,61}[a-zA-Z0-9])(\\.([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]{0,61}[a-zA-Z0-9]))*$",
    )
});
static URI: Pattern = LazyLock::new(|| compile("^([a-zA-Z][a-zA-Z0-9+.-]*:[^\\s]+|/[^\\s]*)$"));
static DURATION: Pattern = LazyLock::new(|| {
    compile(
        "^[+-]?(0|(([0-9]+\\.?[0-9]*|\\.[0-9]+)\\s*(ns|us|µs|μs|ms|s|m|h|d|w|nanosecond|microsecond|millisecond|second|minute|hour|day|week)s?\\s*)+)$",
    )
});
static HEX_COLOR: Pattern = LazyLock::new(|| compile("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"));
static RGB_COLOR: Pattern = LazyLock::new(|| {
    let part = "\\s*(0|[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5])\\s*";
    compile(&format!("^rgb\\({part},{part},{part}\\)$"))
});
static SSN: Pattern = LazyLock::new(|| compile("^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$"));
static CREDIT_CARD: Pattern = LazyLock::new(|| {
    compile(
        "^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$",
    )
});
static LABEL: Pattern = LazyLock::new(|| compile("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"));

fn version(uuid: &str) -> Option<char> {
    uuid.chars().filter(|c| *c != '-').nth(12)
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let Ok(bits) = bits.parse::<u8>() else { return false };
    address.parse::<Ipv4Addr>().is_ok() && bits <= 32 || address.parse::<Ipv6Addr>().is_ok() && bits <= 128
}

fn is_isbn10(text: &str) -> bool {
    let text: Vec<char> = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let value = |(i, c): (usize, &char)| match c {
        'X' | 'x' if i == 9 => Some(10),
        c => c.to_digit(10),
    };
    let values: Option<Vec<u32>> = text.iter().enumerate().map(value).collect();
    let sum = |v: Vec<u32>| v.iter().zip((1..=10).rev()).map(|(d, w)| d * w).sum::<u32>();
    text.len() == 10 && values.is_some_and(|v| sum(v) % 11 == 0)
}

fn is_isbn13(text: &str) -> bool {
    let text: Vec<char> = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let values: Option<Vec<u32>> = text.iter().map(|c| c.to_digit(10)).collect();
    let sum = |v: Vec<u32>| v.iter().zip([1, 3].iter().cycle()).map(|(d, w)| d * w).sum::<u32>();
    text.len() == 13 && values.is_some_and(|v| sum(v) % 10 == 0)
}
