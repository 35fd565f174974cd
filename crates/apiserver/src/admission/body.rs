//! What comes with a request besides an object: bodies of other kinds, and options.

use serde_json::{Map, Value};

use super::Operation;
use crate::query::{FieldValidation, WriteOptions};
use crate::verbs::delete;

/// A body that is no object of the resource's kind: of `scale`, `binding`, `eviction`, `token`, or the options of a
/// connection.
#[derive(Clone, Debug)]
pub struct Body {
    /// Its group; empty for the core one.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// `Scale`, `Binding`, `PodExecOptions`, …
    pub kind: String,
    /// The body, with `apiVersion` and `kind`.
    pub value: Value,
    /// What is there now: for `scale` only.
    pub old: Option<Value>,
}

impl Body {
    /// `value` as a body of this kind.
    pub(crate) fn new(group: &'static str, version: &'static str, kind: &str, value: Value) -> Self {
        let mut body = Self { group, version, kind: kind.to_owned(), value, old: None };
        if let Value::Object(map) = &mut body.value {
            let api_version =
                if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
            map.insert("apiVersion".into(), api_version.into());
            map.insert("kind".into(), kind.into());
        }
        body
    }
}

/// The options of the request: `CreateOptions` and so on.
#[derive(Clone, Copy)]
pub(crate) enum VerbOptions<'a> {
    Write(&'a WriteOptions),
    Delete(&'a delete::Options),
    /// A connection has none.
    None,
}

impl VerbOptions<'_> {
    pub(crate) fn dry_run(&self) -> bool {
        match self {
            Self::Write(options) => options.dry_run,
            Self::Delete(options) => options.dry_run,
            Self::None => false,
        }
    }

    /// As an object of `meta.k8s.io/v1`; `Null` if there are none. A patch has the options of what it does.
    pub(crate) fn to_value(self, operation: Operation) -> Value {
        let mut map = Map::new();
        let kind = match (self, operation) {
            (Self::None, _) => return Value::Null,
            (Self::Delete(_), _) => "DeleteOptions",
            (Self::Write(_), Operation::Create) => "CreateOptions",
            (Self::Write(_), _) => "UpdateOptions",
        };
        map.insert("kind".into(), kind.into());
        map.insert("apiVersion".into(), "meta.k8s.io/v1".into());
        match self {
            Self::None => {}
            Self::Delete(options) => delete_options(options, &mut map),
            Self::Write(options) => write_options(options, &mut map),
        }
        if self.dry_run() {
            map.insert("dryRun".into(), vec!["All"].into());
        }
        Value::Object(map)
    }
}

fn write_options(options: &WriteOptions, map: &mut Map<String, Value>) {
    if !options.field_manager.is_empty() {
        map.insert("fieldManager".into(), options.field_manager.as_str().into());
    }
    let validation = match options.validation {
        FieldValidation::Strict => "Strict",
        FieldValidation::Ignore => "Ignore",
        FieldValidation::Warn => return,
    };
    map.insert("fieldValidation".into(), validation.into());
}

fn delete_options(options: &delete::Options, map: &mut Map<String, Value>) {
    if let Some(seconds) = options.grace_period {
        map.insert("gracePeriodSeconds".into(), seconds.into());
    }
    let mut preconditions = Map::new();
    for (key, value) in [("uid", &options.uid), ("resourceVersion", &options.revision)] {
        if let Some(value) = value {
            preconditions.insert(key.into(), value.as_str().into());
        }
    }
    if !preconditions.is_empty() {
        map.insert("preconditions".into(), preconditions.into());
    }
    if let Some(orphan) = options.orphan_dependents {
        map.insert("orphanDependents".into(), orphan.into());
    }
    if let Some(policy) = &options.propagation {
        map.insert("propagationPolicy".into(), policy.as_str().into());
    }
}
