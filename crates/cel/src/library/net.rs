//! Addresses and networks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Allowance, Function, net_text};
use crate::error::{EvalError, Result};
use crate::value::{Opaque, Value};

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Cidr {
    /// The number of bytes that the prefix covers.
    pub fn prefix_bytes(&self) -> u64 {
        u64::from(self.bits).div_ceil(8)
    }

    fn masked(self) -> Self {
        let address = match self.address {
            IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from(ip.to_bits() & mask4(self.bits))),
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(ip.to_bits() & mask6(self.bits))),
        };
        Self { address, bits: self.bits }
    }

    fn contains(self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => (net.to_bits() ^ ip.to_bits()) & mask4(self.bits) == 0,
            (IpAddr::V6(net), IpAddr::V6(ip)) => (net.to_bits() ^ ip.to_bits()) & mask6(self.bits) == 0,
            _ => false,
        }
    }
}

fn mask4(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

fn mask6(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

/// The function of a name.
pub fn find(name: &str) -> Option<Function> {
    Some(match name {
        "ip" => |args, _| match &args[0] {
            Value::Opaque(Opaque::Cidr(cidr)) => Ok(Value::Opaque(Opaque::Ip(cidr.address))),
            other => Ok(Value::Opaque(Opaque::Ip(to_ip(other)?))),
        },
        "isIP" => |args, _| Ok(Value::Bool(parse_ip(text(&args[0])?).is_ok())),
        "ip.isCanonical" => |args, _| {
            let text = text(&args[0])?;
            Ok(Value::Bool(parse_ip(text).map_err(EvalError::other)?.to_string() == text))
        },
        "family" => |args, _| Ok(Value::Int(if ip(&args[0])?.is_ipv4() { 4 } else { 6 })),
        "isUnspecified" => |args, allowance| test(args, allowance, |ip| ip.is_unspecified()),
        "isLoopback" => |args, allowance| test(args, allowance, |ip| ip.is_loopback()),
        "isLinkLocalMulticast" => |args, allowance| test(args, allowance, is_link_local_multicast),
        "isLinkLocalUnicast" => |args, allowance| test(args, allowance, is_link_local_unicast),
        "isGlobalUnicast" => |args, allowance| test(args, allowance, is_global_unicast),
        "cidr" => |args, _| Ok(Value::Opaque(Opaque::Cidr(to_cidr(&args[0])?))),
        "isCIDR" => |args, _| Ok(Value::Bool(parse_cidr(text(&args[0])?).is_ok())),
        "containsIP" => |args, _| {
            // Text that is no address is, to upstream, of no type that the function takes.
            let ip = to_ip(&args[1]).map_err(|_| EvalError::no_overload())?;
            Ok(Value::Bool(cidr(&args[0])?.contains(ip)))
        },
        "containsCIDR" => |args, _| {
            let (outer, inner) = (cidr(&args[0])?, to_cidr(&args[1])?);
            Ok(Value::Bool(outer.bits <= inner.bits && outer.contains(inner.address)))
        },
        "prefixLength" => |args, _| Ok(Value::Int(i64::from(cidr(&args[0])?.bits))),
        "masked" => |args, _| Ok(Value::Opaque(Opaque::Cidr(cidr(&args[0])?.masked()))),
        _ => return None,
    })
}

fn text<'v>(value: &'v Value<'_>) -> Result<&'v str> {
    value.as_str().ok_or_else(EvalError::no_overload)
}

fn ip(value: &Value<'_>) -> Result<IpAddr> {
    match value {
        Value::Opaque(Opaque::Ip(ip)) => Ok(*ip),
        _ => Err(EvalError::no_overload()),
    }
}

fn to_ip(value: &Value<'_>) -> Result<IpAddr> {
    match value {
        Value::String(text) => parse_ip(text.as_str()).map_err(EvalError::other),
        other => ip(other),
    }
}

fn cidr(value: &Value<'_>) -> Result<Cidr> {
    match value {
        Value::Opaque(Opaque::Cidr(cidr)) => Ok(*cidr),
        _ => Err(EvalError::no_overload()),
    }
}

fn to_cidr(value: &Value<'_>) -> Result<Cidr> {
    match value {
        Value::String(text) => parse_cidr(text.as_str()).map_err(|why| {
            EvalError::other(format!("network address parse error during conversion from string: {why}"))
        }),
        other => cidr(other),
    }
}

fn test<'a>(args: &[Value<'a>], _: &mut Allowance, test: fn(IpAddr) -> bool) -> Result<Value<'a>> {
    Ok(Value::Bool(test(ip(&args[0])?)))
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let zone = text.split_once('%');
    if zone.is_some_and(|(ip, zone)| !zone.is_empty() && ip.parse::<Ipv6Addr>().is_ok()) {
        return Err(format!("IP address {text:?} with zone value is not allowed"));
    }
    let parsed: IpAddr = text.parse().map_err(|_| {
        let why = net_text::complaint(text);
        format!("IP Address {text:?} parse error during conversion from string: {why}")
    })?;
    refuse_mapped(parsed, text)?;
    Ok(parsed)
}

fn refuse_mapped(ip: IpAddr, text: &str) -> Result<(), String> {
    let mapped = matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
    if mapped { Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed")) } else { Ok(()) }
}

fn parse_cidr(text: &str) -> Result<Cidr, String> {
    let error = |why: &str| {
        format!(
            "network address parse error during conversion from string: netip.ParsePrefix({text:?}): {why}"
        )
    };
    let (address, bits) = text.rsplit_once('/').ok_or_else(|| error("no '/'"))?;
    let zone = address.split_once('%');
    if zone.is_some_and(|(ip, zone)| !zone.is_empty() && ip.parse::<Ipv6Addr>().is_ok()) {
        return Err(error("IPv6 zones cannot be present in a prefix"));
    }
    let address: IpAddr = address.parse().map_err(|_| error(&net_text::complaint(address)))?;
    let plain = bits.bytes().all(|b| b.is_ascii_digit()) && (bits.len() == 1 || !bits.starts_with('0'));
    let bits: u8 = bits
        .parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| error(&format!("bad bits after slash: {bits:?}")))?;
    if bits > if address.is_ipv4() { 32 } else { 128 } {
        return Err(error("prefix length out of range"));
    }
    refuse_mapped(address, text)?;
    Ok(Cidr { address, bits })
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

fn is_link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn is_global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local_unicast(ip))
}
