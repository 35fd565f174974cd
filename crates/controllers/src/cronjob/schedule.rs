//! When a cron job is due.
//!
//! `robfig/cron`'s rules: days of month and week are alternatives unless one of them is a star; what cannot come
//! within five years never comes; an hour that the clocks leave out is left out.

use std::time::{Duration, SystemTime};

use gantry_kinds::rules::cron::{Fields, STAR, Schedule, parse};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

/// A schedule in its time zone.
pub(super) struct Timetable {
    schedule: Schedule,
    zone: TimeZone,
}

impl Timetable {
    /// Reads a schedule; a zone in it counts before `zone`, and without either it is UTC.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(text: &str, zone: Option<&str>) -> Result<Self, String> {
        let schedule = parse(text)?;
        let own = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ="));
        let name = own.and_then(|rest| rest.split_once(' ')).map(|(name, _)| name).or(zone);
        Ok(Self { schedule, zone: self::zone(name.unwrap_or(""))? })
    }

    /// The first moment after `after`; `None` if there is none.
    pub(super) fn next(&self, after: SystemTime) -> Option<SystemTime> {
        match &self.schedule {
            Schedule::Every(period) => {
                let since = after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                Some(after + *period - Duration::from_nanos(u64::from(since.subsec_nanos())))
            }
            Schedule::At(fields) => {
                let start = Timestamp::try_from(after).ok()?.to_zoned(self.zone.clone());
                next(fields, &start).map(|at| SystemTime::from(at.timestamp()))
            }
        }
    }
}

/// A time zone by its name.
///
/// # Errors
/// There is none of that name.
pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    match name {
        "" | "UTC" | "Local" => Ok(TimeZone::UTC),
        _ => TimeZone::get(name).map_err(|_| format!("unknown time zone {name}")),
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits & (1 << value) != 0)
}

fn is_day(fields: &Fields, at: &Zoned) -> bool {
    let day = has(fields.days, at.day());
    let weekday = has(fields.weekdays, at.weekday().to_sunday_zero_offset());
    if fields.days & STAR != 0 || fields.weekdays & STAR != 0 { day && weekday } else { day || weekday }
}

fn next(fields: &Fields, after: &Zoned) -> Option<Zoned> {
    let limit = after.year() + 5;
    let whole = i64::from(after.second());
    let mut at = after.checked_sub(whole.seconds()).ok()?;
    at = at.with().subsec_nanosecond(0).build().ok()?.checked_add(1.minute()).ok()?;
    while at.year() <= limit {
        if !has(fields.months, at.month()) {
            at = at.first_of_month().ok()?.checked_add(1.month()).ok()?.start_of_day().ok()?;
        } else if !is_day(fields, &at) {
            at = at.tomorrow().ok()?.start_of_day().ok()?;
        } else if !has(fields.hours, at.hour()) {
            let minutes = i64::from(at.minute());
            at = at.checked_sub(minutes.minutes()).ok()?.checked_add(1.hour()).ok()?;
        } else if !has(fields.minutes, at.minute()) {
            at = at.checked_add(1.minute()).ok()?;
        } else {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(schedule: &str, zone: Option<&str>, from: &str) -> String {
        let table = Timetable::read(schedule, zone).expect("a schedule");
        let from: Timestamp = from.parse().expect("a time");
        table
            .next(from.into())
            .map_or("never".into(), |at| Timestamp::try_from(at).expect("a time").to_string())
    }

    #[test]
    fn the_next_moment_is_as_cron_says() {
        for (schedule, zone, from, expected) in [
            ("* * * * *", None, "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
            ("* * * * *", None, "2026-01-01T00:00:59.5Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", None, "2026-01-01T00:46:00Z", "2026-01-01T01:00:00Z"),
            ("30 6 * * 1-5", None, "2026-01-02T07:00:00Z", "2026-01-05T06:30:00Z"),
            ("0 0 13 * 5", None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 29 2 *", None, "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("59 23 31 2 *", None, "2026-01-01T00:00:00Z", "never"),
            ("0 9 * * *", Some("Europe/Berlin"), "2026-01-01T00:00:00Z", "2026-01-01T08:00:00Z"),
            ("TZ=Asia/Tokyo 0 9 * * *", None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("30 2 * * *", Some("Europe/Berlin"), "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"),
            ("@hourly", None, "2026-01-01T00:10:00Z", "2026-01-01T01:00:00Z"),
            ("@every 90s", None, "2026-01-01T00:00:00.25Z", "2026-01-01T00:01:30Z"),
        ] {
            assert_eq!(after(schedule, zone, from), expected, "{schedule} {zone:?} {from}");
        }
        assert!(Timetable::read("* * * * *", Some("Nowhere/Land")).is_err());
    }
}
