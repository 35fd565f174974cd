//! Deletion of the kinds that contain others: the first request only marks a namespace or a definition, and a
//! controller empties it.

use std::time::SystemTime;

use gantry_api::apiextensions::{CustomResourceDefinition, CustomResourceDefinitionCondition};
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_api::{ApiError, conditions, core, time};
use gantry_kinds::AnyObject;

use super::Call;
use super::delete::{FOREGROUND, ORPHAN, Options, policy};
use crate::custom::FINALIZER;

/// What becomes of the object.
pub(super) enum Decision {
    /// It was changed in place.
    Mark,
    /// It stays as it is until its controller is done.
    Wait,
    /// It goes as all other kinds do.
    Ordinary,
}

/// Whether the object of this call is deleted in this way.
pub(super) fn applies(call: &Call<'_>) -> bool {
    let resource = call.served.resource();
    matches!(
        (&*resource.group, &*resource.plural),
        ("", "namespaces") | ("apiextensions.k8s.io", "customresourcedefinitions")
    )
}

/// Checks UID and revision that the options name; these kinds have words of their own.
///
/// # Errors
/// 409
pub(super) fn check_preconditions(
    call: &Call<'_>,
    options: &Options,
    uid: &str,
    revision: u64,
) -> Result<()> {
    let revision = revision.to_string();
    let checks =
        [("UID", options.uid.as_deref(), uid), ("ResourceVersion", options.revision.as_deref(), &revision)];
    for (what, wanted, found) in checks {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            );
            return Err(ApiError::conflict(call.served.resource(), call.name, why));
        }
    }
    Ok(())
}

/// Marks the object if this is its first deletion.
pub(super) fn decide(object: &mut dyn AnyObject, options: &Options, now: SystemTime) -> Decision {
    if let Some(namespace) = object.downcast_mut::<core::Namespace>() {
        return namespace_decision(namespace, options, now);
    }
    match object.downcast_mut::<CustomResourceDefinition>() {
        Some(definition) if !definition.is_terminating() => {
            mark_definition(definition, now);
            Decision::Mark
        }
        _ => Decision::Ordinary,
    }
}

/// A later deletion of a namespace waits for the finalizers of its spec.
fn namespace_decision(namespace: &mut core::Namespace, options: &Options, now: SystemTime) -> Decision {
    if namespace.is_terminating() {
        let kept = namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_some_and(|f| !f.is_empty());
        return if kept { Decision::Wait } else { Decision::Ordinary };
    }
    namespace.metadata.deletion_timestamp = Some(time::time(now));
    namespace.status.get_or_insert_default().phase = Some("Terminating".into());
    let mut finalizers = namespace.metadata.finalizers.take().unwrap_or_default();
    let policy = policy(options);
    if policy.is_some() {
        finalizers.retain(|f| f != ORPHAN && f != FOREGROUND);
    }
    match policy {
        Some("Orphan") => finalizers.push(ORPHAN.into()),
        Some("Foreground") => finalizers.push(FOREGROUND.into()),
        _ => {}
    }
    namespace.metadata.finalizers = (!finalizers.is_empty()).then_some(finalizers);
    Decision::Mark
}

/// The finalizer keeps the definition until its objects are gone: it comes with the deletion, so that no definition
/// goes without it, however soon it is deleted.
fn mark_definition(definition: &mut CustomResourceDefinition, now: SystemTime) {
    definition.metadata.deletion_timestamp = Some(time::time(now));
    if !definition.has_finalizer(FINALIZER) {
        definition.metadata.finalizers.get_or_insert_default().push(FINALIZER.into());
    }
    let condition = CustomResourceDefinitionCondition {
        type_: "Terminating".into(),
        status: "True".into(),
        reason: Some("InstanceDeletionPending".into()),
        message: Some(
            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon".into(),
        ),
        last_transition_time: Some(time::time(now)),
        ..CustomResourceDefinitionCondition::default()
    };
    conditions::set(&mut definition.status.get_or_insert_default().conditions, condition);
}
