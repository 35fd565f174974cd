//! What the store's errors say to a client.

use gantry_api::ApiError;
use gantry_store::StoreError;

/// An error that is nobody's conflict.
pub(crate) fn store(error: StoreError) -> ApiError {
    match &error {
        StoreError::TooLarge { .. } => ApiError::too_large(error),
        StoreError::Compacted { .. } => {
            ApiError::expired("The resourceVersion for the provided list is too old.")
        }
        StoreError::FutureRevision { requested, current } => {
            crate::cache::too_large_revision(*requested, *current)
        }
        StoreError::Full { .. } => {
            tracing::error!(%error, "a write was refused");
            ApiError::new(507, "InsufficientStorage", error.to_string())
        }
        StoreError::Unreadable { .. } => {
            tracing::error!(%error, "a value cannot be sealed or opened");
            unreadable(&error)
        }
        // As upstream passes on what etcd says.
        StoreError::Unavailable(_) => {
            tracing::warn!(%error, "the store cannot do it now");
            ApiError::new(500, "", error.to_string())
        }
        StoreError::TimedOut(_) => {
            tracing::warn!(%error, "the store does not answer");
            ApiError::timeout(format!("request did not complete within requested timeout - {error}"), 0)
        }
        StoreError::Closed => ApiError::unavailable("the server is shutting down"),
        _ => {
            tracing::error!(%error, "the store failed");
            ApiError::internal(error)
        }
    }
}

/// A value that cannot be sealed or opened: as upstream passes on what its transformers say.
pub(crate) fn unreadable(error: &StoreError) -> ApiError {
    ApiError::new(500, "", error.to_string())
}
