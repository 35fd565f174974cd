//! The watch cache: the server's in-memory picture of each resource plus its recent events.

#[expect(clippy::module_inception, reason = "the file of the type of that name")]
mod cache;
mod cursor;
mod entry;
mod hub;
pub(crate) mod metrics;
mod recent;
mod ring;
mod selection;

pub(crate) use cache::Cache;
pub(crate) use cursor::{Cursor, Seen};
pub(crate) use entry::Entry;
pub(crate) use hub::{Hub, ROOT, too_large_revision};
pub(crate) use recent::SharedForm;
pub(crate) use selection::Selection;
