//! What happens to every object's metadata, whatever its kind: `registry/rest` and `registry/generic` upstream.

use std::time::SystemTime;

use gantry_api::field::Error;
use gantry_api::metav1::{ObjectMeta, OwnerReference};
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource, core, time};
use gantry_kinds::{AnyObject, rules};

use super::write::{Change, Current};
use super::{Call, preconditions};
use crate::admission::{AdmissionPlugin, Body, Operation, Passes, VerbOptions, chain};
use crate::query::WriteOptions;
use crate::{custom, managed};

/// What an update changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but the status.
    Main,
    /// The status.
    Status,
    /// What the kind itself makes of a subresource.
    Named(&'static str),
}

impl Part {
    /// The part that a subresource without a body of its own stands for.
    pub(crate) fn of(call: &Call<'_>) -> Result<Self> {
        let resource = call.served.resource();
        match call.subresource {
            "" => Ok(Self::Main),
            "status" if call.served.kind.verbs().status => Ok(Self::Status),
            "finalize" if resource.group.is_empty() && resource.plural == "namespaces" => {
                Ok(Self::Named("finalize"))
            }
            "approval" if resource.plural == "certificatesigningrequests" => Ok(Self::Named("approval")),
            "ephemeralcontainers" if is_pod(resource) => Ok(Self::Named("ephemeralcontainers")),
            "resize" if is_pod(resource) => Ok(Self::Named("resize")),
            _ => Err(no_such_part(call)),
        }
    }
}

/// 404 for a subresource that there is not, 405 for one that knows other verbs.
pub(crate) fn no_such_part(call: &Call<'_>) -> ApiError {
    let verbs = call.served.kind.verbs();
    let is_known = match call.subresource {
        "status" => verbs.status,
        "scale" => verbs.scale,
        part => verbs.connect.contains(&part),
    };
    if is_known { ApiError::no_such_verb() } else { ApiError::no_such_path() }
}

fn is_pod(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "pods"
}

/// Puts the namespace of the request into the object, or refuses another one.
///
/// # Errors
/// 400
pub(crate) fn ensure_namespace(call: &Call<'_>, meta: &mut ObjectMeta) -> Result<()> {
    let expected = if call.served.resource().namespaced { call.namespace } else { "" };
    match meta.namespace.as_deref().unwrap_or("") {
        _ if expected.is_empty() => meta.namespace = None,
        "" => meta.namespace = Some(expected.to_owned()),
        found if found == expected => {}
        _ => {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// Leaves out what is empty, as `omitempty` does: a patch that empties the owners leaves no `ownerReferences: []`.
pub(crate) fn omit_empty(meta: &mut ObjectMeta) {
    meta.owner_references.take_if(|owners| owners.is_empty());
    meta.finalizers.take_if(|finalizers| finalizers.is_empty());
    meta.labels.take_if(|labels| labels.is_empty());
    meta.annotations.take_if(|annotations| annotations.is_empty());
}

/// Takes out of a new object what only the server may say.
pub(crate) fn wipe_system_fields(meta: &mut ObjectMeta) {
    meta.uid = None;
    meta.creation_timestamp = None;
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.self_link = None;
    if meta.generate_name.as_deref() == Some("") {
        meta.generate_name = None;
    }
}

/// Fills in what only the server may say of a new object.
pub(crate) fn fill_new(meta: &mut ObjectMeta, now: SystemTime) {
    meta.uid = Some(new_uid());
    meta.creation_timestamp = Some(time::time(now));
    meta.generation = None;
}

/// Drops owners that are named twice, with a warning.
pub(crate) fn dedup_owners(call: &Call<'_>, meta: &mut ObjectMeta, after_admission: bool) {
    let Some(owners) = meta.owner_references.as_mut().filter(|owners| owners.len() > 1) else { return };
    let mut kept: Vec<OwnerReference> = Vec::with_capacity(owners.len());
    let mut duplicates: Vec<String> = Vec::new();
    for owner in owners.drain(..) {
        if kept.contains(&owner) {
            duplicates.push(owner.uid);
        } else {
            kept.push(owner);
        }
    }
    *owners = kept;
    if !duplicates.is_empty() {
        let when = if after_admission { " after mutating admission happens" } else { "" };
        call.warnings.add(format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            duplicates.join(", ")
        ));
    }
}

/// A random (version 4) UUID.
pub(crate) fn new_uid() -> String {
    let mut b: [u8; 16] = rand::random();
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in b.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])));
    }
    text
}

