//! Errors that carry a decision: what the caller is to do about them.
//!
//! A library error type implements [`Classify`], or is turned into [`Error`], so that no caller has to read a
//! message to decide whether to try again. An error is logged or returned, never both.

use std::fmt;

/// What the one who receives an error is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A passing fault: try again with back-off.
    Retry,
    /// Somebody else was first: read again, decide again.
    Conflict,
    /// The input is wrong: trying again without changing it is useless.
    Invalid,
    /// Not allowed, or over a limit.
    Refused,
    /// What was asked for does not exist (any more).
    Missing,
    /// Our own fault: a broken invariant. Report it.
    Bug,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Retry => "retry",
            Class::Conflict => "conflict",
            Class::Invalid => "invalid",
            Class::Refused => "refused",
            Class::Missing => "missing",
            Class::Bug => "bug",
        })
    }
}

/// An error with its class, a message for a person, and its cause.
#[derive(Debug)]
pub struct Error {
    class: Class,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of what can fail with a classified [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `class`; `message` names the object, what was wrong and what to do.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), source: None }
    }

    /// [`Class::Retry`].
    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(Class::Retry, message)
    }

    /// [`Class::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Class::Conflict, message)
    }

    /// [`Class::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Class::Invalid, message)
    }

    /// [`Class::Refused`].
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Class::Refused, message)
    }

    /// [`Class::Missing`].
    pub fn missing(message: impl Into<String>) -> Self {
        Self::new(Class::Missing, message)
    }

    /// [`Class::Bug`].
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Class::Bug, message)
    }

    /// The same error with its cause attached.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error with `what` in front of its message: what we were doing when it happened.
    #[must_use]
    pub fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// What to do about it.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The message without its causes.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| s.as_ref() as _)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let class = match error.kind() {
            K::NotFound => Class::Missing,
            K::PermissionDenied | K::StorageFull | K::QuotaExceeded | K::FileTooLarge => Class::Refused,
            K::InvalidInput | K::InvalidData | K::InvalidFilename => Class::Invalid,
            _ => Class::Retry,
        };
        Self { class, message: error.to_string(), source: None }
    }
}

/// Attaches a class and what we were doing to any error.
pub trait Context<T> {
    /// Turns an error into an [`Error`] of `class` that says `what` failed, with the error as its cause.
    fn context(self, class: Class, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, class: Class, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Error::new(class, what.to_string()).because(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_reads_from_the_outermost_action_to_the_cause() {
        let error = Error::retry("the socket is closed").because("broken pipe").while_doing("list pods");
        assert_eq!(error.to_string(), "list pods: the socket is closed: broken pipe");
        assert_eq!(error.class(), Class::Retry);
    }

    #[test]
    fn io_errors_are_classified_by_kind() {
        let missing = Error::from(std::io::Error::from(std::io::ErrorKind::NotFound));
        assert_eq!(missing.class(), Class::Missing);
        let full = Error::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(full.class(), Class::Refused);
    }
}
