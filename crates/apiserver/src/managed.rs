//! Keeps `metadata.managedFields` up with every write.

use std::sync::Arc;

use gantry_api::metav1::ManagedFieldsEntry;
use gantry_api::schema::Node;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource, time};
use gantry_kinds::AnyObject;
use parking_lot::Mutex;
use serde_json::Value;

use crate::apply::{self, Owners, Reset, Step, Versions, Writer};
use crate::core::Core;
use crate::limits::MANAGER_CONVERSIONS;
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
    at_seconds(call.core.now())
}

fn at_seconds(now: std::time::SystemTime) -> String {
    time::time(now).0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Calls `with` with who writes, and as what; `others` are the versions of what is written.
pub(crate) fn as_writer_among<T>(
    call: &Call<'_>,
    options: &WriteOptions,
    others: &dyn Versions,
    with: impl FnOnce(&Writer<'_>) -> T,
) -> T {
    with(&Writer {
        manager: options.manager(),
        api_version: &call.served.resource().api_version(),
        subresource: call.subresource,
        time: &timestamp(call),
        reset: reset_fields(call),
        others,
    })
}

/// Calls `with` with who writes, and as what: again and again if it has to know what a conversion webhook makes of an
/// object, until it knows. It computes, and nothing else.
///
/// # Errors
/// The webhook fails, or would have to be asked too often.
pub(crate) async fn as_writer<T>(
    call: &Call<'_>,
    options: &WriteOptions,
    mut with: impl FnMut(&Writer<'_>) -> T + Send,
) -> Result<T> {
    let mut known = Vec::new();
    for _ in 0..MANAGER_CONVERSIONS {
        let (outcome, wanted) = {
            let others = Others { served: &call.served, known: &known, wanted: Mutex::default() };
            let outcome = as_writer_among(call, options, &others, &mut with);
            (outcome, others.wanted.into_inner())
        };
        let Some(converter) = call.served.converter().filter(|_| !wanted.is_empty()) else {
            return Ok(outcome);
        };
        for Wanted { object, to } in wanted {
            let found = converter.convert(&call.core.callout, vec![object.clone()], &to).await?;
            known.push(Converted { object, to, found: found.into_iter().next() });
        }
    }
    Err(ApiError::internal("the versions of the managers of fields need too many conversions"))
}

/// An object that is needed in another version.
#[derive(PartialEq)]
struct Wanted {
    object: Value,
    to: String,
}

/// An object, and what a webhook made of it.
struct Converted {
    object: Value,
    to: String,
    found: Option<Value>,
}

/// The versions of a resource that are served beside that of the request.
struct Others<'a> {
    served: &'a Served,
    /// What webhooks made of objects so far.
    known: &'a [Converted],
    /// What they would have to be asked.
    wanted: Mutex<Vec<Wanted>>,
}

impl Others<'_> {
    fn find(&self, api_version: &str) -> Option<&Version> {
        self.served.entry.versions.iter().find(|v| v.kind.resource().api_version() == api_version)
    }

    /// What a webhook makes of an object; `None` if it was not asked yet.
    fn asked(&self, object: &Value, to: &str) -> Option<Value> {
        let mut object = object.clone();
        // Who owns what is no matter of converters.
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        if let Some(known) = self.known.iter().find(|known| known.to == to && known.object == object) {
            return known.found.clone();
        }
        let mut wanted = self.wanted.lock();
        let question = Wanted { object, to: to.to_owned() };
        if !wanted.contains(&question) {
            wanted.push(question);
        }
        None
    }
}

impl Versions for Others<'_> {
    fn node(&self, api_version: &str) -> Option<Node<'_>> {
        self.find(api_version).map(|version| version.kind.schema())
    }

    /// Built-in kinds convert as they are stored, custom resources by their webhook or by their `apiVersion` alone.
    fn convert(&self, object: &Value, to: &str) -> Option<Value> {
        // Nothing is nothing in any version.
        let Some(from) = object.get("apiVersion").and_then(Value::as_str) else {
            return Some(object.clone());
        };
        let target = self.find(to)?;
        if from == to {
            return Some(object.clone());
        }
        let stored_by = |conversion: &Conversion| match conversion {
            Conversion::Kind(stored) => Some(Arc::clone(stored)),
            _ => None,
        };
        match &target.conversion {
            Conversion::Custom(Some(_)) => return self.asked(object, to),
            Conversion::Custom(None) => {
                let mut object = object.clone();
                object["apiVersion"] = to.into();
                return Some(object);
            }
            _ => {}
        }
        let mut bytes = object.to_string().into_bytes();
        if let Some(stored) = stored_by(&self.find(from)?.conversion) {
            bytes = (stored.write)(&bytes).ok()?;
        }
        if let Some(stored) = stored_by(&target.conversion) {
            bytes = (stored.read)(&bytes).ok()?;
        }
        serde_json::from_slice(&bytes).ok()
    }
}

/// Notes in `new`, complete with defaults, who wrote what; `current` is the object before. What admission does to the
/// object afterwards, and what the kind itself does, is nobody's.
///
/// If the versions of other managers cannot be known, nobody owns anything any more, as upstream has it.
///
/// # Errors
/// 500 if the entries cannot be read back.
pub(crate) async fn track(
    call: &Call<'_>,
    new: &mut dyn AnyObject,
    current: Option<&Current>,
    options: &WriteOptions,
) -> Result<()> {
    let bytes = new.encode();
    if current.is_some_and(|current| current.bytes == bytes) {
        return Ok(());
    }
    let tree: Value = serde_json::from_slice(&bytes).map_err(ApiError::internal)?;
    let live = current.map(Current::tree).transpose()?;
    let (node, mut first) = (call.served.kind.schema(), Some(tree));
    let owners = as_writer(call, options, |writer| {
        // What the client wishes is taken out of the tree: the next time it is read anew.
        let again = || serde_json::from_slice(&bytes).unwrap_or_default();
        apply::owners_after(live, &mut first.take().unwrap_or_else(again), writer, node)
    });
    let owners = owners.await.unwrap_or_else(|error| {
        tracing::warn!(%error, name = call.name, "the managers of an object are forgotten");
        Owners::Nobody
    });
    new.metadata_mut().managed_fields = match owners {
        Owners::AsBefore => current.and_then(|c| c.object.metadata().managed_fields.clone()),
        Owners::Are(entries) => read_entries(entries)?,
        Owners::Nobody => None,
    };
    Ok(())
}

/// Notes in a new object that nobody stores who wrote what.
pub(crate) fn track_virtual(core: &Core, mut object: Value, resource: &Resource, manager: &str) -> Value {
    let definition = gantry_api::schema::lookup_kind(&resource.group, &resource.version, &resource.kind);
    let Some(node) = definition.map(|def| def.node()) else { return object };
    let api_version = resource.api_version();
    let writer = Writer {
        manager,
        api_version: &api_version,
        subresource: "",
        time: &at_seconds(core.now()),
        reset: Reset::Fields(&[]),
        others: &apply::OneVersion,
    };
    if let Owners::Are(entries) = apply::owners_after(None, &mut object, &writer, node) {
        object["metadata"]["managedFields"] = entries;
    }
    object
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
