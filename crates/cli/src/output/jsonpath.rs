//! JSONPath templates as kubectl has them: `{.items[*].metadata.name}`, `{range}…{end}`, filters, unions, slices.

use serde_json::Value;

use crate::error::{CliError, Result, fail};

/// A parsed template.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Part>),
}

#[derive(Clone, Debug)]
enum Step {
    Root,
    Field(String),
    Fields(Vec<String>),
    All,
    Index(i64),
    Indexes(Vec<i64>),
    Slice(Option<i64>, Option<i64>, i64),
    Descend,
    Filter(Operand, Option<(Compare, Operand)>),
}

#[derive(Clone, Debug)]
enum Operand {
    Path(Vec<Step>),
    Literal(Value),
}

#[derive(Clone, Copy, Debug)]
enum Compare {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Puts braces and a dot where a user left them out: `metadata.name` reads as `{.metadata.name}`.
pub(crate) fn relaxed(path: &str) -> String {
    let inner = path.strip_prefix('{').and_then(|p| p.strip_suffix('}')).unwrap_or(path);
    let dotted = if inner.starts_with(['.', '[', '$']) { inner.to_owned() } else { format!(".{inner}") };
    format!("{{{dotted}}}")
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut rest = text;
        let (parts, ended) = parts(&mut rest, false)?;
        if ended {
            return fail(format!("error parsing jsonpath {text}, not in range, nothing to end"));
        }
        Ok(Self { parts })
    }

    /// Fills the template in. What is missing reads as nothing.
    pub(crate) fn render(&self, value: &Value) -> Result<String> {
        let mut out = String::new();
        render(&self.parts, value, value, &mut out);
        Ok(out)
    }

    /// The values that the template's paths find.
    pub(crate) fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let paths = self.parts.iter().filter_map(|part| match part {
            Part::Path(steps) => Some(walk(steps, value, value)),
            _ => None,
        });
        paths.flatten().collect()
    }
}

fn render(parts: &[Part], root: &Value, here: &Value, out: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(steps) => {
                let found: Vec<String> = walk(steps, root, here).into_iter().map(plain).collect();
                out.push_str(&found.join(" "));
            }
            Part::Range(steps, body) => {
                for item in walk(steps, root, here) {
                    render(body, root, item, out);
                }
            }
        }
    }
}

/// A value as a template shows it: strings without quotes, all else as JSON.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn walk<'a>(steps: &[Step], root: &'a Value, here: &'a Value) -> Vec<&'a Value> {
    let mut now = vec![here];
    for step in steps {
        now = now.into_iter().flat_map(|value| one(step, root, value)).collect();
    }
    now
}

