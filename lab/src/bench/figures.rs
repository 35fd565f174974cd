//! Figures and how they are shown.

use std::fmt;

/// The head of the table.
pub const HEADER: &str =
    "| # | what | figure | server CPU | server memory | goal |\n|---|---|---|---|---|---|";

/// One line of the table.
pub struct Line {
    /// The row's number.
    pub number: &'static str,
    /// What was measured.
    pub what: String,
    /// The figure.
    pub figure: String,
    /// CPU time of the server.
    pub cpu: String,
    /// Memory of the server.
    pub memory: String,
    /// What it should be.
    pub goal: &'static str,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, what, figure, cpu, memory, goal } = self;
        write!(f, "| {number} | {what} | {figure} | {cpu} | {memory} | {goal} |")
    }
}

/// Repeated measurements of one thing.
#[derive(Default)]
pub(super) struct Series(Vec<f64>);

impl Series {
    pub(super) fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// The value below which this share of the measurements lies; 0 if there are none.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let at = (share * count(self.0.len().saturating_sub(1))).round() as usize;
        self.0.get(at).copied().unwrap_or(0.0)
    }

    /// Median and range, `digits` behind the point.
    pub(super) fn show(&self, digits: usize, unit: &str) -> String {
        let (low, middle, high) = (self.quantile(0.0), self.quantile(0.5), self.quantile(1.0));
        format!("{middle:.digits$}{unit} ({low:.digits$}–{high:.digits$}; n={})", self.0.len())
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

/// A count, to calculate with.
#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
pub(super) fn count(n: usize) -> f64 {
    n as f64
}
