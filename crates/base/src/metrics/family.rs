//! Families: a name, what it means, and values for each set of labels.

use std::sync::LazyLock;

use super::cells::{Count, Distribution, Level};
use super::encode::Encoder;
use super::table::{Handle, Table};

/// What kind of numbers a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

impl Kind {
    /// As the formats spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// How much of a promise a family is (KEP-1209).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// May change.
    Alpha,
    /// Labels may be added.
    Beta,
    /// Stays.
    Stable,
    /// Nobody else's: no promise is written into its help.
    Own,
}

impl Stability {
    /// `STABLE`, …; empty for our own.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alpha => "ALPHA",
            Self::Beta => "BETA",
            Self::Stable => "STABLE",
            Self::Own => "",
        }
    }
}

/// What is known of a family without looking at its values.
#[derive(Clone, Copy, Debug)]
pub struct Desc {
    /// The whole name.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What it counts with.
    pub kind: Kind,
    /// What is promised.
    pub stability: Stability,
    /// Since which version it should not be used any more; empty if it should.
    pub deprecated: &'static str,
    /// The names of its labels, in the order of the values.
    pub labels: &'static [&'static str],
}

impl Desc {
    const fn new(
        name: &'static str,
        help: &'static str,
        kind: Kind,
        stability: Stability,
        labels: &'static [&'static str],
    ) -> Self {
        Self { name, help, kind, stability, deprecated: "", labels }
    }
}

/// A family, whatever it holds.
pub trait Family: Sync {
    /// What it is.
    fn desc(&self) -> &Desc;
    /// Writes its values. A family that is collected from elsewhere writes nothing.
    fn encode(&self, out: &mut Encoder);
}

