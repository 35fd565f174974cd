//! Keeps `metadata.managedFields` up with every write.

use gantry_api::metav1::ManagedFieldsEntry;
use gantry_api::status::Result;
use gantry_api::{ApiError, time};
use gantry_kinds::AnyObject;
use serde_json::Value;

use crate::apply::{Writer, update_managed_fields};
use crate::query::WriteOptions;
use crate::verbs::Call;

/// The fields that an endpoint does not let a client set.
pub(crate) fn reset_fields(call: &Call<'_>) -> &'static [&'static [&'static str]] {
    call.served.kind.reset_fields(call.subresource)
}

/// The present in the form that the entries have.
pub(crate) fn timestamp(call: &Call<'_>) -> String {
    time::time(call.core.now()).0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Notes in `new` who wrote what; `old` is the object before.
///
/// # Errors
/// 500 if the entries cannot be read back.
pub(crate) fn track(
    call: &Call<'_>,
    new: &mut dyn AnyObject,
    old: Option<&dyn AnyObject>,
    options: &WriteOptions,
) -> Result<()> {
    let api_version = call.served.resource().api_version();
    let now = timestamp(call);
    let writer = Writer {
        manager: options.manager(),
        api_version: &api_version,
        subresource: call.subresource,
        time: &now,
        reset: reset_fields(call),
    };
    let live = old.map(|o| o.to_value());
    let mut tree = new.to_value();
    update_managed_fields(live.as_ref(), &mut tree, &writer, call.served.kind.schema());
    new.metadata_mut().managed_fields = entries(&mut tree)?;
    Ok(())
}

fn entries(tree: &mut Value) -> Result<Option<Vec<ManagedFieldsEntry>>> {
    match tree.pointer_mut("/metadata/managedFields").map(Value::take) {
        None | Some(Value::Null) => Ok(None),
        Some(list) => {
            let list: Vec<ManagedFieldsEntry> = serde_json::from_value(list)
                .map_err(|e| ApiError::internal(format!("managedFields cannot be read back: {e}")))?;
            Ok((!list.is_empty()).then_some(list))
        }
    }
}
