//! Keeps `metadata.managedFields` up with every write.

use gantry_api::metav1::ManagedFieldsEntry;
use gantry_api::schema::Node;
use gantry_api::status::Result;
use gantry_api::{ApiError, time};
use gantry_kinds::AnyObject;
use serde_json::Value;

use crate::apply::{self, Owners, Reset, Step, Versions, Writer};
use crate::query::WriteOptions;
use crate::resources::{Conversion, Served, Version};
use crate::verbs::Call;
use crate::verbs::write::Current;

const EPHEMERAL_CONTAINERS: &[&[Step]] = &[&[Step::Field("spec"), Step::Field("ephemeralContainers")]];
const RESIZE: &[&[Step]] = &[
    &[Step::Field("spec"), Step::Field("containers"), Step::Any, Step::Field("resources")],
    &[Step::Field("spec"), Step::Field("containers"), Step::Any, Step::Field("resizePolicy")],
    &[Step::Field("spec"), Step::Field("initContainers"), Step::Any, Step::Field("resources")],
    &[Step::Field("spec"), Step::Field("initContainers"), Step::Any, Step::Field("resizePolicy")],
];

/// The fields that an endpoint does not let a client set.
pub(crate) fn reset_fields(call: &Call<'_>) -> Reset<'static> {
    let is_pod = call.served.resource().group.is_empty() && call.served.resource().plural == "pods";
    match call.subresource {
        "ephemeralcontainers" if is_pod => Reset::AllBut(EPHEMERAL_CONTAINERS),
        "resize" if is_pod => Reset::AllBut(RESIZE),
        "finalize" => Reset::Fields(gantry_kinds::kind::STATUS),
        subresource => Reset::Fields(call.served.kind.reset_fields(subresource)),
    }
}

/// The present in the form that the entries have.
pub(crate) fn timestamp(call: &Call<'_>) -> String {
    time::time(call.core.now()).0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Calls `with` with who writes, and as what.
pub(crate) fn as_writer<T>(
    call: &Call<'_>,
    options: &WriteOptions,
    with: impl FnOnce(&Writer<'_>) -> T,
) -> T {
    with(&Writer {
        manager: options.manager(),
        api_version: &call.served.resource().api_version(),
        subresource: call.subresource,
        time: &timestamp(call),
        reset: reset_fields(call),
        others: &Others(&call.served),
    })
}

/// The versions of a resource that are served beside that of the request.
struct Others<'a>(&'a Served);

impl Others<'_> {
    fn find(&self, api_version: &str) -> Option<&Version> {
        self.0.entry.versions.iter().find(|v| v.kind.resource().api_version() == api_version)
    }
}

impl Versions for Others<'_> {
    fn node(&self, api_version: &str) -> Option<Node<'_>> {
        self.find(api_version).map(|version| version.kind.schema())
    }

    /// Built-in kinds convert as they are stored. The versions of custom resources are taken to have their fields in
    /// the same places.
    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        let other = &self.find(api_version)?.conversion;
        let mut bytes = object.to_string().into_bytes();
        if let Conversion::Kind(stored) = &self.0.conversion {
            bytes = (stored.write)(&bytes).ok()?;
        }
        if let Conversion::Kind(stored) = other {
            bytes = (stored.read)(&bytes).ok()?;
        }
        serde_json::from_slice(&bytes).ok()
    }
}

/// Notes in `new`, complete with defaults, who wrote what; `current` is the object before. What admission does to the
/// object afterwards, and what the kind itself does, is nobody's.
///
/// # Errors
/// 500 if the entries cannot be read back.
pub(crate) fn track(
    call: &Call<'_>,
    new: &mut dyn AnyObject,
    current: Option<&Current>,
    options: &WriteOptions,
) -> Result<()> {
    let bytes = new.encode();
    if current.is_some_and(|current| current.bytes == bytes) {
        return Ok(());
    }
    let mut tree: Value = serde_json::from_slice(&bytes).map_err(ApiError::internal)?;
    let live = current.map(Current::tree).transpose()?;
    let owners = as_writer(call, options, |writer| {
        apply::owners_after(live, &mut tree, writer, call.served.kind.schema())
    });
    new.metadata_mut().managed_fields = match owners {
        Owners::AsBefore => current.and_then(|c| c.object.metadata().managed_fields.clone()),
        Owners::Are(entries) => read_entries(entries)?,
        Owners::Nobody => None,
    };
    Ok(())
}

/// `managedFields` of a tree as an object has them.
///
/// # Errors
/// 500
pub(crate) fn read_entries(list: Value) -> Result<Option<Vec<ManagedFieldsEntry>>> {
    if list.is_null() {
        return Ok(None);
    }
    let list: Vec<ManagedFieldsEntry> = serde_json::from_value(list)
        .map_err(|e| ApiError::internal(format!("managedFields cannot be read back: {e}")))?;
    Ok((!list.is_empty()).then_some(list))
}

/// Puts back the `managedFields` that were there `before` if admission left some that cannot be read.
pub(crate) fn check_after_admission(
    call: &Call<'_>,
    object: &mut dyn AnyObject,
    before: Option<Vec<ManagedFieldsEntry>>,
) {
    let fields = &mut object.metadata_mut().managed_fields;
    if *fields == before {
        return;
    }
    let valid =
        serde_json::to_value(&*fields).map_err(|e| e.to_string()).and_then(apply::validate_managed_fields);
    if let Err(why) = valid {
        call.warnings.add(format!(
            ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: {why}"
        ));
        *fields = before;
    }
}

/// Whether `new` differs from `old` in nothing but the times of its entries.
pub(crate) fn same_but_times(new: Option<&[ManagedFieldsEntry]>, old: Option<&[ManagedFieldsEntry]>) -> bool {
    let (Some(new), Some(old)) = (new, old) else { return false };
    let untimed = |entry: &ManagedFieldsEntry| ManagedFieldsEntry { time: None, ..entry.clone() };
    new.len() == old.len() && new != old && new.iter().zip(old).all(|(new, old)| untimed(new) == untimed(old))
}
