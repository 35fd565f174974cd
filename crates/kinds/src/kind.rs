//! What a kind is: the contract of every unit of this crate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use gantry_api::field;
use gantry_api::{DecodeError, Object, Resource};
use serde_json::Value;

use crate::scale::Scale;
use crate::table::Column;

/// What validation found. Empty is valid.
pub type Errors = Vec<field::Error>;

/// How the names of a kind's objects are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain: most kinds.
    Subdomain,
    /// RFC 1123 label: namespaces.
    Label,
    /// RFC 1035 label: services.
    ServiceLabel,
    /// Anything that can stand in a URL path: RBAC.
    PathSegment,
}

/// The names of a kind besides those in [`gantry_api::Resource`].
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// `configmap`
    pub singular: &'static str,
    /// `cm`
    pub short: &'static [&'static str],
    /// `all`
    pub categories: &'static [&'static str],
    /// How object names are checked.
    pub rule: NameRule,
}

/// What clients may do with a kind beyond create, get, list, watch, update, patch, delete and deletecollection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verbs {
    /// Whether there is a `status` subresource.
    pub status: bool,
    /// Whether there is a `scale` subresource.
    pub scale: bool,
    /// Further subresources, served by the API server's own code: `log`, `exec`, `binding`, `token`, …
    pub connect: &'static [&'static str],
}

/// Who asks for a new object.
#[derive(Clone, Copy, Debug)]
pub struct Requester<'a> {
    /// The user's name.
    pub name: &'a str,
    /// The user's UID, or empty.
    pub uid: &'a str,
    /// The user's groups.
    pub groups: &'a [Arc<str>],
    /// What else the authenticator said.
    pub extra: &'a BTreeMap<String, Vec<String>>,
}

/// Another version of a kind, which is what the store keeps.
#[derive(Clone, Debug)]
pub struct StoredAs {
    /// The names of what is stored.
    pub resource: Resource,
    /// From the stored form to this kind's.
    pub read: fn(&[u8]) -> Result<Vec<u8>, DecodeError>,
    /// From this kind's form to the stored one.
    pub write: fn(&[u8]) -> Result<Vec<u8>, DecodeError>,
    /// Selectable fields whose path differs: here, and in the stored form.
    pub selectable: &'static [(&'static str, &'static str)],
}

