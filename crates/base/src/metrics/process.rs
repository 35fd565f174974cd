//! `process_*`: what the kernel says of this process (`proc(5)`), under the names that client libraries share.

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

use super::encode::Encoder;
use super::family::{Collected, Family, Stability};

static CPU: Collected = Collected::counter(
    "process_cpu_seconds_total",
    "Total user and system CPU time spent in seconds.",
    Stability::Own,
    &[],
);
static OPEN_FDS: Collected =
    Collected::gauge("process_open_fds", "Number of open file descriptors.", Stability::Own, &[]);
static MAX_FDS: Collected =
    Collected::gauge("process_max_fds", "Maximum number of open file descriptors.", Stability::Own, &[]);
static VIRTUAL: Collected =
    Collected::gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", Stability::Own, &[]);
static VIRTUAL_MAX: Collected = Collected::gauge(
    "process_virtual_memory_max_bytes",
    "Maximum amount of virtual memory available in bytes.",
    Stability::Own,
    &[],
);
static RESIDENT: Collected =
    Collected::gauge("process_resident_memory_bytes", "Resident memory size in bytes.", Stability::Own, &[]);
static START: Collected = Collected::gauge(
    "process_start_time_seconds",
    "Start time of the process since unix epoch in seconds.",
    Stability::Own,
    &[],
);

pub(super) static FAMILIES: [&dyn Family; 7] =
    [&CPU, &OPEN_FDS, &MAX_FDS, &VIRTUAL, &VIRTUAL_MAX, &RESIDENT, &START];

/// What cannot be read is left out.
pub(super) fn collect(out: &mut Encoder) {
    let mut put = |family: &Collected, value: Option<f64>| {
        out.collected(family, value.map(|value| ([], value)));
    };
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is a name in parentheses, which may hold anything.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok());
    let per = |variable| sysconf(variable).ok().flatten().map(|n| n as f64);
    let ticks = per(SysconfVar::CLK_TCK);
    let seconds = |ticks_spent: Option<f64>| Some(ticks_spent? / ticks?);
    put(&CPU, field(14).zip(field(15)).and_then(|(user, system)| seconds(Some(user + system))));
    put(&OPEN_FDS, std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64));
    let limit = |resource| getrlimit(resource).ok().map(|(soft, _)| soft as f64);
    put(&MAX_FDS, limit(Resource::RLIMIT_NOFILE));
    put(&VIRTUAL, field(23));
    put(&VIRTUAL_MAX, limit(Resource::RLIMIT_AS));
    put(&RESIDENT, field(24).zip(per(SysconfVar::PAGE_SIZE)).map(|(pages, size)| pages * size));
    put(&START, seconds(field(22)).zip(boot_time()).map(|(since_boot, boot)| boot + since_boot));
}

/// When the machine started, in seconds since the epoch.
fn boot_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}
