//! Label and field selectors: what a list, a watch or a workload picks.
//!
//! Syntax and error texts as `apimachinery/pkg/labels` and `pkg/fields`.

use std::collections::BTreeMap;
use std::fmt;

use crate::metav1;

/// An object's labels.
pub type Labels = BTreeMap<String, String>;

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `key in (a,b)`, `key=a`
    In,
    /// `key notin (a,b)`, `key!=a`: also true where the key is absent.
    NotIn,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>1`
    GreaterThan,
    /// `key<1`
    LessThan,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How it compares.
    pub operator: Operator,
    /// What it is compared with; empty for existence.
    pub values: Vec<String>,
}

impl Requirement {
    /// Whether these labels meet it.
    pub fn matches(&self, labels: Option<&Labels>) -> bool {
        self.matches_value(labels.and_then(|l| l.get(&self.key)).map(String::as_str))
    }

    /// Whether a label of this value (`None`: absent) meets it.
    pub fn matches_value(&self, value: Option<&str>) -> bool {
        let has = |v: &str| self.values.iter().any(|w| w == v);
        let compare = |pick: fn(i64, i64) -> bool| {
            let parsed = value.and_then(|v| v.parse::<i64>().ok());
            let bound = self.values.first().and_then(|v| v.parse::<i64>().ok());
            parsed.zip(bound).is_some_and(|(v, b)| pick(v, b))
        };
        match self.operator {
            Operator::In => value.is_some_and(has),
            Operator::NotIn => value.is_none_or(|v| !has(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compare(|v, b| v > b),
            Operator::LessThan => compare(|v, b| v < b),
        }
    }
}

/// A conjunction of requirements. The empty one selects everything; [`LabelSelector::nothing`] selects nothing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects no object.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Selects by these requirements.
    pub fn of(requirements: Vec<Requirement>) -> Self {
        Self { requirements, nothing: false }
    }

    /// Selects what carries all of these labels.
    pub fn exactly(labels: &Labels) -> Self {
        let requirement = |(k, v): (&String, &String)| Requirement {
            key: k.clone(),
            operator: Operator::In,
            values: vec![v.clone()],
        };
        Self::of(labels.iter().map(requirement).collect())
    }

    /// The selector of a workload. `None` selects nothing, an empty one everything.
    ///
    /// # Errors
    /// An operator that does not exist, or values that do not fit it.
    pub fn from_spec(spec: Option<&metav1::LabelSelector>) -> Result<Self, SelectorError> {
        let Some(spec) = spec else { return Ok(Self::nothing()) };
        let mut selector = spec.match_labels.as_ref().map(Self::exactly).unwrap_or_default();
        for expression in spec.match_expressions.iter().flatten() {
            let values = expression.values.clone().unwrap_or_default();
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!("{other:?} is not a valid label selector operator")));
                }
            };
            if matches!(operator, Operator::In | Operator::NotIn) == values.is_empty() {
                return Err(SelectorError(format!(
                    "values: Invalid value: {values:?}: for 'in', 'notin' operators, values set can't be empty; for 'exists' it must be"
                )));
            }
            selector.requirements.push(Requirement { key: expression.key.clone(), operator, values });
        }
        Ok(selector)
    }

    /// Reads `app=web,tier in (a,b),!canary`.
    ///
    /// # Errors
    /// Says what was found where something else was expected.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::labels(text)
    }

    /// Whether these labels are selected.
    pub fn matches(&self, labels: Option<&Labels>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// The requirements.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match (r.operator, r.values.as_slice()) {
                (Operator::In, [one]) => write!(f, "{}={one}", r.key)?,
                (Operator::NotIn, [one]) => write!(f, "{}!={one}", r.key)?,
                (Operator::In, many) => write!(f, "{} in ({})", r.key, many.join(","))?,
                (Operator::NotIn, many) => write!(f, "{} notin ({})", r.key, many.join(","))?,
                (Operator::Exists, _) => f.write_str(&r.key)?,
                (Operator::DoesNotExist, _) => write!(f, "!{}", r.key)?,
                (Operator::GreaterThan, v) => write!(f, "{}>{}", r.key, v.join(","))?,
                (Operator::LessThan, v) => write!(f, "{}<{}", r.key, v.join(","))?,
            }
        }
        Ok(())
    }
}

/// A selector that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// A conjunction of `field=value` and `field!=value` terms.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// The field's path, for example `spec.nodeName`.
    pub field: String,
    /// The value it is compared with.
    pub value: String,
    /// Whether the field must equal the value (or must not).
    pub equal: bool,
}

impl FieldSelector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects what has this value in this field.
    pub fn equals(field: &str, value: &str) -> Self {
        Self { terms: vec![FieldTerm { field: field.into(), value: value.into(), equal: true }] }
    }

    /// Reads `metadata.name=a,status.phase!=Running`. Backslash escapes `,`, `=` and itself in values.
    ///
    /// # Errors
    /// A term without an operator.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::fields(text)
    }

    /// Whether an object is selected; `get` reads its field of that path (`None`: absent, compares as empty).
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|t| (get(&t.field).unwrap_or("") == t.value) == t.equal)
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The terms.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// The value that `field` must equal, if the selector asks for one.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, t) in self.terms.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let value = t.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{}{value}", t.field, if t.equal { "=" } else { "!=" })?;
        }
        Ok(())
    }
}

mod parse {
    use super::{FieldSelector, FieldTerm, LabelSelector, Operator, Requirement, SelectorError};

    /// Longest selector that is read.
    const MAX_LEN: usize = 64 * 1024;

    #[derive(Clone, Debug, PartialEq)]
    enum Token {
        Word(String),
        Sign(&'static str),
        End,
    }

    impl Token {
        fn text(&self) -> &str {
            match self {
                Self::Word(w) => w,
                Self::Sign(s) => s,
                Self::End => "",
            }
        }
    }

    struct Lexer<'a> {
        rest: &'a str,
    }

    impl Lexer<'_> {
        fn next(&mut self) -> Token {
            self.rest = self.rest.trim_start();
            for sign in ["!=", "==", "=", "!", ">", "<", "(", ")", ","] {
                if let Some(rest) = self.rest.strip_prefix(sign) {
                    self.rest = rest;
                    return Token::Sign(sign);
                }
            }
            let end = self
                .rest
                .find(|c: char| c.is_whitespace() || matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<'))
                .unwrap_or(self.rest.len());
            if end == 0 {
                return Token::End;
            }
            let (word, rest) = self.rest.split_at(end);
            self.rest = rest;
            Token::Word(word.to_owned())
        }

        fn peek(&self) -> Token {
            Lexer { rest: self.rest }.next()
        }
    }

    fn unable(found: &Token, expected: &str) -> SelectorError {
        SelectorError(format!("found '{}', expected: {expected}", found.text()))
    }

    pub(super) fn labels(text: &str) -> Result<LabelSelector, SelectorError> {
        if text.len() > MAX_LEN {
            return Err(SelectorError(format!("the selector is longer than {MAX_LEN} bytes")));
        }
        let mut lexer = Lexer { rest: text };
        let mut requirements = Vec::new();
        if lexer.peek() == Token::End {
            return Ok(LabelSelector::of(requirements));
        }
        loop {
            if let other @ Token::Sign("=" | "==" | "!=" | ">" | "<" | "(" | ")" | ",") = lexer.peek() {
                return Err(unable(&other, "!, identifier, or 'end of string'"));
            }
            let requirement = requirement(&mut lexer);
            requirements
                .push(requirement.map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?);
            match lexer.next() {
                Token::End => return Ok(LabelSelector::of(requirements)),
                Token::Sign(",") => match lexer.peek() {
                    Token::Word(_) | Token::Sign("!") => {}
                    other => {
                        return Err(SelectorError(format!(
                            "found '{}', expected: identifier after ','",
                            other.text()
                        )));
                    }
                },
                other => {
                    return Err(SelectorError(format!(
                        "found '{}', expected: ',' or 'end of string'",
                        other.text()
                    )));
                }
            }
        }
    }

    fn requirement(lexer: &mut Lexer<'_>) -> Result<Requirement, SelectorError> {
        let (key, absent) = match lexer.next() {
            Token::Word(key) => (key, false),
            Token::Sign("!") => match lexer.next() {
                Token::Word(key) => (key, true),
                other => return Err(unable(&other, "identifier")),
            },
            other => return Err(unable(&other, "!, identifier, or 'end of string'")),
        };
        crate::names::qualified_name(&key)
            .map_err(|why| SelectorError(format!("<nil>: Invalid value: {key:?}: {why}")))?;
        if absent {
            return Ok(Requirement { key, operator: Operator::DoesNotExist, values: Vec::new() });
        }
        if matches!(lexer.peek(), Token::End | Token::Sign(",")) {
            return Ok(Requirement { key, operator: Operator::Exists, values: Vec::new() });
        }
        let (operator, values) = match lexer.next() {
            Token::Sign("=" | "==") => (Operator::In, vec![exact(lexer)?]),
            Token::Sign("!=") => (Operator::NotIn, vec![exact(lexer)?]),
            Token::Sign(">") => (Operator::GreaterThan, vec![number(lexer)?]),
            Token::Sign("<") => (Operator::LessThan, vec![number(lexer)?]),
            Token::Word(word) if word == "in" => (Operator::In, set(lexer)?),
            Token::Word(word) if word == "notin" => (Operator::NotIn, set(lexer)?),
            other => return Err(unable(&other, "in, notin, =, ==, !=, gt, lt")),
        };
        for value in &values {
            crate::names::label_value(value)
                .map_err(|why| SelectorError(format!("values[0][{key}]: Invalid value: {value:?}: {why}")))?;
        }
        Ok(Requirement { key, operator, values })
    }

    fn exact(lexer: &mut Lexer<'_>) -> Result<String, SelectorError> {
        match lexer.peek() {
            Token::End | Token::Sign(",") => Ok(String::new()),
            _ => match lexer.next() {
                Token::Word(word) => Ok(word),
                other => Err(unable(&other, "identifier")),
            },
        }
    }

    fn number(lexer: &mut Lexer<'_>) -> Result<String, SelectorError> {
        let text = exact(lexer)?;
        text.parse::<i64>().map_err(|_| {
            SelectorError(format!(
                "values[0]: Invalid value: {text:?}: for 'Gt', 'Lt' operators, the value must be an integer"
            ))
        })?;
        Ok(text)
    }

    fn set(lexer: &mut Lexer<'_>) -> Result<Vec<String>, SelectorError> {
        match lexer.next() {
            Token::Sign("(") => {}
            other => return Err(SelectorError(format!("found '{}' expected: '('", other.text()))),
        }
        let mut values = Vec::new();
        loop {
            match lexer.next() {
                Token::Word(word) => {
                    values.push(word);
                    match lexer.next() {
                        Token::Sign(",") => {}
                        Token::Sign(")") => break,
                        other => {
                            return Err(SelectorError(format!(
                                "found '{}', expected: ',' or ')'",
                                other.text()
                            )));
                        }
                    }
                }
                Token::Sign(",") => values.push(String::new()),
                Token::Sign(")") => {
                    values.push(String::new());
                    break;
                }
                other => {
                    let expected =
                        if values.is_empty() { "',', ')' or identifier" } else { "',', or identifier" };
                    return Err(unable(&other, expected));
                }
            }
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }

    pub(super) fn fields(text: &str) -> Result<FieldSelector, SelectorError> {
        if text.len() > MAX_LEN {
            return Err(SelectorError(format!("the selector is longer than {MAX_LEN} bytes")));
        }
        let mut terms = Vec::new();
        for term in split_unescaped(text) {
            if term.is_empty() {
                continue;
            }
            terms.push(field_term(term, text)?);
        }
        Ok(FieldSelector { terms })
    }

    fn split_unescaped(text: &str) -> Vec<&str> {
        let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
        for (i, c) in text.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                ',' => {
                    parts.push(&text[start..i]);
                    start = i + 1;
                }
                _ => {}
            }
        }
        parts.push(&text[start..]);
        parts
    }

    /// One term of the selector `whole`.
    fn field_term(term: &str, whole: &str) -> Result<FieldTerm, SelectorError> {
        let invalid = || SelectorError(format!("invalid selector: '{whole}'; can't understand '{term}'"));
        let at = term.find(['=', '!']).ok_or_else(invalid)?;
        let (field, rest) = term.split_at(at);
        let (value, equal) = if let Some(value) = rest.strip_prefix("!=") {
            (value, false)
        } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
            (value, true)
        } else {
            return Err(invalid());
        };
        Ok(FieldTerm { field: field.to_owned(), value: unescape(value)?, equal })
    }

    fn unescape(text: &str) -> Result<String, SelectorError> {
        let mut out = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some(c @ ('\\' | ',' | '=')) => out.push(c),
                    other => {
                        let other = other.map(String::from).unwrap_or_default();
                        return Err(SelectorError(format!(
                            "invalid field selector: invalid escape sequence: \\{other}"
                        )));
                    }
                },
                ',' | '=' => {
                    return Err(SelectorError(format!(
                        "invalid field selector: unescaped character in value: {}",
                        u32::from(c)
                    )));
                }
                c => out.push(c),
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn label_selectors_select() {
        let web = labels(&[("app", "web"), ("tier", "b"), ("n", "5")]);
        let picks = |text: &str| LabelSelector::parse(text).expect(text).matches(Some(&web));
        for yes in [
            "",
            "app=web",
            "app==web",
            "app!=db",
            "tier in (a,b)",
            "tier notin (c)",
            "app,!canary",
            "missing!=x",
            "n>4,n<6",
        ] {
            assert!(picks(yes), "{yes}");
        }
        for no in ["app=db", "app!=web", "tier in (a,c)", "!app", "canary", "n>5", "app="] {
            assert!(!picks(no), "{no}");
        }
    }

    #[test]
    fn malformed_label_selectors_say_what_was_found() {
        for bad in ["app=web,", "=x", "app in a", "app in (a", "a b", "app=web=x", "!", "n>x", "-bad=1"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
        let error = LabelSelector::parse("a b").expect_err("a b").to_string();
        assert_eq!(error, "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt");
    }

    #[test]
    fn selectors_print_as_they_parse() {
        for text in ["app=web", "app!=web", "tier in (a,b)", "tier notin (a,b)", "a,!b", "n>1"] {
            assert_eq!(LabelSelector::parse(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn field_selectors_compare_and_unescape() {
        let selector = FieldSelector::parse(r"metadata.name=a\,b,status.phase!=Running").expect("selector");
        let get = |f: &str| (f == "metadata.name").then_some("a,b");
        assert!(selector.matches(get));
        assert_eq!(selector.required("metadata.name"), Some("a,b"));
        assert!(FieldSelector::parse("justaname").is_err());
    }
}
