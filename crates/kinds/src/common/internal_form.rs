//! Specs as upstream's internal types print them: all fields by their Go names in the order of their declaration,
//! absent ones as null or zero.
//!
//! Two texts that clients see are made of it: the difference in a refused update, and the value in some complaints.
//! The table beside this file says which fields there are: `GoName=wireName:kind`, where the kind is `s` a text, `i` a
//! number, `b` a truth, `q` a quantity, `-` anything that can be null, `?` what is left out where it is absent, or a type
//! by value, `*` by pointer, `[]` in a list. A wire name may lead into another one, `metadata/labels`, for what is
//! embedded.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::OnceLock;

use serde_json::{Map, Value};

struct Field {
    go: &'static str,
    wire: &'static str,
    kind: &'static str,
}

fn table() -> &'static HashMap<&'static str, Vec<Field>> {
    static TABLE: OnceLock<HashMap<&'static str, Vec<Field>>> = OnceLock::new();
    TABLE.get_or_init(|| include_str!("internal_types.txt").lines().filter_map(read_line).collect())
}

fn read_line(line: &'static str) -> Option<(&'static str, Vec<Field>)> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let field = |word: &'static str| {
        let (go, rest) = word.split_once('=')?;
        let (wire, kind) = rest.split_once(':')?;
        Some(Field { go, wire, kind })
    };
    Some((name, words.filter_map(field).collect()))
}

/// `value`, the wire form of a `kind`, as indented JSON.
pub(super) fn pretty(kind: &str, value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, kind, value, Some(0));
    text
}

/// `value`, the wire form of a `kind`, as JSON in one line.
pub fn compact(kind: &str, value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, kind, value, None);
    text
}

fn line(text: &mut String, indent: Option<usize>) {
    if let Some(depth) = indent {
        text.push('\n');
        text.extend(std::iter::repeat_n(' ', depth));
    }
}

fn write(text: &mut String, kind: &str, value: &Value, indent: Option<usize>) {
    if let Some(item) = kind.strip_prefix("[]") {
        return match value.as_array() {
            Some(list) => {
                write_list(text, list, |text, value, depth| write(text, item, value, depth), indent)
            }
            None => text.push_str("null"),
        };
    }
    let name = match kind.strip_prefix('*') {
        Some(_) if value.is_null() => return text.push_str("null"),
        Some(name) => name,
        None => kind,
    };
    match (kind, table().get(name)) {
        ("*LabelSelector", _) => write_selector(text, value, indent),
        (_, Some(fields)) => write_object(text, name, fields, value, indent),
        ("s", _) if value.is_null() => text.push_str("\"\""),
        ("i", _) if value.is_null() => text.push('0'),
        ("b", _) if value.is_null() => text.push_str("false"),
        ("q", _) if value.is_null() => text.push_str("\"0\""),
        _ => write_raw(text, value, indent),
    }
}

fn write_object(text: &mut String, name: &str, fields: &[Field], value: &Value, indent: Option<usize>) {
    let moved;
    let value = if name == "PodSpec" {
        moved = move_host_fields(value);
        &moved
    } else {
        value
    };
    let entries = fields.iter().filter_map(|field| {
        let value = field.wire.split('/').try_fold(value, |at, name| at.get(name)).unwrap_or(&Value::Null);
        (field.kind != "?" || !value.is_null()).then_some((field.go, (field.kind, value)))
    });
    write_entries(text, entries, indent, |text, (kind, value), depth| write(text, kind, value, depth));
}

fn key(text: &mut String, name: &str, indent: Option<usize>) {
    write_text(text, name);
    text.push_str(if indent.is_some() { ": " } else { ":" });
}

