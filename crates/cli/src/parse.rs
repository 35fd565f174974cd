//! Small texts on the command line: durations, selectors, `key=value`.

use std::time::Duration;

/// Reads a duration as Go writes it: `90s`, `1h30m`, `500ms`, or whole seconds.
///
/// # Errors
/// It is none.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let bad = || format!("time: invalid duration {text:?}");
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(bad()),
            };
        rest = &rest[unit..];
    }
    if text.is_empty() {
        return Err(bad());
    }
    Duration::try_from_secs_f64(total).map_err(|_| bad())
}

/// A duration in which a negative number means for ever (a week, as upstream).
pub(crate) fn patience(text: &str) -> Result<Duration, String> {
    match text.strip_prefix('-') {
        Some(positive) => duration(positive).map(|_| Duration::from_secs(7 * 24 * 3600)),
        None => duration(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        assert!(duration("").is_err());
        assert!(duration("5x").is_err());
        assert!(duration("s").is_err());
        assert_eq!(patience("-1s"), Ok(Duration::from_secs(604_800)));
    }
}
