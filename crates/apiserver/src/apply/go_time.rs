//! Why a text is no time or no base64, in the words of upstream's readers (Go's `time` and `encoding/base64`).

/// How the layouts of times are shown.
const SECONDS: &str = "2006-01-02T15:04:05Z07:00";
const MICROS: &str = "2006-01-02T15:04:05.000000Z07:00";

/// What is wrong with a time; `None` if nothing is. With `micros` six digits follow the seconds.
pub fn time_error(text: &str, micros: bool) -> Option<String> {
    let layout = if micros { MICROS } else { SECONDS };
    let why = read(text, micros).err()?;
    Some(match why {
        Fault::Range(what) => format!("parsing time {text:?}: {what} out of range"),
        Fault::Extra(rest) => format!("parsing time {text:?}: extra text: {rest:?}"),
        Fault::At(rest, element) => {
            format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}")
        }
    })
}

enum Fault<'t> {
    At(&'t str, &'static str),
    Range(&'static str),
    Extra(&'t str),
}

/// So many digits, and what follows.
fn digits<'t>(text: &'t str, count: usize, element: &'static str) -> Result<(u32, &'t str), Fault<'t>> {
    let found = text.get(..count).filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    let value = found.and_then(|t| t.parse().ok()).ok_or(Fault::At(text, element))?;
    Ok((value, &text[count..]))
}

fn mark<'t>(text: &'t str, mark: &'static str) -> Result<&'t str, Fault<'t>> {
    text.strip_prefix(mark).ok_or(Fault::At(text, mark))
}

fn within(
    value: u32,
    range: std::ops::RangeInclusive<u32>,
    what: &'static str,
) -> Result<(), Fault<'static>> {
    if range.contains(&value) { Ok(()) } else { Err(Fault::Range(what)) }
}

fn read(text: &str, micros: bool) -> Result<(), Fault<'_>> {
    let (year, rest) = digits(text, 4, "2006")?;
    let (month, rest) = digits(mark(rest, "-")?, 2, "01")?;
    within(month, 1..=12, "month")?;
    let (day, rest) = digits(mark(rest, "-")?, 2, "02")?;
    let (hour, rest) = digits(mark(rest, "T")?, 2, "15")?;
    within(hour, 0..=23, "hour")?;
    let (minute, rest) = digits(mark(rest, ":")?, 2, "04")?;
    within(minute, 0..=59, "minute")?;
    let (second, mut rest) = digits(mark(rest, ":")?, 2, "05")?;
    within(second, 0..=59, "second")?;
    if micros {
        let fraction = rest.strip_prefix('.').ok_or(Fault::At(rest, ".000000"))?;
        rest = digits(fraction, 6, ".000000").map_err(|_| Fault::At(rest, ".000000"))?.1;
    } else if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        if end > 0 {
            rest = &fraction[end..];
        }
    }
    let rest = zone(rest)?;
    if !rest.is_empty() {
        return Err(Fault::Extra(rest));
    }
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    within(day, 1..=last, "day")
}

fn zone(text: &str) -> Result<&str, Fault<'_>> {
    if let Some(rest) = text.strip_prefix('Z') {
        return Ok(rest);
    }
    let wrong = || Fault::At(text, "Z07:00");
    let signed = text.strip_prefix(['+', '-']).ok_or_else(wrong)?;
    let (hours, rest) = digits(signed, 2, "Z07:00").map_err(|_| wrong())?;
    let rest = rest.strip_prefix(':').ok_or_else(wrong)?;
    let (minutes, rest) = digits(rest, 2, "Z07:00").map_err(|_| wrong())?;
    within(hours, 0..=24, "time zone offset hour")?;
    within(minutes, 0..=60, "time zone offset minute")?;
    Ok(rest)
}

/// What is wrong with a base64 text; `None` if nothing is. Line breaks are passed over.
pub fn base64_error(text: &str) -> Option<String> {
    bad_byte(text.as_bytes()).map(|at| format!("illegal base64 data at input byte {at}"))
}

