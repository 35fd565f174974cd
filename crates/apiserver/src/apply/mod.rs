//! Patching, server-side apply and field validation: pure functions on JSON and a schema.

mod go_text;
mod patch;
mod strategic;
#[cfg(test)]
mod tests;

pub use patch::{MAX_COPIED_BYTES, MAX_OPERATIONS, json_patch, merge_patch};
pub use strategic::strategic_merge_patch;