/// Longest base of a generated name.
const MAX_NAME_BASE: usize = 63 - 5;

/// `base` and five characters that make no words.
pub(crate) fn generated_name(base: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut end = base.len().min(MAX_NAME_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    name.extend((0..5).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])));
    name
}

/// Checks a new object.
///
/// # Errors
/// 422 with all complaints.
pub(crate) fn validate_new(call: &Call<'_>, object: &dyn AnyObject) -> Result<()> {
    let kind = &call.served.kind;
    let mut errors = rules::validate_metadata(object.metadata(), kind.resource(), kind.name_rule());
    kind.validate_beside(object, &mut errors);
    errors.extend(custom::schema_errors(object, None, errors.is_empty()));
    refuse(call, object, &errors)?;
    for warning in kind.warnings(object) {
        call.warnings.add(warning);
    }
    Ok(())
}

fn refuse(call: &Call<'_>, object: &dyn AnyObject, errors: &[Error]) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    let name = object.metadata().name.as_deref().unwrap_or("");
    // A custom resource may be refused for the kind that it says it is.
    let kind = object.to_value()["kind"].as_str().unwrap_or_default().to_owned();
    Err(ApiError::invalid(&Resource { kind: kind.into(), ..call.served.resource().clone() }, name, errors))
}

/// Everything between a client's new object, complete with defaults and managed fields, and the commit of an update:
/// admission, the revision that it was made from, what may not change, checks, and whether the update removed the
/// last thing that kept a deleted object.
///
/// # Errors
/// What admission or validation says; 409 if the object is a newer one by now.
pub(crate) async fn update(
    call: &Call<'_>,
    part: Part,
    new: Box<dyn AnyObject>,
    current: &Current,
    options: &WriteOptions,
) -> Result<Change> {
    admitted(call, new, current, options, |new, old| before_update(call, part, new, old)).await
}

/// An update to what is there already, which was validated against itself before and is not again unless somebody
/// changes it on the way. Everybody who may refuse it is asked.
///
/// # Errors
/// As of [`update`].
pub(crate) async fn repeat(
    call: &Call<'_>,
    part: Part,
    current: &Current,
    options: &WriteOptions,
) -> Result<Change> {
    let mut stays = false;
    let new = current.object.clone_box();
    let change = admitted(call, new, current, options, |new, old| {
        stays = new.same_as(old);
        if stays { Ok(()) } else { before_update(call, part, new, old) }
    });
    let change = change.await?;
    Ok(if stays { Change::Keep } else { change })
}

/// The way of an update through admission, with `check` where validation has its place.
async fn admitted(
    call: &Call<'_>,
    mut new: Box<dyn AnyObject>,
    current: &Current,
    options: &WriteOptions,
    check: impl FnOnce(&mut dyn AnyObject, &dyn AnyObject) -> Result<()>,
) -> Result<Change> {
    let old = &*current.object;
    let passes = Passes::default();
    let admission = call.admission(Operation::Update, call.name, VerbOptions::Write(options), &passes);
    let entries = new.metadata().managed_fields.clone();
    let plugins = admitting(call, Operation::Update);
    chain::mutate(&plugins, &admission, &mut *new, Some(old)).await?;
    ensure_namespace(call, new.metadata_mut())?;
    managed::check_after_admission(call, &mut *new, entries);
    dedup_owners(call, new.metadata_mut(), true);
    preconditions::check_revision(call, new.metadata(), current.revision)?;
    for plugin in &plugins {
        plugin.allocate(&admission, &mut *new, Some(old)).await?;
    }
    check(&mut *new, old)?;
    // Whoever judges an update that names no revision sees the one that it is made to.
    if matches!(new.metadata().resource_version.as_deref(), None | Some("" | "0")) {
        new.metadata_mut().resource_version = Some(current.revision.to_string());
    }
    chain::validate(&plugins, &admission, Some(&*new), Some(old)).await?;
    Ok(put_or_remove(new, old))
}

/// An update of an object through a body of another kind, which was admitted already.
///
/// # Errors
/// What validation says; 409 if the object is a newer one by now.
pub(crate) fn update_admitted(
    call: &Call<'_>,
    mut new: Box<dyn AnyObject>,
    current: &Current,
) -> Result<Change> {
    let old = &*current.object;
    preconditions::check_revision(call, new.metadata(), current.revision)?;
    before_update(call, Part::Main, &mut *new, old)?;
    Ok(put_or_remove(new, old))
}