fn bad_byte(bytes: &[u8]) -> Option<usize> {
    let is_break = |b: u8| matches!(b, b'\n' | b'\r');
    let is_digit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    let next = |mut at: usize| {
        while bytes.get(at).copied().is_some_and(is_break) {
            at += 1;
        }
        at
    };
    let (mut at, mut filled) = (0, 0);
    loop {
        at = next(at);
        match bytes.get(at) {
            // An unfinished group is wrong from its first byte on.
            None => return (filled != 0).then(|| at - filled),
            Some(b) if is_digit(*b) => {
                at += 1;
                filled = (filled + 1) % 4;
            }
            Some(b'=') if filled >= 2 => {
                let mut end = next(at + 1);
                if filled == 2 {
                    match bytes.get(end) {
                        None => return Some(bytes.len()),
                        Some(b'=') => end = next(end + 1),
                        Some(_) => return Some(end),
                    }
                }
                return (end < bytes.len()).then_some(end);
            }
            Some(_) => return Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{base64_error, time_error};

    #[test]
    fn times_that_are_none() {
        let seconds = |text: &str| time_error(text, false).unwrap_or_default();
        let cannot = |text: &str, rest: &str, element: &str| {
            format!(
                "parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{rest}\" as \"{element}\""
            )
        };
        assert_eq!(seconds("abc"), cannot("abc", "abc", "2006"));
        assert_eq!(seconds(""), cannot("", "", "2006"));
        assert_eq!(seconds("2020-01-01"), cannot("2020-01-01", "", "T"));
        assert_eq!(seconds("2020-01-01T00:00:00"), cannot("2020-01-01T00:00:00", "", "Z07:00"));
        assert_eq!(
            seconds("2020-13-01T00:00:00Z"),
            "parsing time \"2020-13-01T00:00:00Z\": month out of range"
        );
        assert_eq!(
            seconds("2021-02-29T00:00:00Z"),
            "parsing time \"2021-02-29T00:00:00Z\": day out of range"
        );
        assert_eq!(
            seconds("2020-01-01T00:00:00Zx"),
            "parsing time \"2020-01-01T00:00:00Zx\": extra text: \"x\""
        );
        for good in ["2020-02-29T23:59:59Z", "2020-01-01T00:00:00.123+02:00"] {
            assert_eq!(time_error(good, false), None);
        }
        assert!(
            time_error("2020-01-01T00:00:00Z", true)
                .is_some_and(|e| e.ends_with("cannot parse \"Z\" as \".000000\""))
        );
        assert_eq!(time_error("2020-01-01T00:00:00.000001Z", true), None);
    }

    #[test]
    fn base64_that_is_none() {
        for (text, at) in
            [("!!", 0), ("abc", 0), ("YWJjZA", 4), ("YW=", 3), ("YW=x", 3), ("YQ==x", 4), ("=", 0)]
        {
            let expected = format!("illegal base64 data at input byte {at}");
            assert_eq!(base64_error(text).as_deref(), Some(expected.as_str()), "{text}");
        }
        for good in ["", "YWJj", "YW\nI=", "YQ=="] {
            assert_eq!(base64_error(good), None, "{good}");
        }
    }

    #[test]
    fn times_are_refused_in_gos_words() {
        let as_layout = |text: &str, rest: &str, element: &str| {
            format!(
                "parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{rest}\" as \"{element}\""
            )
        };
        assert_eq!(time_error("x", false), Some(as_layout("x", "x", "2006")));
        assert_eq!(time_error("2026-01-01", false), Some(as_layout("2026-01-01", "", "T")));
        assert_eq!(
            time_error("2026-13-01T00:00:00Z", false).as_deref(),
            Some("parsing time \"2026-13-01T00:00:00Z\": month out of range")
        );
        assert_eq!(time_error("2026-01-01T00:00:00Z", false), None);
        assert_eq!(time_error("2026-01-01T00:00:00.5+01:00", false), None);
        assert_eq!(time_error("2026-01-01T00:00:00.000001Z", true), None);
    }
}