/// Paths of fields.
pub type FieldPaths = &'static [&'static [&'static str]];
/// `status`
pub const STATUS: FieldPaths = &[&["status"]];
/// `spec`
pub const SPEC: FieldPaths = &[&["spec"]];
/// `spec` and `metadata`: what the younger kinds keep from an update of the status.
pub const SPEC_AND_METADATA: FieldPaths = &[&["spec"], &["metadata"]];

/// A kind. Implementations are unit structs; each in one file.
///
/// The server calls, on create: `defaults`, `prepare_create`, admission, `validate`. On update: `defaults`,
/// `prepare_update`, admission, `validate_replacement` (which is `validate` and `validate_update`). On the status subresource `prepare_status_update`
/// and `validate_status_update` instead. Metadata (names, labels, owners, finalizers, immutability of UID and so on)
/// is checked for all kinds alike.
pub trait Kind: Send + Sync + 'static {
    /// The typed object.
    type Object: Object;
    /// Its names.
    const NAMES: Names;
    /// Its verbs.
    const VERBS: Verbs;
    /// Whether writes may be acknowledged before they are flushed: leases and events.
    const LAZY: bool = false;

    /// Takes up what reading forgets and messages tell: that a list or a selector was sent empty, and not left out.
    /// `sent` is the JSON that the object was read from.
    fn recall(_object: &mut Self::Object, _sent: &[u8]) {}

    /// Fills in what the client left out.
    fn defaults(_object: &mut Self::Object) {}

    /// Clears what a client may not set on create (status), and sets the first generation where there is one.
    fn prepare_create(_object: &mut Self::Object) {}

    /// Keeps what an update may not touch (status), and counts the generation up when the spec changed.
    fn prepare_update(_new: &mut Self::Object, _old: &Self::Object) {}

    /// Keeps everything but the status.
    fn prepare_status_update(_new: &mut Self::Object, _old: &Self::Object) {}

    /// Notes who asked for a new object, in kinds whose spec says so; after `prepare_create`.
    fn note_requester(_object: &mut Self::Object, _requester: Requester<'_>) {}

    /// Keeps everything but what the subresource `part` (one of [`Verbs::connect`]) may change.
    fn prepare_part_update(_part: &str, _new: &mut Self::Object, _old: &Self::Object) {}

    /// May `part` of the old object become that of the new one?
    fn validate_part_update(_part: &str, _new: &Self::Object, _old: &Self::Object) -> Errors {
        Errors::new()
    }

    /// Notes the time of an update of the status or of another part, where the object says it.
    fn note_time(_new: &mut Self::Object, _old: &Self::Object, _now: SystemTime) {}

    /// Notes the time of a creation, where the object says it; after `prepare_create`.
    fn note_creation(_object: &mut Self::Object, _now: SystemTime) {}

    /// Is the object valid in itself?
    fn validate(_object: &Self::Object) -> Errors {
        Errors::new()
    }

    /// May the old object become the new one? (The new one is validated in itself as well.)
    fn validate_update(_new: &Self::Object, _old: &Self::Object) -> Errors {
        Errors::new()
    }

    /// All that is wrong with an update. Overridden by kinds whose stored objects may break rules that are newer
    /// than they are, and by those that do not check the whole object again.
    fn validate_replacement(new: &Self::Object, old: &Self::Object) -> Errors {
        let mut errors = Self::validate(new);
        errors.extend(Self::validate_update(new, old));
        errors
    }

    /// May the status of the old object become that of the new one?
    fn validate_status_update(_new: &Self::Object, _old: &Self::Object) -> Errors {
        Errors::new()
    }

    /// Texts for the `Warning` header of a create.
    fn warnings(_object: &Self::Object) -> Vec<String> {
        Vec::new()
    }

    /// Texts for the `Warning` header of an update; by default those of a create.
    fn update_warnings(new: &Self::Object, _old: &Self::Object) -> Vec<String> {
        Self::warnings(new)
    }

    /// Columns of the table after `Name`; the kinds without their own show `Age` only.
    fn columns() -> &'static [Column] {
        crate::table::AGE_ONLY
    }

    /// Whether objects are only read: they say how something is, and nobody stores them.
    const READ_ONLY: bool = false;

    /// What clients are warned of whenever they use the kind.
    const DEPRECATION: Option<&'static str> = None;

    /// Whether the name is the first column (events show it last).
    const NAME_FIRST: bool = true;

    /// The cell of the name column.
    fn name_cell(object: &Self::Object) -> String {
        object.metadata().name.clone().unwrap_or_default()
    }

    /// The cells of those columns.
    fn cells(object: &Self::Object, now: SystemTime) -> Vec<Value> {
        vec![crate::table::age(object.metadata(), now)]
    }

    /// Field selectors besides `metadata.name` and `metadata.namespace`: the supported paths.
    fn selectable() -> &'static [&'static str] {
        &[]
    }

    /// The values of those paths.
    fn selectable_values(_object: &Self::Object) -> Vec<String> {
        Vec::new()
    }

    /// What the object says about its number of replicas, if the kind can be scaled.
    fn scale(_object: &Self::Object) -> Option<Scale> {
        None
    }

    /// Asks for this many replicas.
    fn set_replicas(_object: &mut Self::Object, _replicas: i32) {}

    /// Seconds between a deletion request and the removal of the object, for kinds that end gracefully: `requested`
    /// is the client's wish. `None`: the object goes at once.
    fn grace_period(_object: &Self::Object, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Why the object may not be deleted by anybody; `None` if it may.
    fn refuse_deletion(_object: &Self::Object) -> Option<&'static str> {
        None
    }

    /// Whether an update need not name the `resourceVersion` that it was made from.
    const UNCONDITIONAL_UPDATE: bool = true;

    /// Whether a PUT creates what is not there.
    const CREATE_ON_UPDATE: bool = false;

    /// How the kind is stored, if what is kept is another version of it.
    const STORED: Option<StoredAs> = None;

    /// The fields that a client cannot set through `subresource` (empty: the object itself), as paths. Server-side
    /// apply makes nobody their owner.
    fn reset_fields(subresource: &str) -> FieldPaths {
        match subresource {
            "status" => SPEC,
            "" if Self::VERBS.status => STATUS,
            _ => &[],
        }
    }

    /// Whether a deletion without a propagation policy orphans dependents (old kinds did) rather than deleting them.
    const ORPHANS_BY_DEFAULT: bool = false;
}

/// Counts the generation up if `changed`, else keeps the old one: for `prepare_update`.
pub fn bump_generation<K: Object>(new: &mut K, old: &K, changed: bool) {
    let generation = old.metadata().generation.unwrap_or(0) + i64::from(changed);
    new.metadata_mut().generation = (generation > 0).then_some(generation);
}
