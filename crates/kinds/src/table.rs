//! Server-side tables: what `kubectl get` prints.

use std::time::SystemTime;

use gantry_api::metav1::ObjectMeta;
use gantry_api::time::{human_duration, since};
use serde_json::Value;

/// A column after `Name`.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its title.
    pub name: &'static str,
    /// `string`, `integer`, `date`, …
    pub kind: &'static str,
    /// `name` for the name column, else empty.
    pub format: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
    /// What it says.
    pub description: &'static str,
}

impl Column {
    /// A column that is always shown.
    pub const fn new(name: &'static str, kind: &'static str, description: &'static str) -> Self {
        Self { name, kind, format: "", priority: 0, description }
    }

    /// A column for `-o wide`.
    pub const fn wide(name: &'static str, kind: &'static str, description: &'static str) -> Self {
        Self { name, kind, format: "", priority: 1, description }
    }
}

/// What the name column says.
pub const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

/// The age column.
pub const AGE: Column = Column::new(
    "Age",
    "string",
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
);

/// Only the age.
pub const AGE_ONLY: &[Column] = &[AGE];

/// When it was made, of the kinds without columns of their own.
pub const CREATED_AT: &[Column] = &[Column::new("Created At", "date", AGE.description)];

/// The cell of that column.
pub fn created_at(meta: &ObjectMeta) -> Value {
    meta.creation_timestamp.as_ref().map(|t| t.0.to_string()).unwrap_or_default().into()
}

/// The cell of the age column.
pub fn age(meta: &ObjectMeta, now: SystemTime) -> Value {
    match &meta.creation_timestamp {
        Some(created) => human_duration(since(created, now)).into(),
        None => "<unknown>".into(),
    }
}

/// `<none>` for what is empty.
pub fn or_none(text: impl Into<String>) -> Value {
    let text = text.into();
    if text.is_empty() { "<none>".into() } else { text.into() }
}
