//! Resource quantities: `100m`, `1.5`, `2Gi`, `1e3`.
//!
//! A quantity is kept as an exact count of nano-units in 128 bits: enough for every value that upstream's
//! `apimachinery/pkg/api/resource` accepts in practice (nano to exa), and comparisons and sums are exact.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

pub use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

const NANO: i128 = 1_000_000_000;

/// The notation a quantity was written in, and is printed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// `1500m`, `2k`, `3M`
    #[default]
    DecimalSi,
    /// `2Ki`, `3Mi`
    BinarySi,
    /// `1e3`
    DecimalExponent,
}

/// An exact amount.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// A text that is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Upstream's `ErrFormatWrong`.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// Upstream's `ErrSuffix`.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// `value` whole units.
    pub const fn from_units(value: i64) -> Self {
        Self { nanos: value as i128 * NANO, format: Format::DecimalSi }
    }

    /// `value` thousandths.
    pub const fn from_millis(value: i64) -> Self {
        Self { nanos: value as i128 * (NANO / 1000), format: Format::DecimalSi }
    }

    /// `value` bytes, printed with binary suffixes.
    pub const fn from_bytes(value: i64) -> Self {
        Self { nanos: value as i128 * NANO, format: Format::BinarySi }
    }

    /// Reads the wire form.
    ///
    /// # Errors
    /// The text is no quantity.
    pub fn from_wire(wire: &WireQuantity) -> Result<Self, QuantityError> {
        wire.0.parse()
    }

    /// The wire form, canonical.
    pub fn to_wire(&self) -> WireQuantity {
        WireQuantity(self.to_string())
    }

    /// Whole units, rounded up (away from zero), saturating.
    pub fn value(&self) -> i64 {
        saturate(div_round_up(self.nanos, NANO))
    }

    /// Thousandths, rounded up (away from zero), saturating.
    pub fn millis(&self) -> i64 {
        saturate(div_round_up(self.nanos, NANO / 1000))
    }

    /// The next whole number of units, away from zero.
    #[must_use]
    pub fn rounded_up(self) -> Self {
        Self { nanos: div_round_up(self.nanos, NANO).saturating_mul(NANO), ..self }
    }

    /// As a float, for scores and metrics.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// The sum, in this quantity's format (the other's if this is zero).
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }

    /// The difference, in this quantity's format.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_sub(other.nanos), format }
    }

    /// The larger of two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        if other > self { other } else { self }
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn div_round_up(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The letters that suffixes are made of.
const SUFFIX_LETTERS: [char; 12] = ['e', 'E', 'i', 'n', 'u', 'm', 'k', 'K', 'M', 'G', 'T', 'P'];

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(QuantityError::Format),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit()).unwrap_or(unsigned.len());
        let fraction = unsigned[end..].strip_prefix('.').unwrap_or("");
        let fraction = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        let point = usize::from(unsigned[end..].starts_with('.'));
        let (number, suffix) = unsigned.split_at(end + point + fraction);
        // Letters of suffixes, a sign, digits: what follows decides which error it is.
        let rest = suffix.trim_start_matches(SUFFIX_LETTERS);
        let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        if !rest.bytes().all(|b| b.is_ascii_digit()) {
            return Err(QuantityError::Format);
        }
        let (multiplier, format) = suffix_multiplier(suffix)?;
        let nanos = scaled(number, multiplier)?;
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

/// A suffix as a fraction of nano-units: numerator and denominator.
fn suffix_multiplier(suffix: &str) -> Result<((i128, i128), Format), QuantityError> {
    // What is larger than any amount saturates, what is smaller is rounded up.
    let decimal = |power: i32| -> Result<(i128, i128), QuantityError> {
        let power = power.saturating_add(9);
        let factor = 10_i128.checked_pow(power.unsigned_abs()).unwrap_or(i128::MAX);
        Ok(if power < 0 { (1, factor) } else { (factor, 1) })
    };
    let binary = |shift: u32| (NANO << shift, 1);
    let si = |power| Ok((decimal(power)?, Format::DecimalSi));
    match suffix {
        "" => si(0),
        "n" => si(-9),
        "u" => si(-6),
        "m" => si(-3),
        "k" => si(3),
        "M" => si(6),
        "G" => si(9),
        "T" => si(12),
        "P" => si(15),
        "E" => si(18),
        "Ki" => Ok((binary(10), Format::BinarySi)),
        "Mi" => Ok((binary(20), Format::BinarySi)),
        "Gi" => Ok((binary(30), Format::BinarySi)),
        "Ti" => Ok((binary(40), Format::BinarySi)),
        "Pi" => Ok((binary(50), Format::BinarySi)),
        "Ei" => Ok((binary(60), Format::BinarySi)),
        other => {
            let exponent = other.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let power: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
            Ok((decimal(power)?, Format::DecimalExponent))
        }
    }
}

