//! DELETE of an object: grace periods, finalizers, preconditions.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use gantry_api::field::{Error, Path, quote};
use gantry_api::metav1::{self, ObjectMeta, Status, StatusDetails};
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource, time};
use gantry_kinds::AnyObject;
use serde_json::Value;

use super::write::{Change, Current, Mutate, Written, modify};
use super::{Answer, Call, Input, decode, lifecycle, marked};
use crate::admission::{Operation, Passes, VerbOptions, chain};
use crate::limits::UPDATE_ATTEMPTS;
use crate::query::{Query, parse_dry_run};
use crate::warnings::Warnings;

pub(super) const ORPHAN: &str = "orphan";
pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// `DeleteOptions`
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) grace_period: Option<i64>,
    pub(crate) orphan_dependents: Option<bool>,
    pub(crate) propagation: Option<String>,
    pub(crate) uid: Option<String>,
    pub(crate) revision: Option<String>,
    pub(crate) dry_run: bool,
    /// Whether the object is one of a collection that is deleted: admission sees no name then.
    pub(crate) of_collection: bool,
}

impl Options {
    /// Reads them from the body, or without one from the query.
    ///
    /// # Errors
    /// 400 for what cannot be read, 422 for what makes no sense.
    pub(crate) fn read(input: &Input<'_>, query: &Query, warnings: &Warnings) -> Result<Self> {
        let options =
            if input.bytes.is_empty() { Self::from_query(query)? } else { Self::from_body(input, warnings)? };
        options.validate()?;
        Ok(options)
    }

    fn from_body(input: &Input<'_>, warnings: &Warnings) -> Result<Self> {
        let tree = decode::options(input)?;
        let text = |key: &str| tree.get(key).and_then(Value::as_str).unwrap_or("");
        let (version, kind) = (text("apiVersion"), text("kind"));
        if !kind.is_empty() && kind != "DeleteOptions" {
            let version = if version.is_empty() { "meta.k8s.io/v1" } else { version };
            return Err(ApiError::bad_request(format!(
                "no kind {} is registered for version {} in scheme \"pkg/apis/meta/internalversion/scheme/register.go:27\"",
                quote(kind),
                quote(version)
            )));
        }
        crate::audit::object_body(warnings, &tree);
        let options: metav1::DeleteOptions = serde_json::from_value(Value::Object(
            tree.as_object()
                .into_iter()
                .flatten()
                .filter(|(k, _)| *k != "apiVersion")
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        ))
        .map_err(|e| ApiError::bad_request(e.to_string()))?;
        let preconditions = options.preconditions.unwrap_or_default();
        let dry_run = options.dry_run.unwrap_or_default();
        let dry_run: Vec<&str> = dry_run.iter().map(String::as_str).collect();
        Ok(Self {
            grace_period: options.grace_period_seconds,
            orphan_dependents: options.orphan_dependents,
            propagation: options.propagation_policy,
            uid: preconditions.uid,
            revision: preconditions.resource_version,
            dry_run: parse_dry_run(&dry_run, "DeleteOptions")?,
            of_collection: false,
        })
    }

    fn from_query(query: &Query) -> Result<Self> {
        Ok(Self {
            grace_period: query.number("gracePeriodSeconds")?,
            orphan_dependents: query.get("orphanDependents").map(|_| query.flag("orphanDependents")),
            propagation: query.get("propagationPolicy").filter(|p| !p.is_empty()).map(str::to_owned),
            uid: query.get("uid").filter(|uid| !uid.is_empty()).map(str::to_owned),
            revision: query.get("resourceVersion").filter(|r| !r.is_empty()).map(str::to_owned),
            dry_run: parse_dry_run(&query.all("dryRun"), "DeleteOptions")?,
            of_collection: false,
        })
    }

