//! IPAddress: who uses an address of the service network.

use std::net::IpAddr;
use std::time::SystemTime;

use gantry_api::field::{Error, Path, quote};
use gantry_api::names;
use gantry_api::networking::{IPAddress, ParentReference};
use serde_json::Value;

use crate::common::at::At;
use crate::common::{check, network};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::Column;

/// The kind.
pub struct IPAddressKind;

impl Kind for IPAddressKind {
    type Object = IPAddress;
    const NAMES: Names =
        Names { singular: "ipaddress", short: &["ip"], categories: &[], rule: NameRule::PathSegment };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };

    fn validate(address: &IPAddress) -> Errors {
        let mut errors = Errors::new();
        let name = address.metadata.name.as_deref().unwrap_or("");
        if !name.is_empty() {
            validate_canonical(name, &At::root("metadata.name"), &mut errors);
        }
        validate_parent(&address.spec.parent_ref, &Path::new("spec").child("parentRef"), &mut errors);
        errors
    }

    fn validate_update(new: &IPAddress, old: &IPAddress) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec").child("parentRef");
        // One that is left out is shown as null.
        let shown =
            |parent: &ParentReference| Some(parent.clone()).filter(|p| *p != ParentReference::default());
        let (new, old) = (shown(&new.spec.parent_ref), shown(&old.spec.parent_ref));
        check::immutable_internal(&path, "*ParentReference", &new, &old, &mut errors);
        errors
    }

    fn columns() -> &'static [Column] {
        // The rows hold a cell more than there are columns, as upstream's.
        const COLUMNS: &[Column] = &[Column::new(
            "ParentRef",
            "string",
            "ParentRef references the resource that an IPAddress is attached to. An IPAddress must reference a parent object.",
        )];
        COLUMNS
    }

    /// Upstream's rows have one more cell than there are columns: the age.
    fn cells(address: &IPAddress, now: SystemTime) -> Vec<Value> {
        vec![parent_text(&address.spec.parent_ref).into(), crate::table::age(&address.metadata, now)]
    }
}

fn parent_text(parent: &ParentReference) -> String {
    let part = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    if *parent == ParentReference::default() {
        return "<none>".into();
    }
    let mut text = parent.resource.to_lowercase();
    if let Some(group) = part(&parent.group) {
        text = format!("{text}.{}", group.to_lowercase());
    }
    for part in part(&parent.namespace).into_iter().chain([parent.name.clone()]) {
        text.push('/');
        text.push_str(&part);
    }
    text
}

/// An address as it is written canonically.
pub(crate) fn validate_canonical(text: &str, at: &At<'_>, errors: &mut Errors) {
    let before = errors.len();
    network::check_ip(at, text, &[], errors);
    if errors.len() > before {
        return;
    }
    let canonical = text.parse::<IpAddr>().map(|ip| ip.to_string()).unwrap_or_default();
    if canonical != text {
        let why = format!("must be in canonical form ({})", quote(&canonical));
        errors.push(Error::invalid(&at.path(), text, why));
    }
}

fn validate_parent(parent: &ParentReference, path: &Path, errors: &mut Errors) {
    if *parent == ParentReference::default() {
        errors.push(Error::required(path, ""));
        return;
    }
    if let Some(group) = parent.group.as_deref().filter(|g| !g.is_empty()) {
        check::name(&path.child("group"), group, names::dns1123_subdomain(group), errors);
    }
    for (field, value) in [("resource", &parent.resource), ("name", &parent.name)] {
        let at = path.child(field);
        if value.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            check::name(&at, value, names::path_segment(value), errors);
        }
    }
    if let Some(namespace) = parent.namespace.as_deref().filter(|n| !n.is_empty()) {
        check::name(&path.child("namespace"), namespace, names::path_segment(namespace), errors);
    }
}
