//! Writes families: Prometheus' text format 0.0.4 and OpenMetrics 1.0.

use std::fmt::Write as _;

use super::cells::Distribution;
use super::family::{Collected, Desc, Family, Kind, Stability};

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The media type of what is written.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The one that a client prefers, which sent this `Accept` header.
    pub fn preferred(accept: &str) -> Self {
        let mut best = (0.0, Self::Text);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let mut quality = 1.0;
            let mut version = "";
            for part in parts {
                match part.split_once('=') {
                    Some(("q", q)) => quality = q.parse().unwrap_or(0.0),
                    Some(("version", v)) => version = v,
                    _ => {}
                }
            }
            let format = match media {
                "application/openmetrics-text" if matches!(version, "" | "1.0.0") => Self::OpenMetrics,
                "text/plain" | "text/*" | "*/*" if matches!(version, "" | "0.0.4") => Self::Text,
                _ => continue,
            };
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }
}

/// Takes families and writes them one after the other.
#[derive(Debug)]
pub struct Encoder {
    format: Format,
    out: String,
}

impl Encoder {
    /// Writes in this format.
    pub fn new(format: Format) -> Self {
        Self { format, out: String::with_capacity(64 << 10) }
    }

    /// Writes the values of a family that is collected: label values and number.
    pub fn collected<'a, L: AsRef<[&'a str]>>(
        &mut self,
        family: &Collected,
        values: impl IntoIterator<Item = (L, f64)>,
    ) {
        let values: Vec<(L, f64)> = values.into_iter().collect();
        self.family(family.desc(), values.iter().map(|(labels, v)| (labels.as_ref().iter().copied(), *v)));
    }

    pub(super) fn family<'a, L: Iterator<Item = &'a str>>(
        &mut self,
        desc: &Desc,
        values: impl IntoIterator<Item = (L, f64)>,
    ) {
        let mut begun = false;
        for (labels, value) in values {
            if !std::mem::replace(&mut begun, true) {
                self.head(desc);
            }
            self.sample(desc, "", labels, None, value);
        }
    }

    pub(super) fn histograms<'a, 'b, L: Iterator<Item = &'a str> + Clone>(
        &mut self,
        desc: &Desc,
        values: impl IntoIterator<Item = (L, &'b Distribution)>,
    ) {
        let mut begun = false;
        for (labels, histogram) in values {
            if !std::mem::replace(&mut begun, true) {
                self.head(desc);
            }
            let mut so_far = 0;
            for (bound, count) in histogram.buckets() {
                so_far += count;
                let bound = bound.map_or_else(|| "+Inf".to_owned(), |b| self.bound(b));
                self.sample(desc, "_bucket", labels.clone(), Some(&bound), so_far as f64);
            }
            self.sample(desc, "_sum", labels.clone(), None, histogram.sum());
            self.sample(desc, "_count", labels, None, so_far as f64);
        }
    }

    /// OpenMetrics writes numbers of labels with a point.
    fn bound(&self, bound: f64) -> String {
        let text = number(bound);
        let whole = !text.contains(['.', 'e']);
        if whole && self.format == Format::OpenMetrics { text + ".0" } else { text }
    }

    fn head(&mut self, desc: &Desc) {
        let mut name = desc.name;
        let mut kind = desc.kind.as_str();
        if self.format == Format::OpenMetrics && desc.kind == Kind::Counter {
            match name.strip_suffix("_total") {
                Some(short) => name = short,
                None => kind = "unknown",
            }
        }
        let promise = match desc.stability {
            Stability::Own => String::new(),
            stability => format!("[{}] ", stability.as_str()),
        };
        let warning = match desc.deprecated {
            "" => String::new(),
            version => format!("(Deprecated since {version}) "),
        };
        let help = escaped(desc.help, false);
        self.put(format_args!("# HELP {name} {promise}{warning}{help}\n# TYPE {name} {kind}\n"));
    }

    fn sample<'a>(
        &mut self,
        desc: &Desc,
        suffix: &str,
        labels: impl Iterator<Item = &'a str>,
        bound: Option<&str>,
        value: f64,
    ) {
        self.put(format_args!("{}{suffix}", desc.name));
        let mut separator = '{';
        for (name, value) in desc.labels.iter().zip(labels) {
            self.put(format_args!("{separator}{name}=\"{}\"", escaped(value, true)));
            separator = ',';
        }
        if let Some(bound) = bound {
            self.put(format_args!("{separator}le=\"{bound}\""));
            separator = ',';
        }
        if separator == ',' {
            self.out.push('}');
        }
        self.put(format_args!(" {}\n", number(value)));
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        self.out.write_fmt(text).ok();
    }

    /// All that was written.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

fn escaped(text: &str, quoted: bool) -> std::borrow::Cow<'_, str> {
    if !text.contains(['\\', '\n', '"']) {
        return text.into();
    }
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quoted { text.replace('"', "\\\"").into() } else { text.into() }
}

/// As Go's shortest form writes it: with an exponent below 1e-4 and from 1e21 on (1e6 where `%g` would).
fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let size = value.abs();
    if value == 0.0 || (1e-4..1e21).contains(&size) && !(size >= 1e6 && is_round(size)) {
        return format!("{value}");
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

/// Whether Go would rather write it with an exponent: `1e+06`.
fn is_round(value: f64) -> bool {
    let digits = format!("{value:e}");
    digits.split_once('e').is_some_and(|(mantissa, exponent)| {
        exponent.parse::<usize>().is_ok_and(|e| e >= 21 || mantissa.len() <= 1 && e >= 6)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_others_write_them() {
        let rows = [
            (0.0, "0"),
            (1.0, "1"),
            (0.005, "0.005"),
            (1e-8, "1e-08"),
            (1_000_000.0, "1e+06"),
            (1_048_576.0, "1048576"),
            (1.5e21, "1.5e+21"),
            (f64::INFINITY, "+Inf"),
        ];
        for (value, text) in rows {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn the_preferred_format_is_what_the_client_says() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::preferred(prometheus), Format::OpenMetrics);
        for accept in
            ["", "*/*", "text/plain", "application/openmetrics-text;version=0.0.1;q=1,text/plain;q=0.1"]
        {
            assert_eq!(Format::preferred(accept), Format::Text, "{accept}");
        }
    }
}
