//! What `/debug/api_priority_and_fairness/…` shows: levels, queues and requests, in columns as upstream's.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use gantry_api::time::micro_time;
use http::Method;

use super::Fairness;
use super::ticket::Ticket;
use crate::query::Query;
use crate::route::resolve;

/// A level.
pub(super) struct LevelDump {
    pub(super) name: String,
    pub(super) queues: Vec<QueueDump>,
    pub(super) waiting: usize,
    pub(super) executing: usize,
    pub(super) dispatched: u64,
    pub(super) rejected: u64,
    pub(super) timed_out: u64,
    pub(super) cancelled: u64,
    pub(super) requests: Vec<RequestDump>,
}

/// A queue that is not empty.
pub(super) struct QueueDump {
    pub(super) index: u32,
    pub(super) waiting: usize,
    pub(super) executing: usize,
    pub(super) seats: usize,
    pub(super) start: Duration,
    pub(super) initial_seats: usize,
    pub(super) max_seats: usize,
    pub(super) work: Duration,
}

/// A request that waits or runs.
pub(super) struct RequestDump {
    schema: String,
    queue: Option<u32>,
    at: Option<usize>,
    flow: String,
    /// How long ago.
    arrived: Duration,
    started: Option<Duration>,
    seats: usize,
    final_seats: usize,
    afterwards: Duration,
    user: String,
    verb: &'static str,
    path: String,
}

impl RequestDump {
    pub(super) fn new(
        ticket: &Ticket,
        queue: Option<u32>,
        at: Option<usize>,
        now: Duration,
        started: Option<Duration>,
    ) -> Self {
        let info = resolve(&Method::GET, &ticket.path, &Query::parse(""));
        Self {
            schema: ticket.schema.name.clone(),
            queue,
            at,
            flow: ticket.schema.distinguish(&ticket.user, &info).to_owned(),
            arrived: now.saturating_sub(ticket.arrived),
            started: started.map(|at| now.saturating_sub(at)),
            seats: ticket.work.seats,
            final_seats: ticket.work.final_seats,
            afterwards: ticket.work.afterwards,
            user: ticket.user.name.to_string(),
            verb: ticket.verb,
            path: ticket.path.to_string(),
        }
    }

    fn row(&self, level: &str, now: SystemTime, details: bool) -> Vec<String> {
        let index = |index: Option<String>| index.unwrap_or_else(|| "-1".to_owned());
        let time = |ago: Duration| micro_time(now - ago).0.to_string();
        let mut row = vec![
            level.to_owned(),
            self.schema.clone(),
            index(self.queue.map(|q| q.to_string())),
            index(self.at.map(|at| at.to_string())),
            self.flow.clone(),
            time(self.arrived),
            self.seats.to_string(),
            self.final_seats.to_string(),
            crate::audit::go_duration(self.afterwards),
            self.started.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), time),
        ];
        if details {
            let info = resolve(&Method::GET, &self.path, &Query::parse(""));
            let version = match info.group.as_str() {
                "" => info.version.clone(),
                group => format!("{group}/{}", info.version),
            };
            row.extend([
                self.user.clone(),
                self.verb.to_owned(),
                self.path.clone(),
                info.namespace,
                info.name,
                version,
                info.resource,
                info.subresource,
            ]);
        }
        row
    }
}

const LEVELS: [&str; 10] = [
    "PriorityLevelName",
    "ActiveQueues",
    "IsIdle",
    "IsQuiescing",
    "WaitingRequests",
    "ExecutingRequests",
    "DispatchedRequests",
    "RejectedRequests",
    "TimedoutRequests",
    "CancelledRequests",
];
const QUEUES: [&str; 9] = [
    "PriorityLevelName",
    "Index",
    "PendingRequests",
    "ExecutingRequests",
    "SeatsInUse",
    "NextDispatchR",
    "InitialSeatsSum",
    "MaxSeatsSum",
    "TotalWorkSum",
];
const REQUESTS: [&str; 10] = [
    "PriorityLevelName",
    "FlowSchemaName",
    "QueueIndex",
    "RequestIndexInQueue",
    "FlowDistingsher",
    "ArriveTime",
    "InitialSeats",
    "FinalSeats",
    "AdditionalLatency",
    "StartTime",
];
const DETAILS: [&str; 8] =
    ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];

/// What is shown under a name below `/debug/api_priority_and_fairness/`; `None` for a name that is none.
pub(super) fn show(fairness: &Fairness, name: &str, details: bool) -> Option<String> {
    let levels: Vec<LevelDump> = fairness.plan.load().levels().map(|level| level.dump()).collect();
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = match name {
        "dump_priority_levels" => {
            std::iter::once(texts(&LEVELS)).chain(levels.iter().map(LevelDump::row)).collect()
        }
        "dump_queues" => {
            let rows =
                levels.iter().flat_map(|level| level.queues.iter().map(|queue| queue.row(&level.name)));
            std::iter::once(texts(&QUEUES)).chain(rows).collect()
        }
        "dump_requests" => {
            let now = fairness.clock.now();
            let head = if details { [&REQUESTS[..], &DETAILS[..]].concat() } else { REQUESTS.to_vec() };
            let rows = levels
                .iter()
                .flat_map(|level| level.requests.iter().map(|r| r.row(&level.name, now, details)));
            std::iter::once(texts(&head)).chain(rows).collect()
        }
        _ => return None,
    };
    Some(table(&rows))
}

impl LevelDump {
    fn row(&self) -> Vec<String> {
        let active = self.queues.iter().filter(|queue| queue.waiting > 0).count();
        vec![
            self.name.clone(),
            active.to_string(),
            (self.waiting == 0 && self.executing == 0).to_string(),
            // A level that is no more is forgotten at once; its requests go on by themselves.
            false.to_string(),
            self.waiting.to_string(),
            self.executing.to_string(),
            self.dispatched.to_string(),
            self.rejected.to_string(),
            self.timed_out.to_string(),
            self.cancelled.to_string(),
        ]
    }
}

impl QueueDump {
    fn row(&self, level: &str) -> Vec<String> {
        let seat_seconds = |work: Duration| format!("{:.8}ss", work.as_secs_f64());
        vec![
            level.to_owned(),
            self.index.to_string(),
            self.waiting.to_string(),
            self.executing.to_string(),
            self.seats.to_string(),
            seat_seconds(self.start),
            self.initial_seats.to_string(),
            self.max_seats.to_string(),
            seat_seconds(self.work),
        ]
    }
}

/// Columns, each with a comma and at least one blank behind it, at least eight wide.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        let cells = rows.iter().filter(|row| at + 1 < row.len()).map(|row| row[at].chars().count() + 2);
        cells.max().unwrap_or(0).max(8)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let last = at + 1 == row.len();
            let text = if last { cell.clone() } else { format!("{cell},") };
            let width = if last { 0 } else { widths[at] };
            // Writing to a String cannot fail.
            write!(out, "{text:width$}").unwrap_or_default();
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        let rows = [row(&["PriorityLevelName", "Index", "X"]), row(&["system", "12", "3"])];
        assert_eq!(table(&rows), "PriorityLevelName, Index,  X\nsystem,            12,     3\n");
    }
}
