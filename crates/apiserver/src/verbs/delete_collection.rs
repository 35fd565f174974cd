//! DELETE of a collection.

use gantry_api::status::Result;

use super::Call;
use super::delete::{self, Options};
use super::list::{self, Page};
use crate::query::ListOptions;

/// Objects read at once (upstream's `deleteCollectionPageSize`).
const PAGE: usize = 10_000;

/// Deletes whatever the options pick; what is gone already is no error.
///
/// # Errors
/// The first refusal; objects before it are deleted.
pub(crate) async fn delete_collection(
    call: &Call<'_>,
    select: &ListOptions,
    options: &Options,
) -> Result<Page> {
    let mut select = select.clone();
    let options = &Options { of_collection: true, ..options.clone() };
    let one_page = select.limit > 0;
    if !one_page {
        select.limit = PAGE;
    }
    let mut all: Option<Page> = None;
    loop {
        let page = list::list(call, &select).await?;
        for entry in &page.entries {
            let object = call.on(entry.namespace(), entry.name());
            match delete::delete(&object, options).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        select.continue_token.clone_from(&page.continue_token);
        select.revision = None;
        select.version_match = None;
        let done = one_page || page.continue_token.is_empty();
        match &mut all {
            None => all = Some(page),
            Some(all) => all.entries.extend(page.entries),
        }
        if let Some(mut page) = all.take_if(|_| done) {
            if !one_page {
                page.continue_token.clear();
                page.remaining = None;
            }
            return Ok(page);
        }
    }
}
