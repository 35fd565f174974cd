//! How much work a request is taken to be, as `apiserver/pkg/util/flowcontrol/request` estimates it.

use std::time::Duration;

use super::watchers::Watchers;
use crate::core::Core;
use crate::query::Query;
use crate::route::RequestInfo;

/// What is taken to be in memory at one time for one seat.
const BYTES_PER_SEAT: u64 = 100_000;
/// A list from the watch cache is streamed, and takes no more.
const STREAMED_BYTES: u64 = 1_000_000;
const MAX_LIST_SEATS: usize = 100;
const MAX_WRITE_SEATS: usize = 10;
/// Watchers that take a seat for [`EVENT_TIME`] each time something changes.
const WATCHERS_PER_SEAT: usize = 10;
const EVENT_TIME: Duration = Duration::from_millis(5);

/// How much work a request is taken to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Work {
    /// Seats while it is served.
    pub(super) seats: usize,
    /// Seats afterwards, while watchers are told.
    pub(super) final_seats: usize,
    /// How long that takes.
    pub(super) afterwards: Duration,
}

impl Work {
    /// That of most requests.
    pub(super) const LEAST: Self = Self { seats: 1, final_seats: 0, afterwards: Duration::ZERO };

    /// Seats over all of it.
    pub(super) fn width(&self) -> usize {
        self.seats.max(self.final_seats)
    }

    /// Fits it into so many seats: what is too wide takes longer.
    fn within(mut self, limit: usize) -> Self {
        if self.final_seats > limit && limit > 0 {
            let all = self.afterwards.saturating_mul(u32::try_from(self.final_seats).unwrap_or(u32::MAX));
            self.final_seats = limit;
            self.afterwards = all / u32::try_from(limit).unwrap_or(u32::MAX);
        }
        self
    }
}

/// Estimates the work of a request on a level that gives one request no more than `most` seats (if that is known).
/// Also the number of watchers, for a write.
pub(super) fn estimate(
    core: &Core,
    watchers: &Watchers,
    info: &RequestInfo,
    query: &Query,
    most: Option<usize>,
) -> (Work, Option<usize>) {
    match info.verb {
        "list" => (list(core, info, query, most), None),
        "watch" if begins_with_a_list(query) => (list(core, info, query, most), None),
        "create" | "update" | "patch" | "delete" if info.is_resource => {
            // Tokens are told to nobody.
            if info.resource == "serviceaccounts" && info.subresource == "token" {
                return (Work::LEAST, None);
            }
            let count = watchers.interested(info);
            (write(count, most), Some(count))
        }
        _ => (Work::LEAST, None),
    }
}

fn begins_with_a_list(query: &Query) -> bool {
    query.flag("sendInitialEvents") || matches!(query.get("resourceVersion"), None | Some("" | "0"))
}

fn list(core: &Core, info: &RequestInfo, query: &Query, most: Option<usize>) -> Work {
    let Some(entry) = core.table.load().entry(&info.group, &info.resource).cloned() else {
        return Work::LEAST;
    };
    let (objects, average) = entry.cache.size();
    let limit = query.get("limit").and_then(|limit| limit.parse::<u64>().ok()).filter(|limit| *limit > 0);
    let limited = limit.map_or(objects, |limit| limit.min(objects));
    let has = |key: &str| query.get(key).is_some_and(|text| !text.is_empty());
    let paged = has("continue") || query.get("resourceVersionMatch") == Some("Exact");
    let cached = info.verb == "watch" || !paged;
    let selected = has("fieldSelector") || has("labelSelector");
    let loaded = match () {
        () if !info.name.is_empty() => 1,
        () if !cached && selected => limited.max(objects / 2),
        () => limited,
    };
    let bytes = loaded.saturating_mul(average);
    let bytes = if cached { bytes.min(STREAMED_BYTES) } else { bytes };
    let most = most.filter(|most| *most > 0).map_or(MAX_LIST_SEATS, |most| most.min(MAX_LIST_SEATS));
    let seats = usize::try_from(bytes.div_ceil(BYTES_PER_SEAT)).unwrap_or(usize::MAX);
    Work { seats: seats.clamp(1, most), ..Work::LEAST }
}

/// What a change costs that so many watchers are told.
fn write(watchers: usize, most: Option<usize>) -> Work {
    if watchers < WATCHERS_PER_SEAT {
        return Work::LEAST;
    }
    let most = most.filter(|most| *most > 0).map_or(MAX_WRITE_SEATS, |most| most.min(MAX_WRITE_SEATS));
    let final_seats = watchers.div_ceil(WATCHERS_PER_SEAT);
    Work { seats: 1, final_seats, afterwards: EVENT_TIME }.within(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_costs_what_its_watchers_cost() {
        let work = |watchers, most| {
            let work = write(watchers, most);
            (work.width(), work.final_seats, work.afterwards.as_millis())
        };
        assert_eq!(work(9, None), (1, 0, 0));
        assert_eq!(work(10, None), (1, 1, 5));
        assert_eq!(work(95, None), (10, 10, 5));
        // Narrower, but as much in all.
        assert_eq!(work(400, None), (10, 10, 20));
        assert_eq!(work(95, Some(2)), (2, 2, 25));
    }
}
