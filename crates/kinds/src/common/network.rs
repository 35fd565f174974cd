//! IP addresses and CIDRs in fields, and the warnings about odd notations.
//!
//! As `apimachinery/pkg/util/validation/ip.go` with `StrictIPCIDRValidation`, on by default since 1.36: what is
//! stored already may stay as it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::at::{At, Complaints};
use crate::kind::Errors;

/// An address in any notation that old servers took: leading zeros count as decimal.
pub fn sloppy_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = decimal(parts.next()?, 255).and_then(|n| u8::try_from(n).ok())?;
    }
    parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

fn decimal(text: &str, max: u32) -> Option<u32> {
    let fits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| text.trim_start_matches('0'))
        .and_then(|t| if t.is_empty() { Some(0) } else { t.parse().ok() })
        .filter(|n| *n <= max)
}

/// An address and the length of its prefix, in any notation that old servers took.
pub fn sloppy_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address = sloppy_ip(address)?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    Some((address, u8::try_from(decimal(length, max)?).ok()?))
}

/// Whether it is an IPv6 address (an address of IPv4 mapped into it counts as IPv4).
pub fn is_ipv6(text: &str) -> bool {
    sloppy_ip(text).is_some_and(|ip| matches!(ip.to_canonical(), IpAddr::V6(_)))
}

/// Whether the list holds one address of each family.
pub fn is_dual_stack(list: &[&str]) -> bool {
    let six = list.iter().filter(|ip| is_ipv6(ip)).count();
    six > 0 && six < list.len()
}

fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(six) if six.to_ipv4_mapped().is_some())
}

/// An address in a field. Those in `stored` may stay.
pub fn check_ip(at: &At<'_>, value: &str, stored: &[String], errors: &mut Errors) {
    if stored.iter().any(|old| old == value) {
        return;
    }
    let Some(ip) = sloppy_ip(value) else {
        errors.invalid(at, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        return;
    };
    if value.parse::<IpAddr>().is_err() {
        errors.invalid(at, value, "must not have leading 0s");
    }
    if is_mapped(ip) {
        errors.invalid(at, value, "must not be an IPv4-mapped IPv6 address");
    }
}

/// A CIDR in a field. Those in `stored` may stay.
pub fn check_cidr(at: &At<'_>, value: &str, stored: &[String], errors: &mut Errors) {
    if stored.iter().any(|old| old == value) {
        return;
    }
    let Some((ip, length)) = sloppy_cidr(value) else {
        errors.invalid(at, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
        return;
    };
    let why = if is_leading_zero(value) {
        "must not have leading 0s in IP or prefix length"
    } else if is_mapped(ip) {
        "must not have an IPv4-mapped IPv6 address"
    } else if masked(ip, length) != ip {
        "must not have bits set beyond the prefix length"
    } else {
        return;
    };
    errors.invalid(at, value, why);
}

fn is_leading_zero(cidr: &str) -> bool {
    let (ip, length) = cidr.split_once('/').unwrap_or((cidr, ""));
    ip.parse::<IpAddr>().is_err() || (length.len() > 1 && length.starts_with('0'))
}

/// The address with all bits beyond the prefix cleared.
pub fn masked(ip: IpAddr, length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(four) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(four) & mask))
        }
        IpAddr::V6(six) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(six) & mask))
        }
    }
}

/// What to say of an address that is valid but written oddly.
pub fn warn_ip(at: &At<'_>, value: &str, warnings: &mut Vec<String>) {
    let Some(ip) = sloppy_ip(value) else { return };
    let at = at.path();
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V6(six)) if six.to_ipv4_mapped().is_none() => {
            if six.to_string() != value {
                warnings.push(format!(
                    "{at}: IPv6 address {value:?} should be in RFC 5952 canonical format ({:?})",
                    six.to_string()
                ));
            }
        }
        Ok(IpAddr::V4(_)) => {}
        _ => warnings.push(format!(
            "{at}: non-standard IP address {value:?} is invalid: use {:?}",
            ip.to_canonical().to_string()
        )),
    }
}

