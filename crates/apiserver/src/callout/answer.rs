//! What came back, and why nothing did.

use bytes::Bytes;
use gantry_api::ApiError;
use gantry_api::field::quote;
use gantry_api::metav1::{Status, StatusCause, StatusDetails};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

/// How much of a complaint is kept (`maxUnstructuredResponseTextBytes` upstream).
const MAX_COMPLAINT: usize = 2048;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP code.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why a call gave nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// No answer came: `Post "https://…": dial tcp 10.0.0.1:443: connect: connection refused`.
    #[error("{0}")]
    Unanswered(String),
    /// The answer is a refusal.
    #[error("{}", .0.message())]
    Refused(ApiError),
}

impl CallError {
    /// The `Status` of a refusal.
    pub fn status(&self) -> Option<&ApiError> {
        match self {
            Self::Unanswered(_) => None,
            Self::Refused(status) => Some(status),
        }
    }
}

impl Answer {
    /// The body of a good answer; a refusal otherwise, as client-go words it. A `Status` in the body is believed.
    ///
    /// # Errors
    /// [`CallError::Refused`] if the code is not of 200 to 206, or the body is a failed `Status`.
    pub fn accepted(self) -> Result<Bytes, CallError> {
        let failure = serde_json::from_slice::<Status>(&self.body)
            .ok()
            .filter(|s| s.status.as_deref() == Some("Failure"))
            .filter(|_| is_status(&self.body));
        if let Some(status) = failure {
            return Err(CallError::Refused(ApiError::from_status(status)));
        }
        match self.status.as_u16() {
            200..=206 => Ok(self.body),
            code => Err(CallError::Refused(self.unstructured(code))),
        }
    }

    /// The same, and something is in it.
    ///
    /// # Errors
    /// As [`Self::accepted`], and [`CallError::Unanswered`].
    pub fn filled(self) -> Result<Bytes, CallError> {
        let (code, media) = (self.status.as_u16(), self.header(CONTENT_TYPE).to_owned());
        let body = self.accepted()?;
        if body.is_empty() {
            return Err(CallError::Unanswered(format!(
                "0-length response with status code: {code} and content type: {media}"
            )));
        }
        Ok(body)
    }

    fn header(&self, name: http::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }

    /// `NewGenericServerResponse`
    fn unstructured(&self, code: u16) -> ApiError {
        let media = self.header(CONTENT_TYPE);
        let text = if media.is_empty() || media.starts_with("text/") {
            String::from_utf8_lossy(&self.body[..self.body.len().min(MAX_COMPLAINT)]).trim().to_owned()
        } else {
            "unknown".to_owned()
        };
        let (reason, message) = match code {
            409 => ("AlreadyExists", "the server reported a conflict".to_owned()),
            404 => ("NotFound", "the server could not find the requested resource".to_owned()),
            400 => ("BadRequest", "the server rejected our request for an unknown reason".to_owned()),
            401 => ("Unauthorized", "the server has asked for the client to provide credentials".to_owned()),
            403 => ("Forbidden", text.clone()),
            406 if text.is_empty() || text == "unknown" => (
                "NotAcceptable",
                "the server was unable to respond with a content type that the client supports".to_owned(),
            ),
            406 => ("NotAcceptable", text.clone()),
            415 => ("UnsupportedMediaType", text.clone()),
            405 => (
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource".to_owned(),
            ),
            422 => ("Invalid", "the server rejected our request due to an error in our request".to_owned()),
            503 => ("ServiceUnavailable", "the server is currently unable to handle the request".to_owned()),
            504 => (
                "Timeout",
                "the server was unable to return a response in the time allotted, but may still be processing the request"
                    .to_owned(),
            ),
            429 => (
                "TooManyRequests",
                "the server has received too many requests and has asked us to try again later".to_owned(),
            ),
            500.. => (
                "InternalError",
                format!("an error on the server ({}) has prevented the request from succeeding", quote(&text)),
            ),
            _ => (
                "",
                format!("the server responded with the status code {code} but did not return more information"),
            ),
        };
        let cause =
            StatusCause { reason: Some("UnexpectedServerResponse".into()), message: Some(text), field: None };
        ApiError::from_status(Status {
            status: Some("Failure".into()),
            code: Some(i32::from(code)),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            message: Some(message),
            details: Some(StatusDetails {
                causes: Some(vec![cause]),
                retry_after_seconds: self.header(RETRY_AFTER).parse().ok(),
                ..StatusDetails::default()
            }),
            ..Status::default()
        })
    }
}

fn is_status(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Head<'a> {
        #[serde(borrow, default)]
        kind: std::borrow::Cow<'a, str>,
    }
    serde_json::from_slice::<Head<'_>>(body).is_ok_and(|head| head.kind == "Status")
}
