//! Where in a source something is wrong, and how that is shown.

use std::fmt;

use crate::limits;

/// One fault of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Byte offset; `None` if the fault has no place.
    pub at: Option<usize>,
    /// What is wrong.
    pub message: String,
}

/// Why a source is no valid expression. Prints as upstream does, each fault with its line and a mark below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issues {
    source: String,
    found: Vec<Issue>,
    /// How many there were, including those that are not kept.
    count: usize,
    /// Why no program can be made of what is a valid expression.
    instantiation: Option<String>,
}

impl std::error::Error for Issues {}

impl Issues {
    pub(crate) fn new(source: &str) -> Self {
        Self { source: source.to_owned(), found: Vec::new(), count: 0, instantiation: None }
    }

    pub(crate) fn report(&mut self, at: usize, message: impl Into<String>) {
        self.add(Some(at), message.into());
    }

    pub(crate) fn report_whole(&mut self, message: impl Into<String>) {
        self.add(None, message.into());
    }

    fn add(&mut self, at: Option<usize>, message: String) {
        self.count += 1;
        if self.found.len() < limits::ERRORS {
            self.found.push(Issue { at, message });
        }
    }

    /// Notes why no program can be made, if it is the first reason.
    pub(crate) fn instantiation(&mut self, why: &str) {
        self.instantiation.get_or_insert_with(|| why.to_owned());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0 && self.instantiation.is_none()
    }

    /// The whole complaint as upstream's server words it, which tells faults of the source from what fails only when a
    /// program is made of it.
    pub fn complaint(&self) -> String {
        match &self.instantiation {
            Some(why) if self.count == 0 => format!("program instantiation failed: {why}"),
            _ => format!("compilation failed: {self}"),
        }
    }

    /// The faults, in the order in which they were found.
    pub fn found(&self) -> &[Issue] {
        &self.found
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(why), 0) = (&self.instantiation, self.count) {
            return f.write_str(why);
        }
        let mut sorted: Vec<&Issue> = self.found.iter().collect();
        sorted.sort_by_key(|issue| issue.at.map_or(-1, |at| at as i64));
        for (i, issue) in sorted.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            show(f, &self.source, issue)?;
        }
        if self.count > self.found.len() {
            write!(f, "\n{} more errors were truncated", self.count - self.found.len())?;
        }
        Ok(())
    }
}

fn show(f: &mut fmt::Formatter<'_>, source: &str, issue: &Issue) -> fmt::Result {
    let Some(at) = issue.at else {
        return write!(f, "ERROR: <input>:-1:0: {}", issue.message);
    };
    if source.is_empty() {
        // Nothing that could be shown.
        return write!(f, "ERROR: <input>:1:0: {}", issue.message);
    }
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    let before = &source[..at];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    let column = source[start..at].chars().count();
    write!(f, "ERROR: <input>:{line}:{}: {}", column + 1, issue.message)?;
    let text = source[start..].split('\n').next().unwrap_or_default().replace('\t', " ");
    if text.chars().count() > limits::SNIPPET_CHARS {
        return Ok(());
    }
    write!(f, "\n | {text}\n | ")?;
    let is_wide = |c: char| c.len_utf8() > 1;
    for c in text.chars().take(column) {
        f.write_str(if is_wide(c) { "\u{ff0e}" } else { "." })?;
    }
    let wide = text.chars().nth(column).is_some_and(is_wide);
    f.write_str(if wide { "\u{ff3e}" } else { "^" })
}