    fn validate(&self) -> Result<()> {
        let path = Path::new("propagationPolicy");
        let mut errors = Vec::new();
        if let Some(policy) = self.propagation.as_deref() {
            if self.orphan_dependents.is_some() {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                errors.push(Error::invalid(&path, policy, why));
            }
            if !matches!(policy, "Foreground" | "Background" | "Orphan") {
                let known = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(Error::not_supported(&path, policy, &known));
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        let resource = Resource::fixed("meta.k8s.io", "v1", "DeleteOptions", "deleteoptions", false);
        Err(ApiError::invalid(&resource, "", &errors))
    }
}

/// Kinds whose deletion answers with the object rather than with a `Status` (`ReturnDeletedObject` upstream).
const RETURNED: [&str; 17] = [
    "namespaces",
    "persistentvolumes",
    "persistentvolumeclaims",
    "pods",
    "podtemplates",
    "resourcequotas",
    "services",
    "serviceaccounts",
    "deviceclasses",
    "resourceclaims",
    "resourceclaimtemplates",
    "resourceslices",
    "csidrivers",
    "csinodes",
    "storageclasses",
    "volumeattachments",
    "volumeattributesclasses",
];

/// Whether a deletion answers with the object even when it is gone.
pub(crate) fn returns_object(resource: &Resource) -> bool {
    let is_builtin =
        gantry_api::schema::lookup_kind(&resource.group, &resource.version, &resource.kind).is_some();
    is_builtin && RETURNED.contains(&&*resource.plural)
}

/// Deletes the object, or begins to.
///
/// # Errors
/// 403, 404, 409.
pub(crate) async fn delete(call: &Call<'_>, options: &Options) -> Result<Answer> {
    perform(call, options, true).await
}

/// Deletes the object for an eviction, which was admitted itself.
///
/// # Errors
/// 404, 409.
pub(crate) async fn delete_unadmitted(call: &Call<'_>, options: &Options) -> Result<Answer> {
    perform(call, options, false).await
}

/// Jobs leave their pods behind, which their users are told.
pub(crate) fn warn_of_orphans(call: &Call<'_>, options: &Options) {
    let resource = call.served.resource();
    if (&*resource.group, &*resource.plural) == ("batch", "jobs") && policy(options).is_none() {
        call.warnings.add("child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning");
    }
}

async fn perform(call: &Call<'_>, options: &Options, admitted: bool) -> Result<Answer> {
    warn_of_orphans(call, options);
    let mut deletion = Deletion { call, options, admitted, uid: String::new() };
    let written = modify(call, UPDATE_ATTEMPTS, options.dry_run, &mut deletion).await?;
    let code = if !written.removed && options.orphan_dependents == Some(false) { 202 } else { 200 };
    Ok(answer(call, code, written, deletion.uid))
}

fn answer(call: &Call<'_>, code: u16, written: Written, uid: String) -> Answer {
    let resource = call.served.resource();
    if !written.removed || returns_object(resource) {
        return Answer::object(code, written.object);
    }
    let details = StatusDetails {
        name: Some(call.name.to_owned()),
        group: (!resource.group.is_empty()).then(|| resource.group.to_string()),
        kind: Some(resource.plural.to_string()),
        uid: Some(uid),
        ..StatusDetails::default()
    };
    let status = Status { status: Some("Success".into()), details: Some(details), ..Status::default() };
    Answer::status(code, &status)
}

struct Deletion<'a> {
    call: &'a Call<'a>,
    options: &'a Options,
    /// Whether admission is asked.
    admitted: bool,
    uid: String,
}

#[async_trait]
impl Mutate for Deletion<'_> {
    async fn mutate(&mut self, current: Option<&Current>) -> Result<Change> {
        let call = self.call;
        let Some(current) = current else {
            return Err(ApiError::not_found(call.served.resource(), call.name));
        };
        let old = &*current.object;
        self.uid = old.metadata().uid.clone().unwrap_or_default();
        if let Some(why) = call.served.kind.refuse_deletion(old) {
            return Err(ApiError::forbidden(call.served.resource(), call.name, why));
        }
        check_preconditions(call, self.options, old.metadata(), current.revision)?;
        if self.admitted {
            let passes = Passes::default();
            let options = VerbOptions::Delete(self.options);
            let name = if self.options.of_collection { "" } else { call.name };
            let admission = call.admission(Operation::Delete, name, options, &passes);
            let plugins = lifecycle::admitting(call, Operation::Delete);
            chain::validate(&plugins, &admission, None, Some(old)).await?;
        }
        Ok(decide(call, self.options, old))
    }
}

/// Checks UID and revision that the options name.
///
/// # Errors
/// 409
pub(crate) fn check_preconditions(
    call: &Call<'_>,
    options: &Options,
    meta: &ObjectMeta,
    revision: u64,
) -> Result<()> {
    let stored_uid = meta.uid.as_deref().unwrap_or("");
    if marked::applies(call) {
        return marked::check_preconditions(call, options, stored_uid, revision);
    }
    let resource = Resource { plural: call.served.resource().kind.clone(), ..call.served.resource().clone() };
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != stored_uid) {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({stored_uid}). The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict(&resource, call.name, why));
    }
    let stored = revision.to_string();
    if let Some(wanted) = options.revision.as_deref().filter(|wanted| *wanted != stored) {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({stored}). The object might have been modified"
        );
        return Err(ApiError::conflict(&resource, call.name, why));
    }
    Ok(())
}