fn one<'a>(step: &Step, root: &'a Value, value: &'a Value) -> Vec<&'a Value> {
    match step {
        Step::Root => vec![root],
        Step::Field(name) => value.get(name.as_str()).into_iter().collect(),
        Step::Fields(names) => names.iter().filter_map(|name| value.get(name.as_str())).collect(),
        Step::All => children(value),
        Step::Index(i) => at(value, *i).into_iter().collect(),
        Step::Indexes(list) => list.iter().filter_map(|i| at(value, *i)).collect(),
        Step::Slice(from, to, step) => slice(value, *from, *to, *step),
        Step::Descend => {
            let mut all = vec![value];
            let mut next = 0;
            while next < all.len() {
                all.extend(children(all[next]));
                next += 1;
            }
            all
        }
        Step::Filter(left, compare) => {
            children(value).into_iter().filter(|item| passes(left, compare.as_ref(), root, item)).collect()
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn position(i: i64, len: usize) -> Option<usize> {
    if i >= 0 { usize::try_from(i).ok() } else { len.checked_sub(usize::try_from(-i).ok()?) }
}

fn at(value: &Value, i: i64) -> Option<&Value> {
    let list = value.as_array()?;
    list.get(position(i, list.len())?)
}

fn slice(value: &Value, from: Option<i64>, to: Option<i64>, step: i64) -> Vec<&Value> {
    let Some(list) = value.as_array() else { return Vec::new() };
    let bound = |i: i64| position(i, list.len()).unwrap_or(0).min(list.len());
    let (from, to) = (bound(from.unwrap_or(0)), to.map_or(list.len(), bound));
    let step = usize::try_from(step).unwrap_or(1).max(1);
    if from >= to { Vec::new() } else { list[from..to].iter().step_by(step).collect() }
}

fn passes(left: &Operand, compare: Option<&(Compare, Operand)>, root: &Value, item: &Value) -> bool {
    let evaluate = |operand: &Operand| match operand {
        Operand::Path(steps) => walk(steps, root, item).first().map(|v| (*v).clone()),
        Operand::Literal(value) => Some(value.clone()),
    };
    let Some(left) = evaluate(left) else { return false };
    let Some((compare, right)) = compare else { return true };
    let Some(right) = evaluate(right) else { return false };
    let order = match (left.as_f64(), right.as_f64()) {
        (Some(a), Some(b)) => a.partial_cmp(&b),
        _ => plain(&left).partial_cmp(&plain(&right)),
    };
    let Some(order) = order else { return false };
    match compare {
        Compare::Equal => order.is_eq(),
        Compare::Unequal => order.is_ne(),
        Compare::Less => order.is_lt(),
        Compare::LessOrEqual => order.is_le(),
        Compare::Greater => order.is_gt(),
        Compare::GreaterOrEqual => order.is_ge(),
    }
}

/// Parts up to the end of the text or of the range; true if a range ended.
fn parts(rest: &mut &str, in_range: bool) -> Result<(Vec<Part>, bool)> {
    let mut out = Vec::new();
    loop {
        let Some(open) = rest.find('{') else {
            if !rest.is_empty() {
                out.push(Part::Text((*rest).to_owned()));
                *rest = "";
            }
            if in_range {
                return fail("error parsing jsonpath: unexpected end of range");
            }
            return Ok((out, false));
        };
        if open > 0 {
            out.push(Part::Text(rest[..open].to_owned()));
        }
        let close = closing(&rest[open..])? + open;
        let action = rest[open + 1..close].trim();
        *rest = &rest[close + 1..];
        if action == "end" {
            return Ok((out, true));
        }
        if let Some(path) = action.strip_prefix("range ") {
            let steps = steps(path.trim())?;
            let (body, _) = parts(rest, true)?;
            out.push(Part::Range(steps, body));
        } else {
            out.extend(actions(action)?);
        }
    }
}

/// Where the brace that opens `text` is closed; quotes hide braces.
fn closing(text: &str) -> Result<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        match (quote, c) {
            (_, '\\') => escaped = true,
            (Some(q), c) if q == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Ok(i),
            _ => {}
        }
    }
    fail(format!("error parsing jsonpath {text}, unclosed action"))
}

/// What stands between two braces: one path, or quoted text, or several in a row.
fn actions(action: &str) -> Result<Vec<Part>> {
    let mut out = Vec::new();
    let mut rest = action.trim();
    while !rest.is_empty() {
        if rest.starts_with(['"', '\'']) {
            let (text, after) = quoted(rest)?;
            out.push(Part::Text(text));
            rest = after.trim_start();
        } else {
            let end = path_end(rest);
            out.push(Part::Path(steps(&rest[..end])?));
            rest = rest[end..].trim_start();
        }
    }
    Ok(out)
}

/// A path ends at a space outside brackets.
fn path_end(text: &str) -> usize {
    let mut depth = 0;
    let mut quote = None;
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '(') => depth += 1,
            (None, ']' | ')') => depth -= 1,
            (None, ' ') if depth == 0 => return i,
            _ => {}
        }
    }
    text.len()
}

/// The quoted text at the beginning, and what is behind it.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    let quote = chars.next().map(|(_, c)| c);
    while let Some((i, c)) = chars.next() {
        if Some(c) == quote {
            return Ok((out, &text[i + 1..]));
        }
        if c == '\\' {
            match chars.next().map(|(_, c)| c) {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => break,
            }
        } else {
            out.push(c);
        }
    }
    fail(format!("error parsing jsonpath: unterminated quoted string {text}"))
}

fn steps(path: &str) -> Result<Vec<Step>> {
    let mut out = Vec::new();
    let mut rest = path;
    if let Some(after) = rest.strip_prefix('$') {
        out.push(Step::Root);
        rest = after;
    } else if let Some(after) = rest.strip_prefix('@') {
        rest = after;
    }
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            out.push(Step::Descend);
            rest = after;
            if !rest.starts_with('[') {
                rest = field(rest, &mut out);
            }
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = if after.starts_with('[') { after } else { field(after, &mut out) };
        } else if rest.starts_with('[') {
            let close = bracket_end(rest)?;
            out.push(bracket(rest[1..close].trim())?);
            rest = &rest[close + 1..];
        } else if out.is_empty() {
            rest = field(rest, &mut out);
        } else {
            return fail(format!(
                "error parsing jsonpath {path}, unrecognized character in action: {rest:?}"
            ));
        }
    }
    Ok(out)
}

/// Reads a name, in which a backslash hides what follows it.
fn field<'a>(text: &'a str, out: &mut Vec<Step>) -> &'a str {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => {
                end = i;
                break;
            }
            _ => name.push(c),
        }
    }
    match name.as_str() {
        "" => {}
        "*" => out.push(Step::All),
        _ => out.push(Step::Field(name)),
    }
    &text[end..]
}

fn bracket_end(text: &str) -> Result<usize> {
    let mut depth = 0;
    let mut quote = None;
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Ok(i);
                }
            }
            _ => {}
        }
    }
    fail(format!("error parsing jsonpath {text}, unterminated array"))
}

