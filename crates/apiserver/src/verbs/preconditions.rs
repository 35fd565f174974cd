//! What an update names of the object that it was made from: UID and revision; and what a PUT or an apply of something
//! that is not there needs.

use gantry_api::field::{Error, Path};
use gantry_api::metav1::ObjectMeta;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};

use super::Call;
use crate::route::RequestInfo;

/// The name of an object in upstream's store, which some messages name.
fn storage_key(call: &Call<'_>) -> String {
    let resource = call.served.resource();
    let own_group = call.served.entry.custom
        || matches!(&*resource.group, "apiextensions.k8s.io" | "apiregistration.k8s.io");
    let collection = match (&*resource.group, &*resource.plural) {
        (group, plural) if own_group => format!("{group}/{plural}"),
        ("", "nodes") => "minions".to_owned(),
        ("", "services") => "services/specs".to_owned(),
        ("", "endpoints") => "services/endpoints".to_owned(),
        ("", "replicationcontrollers") => "controllers".to_owned(),
        ("networking.k8s.io", "ingresses") => "ingress".to_owned(),
        (_, plural) => plural.to_owned(),
    };
    let namespace = if call.namespace.is_empty() { String::new() } else { format!("{}/", call.namespace) };
    format!("/registry/{collection}/{namespace}{}", call.name)
}

fn failed_precondition(call: &Call<'_>, what: &str, wanted: &str, found: &str) -> ApiError {
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}",
        storage_key(call)
    );
    ApiError::conflict(call.served.resource(), call.name, why)
}

/// Checks the UID that an update names against the stored one.
///
/// # Errors
/// 409
pub(crate) fn check_uid(call: &Call<'_>, new: &ObjectMeta, current: &ObjectMeta) -> Result<()> {
    let wanted = new.uid.as_deref().unwrap_or("");
    let found = current.uid.as_deref().unwrap_or("");
    if wanted.is_empty() || wanted == found {
        return Ok(());
    }
    Err(failed_precondition(call, "UID", wanted, found))
}

/// An update that is to create may not name a UID.
///
/// # Errors
/// 409
pub(crate) fn check_no_uid(call: &Call<'_>, new: &ObjectMeta) -> Result<()> {
    check_uid(call, new, &ObjectMeta::default())
}

/// Checks UID and revision where both are preconditions (a binding's).
///
/// # Errors
/// 409
pub(crate) fn check_both(
    call: &Call<'_>,
    wanted: &ObjectMeta,
    current: &ObjectMeta,
    revision: u64,
) -> Result<()> {
    check_uid(call, wanted, current)?;
    let found = revision.to_string();
    match wanted.resource_version.as_deref() {
        None | Some("") => Ok(()),
        Some(wanted) if wanted == found => Ok(()),
        Some(wanted) => Err(failed_precondition(call, "ResourceVersion", wanted, &found)),
    }
}

/// Whoever creates by an update or an apply needs to be allowed to create as well.
///
/// # Errors
/// 403
pub(crate) async fn authorize_create(call: &Call<'_>) -> Result<()> {
    let resource = call.served.resource();
    let info = RequestInfo {
        is_resource: true,
        verb: "create",
        group: resource.group.to_string(),
        version: resource.version.to_string(),
        resource: resource.plural.to_string(),
        subresource: call.subresource.to_owned(),
        namespace: call.namespace.to_owned(),
        name: call.name.to_owned(),
        name_in_path: true,
        ..RequestInfo::default()
    };
    call.core.authorize(call.user, &info).await
}

/// Checks the `resourceVersion` that an update names against what is stored.
///
/// # Errors
/// 409, or 422 where the kind wants a `resourceVersion`.
pub(crate) fn check_revision(call: &Call<'_>, new: &ObjectMeta, revision: u64) -> Result<()> {
    let resource = call.served.resource();
    match new.resource_version.as_deref().unwrap_or("") {
        "" | "0" if unconditional(call) => Ok(()),
        "" | "0" => {
            let path = Path::new("metadata").child("resourceVersion");
            let error = Error::invalid(&path, 0, "must be specified for an update");
            let by_plural = Resource { kind: resource.plural.clone(), ..resource.clone() };
            Err(ApiError::invalid(&by_plural, call.name, &[error]))
        }
        text => match text.parse::<u64>() {
            Ok(wanted) if wanted == revision => Ok(()),
            Ok(_) => Err(ApiError::stale(resource, call.name)),
            Err(_) => {
                let quoted = gantry_api::field::quote(text);
                let why = format!("strconv.ParseUint: parsing {quoted}: invalid syntax");
                Err(ApiError::new(500, "", why))
            }
        },
    }
}

fn unconditional(call: &Call<'_>) -> bool {
    call.served.kind.unconditional_update()
}

/// Whether a PUT of what is not there creates it.
pub(crate) fn may_create_by_update(call: &Call<'_>) -> bool {
    call.subresource.is_empty() && call.served.kind.create_on_update()
}
