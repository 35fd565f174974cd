//! Why a text is no address, in the words of upstream's parser (Go's `net/netip`).

/// Why `text`, which the standard library does not take for an address, is none: `ParseAddr("1.2.3"): …`.
pub fn complaint(text: &str) -> String {
    let first = text.bytes().find(|b| matches!(b, b'.' | b':' | b'%'));
    let (what, at) = match first {
        Some(b'.') => v4(text).err().unwrap_or(("unexpected character", text)),
        Some(b':') => v6(text).err().unwrap_or(("unexpected character", text)),
        Some(_) => ("missing IPv6 address", ""),
        None => ("unable to parse IP", ""),
    };
    let place = if at.is_empty() { String::new() } else { format!(" (at {at:?})") };
    format!("ParseAddr({text:?}): {what}{place}")
}

/// What is wrong, and the text from there on.
type Fault<'t> = (&'static str, &'t str);

fn v4(text: &str) -> Result<(), Fault<'_>> {
    let (mut value, mut digits, mut fields) = (0_u32, 0, 0);
    let bytes = text.as_bytes();
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            b'0'..=b'9' => {
                if digits == 1 && value == 0 {
                    return Err(("IPv4 field has octet with leading zero", ""));
                }
                value = value * 10 + u32::from(byte - b'0');
                digits += 1;
                if value > 255 {
                    return Err(("IPv4 field has value >255", ""));
                }
            }
            b'.' if i == 0 || i + 1 == bytes.len() || bytes[i - 1] == b'.' => {
                return Err(("IPv4 field must have at least one digit", &text[i..]));
            }
            b'.' if fields == 3 => return Err(("IPv4 address too long", "")),
            b'.' => {
                fields += 1;
                (value, digits) = (0, 0);
            }
            _ => return Err(("unexpected character", text.get(i..).unwrap_or_default())),
        }
    }
    if fields < 3 { Err(("IPv4 address too short", "")) } else { Ok(()) }
}

fn v6(text: &str) -> Result<(), Fault<'_>> {
    let (mut rest, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    if zone == Some("") {
        return Err(("zone must be a non-empty string", ""));
    }
    let mut ellipsis = None;
    if let Some(after) = rest.strip_prefix("::") {
        ellipsis = Some(0);
        rest = after;
        if rest.is_empty() {
            return Ok(());
        }
    }
    let mut filled = 0;
    while filled < 16 {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits > 4 {
            return Err(("each group must have 4 or less digits", rest));
        }
        if digits == 0 {
            return Err(("each colon-separated field must have at least one digit", rest));
        }
        if rest.as_bytes().get(digits) == Some(&b'.') {
            if ellipsis.is_none() && filled != 12 {
                return Err(("embedded IPv4 address must replace the final 2 fields of the address", rest));
            }
            if filled + 4 > 16 {
                return Err(("too many hex fields to fit an embedded IPv4 at the end of the address", rest));
            }
            v4(rest)?;
            (rest, filled) = ("", filled + 4);
            break;
        }
        filled += 2;
        rest = &rest[digits..];
        if rest.is_empty() {
            break;
        }
        let Some(after) = rest.strip_prefix(':') else {
            return Err(("unexpected character, want colon", rest));
        };
        if after.is_empty() {
            return Err(("colon must be followed by more characters", rest));
        }
        rest = after;
        if let Some(after) = rest.strip_prefix(':') {
            if ellipsis.is_some() {
                return Err(("multiple :: in address", rest));
            }
            ellipsis = Some(filled);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
    }
    match (rest.is_empty(), filled < 16, ellipsis) {
        (false, ..) => Err(("trailing garbage after address", rest)),
        (_, true, None) => Err(("address string too short", "")),
        (_, false, Some(_)) => Err(("the :: must expand to at least one field of zeros", "")),
        _ => Ok(()),
    }
}
