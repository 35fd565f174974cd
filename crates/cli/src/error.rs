//! Errors as people read them on a terminal, in kubectl's words.

use std::fmt::Write;

use gantry_api::ApiError;
use gantry_client::https::UNREACHABLE;

/// How the error of a connection that nobody takes ends.
const REFUSED: &str = ": connect: connection refused";

/// Why a verb failed.
#[derive(Debug)]
pub enum CliError {
    /// The API refused.
    Api(ApiError),
    /// We cannot do it.
    Message(String),
    /// Everything is said already: leave with this code.
    Exit(u8),
    /// Several, in order.
    Many(Vec<CliError>),
}

/// The result of a verb.
pub type Result<T, E = CliError> = std::result::Result<T, E>;

/// An error that is no more than its text.
pub fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(CliError::Message(message.into()))
}

impl CliError {
    /// An error that is no more than its text.
    pub fn message(message: impl Into<String>) -> Self {
        Self::Message(message.into())
    }

    /// None if there is no error, the error itself if it is one, else all.
    pub fn of(mut errors: Vec<Self>) -> Result<()> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Many(errors)),
        }
    }

    /// The same error, naming the file it came from.
    #[must_use]
    pub fn from_source(self, doing: &str, source: Option<&str>) -> Self {
        let Some(source) = source else { return self };
        match self {
            Self::Api(error) if error.reason() != UNREACHABLE && error.reason() != "Invalid" => {
                let mut status = error.status().clone();
                status.message = Some(format!("error when {doing} {source:?}: {}", error.message()));
                Self::Api(ApiError::from_status(status))
            }
            Self::Message(text) => Self::Message(format!("error when {doing} {source:?}: {text}")),
            other => other,
        }
    }

    /// Whether the object was not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_not_found())
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Exit(code) => *code,
            _ => 1,
        }
    }

    /// What to print to standard error, without a line end; empty if nothing.
    pub fn text(&self) -> String {
        match self {
            Self::Api(error) => api_text(error),
            Self::Message(text) if text.starts_with("error: ") => text.clone(),
            Self::Message(text) => format!("error: {text}"),
            Self::Exit(_) => String::new(),
            Self::Many(errors) => {
                let texts: Vec<String> = errors.iter().map(Self::text).filter(|t| !t.is_empty()).collect();
                texts.join("\n")
            }
        }
    }
}

fn api_text(error: &ApiError) -> String {
    match error.reason() {
        UNREACHABLE if error.message().ends_with("connection refused") => {
            let address = error.message().strip_prefix("dial tcp ").and_then(|m| m.strip_suffix(REFUSED));
            let address = address.unwrap_or("");
            format!(
                "The connection to the server {address} was refused - did you specify the right host or port?"
            )
        }
        UNREACHABLE => format!("Unable to connect to the server: {error}"),
        "Unauthorized" => format!("error: You must be logged in to the server ({error})"),
        "Invalid" => invalid_text(error),
        "" => format!("Error from server: {error}"),
        reason => format!("Error from server ({reason}): {error}"),
    }
}

/// `The Pod "x" is invalid: spec.containers: Required value`, one cause a line if there are several.
fn invalid_text(error: &ApiError) -> String {
    let Some(details) = &error.status().details else {
        return format!("The request is invalid: {error}");
    };
    let (kind, name) = (details.kind.as_deref().unwrap_or(""), details.name.as_deref().unwrap_or(""));
    let causes = details.causes.as_deref().unwrap_or_default();
    let mut text = if !kind.is_empty() || !name.is_empty() {
        format!("The {kind} {name:?} is invalid")
    } else if causes.is_empty() {
        format!("The request is invalid: {error}")
    } else {
        "The request is invalid".to_owned()
    };
    let mut lines: Vec<String> = Vec::new();
    for cause in causes {
        let line =
            format!("{}: {}", cause.field.as_deref().unwrap_or(""), cause.message.as_deref().unwrap_or(""));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    match lines.as_slice() {
        [] => {}
        [one] => write!(text, ": {one}").expect("strings take everything"),
        many => {
            text.push_str(": ");
            for line in many {
                write!(text, "\n* {line}").expect("strings take everything");
            }
        }
    }
    text
}

impl From<ApiError> for CliError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<gantry_base::Error> for CliError {
    fn from(error: gantry_base::Error) -> Self {
        Self::Message(error.to_string())
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        // The reader of a pipe has seen enough.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::Exit(0);
        }
        Self::Message(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use gantry_api::metav1::StatusCause;

    use super::*;

    #[test]
    fn errors_read_as_kubectls() {
        let error = CliError::Api(ApiError::new(404, "NotFound", "pods \"x\" not found"));
        assert_eq!(error.text(), "Error from server (NotFound): pods \"x\" not found");
        let error = CliError::Api(ApiError::unauthorized());
        assert_eq!(error.text(), "error: You must be logged in to the server (Unauthorized)");
        assert_eq!(CliError::message("no").text(), "error: no");
        let refused = ApiError::new(503, UNREACHABLE, "dial tcp 127.0.0.1:1: connect: connection refused");
        assert_eq!(
            CliError::Api(refused).text(),
            "The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?"
        );
        let pods = gantry_api::Resource::fixed("", "v1", "Pod", "pods", true);
        let cause = |field: &str| StatusCause {
            field: Some(field.into()),
            message: Some("Required value".into()),
            reason: None,
        };
        let invalid = ApiError::invalid(&pods, "x", &[]);
        let one = CliError::Api(invalid.clone().with_causes(vec![cause("spec.a")]));
        assert_eq!(one.text(), "The Pod \"x\" is invalid: spec.a: Required value");
        let two = CliError::Api(invalid.with_causes(vec![cause("spec.a"), cause("spec.b"), cause("spec.a")]));
        assert_eq!(
            two.text(),
            "The Pod \"x\" is invalid: \n* spec.a: Required value\n* spec.b: Required value"
        );
    }

    #[test]
    fn a_file_is_named_in_front_of_the_message() {
        let error =
            CliError::Api(ApiError::new(403, "Forbidden", "no")).from_source("creating", Some("a.yaml"));
        assert_eq!(error.text(), "Error from server (Forbidden): error when creating \"a.yaml\": no");
    }
}
