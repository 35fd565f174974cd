//! API errors: the `Status` object that a client receives, with its HTTP code and its decision.
//!
//! Constructors mirror `apimachinery/pkg/api/errors`; clients branch on `reason`, people read `message`.

use std::fmt;

use gantry_base::Class;

use crate::field::{self, quote};
use crate::metav1::{Status, StatusCause, StatusDetails};
use crate::resource::Resource;

/// A failed request.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    status: Box<Status>,
    plain: bool,
}

/// The result of a request.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

impl ApiError {
    /// An error from a `Status` that a server sent.
    pub fn from_status(status: Status) -> Self {
        Self { status: Box::new(status), plain: false }
    }

    /// An error with this HTTP code, reason and message.
    pub fn new(code: i32, reason: &str, message: impl Into<String>) -> Self {
        Self::from_status(Status {
            status: Some("Failure".into()),
            code: Some(code),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            message: Some(message.into()),
            ..Status::default()
        })
    }

    /// An answer that is no `Status` but only this text, as upstream gives where no API handler was found.
    pub fn plain(code: i32, reason: &str, text: &str) -> Self {
        Self { plain: true, ..Self::new(code, reason, text) }
    }

    /// Whether the answer is only the text.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// The same error with details, though they say nothing.
    fn with_details(mut self) -> Self {
        self.status.details.get_or_insert_default();
        self
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let filled = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        let details = self.status.details.get_or_insert_default();
        details.group = filled(group);
        details.kind = filled(kind);
        details.name = filled(name);
        self
    }

    /// The same error with its causes.
    #[must_use]
    pub fn with_causes(mut self, causes: Vec<StatusCause>) -> Self {
        self.status.details.get_or_insert_default().causes = Some(causes);
        self
    }

    /// The same error in other words.
    #[must_use]
    pub fn reworded(mut self, words: impl FnOnce(&str) -> String) -> Self {
        self.status.message = Some(words(self.message()));
        self
    }

    /// The same error, asking the client to come back after this many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: i32) -> Self {
        self.status.details.get_or_insert_default().retry_after_seconds = (seconds > 0).then_some(seconds);
        self
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: nobody knows who is asking.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403 on an object or (empty `name`) a collection.
    pub fn forbidden(resource: &Resource, name: &str, why: impl fmt::Display) -> Self {
        let what = resource.qualified();
        let message = if name.is_empty() {
            format!("{what} is forbidden: {why}")
        } else {
            format!("{what} {} is forbidden: {why}", quote(name))
        };
        Self::new(403, "Forbidden", message).about(&resource.group, &resource.plural, name)
    }

    /// 403 on a path that is no resource.
    pub fn forbidden_path(why: impl fmt::Display) -> Self {
        let mut error = Self::new(403, "Forbidden", format!("forbidden: {why}"));
        error.status.details = Some(StatusDetails::default());
        error
    }

