//! How a command ended: the last message of the protocol, a Kubernetes `Status` in JSON.

use serde::{Deserialize, Serialize};

const NON_ZERO_EXIT_CODE: &str = "NonZeroExitCode";
const EXIT_CODE: &str = "ExitCode";

/// The final status of a command or attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandStatus {
    /// Always empty: a `Status` has list metadata.
    #[serde(default)]
    metadata: Empty,
    /// `Success` or `Failure`.
    #[serde(default)]
    pub status: String,
    /// What went wrong, for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What went wrong, for a program.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The exit code, among others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    /// The HTTP status that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Empty {}

/// What a [`CommandStatus`] says beyond its reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusDetails {
    /// The single causes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
}

/// One cause of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCause {
    /// Its kind, `ExitCode` for an exit code.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl CommandStatus {
    /// The command ended with exit code zero, or the attachment in good order.
    pub fn success() -> Self {
        Self { status: "Success".into(), ..Self::default() }
    }

    /// The command ended with an exit code.
    pub fn exited(code: i32) -> Self {
        if code == 0 {
            return Self::success();
        }
        let cause = StatusCause { reason: EXIT_CODE.into(), message: code.to_string() };
        Self {
            status: "Failure".into(),
            reason: NON_ZERO_EXIT_CODE.into(),
            details: Some(StatusDetails { causes: vec![cause] }),
            message: format!(
                "command terminated with non-zero exit code: command terminated with exit code {code}"
            ),
            ..Self::default()
        }
    }

    /// The command could not be run, or its streams not be served.
    pub fn internal_error(error: impl std::fmt::Display) -> Self {
        Self {
            status: "Failure".into(),
            reason: "InternalError".into(),
            message: format!("Internal error occurred: {error}"),
            details: Some(StatusDetails {
                causes: vec![StatusCause { reason: String::new(), message: error.to_string() }],
            }),
            code: Some(500),
            ..Self::default()
        }
    }

    /// True if the command ended with exit code zero.
    pub fn is_success(&self) -> bool {
        self.status == "Success"
    }

    /// The command's exit code; none if it is not known to have ended by itself.
    pub fn exit_code(&self) -> Option<i32> {
        if self.is_success() {
            return Some(0);
        }
        if self.reason != NON_ZERO_EXIT_CODE {
            return None;
        }
        let causes = &self.details.as_ref()?.causes;
        causes.iter().find(|cause| cause.reason == EXIT_CODE)?.message.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_read_as_upstreams() {
        let json = |status: &CommandStatus| serde_json::to_string(status).expect("plain data");
        assert_eq!(json(&CommandStatus::success()), r#"{"metadata":{},"status":"Success"}"#);
        assert_eq!(CommandStatus::exited(0), CommandStatus::success());
        assert_eq!(
            json(&CommandStatus::exited(3)),
            r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: command terminated with exit code 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#
        );
    }

    #[test]
    fn exit_codes_are_read_from_a_runtimes_status() {
        let read = |json: &str| serde_json::from_str::<CommandStatus>(json).expect("a status").exit_code();
        assert_eq!(read(r#"{"metadata":{},"status":"Success"}"#), Some(0));
        let failed = r#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"137"}]}}"#;
        assert_eq!(read(failed), Some(137));
        assert_eq!(read(r#"{"status":"Failure","reason":"InternalError","code":500}"#), None);
    }
}
