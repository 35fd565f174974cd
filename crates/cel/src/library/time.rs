//! Points in time and spans of it.

use jiff::SignedDuration;
use jiff::civil::{self, DateTime};
use jiff::tz::TimeZone;

use super::{Allowance, Function};
use crate::error::{EvalError, Result};
use crate::value::Value;

const SECOND: i128 = 1_000_000_000;
/// The first second of the year 1 and the last of the year 9999.
const RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A point in time, between the years 1 and 9999: nanoseconds since 1970. (`jiff`'s own ends a day before the year 9999
/// does, which is what people write for "never".)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i128);

impl Timestamp {
    /// Nanoseconds since 1970.
    pub fn as_nanosecond(self) -> i128 {
        self.0
    }

    /// Seconds since 1970, rounded down.
    pub fn as_second(self) -> i64 {
        self.0.div_euclid(SECOND) as i64
    }

    fn new(nanos: i128) -> Option<Self> {
        let seconds = i64::try_from(nanos.div_euclid(SECOND)).ok()?;
        RANGE.contains(&seconds).then_some(Self(nanos))
    }

    /// The date and time so many seconds east of Greenwich.
    fn civil(self, offset: i64) -> DateTime {
        let since = SignedDuration::new(self.as_second() + offset, self.0.rem_euclid(SECOND) as i32);
        let start = civil::date(1970, 1, 1).at(0, 0, 0, 0);
        start.checked_add(since).unwrap_or(if since.is_negative() { DateTime::MIN } else { DateTime::MAX })
    }
}

/// The function of a name.
pub fn find(name: &str) -> Option<Function> {
    Some(match name {
        "getFullYear" => |args, _| civil(args, |t| i64::from(t.year())),
        "getMonth" => |args, _| civil(args, |t| i64::from(t.month()) - 1),
        "getDayOfYear" => |args, _| civil(args, |t| i64::from(t.day_of_year()) - 1),
        "getDayOfMonth" => |args, _| civil(args, |t| i64::from(t.day()) - 1),
        "getDate" => |args, _| civil(args, |t| i64::from(t.day())),
        "getDayOfWeek" => |args, _| civil(args, |t| i64::from(t.weekday().to_sunday_zero_offset())),
        "getHours" => |args, allowance| part(args, allowance, 3600, |t| i64::from(t.hour())),
        "getMinutes" => |args, allowance| part(args, allowance, 60, |t| i64::from(t.minute())),
        "getSeconds" => |args, allowance| part(args, allowance, 1, |t| i64::from(t.second())),
        "getMilliseconds" => |args, _| match &args[0] {
            Value::Duration(nanos) => Ok(Value::Int(nanos / 1_000_000)),
            _ => civil(args, |t| i64::from(t.subsec_nanosecond() / 1_000_000)),
        },
        _ => return None,
    })
}

fn part<'a>(
    args: &[Value<'a>],
    _: &mut Allowance,
    seconds: i64,
    read: fn(&DateTime) -> i64,
) -> Result<Value<'a>> {
    match &args[0] {
        Value::Duration(nanos) => Ok(Value::Int(nanos / 1_000_000_000 / seconds)),
        _ => civil(args, read),
    }
}

fn civil<'a>(args: &[Value<'a>], read: fn(&DateTime) -> i64) -> Result<Value<'a>> {
    let Value::Timestamp(at) = &args[0] else { return Err(EvalError::no_overload()) };
    let offset = match args.get(1) {
        None => 0,
        Some(Value::String(name)) => offset(name.as_str(), *at)?,
        Some(_) => return Err(EvalError::no_overload()),
    };
    Ok(Value::Int(read(&at.civil(offset))))
}

