//! What names, keys and values may look like.
//!
//! Each function returns the first complaint in upstream's words (`apimachinery/pkg/util/validation`), or `Ok`.
//! The hot ones are matched by hand rather than by regular expression: they run on every write.

type Check = Result<(), String>;

const LABEL_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_FMT: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED_FMT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// The complaint about a text that does not match `format`, with examples.
pub fn regex_error(message: &str, format: &str, examples: &[&str]) -> String {
    let mut text = message.to_owned();
    if examples.is_empty() {
        text.push_str(" (");
    } else {
        text.push_str(" (e.g. ");
        let quoted: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
        text.push_str(&quoted.join(" or "));
    }
    text.push_str("regex used for validation is '");
    text.push_str(format);
    text.push_str("')");
    text
}

/// The complaint about a text of more than `max` bytes.
pub fn max_len_error(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// The complaint about a text of more than `max` bytes, where upstream speaks of characters.
pub fn max_chars_error(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// The complaint about a number outside `low..=high`.
pub fn range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// The complaint about a number below zero.
pub const NON_NEGATIVE: &str = "must be greater than or equal to 0";

fn is_label(text: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(edge)
        && bytes.last().copied().is_some_and(edge)
        && bytes.iter().all(|&b| edge(b) || b == b'-')
}

fn is_qualified_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// RFC 1123 label: most object names that become host names.
pub fn dns1123_label(text: &str) -> Check {
    if text.len() > 63 {
        return Err(max_chars_error(63));
    }
    if is_label(text) {
        return Ok(());
    }
    if is_subdomain(text) {
        return Err("must not contain dots".into());
    }
    let message = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
    Err(regex_error(message, LABEL_FMT, &["my-name", "123-abc"]))
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// RFC 1123 subdomain: most object names.
pub fn dns1123_subdomain(text: &str) -> Check {
    if text.len() > 253 {
        return Err(max_chars_error(253));
    }
    if is_subdomain(text) {
        return Ok(());
    }
    let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
    Err(regex_error(message, SUBDOMAIN_FMT, &["example.com"]))
}

/// RFC 1035 label: names of services and of ports' services.
pub fn dns1035_label(text: &str) -> Check {
    if text.len() > 63 {
        return Err(max_chars_error(63));
    }
    if is_label(text) && text.as_bytes()[0].is_ascii_lowercase() {
        return Ok(());
    }
    let message = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
    Err(regex_error(message, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]))
}

/// A label key, an annotation key, a finalizer: `name` or `prefix/name`. The first complaint.
pub fn qualified_name(text: &str) -> Check {
    qualified_name_complaints(text).into_iter().next().map_or(Ok(()), Err)
}

/// All complaints about a qualified name: about the prefix, about the length of the name, and about its characters.
pub fn qualified_name_complaints(text: &str) -> Vec<String> {
    const MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    const EXAMPLES: [&str; 3] = ["MyName", "my.name", "123-abc"];
    let mut complaints = Vec::new();
    let mut parts = text.split('/');
    let (first, second, third) = (parts.next().unwrap_or(""), parts.next(), parts.next());
    if third.is_some() {
        let pattern = regex_error(MESSAGE, QUALIFIED_FMT, &EXAMPLES);
        complaints.push(format!(
            "a valid label key {pattern} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ));
        return complaints;
    }
    let name = match second {
        None => first,
        Some(name) => {
            if first.is_empty() {
                complaints.push("prefix part must be non-empty".into());
            } else if first.len() > 253 {
                complaints.push(format!("prefix part {}", max_len_error(253)));
            } else if let Err(why) = dns1123_subdomain(first) {
                complaints.push(format!("prefix part {why}"));
            }
            name
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        complaints.push(format!("name part {}", max_len_error(63)));
    }
    if !is_qualified_part(name) {
        complaints.push(format!("name part {}", regex_error(MESSAGE, QUALIFIED_FMT, &EXAMPLES)));
    }
    complaints
}

/// The value of a label: empty, or like the name part of a qualified name.
pub fn label_value(text: &str) -> Check {
    if text.len() > 63 {
        return Err(max_len_error(63));
    }
    if text.is_empty() || is_qualified_part(text) {
        return Ok(());
    }
    let message = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    Err(regex_error(
        message,
        "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
        &["MyValue", "my_value", "12345"],
    ))
}

/// A name that can stand in a URL path: RBAC objects.
pub fn path_segment(text: &str) -> Check {
    match text {
        "." | ".." => Err(format!("may not be '{text}'")),
        _ if text.contains('/') => Err("may not contain '/'".into()),
        _ if text.contains('%') => Err("may not contain '%'".into()),
        _ => Ok(()),
    }
}

/// A key of a ConfigMap or a Secret.
pub fn config_key(text: &str) -> Check {
    if text.len() > 253 {
        return Err(max_chars_error(253));
    }
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(fits) {
        let message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        return Err(regex_error(message, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    match text {
        "." => Err("must not be '.'".into()),
        ".." => Err("must not be '..'".into()),
        _ if text.starts_with("..") => Err("must not start with '..'".into()),
        _ => Ok(()),
    }
}

/// The name of an environment variable: printable ASCII without `=`.
pub fn env_var(text: &str) -> Check {
    if text.is_empty() {
        return Err("environment variable name must be non-empty".into());
    }
    if text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        return Ok(());
    }
    Err("a valid environment variable name must consist only of printable ASCII characters other than '='"
        .into())
}

/// The name of a container port: the first complaint.
pub fn port_name(text: &str) -> Check {
    port_name_complaints(text).into_iter().next().map_or(Ok(()), Err)
}

/// All complaints about the name of a container port.
pub fn port_name_complaints(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let mut complaints = Vec::new();
    if text.len() > 15 {
        complaints.push(max_chars_error(15));
    }
    if bytes.is_empty() || !bytes.iter().all(|&b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        complaints.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !bytes.iter().any(u8::is_ascii_lowercase) {
        complaints.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        complaints.push("must not contain consecutive hyphens".into());
    }
    if bytes.first() == Some(&b'-') || bytes.last() == Some(&b'-') {
        complaints.push("must not begin or end with a hyphen".into());
    }
    complaints
}

/// The DNS search path of a pod: a subdomain whose labels may hold underscores.
pub fn dns1123_subdomain_with_underscore(text: &str) -> Check {
    if text.len() > 253 {
        return Err(max_chars_error(253));
    }
    let is_part = |part: &str| {
        let part = part.strip_prefix('_').unwrap_or(part);
        let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = part.as_bytes();
        bytes.first().copied().is_some_and(edge)
            && bytes.last().copied().is_some_and(edge)
            && bytes.iter().all(|&b| edge(b) || b == b'-' || b == b'_')
    };
    if text.split('.').all(is_part) {
        return Ok(());
    }
    let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
    let label = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
    Err(regex_error(message, &format!("{label}(\\.{label})*"), &["example.com"]))
}

/// The name of an HTTP header.
pub fn http_header_name(text: &str) -> Check {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Ok(());
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    Err(regex_error(message, "[-A-Za-z0-9]+", &["X-Header-Name"]))
}

/// The id of a user or a group, 0 to 2³¹ - 1.
pub fn user_id(id: i64) -> Check {
    let max = i64::from(i32::MAX);
    if (0..=max).contains(&id) { Ok(()) } else { Err(range_error(0, max)) }
}

/// A port number, 1 to 65535.
pub fn port_number(port: i32) -> Check {
    if (1..=65535).contains(&port) { Ok(()) } else { Err(range_error(1, 65535)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subdomain_complaint_equals_upstreams() {
        assert_eq!(
            dns1123_subdomain("Bad_Name").expect_err("bad"),
            r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        );
    }

    #[test]
    fn names_are_told_apart() {
        assert!(dns1123_label("a-1").is_ok() && dns1123_label("a.b").is_err() && dns1123_label("").is_err());
        assert!(dns1123_subdomain("a.b-c.d").is_ok() && dns1123_subdomain("a..b").is_err());
        assert!(dns1035_label("web").is_ok() && dns1035_label("1web").is_err());
        assert!(
            qualified_name("kubernetes.io/name").is_ok()
                && qualified_name("a/b/c").is_err()
                && qualified_name("/x").is_err()
        );
        assert!(label_value("").is_ok() && label_value("a_b.c").is_ok() && label_value("-a").is_err());
        assert!(config_key("..data").is_err() && config_key(".dockerconfigjson").is_ok());
        assert!(port_name("http-2").is_ok() && port_name("80").is_err() && port_name("a--b").is_err());
    }
}
