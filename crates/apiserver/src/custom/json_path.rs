//! The small part of JSONPath that custom resource definitions use: members, indexes, `[*]` and simple filters.

use serde_json::Value;

/// A path, read once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Member(String),
    Index(i64),
    All,
    /// `[?(@.type=="Ready")]`
    Where(Vec<String>, String),
}

impl JsonPath {
    /// Reads `.spec.versions[0].name`.
    ///
    /// # Errors
    /// Says where the path is malformed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let bad = |rest: &str| format!("cannot read JSON path {text:?} at {rest:?}");
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let (name, remaining) = member(after);
                if name.is_empty() {
                    return Err(bad(rest));
                }
                steps.push(Step::Member(name));
                rest = remaining;
            } else if rest.starts_with('[') {
                let end = bracket_end(rest).ok_or_else(|| bad(rest))?;
                steps.push(bracket(&rest[1..end]).ok_or_else(|| bad(rest))?);
                rest = &rest[end + 1..];
            } else {
                return Err(bad(rest));
            }
        }
        Ok(Self { steps })
    }

    /// Everything the path finds.
    pub(crate) fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        self.steps
            .iter()
            .fold(vec![root], |found, step| found.into_iter().flat_map(|value| step.of(value)).collect())
    }

    /// The one value a path without wildcards finds.
    pub(crate) fn first<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.find(root).into_iter().next()
    }

    /// The names of the members it goes along, of a path that has nothing else.
    pub(crate) fn members(&self) -> Vec<String> {
        let name = |step: &Step| match step {
            Step::Member(name) => Some(name.clone()),
            _ => None,
        };
        self.steps.iter().filter_map(name).collect()
    }

    /// Puts `value` where the path leads, making objects on the way.
    pub(crate) fn set(&self, root: &mut Value, value: Value) {
        let mut place = root;
        for step in &self.steps {
            let Step::Member(name) = step else { return };
            if !place.is_object() {
                *place = Value::Object(serde_json::Map::new());
            }
            let Value::Object(map) = place else { return };
            place = map.entry(name.clone()).or_insert(Value::Null);
        }
        *place = value;
    }
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Member(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => {
                let Some(list) = value.as_array() else { return Vec::new() };
                let len = i64::try_from(list.len()).unwrap_or(i64::MAX);
                let at = if *index < 0 { len + index } else { *index };
                usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
            }
            Self::All => match value {
                Value::Array(list) => list.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            },
            Self::Where(path, wanted) => {
                let matches = |item: &&Value| {
                    let found = path.iter().try_fold(*item, |value, name| value.get(name));
                    found.is_some_and(|value| match value {
                        Value::String(text) => text == wanted,
                        other => serde_json::from_str::<Value>(wanted).is_ok_and(|wanted| wanted == *other),
                    })
                };
                value.as_array().into_iter().flatten().filter(matches).collect()
            }
        }
    }
}

/// A name, in which a backslash escapes a dot.
fn member(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[at..]),
            c => name.push(c),
        }
    }
    (name, "")
}

fn bracket_end(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, ']') => return Some(at),
            (None, _) => {}
        }
    }
    None
}

fn bracket(inside: &str) -> Option<Step> {
    let inside_of = |text: &str, quote: char| Some(text.strip_prefix(quote)?.strip_suffix(quote)?.to_owned());
    let quoted = |text: &str| inside_of(text, '"').or_else(|| inside_of(text, '\''));
    let unquote = |text: &str| quoted(text.trim()).unwrap_or_else(|| text.trim().to_owned());
    match inside.trim() {
        "*" => Some(Step::All),
        text if text.starts_with(['"', '\'']) => quoted(text).map(Step::Member),
        text if text.starts_with("?(") && text.ends_with(')') => {
            let (left, right) = text[2..text.len() - 1].split_once("==")?;
            let path = left.trim().strip_prefix("@.")?;
            Some(Step::Where(path.split('.').map(str::to_owned).collect(), unquote(right)))
        }
        text => text.parse().ok().map(Step::Index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_kubectl_users_expect() {
        let value = json!({"spec": {"a.b": 1, "list": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "False"}]}});
        let find = |path: &str| {
            JsonPath::parse(path).expect(path).find(&value).into_iter().cloned().collect::<Vec<_>>()
        };
        assert_eq!(find(r".spec.a\.b"), [json!(1)]);
        assert_eq!(find(".spec['a.b']"), [json!(1)]);
        assert_eq!(find(".spec.list[-1].type"), [json!("X")]);
        assert_eq!(find(".spec.list[*].type"), [json!("Ready"), json!("X")]);
        assert_eq!(find(r#".spec.list[?(@.type=="Ready")].status"#), [json!("True")]);
        assert!(find(".spec.missing.deep").is_empty());
        assert!(JsonPath::parse("spec").is_err());
    }
}