/// The seconds east of Greenwich at a time: of a zone by name (`Europe/Berlin`), or as written (`-08:00`).
fn offset(name: &str, at: Timestamp) -> Result<i64> {
    let Some((hours, minutes)) = name.split_once(':') else {
        if matches!(name, "" | "UTC") {
            return Ok(0);
        }
        let unknown = |_| EvalError::other(format!("unknown time zone {name}"));
        let zone = TimeZone::get(name).map_err(unknown)?;
        let bounded =
            at.as_second().clamp(jiff::Timestamp::MIN.as_second(), jiff::Timestamp::MAX.as_second());
        let bounded = jiff::Timestamp::from_second(bounded).map_err(unknown)?;
        return Ok(i64::from(zone.to_offset(bounded).seconds()));
    };
    let number = |text: &str| {
        let syntax = || EvalError::other(format!("strconv.Atoi: parsing \"{text}\": invalid syntax"));
        text.parse::<i64>().ok().filter(|n| n.abs() < 100).ok_or_else(syntax)
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    Ok(60 * if name.starts_with('-') { hours * 60 - minutes } else { hours * 60 + minutes })
}

fn out_of_range() -> EvalError {
    EvalError::other("timestamp overflow")
}

/// So many seconds after 1970.
pub fn from_seconds(seconds: i64) -> Result<Timestamp> {
    Timestamp::new(i128::from(seconds) * SECOND).ok_or_else(out_of_range)
}

/// So many nanoseconds later.
pub fn shift(at: Timestamp, nanos: i128) -> Result<Timestamp> {
    Timestamp::new(at.0 + nanos).ok_or_else(out_of_range)
}

/// Reads RFC 3339.
pub fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let fits = bytes.len() > shape.len()
        && shape.iter().zip(bytes).all(|(s, b)| if *s == b'd' { b.is_ascii_digit() } else { s == b });
    let tail = text.get(shape.len()..).filter(|_| fits && bytes[17..19] != *b"60")?;
    let zone = tail.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let fraction = match tail.strip_suffix(zone)? {
        "" => 0,
        digits => decimal(digits.strip_prefix('.').filter(|d| !d.is_empty())?, 0)
            .and_then(|_| decimal(digits, SECOND))?,
    };
    let east = match zone.as_bytes() {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes): (i64, i64) = (zone[1..3].parse().ok()?, zone[4..].parse().ok()?);
            let east = (hours < 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)?;
            if *sign == b'-' { -east } else { east }
        }
        _ => return None,
    };
    let local: DateTime = text[..shape.len()].parse().ok()?;
    let since = local.duration_since(civil::date(1970, 1, 1).at(0, 0, 0, 0));
    Timestamp::new(i128::from(since.as_secs() - east) * SECOND + fraction)
}

/// As RFC 3339 in UTC, with as many digits as needed.
pub fn format_timestamp(at: Timestamp) -> String {
    format!("{}Z", at.civil(0))
}

/// As seconds: `90s`, `0.5s`.
pub fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, rest) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];

/// Reads what Go's `time.ParseDuration` reads: `1h30m`, `-1.5s`.
pub fn parse_go_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == &after[..unit])?;
        total = total.checked_add(decimal(number, *scale)?)?;
        rest = &after[unit..];
    }
    i64::try_from(sign * total).ok()
}

/// A decimal number of units, in nanoseconds.
fn decimal(number: &str, scale: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let digits = &fraction[..fraction.len().min(18)];
    let part: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let divisor = 10i128.pow(u32::try_from(digits.len()).ok()?);
    whole.checked_mul(scale)?.checked_add(part * scale / divisor)
}

/// Reads the OpenAPI format `duration`: Go's, or numbers with units as long as `days` and `weeks`.
pub fn parse_duration(text: &str) -> Option<i64> {
    if let Some(nanos) = parse_go_duration(text) {
        return Some(nanos);
    }
    let (sign, mut rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let mut total: i128 = 0;
    while !rest.trim().is_empty() {
        rest = rest.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let after = after.trim_start();
        let unit = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let scale = match &after[..unit] {
            "ns" | "nano" | "nanosecond" | "nanoseconds" => 1,
            "us" | "µs" | "μs" | "micro" | "microsecond" | "microseconds" => 1_000,
            "ms" | "milli" | "millisecond" | "milliseconds" => 1_000_000,
            "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
            "m" | "min" | "mins" | "minute" | "minutes" => 60 * SECOND,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600 * SECOND,
            "d" | "day" | "days" => 86400 * SECOND,
            "w" | "wk" | "wks" | "week" | "weeks" => 7 * 86400 * SECOND,
            _ => return None,
        };
        total = total.checked_add(decimal(number, scale)?)?;
        rest = &after[unit..];
    }
    (!text.trim().is_empty()).then_some(())?;
    i64::try_from(sign * total).ok()
}