macro_rules! labelled {
    ($(#[$doc:meta])* $vec:ident, $(#[$doc1:meta])* $one:ident, $cell:ident, $kind:expr) => {
        $(#[$doc])*
        pub struct $vec {
            desc: Desc,
            table: LazyLock<Table<$cell>>,
        }

        impl $vec {
            /// A family of this name, with these labels.
            pub const fn new(
                name: &'static str,
                help: &'static str,
                stability: Stability,
                labels: &'static [&'static str],
            ) -> Self {
                let desc = Desc::new(name, help, $kind, stability, labels);
                Self { desc, table: LazyLock::new(|| Table::new($cell::default())) }
            }

            /// Marks it as deprecated since `version`.
            #[must_use]
            pub const fn deprecated(mut self, version: &'static str) -> Self {
                self.desc.deprecated = version;
                self
            }

            /// Lets `used` have the value of these labels.
            pub fn with<R>(&self, labels: &[&str], used: impl FnOnce(&$cell) -> R) -> R {
                debug_assert_eq!(labels.len(), self.desc.labels.len(), "{}", self.desc.name);
                self.table.with(labels, $cell::default, used)
            }

            /// The value of these labels, to keep.
            pub fn handle(&self, labels: &[&str]) -> Handle<$cell> {
                self.table.handle(labels, $cell::default)
            }

            /// Forgets the values whose first label is `value`: what it names is gone.
            pub fn forget(&self, value: &str) {
                self.forget_where(|labels| labels.first() == Some(&value));
            }

            /// Forgets the values whose labels are `gone`.
            pub fn forget_where(&self, gone: impl Fn(&[&str]) -> bool) {
                self.table.retain(|series| !gone(&series.labels().collect::<Vec<_>>()));
            }
        }

        $(#[$doc1])*
        pub struct $one {
            desc: Desc,
            cell: LazyLock<$cell>,
        }

        impl $one {
            /// One value of this name.
            pub const fn new(name: &'static str, help: &'static str, stability: Stability) -> Self {
                let desc = Desc::new(name, help, $kind, stability, &[]);
                Self { desc, cell: LazyLock::new($cell::default) }
            }
        }

        impl std::ops::Deref for $one {
            type Target = $cell;

            fn deref(&self) -> &$cell {
                &self.cell
            }
        }
    };
}

labelled!(
    /// Counters, one for each set of labels.
    CounterVec,
    /// A counter.
    Counter,
    Count,
    Kind::Counter
);
labelled!(
    /// Gauges, one for each set of labels.
    GaugeVec,
    /// A gauge.
    Gauge,
    Level,
    Kind::Gauge
);

impl Family for CounterVec {
    fn desc(&self) -> &Desc {
        &self.desc
    }

    fn encode(&self, out: &mut Encoder) {
        let all = self.table.all();
        out.family(&self.desc, all.iter().map(|s| (s.labels(), s.cell.get() as f64)));
    }
}

impl Family for Counter {
    fn desc(&self) -> &Desc {
        &self.desc
    }

    fn encode(&self, out: &mut Encoder) {
        out.family(&self.desc, [([].into_iter(), self.get() as f64)]);
    }
}

impl Family for GaugeVec {
    fn desc(&self) -> &Desc {
        &self.desc
    }

    fn encode(&self, out: &mut Encoder) {
        let all = self.table.all();
        out.family(&self.desc, all.iter().map(|s| (s.labels(), s.cell.get())));
    }
}

impl Family for Gauge {
    fn desc(&self) -> &Desc {
        &self.desc
    }

    fn encode(&self, out: &mut Encoder) {
        out.family(&self.desc, [([].into_iter(), self.get())]);
    }
}

/// Histograms, one for each set of labels.
pub struct HistogramVec {
    desc: Desc,
    bounds: &'static [f64],
    table: LazyLock<Table<Distribution>>,
}

impl HistogramVec {
    /// A family of this name, with these labels and upper bounds of buckets.
    pub const fn new(
        name: &'static str,
        help: &'static str,
        stability: Stability,
        labels: &'static [&'static str],
        bounds: &'static [f64],
    ) -> Self {
        let desc = Desc::new(name, help, Kind::Histogram, stability, labels);
        Self { desc, bounds, table: LazyLock::new(|| Table::new(Distribution::new(&[]))) }
    }

    /// Lets `used` have the histogram of these labels.
    pub fn with<R>(&self, labels: &[&str], used: impl FnOnce(&Distribution) -> R) -> R {
        debug_assert_eq!(labels.len(), self.desc.labels.len(), "{}", self.desc.name);
        self.table.with(labels, || Distribution::new(self.bounds), used)
    }

    /// The histogram of these labels, to keep.
    pub fn handle(&self, labels: &[&str]) -> Handle<Distribution> {
        self.table.handle(labels, || Distribution::new(self.bounds))
    }

    /// Notes a value.
    pub fn observe(&self, labels: &[&str], value: f64) {
        self.with(labels, |histogram| histogram.observe(value));
    }
}

impl Family for HistogramVec {
    fn desc(&self) -> &Desc {
        &self.desc
    }

    fn encode(&self, out: &mut Encoder) {
        let all = self.table.all();
        out.histograms(&self.desc, all.iter().map(|s| (s.labels(), &s.cell)));
    }
}

/// One histogram.
pub struct Histogram {
    desc: Desc,
    bounds: &'static [f64],
    cell: std::sync::OnceLock<Distribution>,
}

impl Histogram {
    /// A histogram of this name with these upper bounds of buckets.
    pub const fn new(
        name: &'static str,
        help: &'static str,
        stability: Stability,
        bounds: &'static [f64],
    ) -> Self {
        let desc = Desc::new(name, help, Kind::Histogram, stability, &[]);
        Self { desc, bounds, cell: std::sync::OnceLock::new() }
    }
}

impl std::ops::Deref for Histogram {
    type Target = Distribution;

    fn deref(&self) -> &Distribution {
        self.cell.get_or_init(|| Distribution::new(self.bounds))
    }
}

impl Family for Histogram {
    fn desc(&self) -> &Desc {
        &self.desc
    }

    fn encode(&self, out: &mut Encoder) {
        out.histograms(&self.desc, [([].into_iter(), &**self)]);
    }
}

/// A family whose values somebody else has: they are asked when it is written ([`Encoder::collected`]).
pub struct Collected {
    desc: Desc,
}

impl Collected {
    /// A family of gauges.
    pub const fn gauge(
        name: &'static str,
        help: &'static str,
        stability: Stability,
        labels: &'static [&'static str],
    ) -> Self {
        Self { desc: Desc::new(name, help, Kind::Gauge, stability, labels) }
    }

    /// A family of counters.
    pub const fn counter(
        name: &'static str,
        help: &'static str,
        stability: Stability,
        labels: &'static [&'static str],
    ) -> Self {
        Self { desc: Desc::new(name, help, Kind::Counter, stability, labels) }
    }

    /// Marks it as deprecated since `version`.
    #[must_use]
    pub const fn deprecated(mut self, version: &'static str) -> Self {
        self.desc.deprecated = version;
        self
    }
}

impl Family for Collected {
    fn desc(&self) -> &Desc {
        &self.desc
    }

    fn encode(&self, _out: &mut Encoder) {}
}
