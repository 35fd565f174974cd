//! Why an evaluation gave no value.

use std::fmt;
use std::sync::Arc;

/// Why an evaluation gave no value. Prints as upstream does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError(Arc<(ErrorKind, String)>);

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A function was called with what it does not take.
    NoSuchOverload,
    /// The evaluation cost too much and was given up.
    Cancelled,
    /// The evaluation cannot go on before somebody else answers; see [`crate::Authorizer`].
    Pending,
    /// A fault in the data: no such key, division by zero, ….
    Other,
}

impl EvalError {
    /// A failure of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new((kind, message.into())))
    }

    /// A fault in the data.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Other, message)
    }

    pub(crate) fn no_overload() -> Self {
        Self::new(ErrorKind::NoSuchOverload, "no such overload")
    }

    pub(crate) fn no_key(key: &dyn fmt::Display) -> Self {
        Self::other(format!("no such key: {key}"))
    }

    pub(crate) fn too_costly() -> Self {
        Self::new(ErrorKind::Cancelled, "operation cancelled: actual cost limit exceeded")
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> ErrorKind {
        self.0.0
    }

    /// Whether nothing may absorb it, not even `||`.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.kind(), ErrorKind::Cancelled | ErrorKind::Pending)
    }
}

impl From<String> for EvalError {
    fn from(message: String) -> Self {
        Self::other(message)
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.1)
    }
}

impl std::error::Error for EvalError {}

/// The result of evaluating.
pub type Result<T, E = EvalError> = std::result::Result<T, E>;
