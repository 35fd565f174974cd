//! Schedules of cron jobs: five fields, or a descriptor such as `@hourly`.
//!
//! Grammar and complaints as `robfig/cron`'s standard parser.

use std::ops::RangeInclusive;
use std::time::Duration;

/// When a cron job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At the minutes that all five fields name.
    At(Fields),
    /// Again and again after so long.
    Every(Duration),
}

/// One bit for each value that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// 0 to 59.
    pub minutes: u64,
    /// 0 to 23.
    pub hours: u64,
    /// 1 to 31.
    pub days: u64,
    /// 1 to 12.
    pub months: u64,
    /// 0 (Sunday) to 6.
    pub weekdays: u64,
}

/// Set beside the values' bits if the field began with a star: then the days of month and week are both asked for.
pub const STAR: u64 = 1 << 63;

const MINUTES: RangeInclusive<i64> = 0..=59;
const HOURS: RangeInclusive<i64> = 0..=23;
const DAYS: RangeInclusive<i64> = 1..=31;
const MONTHS: RangeInclusive<i64> = 1..=12;
const WEEKDAYS: RangeInclusive<i64> = 0..=6;
const MONTH_NAMES: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAY_NAMES: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Reads a schedule; a time zone before it (`TZ=…`, `CRON_TZ=…`) is looked up and dropped.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Schedule, String> {
    if text.is_empty() {
        return Err("empty spec string".into());
    }
    let text = without_zone(text)?;
    if text.starts_with('@') {
        return descriptor(text);
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let &[minutes, hours, days, months, weekdays] = fields.as_slice() else {
        let found = fields.len();
        return Err(format!("expected exactly 5 fields, found {found}: [{}]", fields.join(" ")));
    };
    Ok(Schedule::At(Fields {
        minutes: field(minutes, MINUTES, &[])?,
        hours: field(hours, HOURS, &[])?,
        days: field(days, DAYS, &[])?,
        months: field(months, MONTHS, &MONTH_NAMES)?,
        weekdays: field(weekdays, WEEKDAYS, &DAY_NAMES)?,
    }))
}

fn without_zone(text: &str) -> Result<&str, String> {
    let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) else {
        return Ok(text);
    };
    let Some((zone, rest)) = rest.split_once(' ') else {
        return Err("invalid schedule format: runtime error: slice bounds out of range [:-1]".into());
    };
    check_zone(zone).map_err(|why| format!("provided bad location {zone}: {why}"))?;
    Ok(rest.trim())
}

/// Is there such a time zone?
///
/// # Errors
/// There is none.
pub fn check_zone(name: &str) -> Result<(), String> {
    match name {
        "" | "UTC" | "Local" => Ok(()),
        _ => match jiff::tz::TimeZone::get(name) {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("unknown time zone {name}")),
        },
    }
}

fn all(range: RangeInclusive<i64>) -> u64 {
    bits(range, 1) | STAR
}

fn bits(range: RangeInclusive<i64>, step: i64) -> u64 {
    let step = usize::try_from(step).unwrap_or(usize::MAX).max(1);
    range.step_by(step).fold(0, |bits, value| bits | 1 << value)
}

fn descriptor(text: &str) -> Result<Schedule, String> {
    let midnight =
        Fields { minutes: 1, hours: 1, days: all(DAYS), months: all(MONTHS), weekdays: all(WEEKDAYS) };
    Ok(Schedule::At(match text {
        "@yearly" | "@annually" => Fields { days: 1 << 1, months: 1 << 1, ..midnight },
        "@monthly" => Fields { days: 1 << 1, ..midnight },
        "@weekly" => Fields { weekdays: 1, ..midnight },
        "@daily" | "@midnight" => midnight,
        "@hourly" => Fields { hours: all(HOURS), ..midnight },
        _ => {
            let Some(every) = text.strip_prefix("@every ") else {
                return Err(format!("unrecognized descriptor: {text}"));
            };
            let period = go_duration(every).ok_or_else(|| {
                let quoted = gantry_api::field::quote(every);
                format!("failed to parse duration {text}: time: invalid duration {quoted}")
            })?;
            // Whole seconds, and at least one.
            return Ok(Schedule::Every(Duration::from_secs(period.as_secs().max(1))));
        }
    }))
}

