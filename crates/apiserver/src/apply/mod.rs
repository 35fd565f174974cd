//! Patching, server-side apply and field validation: pure functions on JSON and a schema.

mod fields;
mod go_text;
mod managed;
mod patch;
mod server_side;
mod strategic;
mod strict;
#[cfg(test)]
mod tests;
mod typed;
mod walk;

pub(crate) use patch::{equal, json_patch_explained};

pub use managed::{MAX_UPDATE_MANAGERS, Writer, update_managed_fields};
pub use patch::{MAX_COPIED_BYTES, MAX_OPERATIONS, json_patch, merge_patch};
pub use server_side::{Applied, LAST_APPLIED, apply};
pub use strategic::strategic_merge_patch;
pub use strict::{MAX_PROBLEMS, duplicate_fields, unknown_fields};
