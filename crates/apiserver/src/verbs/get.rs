//! GET of one object.

use std::sync::Arc;

use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded};

use super::Call;

/// The object as it is now. In the watch cache's own copy, if that is as new.
///
/// # Errors
/// 404 if there is none.
pub(crate) async fn get(call: &Call<'_>) -> Result<Arc<Encoded>> {
    let key = call.key();
    let read = call.stored(call.core.store.get(&key, None)).await.map_err(crate::errors::store)?;
    let item = read.item.ok_or_else(|| ApiError::not_found(call.served.resource(), call.name))?;
    let cached = call.served.entry.cache.get(&key).filter(|e| e.encoded.revision() == item.modified);
    let encoded = match cached {
        Some(entry) => Arc::clone(&entry.encoded),
        None => Arc::new(Encoded::new(item.value, item.modified)),
    };
    call.served.fetched(&call.core.callout, &encoded).await
}

/// The object as it is now, `None` if there is none.
///
/// # Errors
/// Whatever the store says.
pub(crate) async fn find(call: &Call<'_>) -> Result<Option<Arc<Encoded>>> {
    match get(call).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
