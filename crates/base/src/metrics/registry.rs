//! Which families there are, and of which part.

use parking_lot::Mutex;

use super::encode::{Encoder, Format};
use super::family::{Counter, Family, Stability};
use super::process;

type Listed = (&'static str, &'static dyn Family);

static FAMILIES: Mutex<Vec<Listed>> = Mutex::new(Vec::new());

/// What was counted in no series of its own, because there are too many.
pub static DROPPED: Counter = Counter::new(
    "gantry_metrics_dropped_total",
    "Observations whose label set was one too many for its family.",
    Stability::Own,
);

/// Lists the families of a part (`apiserver`). Those that are listed already stay as they are.
pub fn register(part: &'static str, families: &[&'static dyn Family]) {
    let mut all = FAMILIES.lock();
    if all.is_empty() {
        all.push(("process", &DROPPED));
        all.extend(process::FAMILIES.iter().map(|f| ("process", *f)));
    }
    for family in families {
        let name = family.desc().name;
        if !all.iter().any(|(p, f)| *p == part && f.desc().name == name) {
            all.push((part, *family));
        }
    }
    all.sort_by_key(|(part, family)| (family.desc().name, *part));
}

/// All families and the part each belongs to, by name.
pub fn families() -> Vec<(&'static str, &'static dyn Family)> {
    FAMILIES.lock().clone()
}

static REFRESHERS: Mutex<Vec<fn()>> = Mutex::new(Vec::new());

/// Has `refresh` called before metrics are written: it brings gauges up to date that nobody else does.
pub fn refresh_with(refresh: fn()) {
    let mut all = REFRESHERS.lock();
    if !all.iter().any(|known| std::ptr::fn_addr_eq(*known, refresh)) {
        all.push(refresh);
    }
}

/// Writes the families of the parts that `wanted` picks, those of the process (`process`) among them, then what
/// `collect` adds.
pub fn encode(format: Format, wanted: impl Fn(&str) -> bool, collect: impl FnOnce(&mut Encoder)) -> String {
    let refreshers = REFRESHERS.lock().clone();
    for refresh in refreshers {
        refresh();
    }
    let mut out = Encoder::new(format);
    let all = families();
    let mut last = "";
    for (_, family) in all.iter().filter(|(part, _)| wanted(part)) {
        // Two parts may share a family.
        if family.desc().name != last {
            last = family.desc().name;
            family.encode(&mut out);
        }
    }
    if wanted("process") {
        process::collect(&mut out);
    }
    collect(&mut out);
    out.finish()
}