/// What a deletion request does to the object as it is.
fn decide(call: &Call<'_>, options: &Options, old: &dyn AnyObject) -> Change {
    let mut object = old.clone_box();
    let now = call.core.now();
    match marked::decide(&mut *object, options, now) {
        marked::Decision::Mark => return Change::Put(object),
        marked::Decision::Wait => return Change::Keep,
        marked::Decision::Ordinary => {}
    }
    let grace = match begin(call, options, &mut *object, now) {
        Grace::Pending => return Change::Keep,
        other => other,
    };
    let finalizers = finalizers_after(call, options, object.metadata());
    let pending = !finalizers.is_empty();
    object.metadata_mut().finalizers = pending.then_some(finalizers);
    match (grace, pending) {
        (Grace::Begun(seconds), _) if pending || seconds > 0 => Change::Put(object),
        (_, true) => {
            mark_deleting(object.metadata_mut(), now);
            Change::Put(object)
        }
        _ => Change::Remove(object),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grace {
    /// The object goes without grace.
    None,
    /// A grace period of so many seconds has begun, or was shortened to them.
    Begun(i64),
    /// One is running and stays as it is.
    Pending,
}

fn begin(call: &Call<'_>, options: &Options, object: &mut dyn AnyObject, now: SystemTime) -> Grace {
    // Negative values mean one second.
    let requested = options.grace_period.map(|seconds| if seconds < 0 { 1 } else { seconds });
    let Some(seconds) = call.served.kind.grace_period(object, requested) else { return Grace::None };
    let meta = object.metadata_mut();
    let Some(deletion) = meta.deletion_timestamp.clone() else {
        meta.deletion_timestamp = Some(time::time(now + duration(seconds)));
        meta.deletion_grace_period_seconds = Some(seconds);
        bump_generation(meta);
        return Grace::Begun(seconds);
    };
    let running = match meta.deletion_grace_period_seconds {
        None | Some(0) => return Grace::None,
        Some(running) if running < 0 => 1,
        Some(running) => running,
    };
    let Some(mut seconds) = requested.filter(|s| *s < running) else { return Grace::Pending };
    let mut ends = time::system_time(&deletion.0) - duration(running) + duration(seconds);
    if ends < now {
        ends = now;
        seconds = seconds.min(1);
    }
    meta.deletion_timestamp = Some(time::time(ends));
    meta.deletion_grace_period_seconds = Some(seconds);
    Grace::Begun(seconds)
}

fn duration(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn bump_generation(meta: &mut ObjectMeta) {
    if let Some(generation) = meta.generation.as_mut().filter(|g| **g > 0) {
        *generation += 1;
    }
}

fn mark_deleting(meta: &mut ObjectMeta, now: SystemTime) {
    let already = meta.deletion_timestamp.is_some();
    if !already {
        bump_generation(meta);
    }
    let later = meta.deletion_timestamp.as_ref().is_none_or(|at| time::system_time(&at.0) > now);
    if later {
        meta.deletion_timestamp = Some(time::time(now));
    }
    meta.deletion_grace_period_seconds = Some(0);
}

/// The policy that the client named, also in its old form.
pub(super) fn policy(options: &Options) -> Option<&str> {
    match options.orphan_dependents {
        Some(true) => Some("Orphan"),
        Some(false) => Some("Background"),
        None => options.propagation.as_deref(),
    }
}

fn finalizers_after(call: &Call<'_>, options: &Options, meta: &ObjectMeta) -> Vec<String> {
    let before = meta.finalizers.clone().unwrap_or_default();
    let has = |name: &str| before.iter().any(|f| f == name);
    let (orphan, foreground) = match policy(options) {
        Some("Orphan") => (true, false),
        Some("Foreground") => (false, true),
        Some(_) => (false, false),
        None if has(ORPHAN) => (true, false),
        None if has(FOREGROUND) => (false, true),
        None => (call.served.kind.orphans_by_default(), false),
    };
    let mut after: Vec<String> =
        before.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned().collect();
    if orphan {
        after.push(ORPHAN.into());
    }
    if foreground {
        after.push(FOREGROUND.into());
    }
    after
}