    /// 404 for an object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {} not found", resource.qualified(), quote(name))).about(
            &resource.group,
            &resource.plural,
            name,
        )
    }

    /// 404 for a path below an API that nothing serves.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource").with_details()
    }

    /// 404 for a path below no API.
    pub fn no_such_page() -> Self {
        Self::plain(404, "NotFound", "404 page not found\n")
    }

    /// 405 for a verb that a resource does not know.
    pub fn no_such_verb() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message).with_details()
    }

    /// 415 for a body that no route of the path takes.
    pub fn no_such_media_type() -> Self {
        Self::unsupported_media_type("415: Unsupported Media Type").with_details()
    }

    /// 406 for a path that answers in none of the media types that the client accepts.
    pub fn no_such_representation(types: &str) -> Self {
        let message = format!("406: Not Acceptable\n\nAvailable representations: {types}");
        Self::not_acceptable(message).with_details()
    }

    /// 422 for a patch that does not apply.
    pub fn unprocessable() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self::new(422, "Invalid", message).with_details()
    }

    /// 405
    pub fn method_not_allowed(resource: &Resource, action: &str) -> Self {
        let message =
            format!("{action} is not supported on resources of kind {}", quote(&resource.qualified()));
        Self::new(405, "MethodNotAllowed", message).about(&resource.group, &resource.plural, "")
    }

    /// 406: none of the media types that the client accepts can be produced.
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }

    /// 409: an object of that name is there already.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {} already exists", resource.qualified(), quote(name)))
            .about(&resource.group, &resource.plural, name)
    }

    /// 409: the write was decided on an older state.
    pub fn conflict(resource: &Resource, name: &str, why: impl fmt::Display) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {}: {why}", resource.qualified(), quote(name));
        Self::new(409, "Conflict", message).about(&resource.group, &resource.plural, name)
    }

    /// 409 of an optimistic update, in the words that client-go users know.
    pub fn stale(resource: &Resource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 410: the revision or continue token is older than what is kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413
    pub fn too_large(message: impl fmt::Display) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: {message}"))
    }

    /// 415
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 422: the object is understood but not valid.
    pub fn invalid(resource: &Resource, name: &str, errors: &[field::Error]) -> Self {
        // Both kinds of events are the older one inside.
        let group = if resource.group == "events.k8s.io" { "" } else { &*resource.group };
        let kind =
            if group.is_empty() { resource.kind.to_string() } else { format!("{}.{group}", resource.kind) };
        let message = if errors.is_empty() {
            format!("{kind} {} is invalid", quote(name))
        } else {
            format!("{kind} {} is invalid: {}", quote(name), field::aggregate(errors))
        };
        let causes = errors
            .iter()
            .map(|e| StatusCause {
                reason: Some(e.kind.cause().to_owned()),
                message: Some(e.body()),
                field: Some(e.path.to_string()),
            })
            .collect();
        Self::new(422, "Invalid", message).about(group, &resource.kind, name).with_causes(causes)
    }

    /// 429
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        Self::new(429, "TooManyRequests", message).retry_after(retry_after_seconds)
    }

    /// 500: our fault.
    pub fn internal(why: impl fmt::Display) -> Self {
        let cause = StatusCause { message: Some(why.to_string()), ..StatusCause::default() };
        Self::new(500, "InternalError", format!("Internal error occurred: {why}")).with_causes(vec![cause])
    }

    /// 503
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 504
    pub fn timeout(message: impl fmt::Display, retry_after_seconds: i32) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {message}")).retry_after(retry_after_seconds)
    }

    /// The `Status` object.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.status.code.and_then(|c| u16::try_from(c).ok()).filter(|c| (100..600).contains(c)).unwrap_or(500)
    }

    /// The machine-readable reason; empty if there is none.
    pub fn reason(&self) -> &str {
        self.status.reason.as_deref().unwrap_or("")
    }

    /// The text for people.
    pub fn message(&self) -> &str {
        self.status.message.as_deref().unwrap_or("")
    }

    /// Whether the object was not there.
    pub fn is_not_found(&self) -> bool {
        self.reason() == "NotFound"
    }

    /// Whether an object of that name was there already.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }

    /// Whether somebody else's write came first.
    pub fn is_conflict(&self) -> bool {
        self.reason() == "Conflict"
    }

    /// Whether the revision asked for is no longer kept: list again.
    pub fn is_expired(&self) -> bool {
        matches!(self.reason(), "Expired" | "Gone")
    }

    /// What to do about it.
    pub fn class(&self) -> Class {
        match self.code() {
            404 => Class::Missing,
            409 | 410 => Class::Conflict,
            401 | 403 => Class::Refused,
            408 | 429 | 502..=504 => Class::Retry,
            500 if self.reason() == "InternalError" => Class::Retry,
            500..=599 => Class::Retry,
            _ => Class::Invalid,
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for ApiError {}

impl From<ApiError> for gantry_base::Error {
    fn from(error: ApiError) -> Self {
        gantry_base::Error::new(error.class(), error.message().to_owned())
    }
}