/// What to say of a CIDR that is valid but ambiguous or written oddly.
pub fn warn_cidr(at: &At<'_>, value: &str, warnings: &mut Vec<String>) {
    let Some((ip, length)) = sloppy_cidr(value) else { return };
    let at = at.path();
    let net = format!("{}/{length}", masked(ip, length).to_canonical());
    let before = warnings.len();
    if masked(ip, length) != ip {
        let single = format!("{}/{}", ip.to_canonical(), if ip.is_ipv4() { 32 } else { 128 });
        warnings.push(format!(
            "{at}: CIDR value {value:?} is ambiguous in this context (should be {net:?} or {single:?}?)"
        ));
    }
    if is_leading_zero(value) || is_mapped(ip) {
        warnings.push(format!("{at}: non-standard CIDR value {value:?} is invalid: use {net:?}"));
    }
    let canonical = format!("{ip}/{length}");
    if warnings.len() == before && ip.is_ipv6() && canonical != value {
        warnings.push(format!(
            "{at}: IPv6 CIDR value {value:?} should be in RFC 5952 canonical format ({canonical:?})"
        ));
    }
}

/// An address that endpoints and external addresses of services may have: none of this machine or this link.
pub fn check_endpoint_ip(at: &At<'_>, value: &str, errors: &mut Errors) {
    let Some(ip) = sloppy_ip(value).map(|ip| ip.to_canonical()) else {
        errors.invalid(at, value, "must be a valid IP address");
        return;
    };
    if ip.is_unspecified() {
        errors.invalid(at, value, format!("may not be unspecified ({value})"));
    }
    if ip.is_loopback() {
        errors.invalid(at, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link, multicast) = match ip {
        IpAddr::V4(four) => (four.is_link_local(), four.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(six) => (six.is_unicast_link_local(), six.segments()[0] & 0xff0f == 0xff02),
    };
    if link {
        errors.invalid(at, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        errors.invalid(at, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(check: impl Fn(&At<'_>, &mut Errors)) -> Vec<String> {
        let mut errors = Errors::new();
        check(&At::root("ip"), &mut errors);
        errors.iter().map(gantry_api::field::Error::body).collect()
    }

    #[test]
    fn addresses_are_read_strictly_unless_they_are_stored() {
        for (value, why) in [
            ("10.0.0.1", None),
            ("2001:db8::1", None),
            ("x", Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")),
            ("10.0.0.256", Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")),
            ("010.0.0.1", Some("must not have leading 0s")),
            ("::ffff:10.0.0.1", Some("must not be an IPv4-mapped IPv6 address")),
        ] {
            let found = complaints(|at, errors| check_ip(at, value, &[], errors));
            let expected: Vec<String> =
                why.iter().map(|why| format!("Invalid value: {value:?}: {why}")).collect();
            assert_eq!(found, expected);
            assert!(complaints(|at, errors| check_ip(at, value, &[value.to_owned()], errors)).is_empty());
        }
    }

    #[test]
    fn cidrs_are_read_strictly() {
        for (value, why) in [
            ("10.0.0.0/8", None),
            ("2001:db8::/64", None),
            ("10.0.0.0", Some("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")),
            ("10.0.0.0/33", Some("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")),
            ("10.0.0.0/08", Some("must not have leading 0s in IP or prefix length")),
            ("10.0.0.1/8", Some("must not have bits set beyond the prefix length")),
            ("::ffff:10.0.0.0/104", Some("must not have an IPv4-mapped IPv6 address")),
        ] {
            let found = complaints(|at, errors| check_cidr(at, value, &[], errors));
            let expected: Vec<String> =
                why.iter().map(|why| format!("Invalid value: {value:?}: {why}")).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn endpoints_are_elsewhere() {
        for (value, why) in [
            ("0.0.0.0", "may not be unspecified (0.0.0.0)"),
            ("127.0.0.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
            ("169.254.1.1", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
            ("224.0.0.1", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
        ] {
            let found = complaints(|at, errors| check_endpoint_ip(at, value, errors));
            assert_eq!(found, [format!("Invalid value: {value:?}: {why}")]);
        }
    }

    #[test]
    fn odd_notations_are_pointed_out() {
        let warned = |value: &str| {
            let mut warnings = Vec::new();
            warn_ip(&At::root("f"), value, &mut warnings);
            warnings
        };
        assert!(warned("10.0.0.1").is_empty() && warned("2001:db8::1").is_empty());
        assert_eq!(
            warned("010.0.0.1"),
            [r#"f: non-standard IP address "010.0.0.1" is invalid: use "10.0.0.1""#]
        );
        assert_eq!(
            warned("2001:DB8:0::1"),
            [r#"f: IPv6 address "2001:DB8:0::1" should be in RFC 5952 canonical format ("2001:db8::1")"#]
        );
        let mut warnings = Vec::new();
        warn_cidr(&At::root("f"), "10.1.2.3/8", &mut warnings);
        assert_eq!(
            warnings,
            [
                r#"f: CIDR value "10.1.2.3/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.1.2.3/32"?)"#
            ]
        );
    }
}
