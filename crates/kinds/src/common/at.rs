//! Field paths that cost nothing until something is wrong, and short ways to complain.
//!
//! A path is a chain of steps on the stack; only a complaint writes it out. Validation of a sound object allocates
//! no path.

use gantry_api::field::{Error, Path};
use gantry_api::names;
use serde_json::Value;

use crate::kind::Errors;

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

/// Where in an object. `child` takes several steps at once if they are joined by dots.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

impl<'a> At<'a> {
    /// A first step, or a whole path in text form.
    pub const fn root(name: &'a str) -> Self {
        Self { parent: None, step: Step::Name(name) }
    }

    /// What a path of the API crate says.
    pub fn of(path: &'a Path) -> Self {
        Self::root(path.as_str())
    }

    /// A field below.
    pub const fn child(&'a self, name: &'a str) -> At<'a> {
        At { parent: Some(self), step: Step::Name(name) }
    }

    /// A list element.
    pub const fn index(&'a self, index: usize) -> At<'a> {
        At { parent: Some(self), step: Step::Index(index) }
    }

    /// A map entry.
    pub const fn key(&'a self, key: &'a str) -> At<'a> {
        At { parent: Some(self), step: Step::Key(key) }
    }

    /// The path, written out.
    pub fn path(&self) -> Path {
        let base = self.parent.map_or_else(Path::root, At::path);
        match self.step {
            Step::Name("") => base,
            Step::Name(name) => base.child(name),
            Step::Index(index) => base.index(index),
            Step::Key(key) => base.key(key),
        }
    }
}

/// Complaints, in the order of the checks.
pub trait Complaints {
    /// Adds one.
    fn add(&mut self, error: Error);

    /// A value that must be there.
    fn required(&mut self, at: &At<'_>, why: &str) {
        self.add(Error::required(&at.path(), why));
    }

    /// A malformed value.
    fn invalid(&mut self, at: &At<'_>, value: impl Into<Value>, why: impl Into<String>) {
        self.add(Error::invalid(&at.path(), value, why));
    }

    /// A value that may not be there, or not now.
    fn forbidden(&mut self, at: &At<'_>, why: impl Into<String>) {
        self.add(Error::forbidden(&at.path(), why));
    }

    /// A value that is none of those that are possible.
    fn unsupported(&mut self, at: &At<'_>, value: &str, allowed: &[&str]) {
        self.add(Error::not_supported(&at.path(), value, allowed));
    }

    /// A value that was there before.
    fn duplicate(&mut self, at: &At<'_>, value: impl Into<Value>) {
        self.add(Error::duplicate(&at.path(), value));
    }

    /// A name of nothing.
    fn not_found(&mut self, at: &At<'_>, value: &str) {
        self.add(Error::not_found(&at.path(), value));
    }

    /// A name of nothing, with a hint.
    fn not_found_because(&mut self, at: &At<'_>, value: &str, why: String) {
        let mut error = Error::not_found(&at.path(), value);
        error.detail = why;
        self.add(error);
    }

    /// More bytes than allowed.
    fn too_long(&mut self, at: &At<'_>, max: usize) {
        self.add(Error::too_long(&at.path(), max));
    }

    /// More items than allowed.
    fn too_many(&mut self, at: &At<'_>, count: usize, max: usize) {
        self.add(Error::too_many(&at.path(), count, max));
    }

    /// A value and what a check of it said.
    fn check(&mut self, at: &At<'_>, value: impl Into<Value>, result: Result<(), String>) {
        if let Err(why) = result {
            self.invalid(at, value, why);
        }
    }

    /// A text that may not be empty.
    fn needed(&mut self, at: &At<'_>, value: &str) {
        if value.is_empty() {
            self.required(at, "");
        }
    }

    /// A number that may not be negative.
    fn non_negative(&mut self, at: &At<'_>, value: i64) {
        if value < 0 {
            self.invalid(at, value, names::NON_NEGATIVE);
        }
    }

    /// A number that must be greater than zero.
    fn positive(&mut self, at: &At<'_>, value: i64) {
        if value <= 0 {
            self.invalid(at, value, "must be greater than zero");
        }
    }

    /// A text that must be there and one of these.
    fn one_of(&mut self, at: &At<'_>, value: Option<&str>, allowed: &[&str]) {
        match value {
            None | Some("") => self.required(at, ""),
            Some(value) => self.among(at, value, allowed),
        }
    }

    /// A text that must be one of these.
    fn among(&mut self, at: &At<'_>, value: &str, allowed: &[&str]) {
        if !allowed.contains(&value) {
            self.unsupported(at, value, allowed);
        }
    }

    /// A label key or another qualified name: each complaint of it.
    fn qualified(&mut self, at: &At<'_>, value: &str) {
        for why in names::qualified_name_complaints(value) {
            self.invalid(at, value, why);
        }
    }

    /// A value that no update may change.
    fn immutable<T: PartialEq + serde::Serialize>(&mut self, at: &At<'_>, new: &T, old: &T) {
        if new != old {
            self.invalid(at, serde_json::json!(new), "field is immutable");
        }
    }
}

impl Complaints for Errors {
    fn add(&mut self, error: Error) {
        self.push(error);
    }
}

/// The text of an optional field.
pub fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or("")
}

/// The items of an optional list.
pub fn items<T>(list: &Option<Vec<T>>) -> &[T] {
    list.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_upstreams() {
        let spec = At::root("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let limits = first.child("resources.limits");
        assert_eq!(limits.key("cpu").path().as_str(), "spec.containers[0].resources.limits[cpu]");
        assert_eq!(At::root("").child("spec").path().as_str(), "spec");
    }
}