/// `number` × `multiplier`, rounded up to a whole nano-unit, saturating.
fn scaled(number: &str, (numerator, denominator): (i128, i128)) -> Result<i128, QuantityError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // They are digits: only their number can be too large.
    let digits = |s: &str| -> i128 { if s.is_empty() { 0 } else { s.parse().unwrap_or(i128::MAX) } };
    let fraction = &fraction[..fraction.len().min(18)];
    let base = 10_i128.pow(u32::try_from(fraction.len()).unwrap_or(18));
    let whole = digits(whole).saturating_mul(numerator);
    let part = digits(fraction)
        .checked_mul(numerator)
        .map_or_else(|| digits(fraction) * (numerator / base), |scaled| div_round_up(scaled, base));
    Ok(div_round_up(whole.saturating_add(part), denominator))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.format {
            // Upstream falls back to decimal where a binary suffix cannot express the value.
            Format::BinarySi if self.nanos % NANO == 0 && self.nanos.abs() >= 1024 * NANO => {
                self.write_binary(f)
            }
            Format::DecimalExponent => self.write_decimal(f, true),
            _ => self.write_decimal(f, false),
        }
    }
}

impl Quantity {
    fn write_binary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.nanos / NANO;
        let mut index = 0;
        while value % 1024 == 0 && index < 6 {
            value /= 1024;
            index += 1;
        }
        write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][index])
    }

    fn write_decimal(&self, f: &mut fmt::Formatter<'_>, exponent: bool) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let mut value = self.nanos;
        let mut power = -9;
        while value % 1000 == 0 && power < 18 {
            value /= 1000;
            power += 3;
        }
        match (exponent, power) {
            (true, 0) => write!(f, "{value}"),
            (true, p) => write!(f, "{value}e{p}"),
            (false, p) => {
                let suffix = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
                write!(f, "{value}{}", suffix[usize::try_from(p / 3 + 3).unwrap_or(3)])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn quantities_print_canonically() {
        for (input, output) in [
            ("0", "0"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1.5", "1500m"),
            ("0.5", "500m"),
            ("1k", "1k"),
            ("1024", "1024"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("129M", "129M"),
            ("-1", "-1"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("2Ei", "2Ei"),
            ("1E", "1E"),
            ("+5", "5"),
            (".5", "500m"),
            ("5.", "5"),
            ("1e-2147483648", "1e-9"),
            ("0e2147483647", "0"),
        ] {
            assert_eq!(read(input).to_string(), output, "{input}");
        }
    }

    #[test]
    fn values_round_up() {
        assert_eq!(read("100m").value(), 1);
        assert_eq!(read("1500m").millis(), 1500);
        assert_eq!(read("1n").millis(), 1);
        assert_eq!(read("1Gi").value(), 1 << 30);
        for large in ["1e2147483647", "99999999999999999999999999999999999999999999", "9e40"] {
            assert_eq!(read(large).value(), i64::MAX, "{large}");
            assert_eq!(read(&format!("-{large}")).value(), i64::MIN, "{large}");
        }
        assert!(read("1000m") == read("1") && read("1Mi") > read("1M"));
        assert_eq!(read("250m").plus(read("0.75")).to_string(), "1");
    }

    #[test]
    fn bad_quantities_are_refused() {
        for bad in ["", "x", "1x", "1.1.1", "1 Gi", "1gi", "1e"] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }
}
