//! Kubernetes times: RFC 3339 in UTC, whole seconds ([`Time`]) or microseconds ([`MicroTime`]).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use crate::metav1::{MicroTime, Time};

/// `at` in whole seconds, as `metav1.Time` keeps it.
pub fn time(at: SystemTime) -> Time {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Time(
        jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX))
            .unwrap_or(jiff::Timestamp::MAX),
    )
}

/// `at` in whole microseconds, as `metav1.MicroTime` keeps it.
pub fn micro_time(at: SystemTime) -> MicroTime {
    let micros = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    MicroTime(
        jiff::Timestamp::from_microsecond(i64::try_from(micros).unwrap_or(i64::MAX))
            .unwrap_or(jiff::Timestamp::MAX),
    )
}

/// Back to the clock's type; times before 1970 read as 1970.
pub fn system_time(timestamp: &jiff::Timestamp) -> SystemTime {
    let micros = u64::try_from(timestamp.as_microsecond()).unwrap_or(0);
    UNIX_EPOCH + Duration::from_micros(micros)
}

/// How long before `now` this was; zero if it lies ahead.
pub fn since(timestamp: &Time, now: SystemTime) -> Duration {
    now.duration_since(system_time(&timestamp.0)).unwrap_or_default()
}

/// `5s`, `3m12s`, `4h`, `2d3h`, `3y`: the AGE column, as `duration.HumanDuration` upstream writes it.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |a: u64, ua: &str, b: u64, ub: &str| {
        if b == 0 { format!("{a}{ua}") } else { format!("{a}{ua}{b}{ub}") }
    };
    match () {
        () if seconds < 60 * 2 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        () if minutes < 60 * 3 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => pair(days, "d", hours % 24, "h"),
        () if hours < 24 * 365 * 2 => format!("{days}d"),
        () if hours < 24 * 365 * 8 => pair(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_users_know_them() {
        let text = |s| human_duration(Duration::from_secs(s));
        assert_eq!(text(0), "0s");
        assert_eq!(text(119), "119s");
        assert_eq!(text(120), "2m");
        assert_eq!(text(192), "3m12s");
        assert_eq!(text(3 * 3600), "3h");
        assert_eq!(text(26 * 3600), "26h");
        assert_eq!(text(49 * 3600), "2d1h");
        assert_eq!(text(10 * 86_400), "10d");
        assert_eq!(text(800 * 86_400), "2y70d");
    }
}
