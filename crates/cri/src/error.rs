//! Errors of the runtime: a gRPC status becomes an [`Error`] with a class, and stays readable as a status.
//!
//! The text is the one Go's gRPC gives (`rpc error: code = NotFound desc = …`), since the kubelet puts it into
//! events and container states that people and tools read.

use std::fmt;

use gantry_base::{Class, Error};
pub use tonic::Code;

/// The status that a runtime answered with: the source of the [`Error`]s of this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    /// The gRPC code.
    pub code: Code,
    /// The runtime's own words.
    pub description: String,
}

impl RpcError {
    /// An [`Error`] with this status, of the class that the code asks for.
    pub fn error(code: Code, description: impl Into<String>) -> Error {
        let description = description.into();
        Error::new(class_of(code), "rpc error").because(Self { code, description })
    }

    /// An [`Error`] for what a call returned.
    pub fn from_status(status: &tonic::Status) -> Error {
        let mut description = status.message().to_owned();
        let mut cause = std::error::Error::source(status);
        while let Some(error) = cause {
            let text = error.to_string();
            if !description.contains(&text) {
                description = format!("{description}: {text}");
            }
            cause = error.source();
        }
        Self::error(status.code(), description)
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code = {:?} desc = {}", self.code, self.description)
    }
}

impl std::error::Error for RpcError {}

/// What a caller is to do about a status.
fn class_of(code: Code) -> Class {
    match code {
        Code::NotFound => Class::Missing,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Class::Conflict,
        Code::InvalidArgument | Code::OutOfRange => Class::Invalid,
        Code::PermissionDenied | Code::Unauthenticated | Code::ResourceExhausted | Code::Unimplemented => {
            Class::Refused
        }
        Code::Ok => Class::Bug,
        Code::Cancelled | Code::Unknown | Code::DeadlineExceeded | Code::Internal => Class::Retry,
        Code::Unavailable | Code::DataLoss => Class::Retry,
    }
}

fn rpc_error(error: &Error) -> Option<&RpcError> {
    std::error::Error::source(error)?.downcast_ref()
}

/// The gRPC code behind an error of this crate, if it came from the runtime.
pub fn rpc_code(error: &Error) -> Option<Code> {
    rpc_error(error).map(|e| e.code)
}

/// The runtime's own words behind an error of this crate, if it came from the runtime.
pub fn rpc_description(error: &Error) -> Option<&str> {
    rpc_error(error).map(|e| e.description.as_str())
}

/// True if the runtime does not have the call at all (containerd 1.6 lacks several of CRI v1).
pub fn is_unsupported(error: &Error) -> bool {
    rpc_code(error) == Some(Code::Unimplemented)
}

/// True if the call ran out of its time (for `exec_sync`: the command did).
pub fn is_deadline_exceeded(error: &Error) -> bool {
    rpc_code(error) == Some(Code::DeadlineExceeded)
}

/// The error of a runtime that does not have a call.
pub fn unsupported(call: &str) -> Error {
    RpcError::error(
        Code::Unimplemented,
        format!("unknown method {call} for service runtime.v1.RuntimeService"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_like_gos_and_keeps_its_code() {
        let error = RpcError::from_status(&tonic::Status::not_found("an error occurred"));
        assert_eq!(error.to_string(), "rpc error: code = NotFound desc = an error occurred");
        assert_eq!(error.class(), Class::Missing);
        let error = error.while_doing("start");
        assert_eq!(rpc_code(&error), Some(Code::NotFound));
        assert_eq!(rpc_description(&error), Some("an error occurred"));
    }

    #[test]
    fn a_missing_call_is_told_from_a_failure() {
        assert!(is_unsupported(&unsupported("RuntimeConfig")));
        assert!(!is_unsupported(&Error::retry("the socket is closed")));
        assert!(!is_unsupported(&RpcError::error(Code::Unavailable, "")));
    }
}