/// What the pod shares with its node belongs to the internal security context.
fn move_host_fields(spec: &Value) -> Value {
    const MOVED: [&str; 5] = ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"];
    let mut spec = spec.clone();
    let Some(fields) = spec.as_object_mut() else { return spec };
    let shared: Vec<(&str, Value)> =
        MOVED.iter().filter_map(|name| Some((*name, fields.get(*name)?.clone()))).collect();
    if !shared.is_empty() {
        let context = fields.entry("securityContext").or_insert_with(|| Value::Object(Map::new()));
        if let Some(context) = context.as_object_mut() {
            context.extend(shared.into_iter().map(|(name, value)| (name.to_owned(), value)));
        }
    }
    spec
}

fn write_list<'a>(
    text: &mut String,
    list: &'a [Value],
    item: impl Fn(&mut String, &'a Value, Option<usize>),
    indent: Option<usize>,
) {
    text.push('[');
    let inner = indent.map(|depth| depth + 1);
    for (i, value) in list.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        line(text, inner);
        item(text, value, inner);
    }
    if !list.is_empty() {
        line(text, indent);
    }
    text.push(']');
}

/// A label selector prints by its wire names, and only what it has.
fn write_selector(text: &mut String, value: &Value, indent: Option<usize>) {
    write_present(
        text,
        &["matchLabels", "matchExpressions"],
        value,
        indent,
        |text, name, value, depth| match (name, value.as_array()) {
            ("matchExpressions", Some(list)) => {
                let item = |text: &mut String, value: &Value, depth: Option<usize>| {
                    write_present(
                        text,
                        &["key", "operator", "values"],
                        value,
                        depth,
                        |text, _, value, depth| {
                            write_raw(text, value, depth);
                        },
                    );
                };
                write_list(text, list, item, depth);
            }
            _ => write_raw(text, value, depth),
        },
    );
}

fn write_present(
    text: &mut String,
    names: &[&str],
    value: &Value,
    indent: Option<usize>,
    each: impl Fn(&mut String, &str, &Value, Option<usize>),
) {
    let present = names.iter().filter_map(|name| Some((*name, (*name, value.get(*name)?))));
    write_entries(text, present, indent, |text, (name, value), depth| each(text, name, value, depth));
}

/// An object of these entries, each a name and what `each` writes of it.
fn write_entries<'a, T>(
    text: &mut String,
    entries: impl Iterator<Item = (&'a str, T)>,
    indent: Option<usize>,
    each: impl Fn(&mut String, T, Option<usize>),
) {
    text.push('{');
    let inner = indent.map(|depth| depth + 1);
    let mut any = false;
    for (name, entry) in entries {
        if any {
            text.push(',');
        }
        any = true;
        line(text, inner);
        key(text, name, indent);
        each(text, entry, inner);
    }
    if any {
        line(text, indent);
    }
    text.push('}');
}

fn write_raw(text: &mut String, value: &Value, indent: Option<usize>) {
    match value {
        Value::String(word) => write_text(text, word),
        Value::Array(list) => write_list(text, list, write_raw, indent),
        Value::Object(fields) => {
            let names: Vec<&str> = fields.keys().map(String::as_str).collect();
            write_present(text, &names, value, indent, |text, _, value, depth| write_raw(text, value, depth));
        }
        other => {
            // Writing to a string cannot fail.
            let _infallible = write!(text, "{other}");
        }
    }
}

/// A text as Go's encoder writes it: safe in HTML.
fn write_text(text: &mut String, word: &str) {
    let json = Value::from(word).to_string();
    for c in json.chars() {
        match c {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_fields_are_shown_by_their_go_names() {
        assert_eq!(
            compact("Toleration", &json!({"key": "a<b"})),
            r#"{"Key":"a\u003cb","Operator":"","Value":"","Effect":"","TolerationSeconds":null}"#
        );
        let text = pretty("PodSpec", &json!({"hostNetwork": true, "containers": [{"name": "a"}]}));
        assert!(text.starts_with("{\n \"Volumes\": null,\n \"InitContainers\": null,\n \"Containers\": [\n  {\n   \"Name\": \"a\",\n   \"Image\": \"\","), "{text}");
        assert!(
            text.contains("\"SecurityContext\": {\n  \"HostNetwork\": true,\n  \"HostPID\": false,"),
            "{text}"
        );
    }
}
