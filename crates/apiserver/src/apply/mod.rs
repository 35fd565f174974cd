//! Patching, server-side apply and field validation: pure functions on JSON and a schema.

mod fields;
mod go_text;
mod go_time;
mod managed;
mod misfit;
mod patch;
mod scale;
mod scan;
mod server_side;
mod strategic;
mod strict;
#[cfg(test)]
mod tests;
mod typed;
mod walk;

pub(crate) use go_text::go_text;
pub(crate) use go_time::{base64_error, time_error};
pub(crate) use patch::{equal, json_patch_explained};
pub(crate) use typed::problems;
pub(crate) use walk::merge;

pub use fields::Step;
pub use managed::{
    MAX_UPDATE_MANAGERS, OneVersion, Owners, Reset, Versions, Writer, owners_after, update_managed_fields,
    validate_managed_fields,
};
pub use misfit::{Misfit, misfit};
pub use patch::{MAX_COPIED_BYTES, MAX_OPERATIONS, json_patch, merge_patch};
pub use scale::{ScaleMapping, scale_entries, with_scale_entries};
pub use scan::{Complaints, complaints};
pub use server_side::{Applied, LAST_APPLIED, apply};
pub use strategic::strategic_merge_patch;
pub use strict::{MAX_PROBLEMS, Read, duplicate_fields, read, unknown_fields, yaml_duplicates};