/// An update that the server makes by itself: nobody is asked whether it may.
///
/// # Errors
/// What validation says.
pub(crate) fn update_internally(
    call: &Call<'_>,
    part: Part,
    mut new: Box<dyn AnyObject>,
    current: &Current,
) -> Result<Change> {
    before_update(call, part, &mut *new, &*current.object)?;
    Ok(Change::Put(new))
}

/// Admission of a body of another kind.
///
/// # Errors
/// What admission says.
pub(crate) async fn admit_body(
    call: &Call<'_>,
    operation: Operation,
    options: VerbOptions<'_>,
    body: &mut Body,
) -> Result<()> {
    let passes = Passes::default();
    let admission = call.admission(operation, call.name, options, &passes);
    chain::admit_body(&admitting(call, operation), &admission, body).await
}

/// The plugins that want to see such a request.
pub(crate) fn admitting<'a>(call: &'a Call<'_>, operation: Operation) -> Vec<&'a dyn AdmissionPlugin> {
    let (resource, subresource) = (call.served.resource(), call.subresource);
    let plugins = call.core.parts.admission.iter().map(|plugin| &**plugin);
    plugins.filter(|plugin| plugin.handles(operation, resource, subresource)).collect()
}

fn before_update(call: &Call<'_>, part: Part, new: &mut dyn AnyObject, old: &dyn AnyObject) -> Result<()> {
    let kind = &call.served.kind;
    new.metadata_mut().generation = old.metadata().generation;
    match part {
        Part::Main => kind.prepare_update(new, old),
        Part::Status => kind.prepare_status_update(new, old),
        Part::Named(part) => kind.prepare_part_update(part, new, old),
    }
    if part != Part::Main {
        kind.note_time(new, old, call.core.now());
    }
    keep_metadata(new.metadata_mut(), old.metadata());
    let mut errors = rules::validate_metadata_update(new.metadata(), old.metadata());
    match part {
        Part::Main => {
            errors.extend(rules::validate_updated_finalizers(new.metadata(), kind.resource()));
            kind.validate_replacement_beside(new, old, &mut errors);
            errors.extend(custom::schema_errors(new, Some(old), errors.is_empty()));
        }
        Part::Status => kind.validate_status_beside(new, old, &mut errors),
        Part::Named(part) => errors.extend(kind.validate_part_update(part, new, old)),
    }
    refuse(call, new, &dedupe(errors))?;
    if part == Part::Main {
        for warning in kind.update_warnings(new, old) {
            call.warnings.add(warning);
        }
    }
    Ok(())
}

/// The new object in itself and the step from the old one may bring up the same complaint.
fn dedupe(errors: Vec<Error>) -> Vec<Error> {
    let mut seen = std::collections::HashSet::new();
    errors.into_iter().filter(|e| seen.insert(e.to_string())).collect()
}

fn keep_metadata(new: &mut ObjectMeta, old: &ObjectMeta) {
    if new.uid.as_deref().unwrap_or("").is_empty() {
        new.uid.clone_from(&old.uid);
    }
    if old.creation_timestamp.is_some() {
        new.creation_timestamp.clone_from(&old.creation_timestamp);
    }
    if old.deletion_timestamp.is_some() {
        new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    }
    if new.deletion_grace_period_seconds.is_none() {
        new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
    new.self_link = None;
}

fn put_or_remove(new: Box<dyn AnyObject>, old: &dyn AnyObject) -> Change {
    if is_finished(&*new, old) { Change::Remove(new) } else { Change::Put(new) }
}

/// Whether nothing keeps the object any more: its deletion was asked for, its time is over and its last finalizer
/// is gone.
fn is_finished(new: &dyn AnyObject, old: &dyn AnyObject) -> bool {
    let old_meta = old.metadata();
    let spec_finalizers = new.downcast::<core::Namespace>().is_some_and(|namespace| {
        namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_some_and(|f| !f.is_empty())
    });
    !spec_finalizers
        && new.metadata().finalizers.as_ref().is_none_or(Vec::is_empty)
        && old_meta.deletion_timestamp.is_some()
        && old_meta.deletion_grace_period_seconds.unwrap_or(0) == 0
}