fn bracket(inner: &str) -> Result<Step> {
    let bad = || CliError::message(format!("error parsing jsonpath: invalid array index {inner}"));
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| bad());
    if inner == "*" {
        return Ok(Step::All);
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        return parse_filter(filter.trim());
    }
    if inner.starts_with(['"', '\'']) {
        let mut names = Vec::new();
        let mut rest = inner;
        while !rest.is_empty() {
            let (name, after) = quoted(rest)?;
            names.push(name);
            rest = after.trim_start().trim_start_matches(',').trim_start();
        }
        return Ok(if names.len() == 1 { Step::Field(names.remove(0)) } else { Step::Fields(names) });
    }
    if inner.contains(':') {
        let optional = |text: Option<&str>| match text.map(str::trim) {
            None | Some("") => Ok(None),
            Some(text) => number(text).map(Some),
        };
        let mut bounds = inner.split(':');
        let (from, to) = (optional(bounds.next())?, optional(bounds.next())?);
        return Ok(Step::Slice(from, to, optional(bounds.next())?.unwrap_or(1)));
    }
    if inner.contains(',') {
        return inner.split(',').map(number).collect::<Result<_>>().map(Step::Indexes);
    }
    number(inner).map(Step::Index)
}

fn parse_filter(filter: &str) -> Result<Step> {
    const SIGNS: [(&str, Compare); 6] = [
        ("==", Compare::Equal),
        ("!=", Compare::Unequal),
        ("<=", Compare::LessOrEqual),
        (">=", Compare::GreaterOrEqual),
        ("<", Compare::Less),
        (">", Compare::Greater),
    ];
    let mut quote = None;
    for (i, c) in filter.char_indices() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, _) => {
                if let Some((sign, compare)) = SIGNS.iter().find(|(sign, _)| filter[i..].starts_with(sign)) {
                    let left = operand(filter[..i].trim())?;
                    let right = operand(filter[i + sign.len()..].trim())?;
                    return Ok(Step::Filter(left, Some((*compare, right))));
                }
            }
        }
    }
    Ok(Step::Filter(operand(filter)?, None))
}

fn operand(text: &str) -> Result<Operand> {
    if text.starts_with(['@', '$', '.']) {
        return steps(text).map(Operand::Path);
    }
    if text.starts_with(['"', '\'']) {
        return Ok(Operand::Literal(quoted(text)?.0.into()));
    }
    serde_json::from_str(text)
        .map(Operand::Literal)
        .map_err(|_| CliError::message(format!("error parsing jsonpath: {text:?} is no value")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(template: &str) -> String {
        let value = json!({
            "items": [
                {"metadata": {"name": "a", "labels": {"app.io/x": "1"}}, "status": {"conditions": [
                    {"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]}, "n": 1},
                {"metadata": {"name": "b"}, "status": {"conditions": [{"type": "Ready", "status": "False"}]}, "n": 2},
            ],
            "empty": {},
        });
        Template::parse(template).and_then(|t| t.render(&value)).expect(template)
    }

    #[test]
    fn paths_find_values() {
        assert_eq!(shown("{.items[*].metadata.name}"), "a b");
        assert_eq!(shown("{.items[0].metadata.name}-{.items[-1].metadata.name}"), "a-b");
        assert_eq!(shown("{$.items[0:1].n}"), "1");
        assert_eq!(shown("{.items[0,1]['n']}"), "1 2");
        assert_eq!(shown(r"{.items[0].metadata.labels.app\.io/x}"), "1");
        assert_eq!(shown("{.items[0].metadata.labels['app.io/x']}"), "1");
        assert_eq!(shown("{..name}"), "a b");
        assert_eq!(shown("{.none.of.this}"), "");
        assert_eq!(shown("{.empty}"), "{}");
    }

    #[test]
    fn filters_choose() {
        assert_eq!(shown(r#"{.items[*].status.conditions[?(@.type=="Ready")].status}"#), "True False");
        assert_eq!(shown("{.items[?(@.n>1)].metadata.name}"), "b");
        assert_eq!(shown("{.items[?(@.metadata.labels)].metadata.name}"), "a");
    }

    #[test]
    fn ranges_repeat() {
        assert_eq!(
            shown(r#"{range .items[*]}{.metadata.name}{"\t"}{.n}{"\n"}{end}done"#),
            "a\t1\nb\t2\ndone"
        );
        assert_eq!(
            shown("{range .items[*]}{range .status.conditions[*]}{.type}{end};{end}"),
            "ReadyOther;Ready;"
        );
    }

    #[test]
    fn mistakes_are_told() {
        for bad in ["{.a", "{.a[}", "{range .a}x", "{end}", "{.a[x]}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_left_out_is_added() {
        assert_eq!(relaxed("metadata.name"), "{.metadata.name}");
        assert_eq!(relaxed("{.metadata.name}"), "{.metadata.name}");
    }
}
