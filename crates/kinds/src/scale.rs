//! The `scale` subresource, the same for all kinds that have one.

/// How many replicas an object asks for and has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// `spec.replicas`
    pub replicas: i32,
    /// `status.replicas`
    pub current: i32,
    /// The label selector of its pods, in string form.
    pub selector: String,
}
