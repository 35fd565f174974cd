//! Numbers that may be percentages.

use gantry_api::IntOrString;

/// `value` as a count: a percentage is taken of `total`, and rounded up or down. Unreadable text counts as zero, as
/// validation lets none pass.
pub fn scaled(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(n)) => *n,
        Some(IntOrString::String(text)) => {
            let percent = text.strip_suffix('%').and_then(|p| p.parse::<i64>().ok()).unwrap_or(0);
            let product = percent * i64::from(total);
            let whole = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(whole).unwrap_or(i32::MAX)
        }
    }
}

/// A count as the wire's 32 bits.
pub fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// A wanted number as a size; negative is none.
pub fn size(n: i32) -> usize {
    usize::try_from(n).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_rounded_as_asked() {
        let quarter = IntOrString::String("25%".into());
        assert_eq!(scaled(Some(&quarter), 10, true), 3);
        assert_eq!(scaled(Some(&quarter), 10, false), 2);
        assert_eq!(scaled(Some(&IntOrString::Int(4)), 10, true), 4);
        assert_eq!(scaled(None, 10, true), 0);
    }
}