/// A duration as Go writes it: `1h30m`, `1.5s`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units =
            [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        let (unit, seconds) = units.iter().find(|(unit, _)| rest.starts_with(unit))?;
        total += number * seconds;
        rest = &rest[unit.len()..];
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(total).ok() }
}

fn field(text: &str, range: RangeInclusive<i64>, names: &[&str]) -> Result<u64, String> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts.map(|part| part_bits(part, &range, names)).try_fold(0, |bits, part| Ok(bits | part?))
}

fn part_bits(text: &str, range: &RangeInclusive<i64>, names: &[&str]) -> Result<u64, String> {
    let (min, max) = (*range.start(), *range.end());
    let slashed: Vec<&str> = text.split('/').collect();
    let bounds: Vec<&str> = slashed[0].split('-').collect();
    let mut star = 0;
    let (start, mut end) = if matches!(bounds[0], "*" | "?") {
        star = STAR;
        (min, max)
    } else {
        let start = number(bounds[0], names, min)?;
        match bounds.as_slice() {
            [_] => (start, start),
            [_, end] => (start, number(end, names, min)?),
            _ => return Err(format!("too many hyphens: {text}")),
        }
    };
    let step = match slashed.as_slice() {
        [_] => 1,
        [_, step] => {
            let step = number(step, &[], 0)?;
            if bounds.len() == 1 {
                end = max;
            }
            if step > 1 {
                star = 0;
            }
            step
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    match () {
        () if start < min => Err(format!("beginning of range ({start}) below minimum ({min}): {text}")),
        () if end > max => Err(format!("end of range ({end}) above maximum ({max}): {text}")),
        () if start > end => Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}")),
        () if step == 0 => Err(format!("step of range should be a positive number: {text}")),
        () => Ok(bits(start..=end, step) | star),
    }
}

fn number(text: &str, names: &[&str], first: i64) -> Result<i64, String> {
    let lower = text.to_lowercase();
    if let Some(at) = names.iter().position(|name| *name == lower) {
        return Ok(first + i64::try_from(at).unwrap_or(0));
    }
    let value: i64 = text.parse().map_err(|_| {
        let quoted = gantry_api::field::quote(text);
        format!("failed to parse int from {text}: strconv.Atoi: parsing {quoted}: invalid syntax")
    })?;
    if value < 0 {
        return Err(format!("negative number ({value}) not allowed: {text}"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read() {
        let Ok(Schedule::At(fields)) = parse("*/15 9-17 1,15 jan-mar mon") else { panic!("a schedule") };
        assert_eq!(fields.minutes, 1 | 1 << 15 | 1 << 30 | 1 << 45);
        assert_eq!(fields.hours, bits(9..=17, 1));
        assert_eq!(fields.days, 1 << 1 | 1 << 15);
        assert_eq!(fields.months, 0b1110);
        assert_eq!(fields.weekdays, 0b10);
        assert_eq!(parse("@every 1h30m10s"), Ok(Schedule::Every(Duration::from_secs(5410))));
        let Ok(Schedule::At(hourly)) = parse("TZ=UTC @hourly") else { panic!("a schedule") };
        assert_eq!((hourly.minutes, hourly.hours & STAR), (1, STAR));
    }

    #[test]
    fn faults_are_told_as_upstream_does() {
        for (text, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("@never", "unrecognized descriptor: @never"),
            (
                "TZ=Nowhere/Land * * * * *",
                "provided bad location Nowhere/Land: unknown time zone Nowhere/Land",
            ),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()), "{text}");
        }
    }
}
