//! APIService: who serves a version of an API group, this server or a service behind it.
//!
//! As `kube-aggregator/pkg/apis/apiregistration`.

use std::time::SystemTime;

use gantry_api::apiregistration::{
    APIService, APIServiceCondition, APIServiceSpec, APIServiceStatus, ServiceReference,
};
use gantry_api::field::{Error, Path, quote};
use gantry_api::names;
use serde_json::Value;

use crate::common::check;
use crate::kind::{Errors, FieldPaths, Kind, NameRule, Names, SPEC_AND_METADATA, STATUS, Verbs};
use crate::table::{AGE, Column, age};

const DEFAULT_PORT: i32 = 443;
const MAX_GROUP_PRIORITY: i32 = 20_000;
const MAX_VERSION_PRIORITY: i32 = 1_000;

/// The kind.
pub struct APIServiceKind;

impl Kind for APIServiceKind {
    type Object = APIService;
    const NAMES: Names = Names {
        singular: "apiservice",
        short: &[],
        categories: &["api-extensions"],
        rule: NameRule::PathSegment,
    };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };
    const UNCONDITIONAL_UPDATE: bool = false;

    fn reset_fields(subresource: &str) -> FieldPaths {
        if subresource == "status" { SPEC_AND_METADATA } else { STATUS }
    }

    fn defaults(service: &mut APIService) {
        if let Some(reference) = service.spec.as_mut().and_then(|s| s.service.as_mut()) {
            reference.port.get_or_insert(DEFAULT_PORT);
        }
    }

    fn prepare_create(service: &mut APIService) {
        let local = service.spec.as_ref().is_none_or(|s| s.service.is_none());
        // A local API is there at once: nobody has to look for it.
        let conditions = local.then(|| {
            vec![APIServiceCondition {
                type_: "Available".into(),
                status: "True".into(),
                reason: Some("Local".into()),
                message: Some("Local APIServices are always available".into()),
                last_transition_time: service.metadata.creation_timestamp.clone(),
            }]
        });
        service.status = Some(APIServiceStatus { conditions });
    }

    fn prepare_update(new: &mut APIService, old: &APIService) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(new: &mut APIService, old: &APIService) {
        new.spec.clone_from(&old.spec);
        new.metadata.labels.clone_from(&old.metadata.labels);
        new.metadata.annotations.clone_from(&old.metadata.annotations);
        new.metadata.finalizers.clone_from(&old.metadata.finalizers);
        new.metadata.owner_references.clone_from(&old.metadata.owner_references);
    }

    fn validate(service: &APIService) -> Errors {
        let mut errors = Errors::new();
        let spec = service.spec.clone().unwrap_or_default();
        validate_name(service, &spec, &mut errors);
        validate_spec(&spec, &Path::new("spec"), &mut errors);
        errors
    }

    fn validate_status_update(new: &APIService, _old: &APIService) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("status").child("conditions");
        let conditions = new.status.iter().flat_map(|s| s.conditions.iter().flatten());
        for (i, condition) in conditions.enumerate() {
            let at = path.index(i).child("status");
            check::supported(&at, &condition.status, &["True", "False", "Unknown"], &mut errors);
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Service", "string", "The reference to the service that hosts this API endpoint."),
            Column::new("Available", "string", "Whether this service is available."),
            AGE,
        ];
        COLUMNS
    }

    fn cells(service: &APIService, now: SystemTime) -> Vec<Value> {
        let reference = service.spec.as_ref().and_then(|s| s.service.as_ref());
        let host = reference.map_or_else(
            || "Local".to_owned(),
            |r| format!("{}/{}", r.namespace.as_deref().unwrap_or(""), r.name.as_deref().unwrap_or("")),
        );
        vec![host.into(), available(service).into(), age(&service.metadata, now)]
    }
}

fn validate_name(service: &APIService, spec: &APIServiceSpec, errors: &mut Errors) {
    let name = service.metadata.name.as_deref().unwrap_or("");
    let wanted = format!("{}.{}", spec.version.as_deref().unwrap_or(""), spec.group.as_deref().unwrap_or(""));
    if !name.is_empty() && names::path_segment(name).is_ok() && name != wanted {
        let why = format!("must be `spec.version+\".\"+spec.group`: {}", quote(&wanted));
        errors.push(Error::invalid(&Path::new("metadata").child("name"), name, why));
    }
}

fn validate_spec(spec: &APIServiceSpec, path: &Path, errors: &mut Errors) {
    let group = spec.group.as_deref().unwrap_or("");
    let version = spec.version.as_deref().unwrap_or("");
    if group.is_empty() && version != "v1" {
        let why = "only v1 may have an empty group and it better be legacy kube";
        errors.push(Error::required(&path.child("group"), why));
    }
    if !group.is_empty() {
        check::name(&path.child("group"), group, names::dns1123_subdomain(group), errors);
    }
    check::name(&path.child("version"), version, names::dns1035_label(version), errors);
    if !(1..=MAX_GROUP_PRIORITY).contains(&spec.group_priority_minimum) {
        let why = format!("must be positive and less than {MAX_GROUP_PRIORITY}");
        errors.push(Error::invalid(&path.child("groupPriorityMinimum"), spec.group_priority_minimum, why));
    }
    if !(1..=MAX_VERSION_PRIORITY).contains(&spec.version_priority) {
        let why = format!("must be positive and less than {MAX_VERSION_PRIORITY}");
        errors.push(Error::invalid(&path.child("versionPriority"), spec.version_priority, why));
    }
    let bundle = spec.ca_bundle.as_ref().map_or(0, |b| b.0.len());
    let insecure = spec.insecure_skip_tls_verify == Some(true);
    match &spec.service {
        None => {
            if bundle > 0 {
                let why = "local APIServices may not have a caBundle";
                errors.push(Error::invalid(&path.child("caBundle"), format!("{bundle} bytes"), why));
            }
            if insecure {
                let why = "local APIServices may not have insecureSkipTLSVerify";
                errors.push(Error::invalid(&path.child("insecureSkipTLSVerify"), true, why));
            }
        }
        Some(reference) => {
            validate_reference(reference, &path.child("service"), errors);
            if insecure && bundle > 0 {
                let why = "may not be true if caBundle is present";
                errors.push(Error::invalid(&path.child("insecureSkipTLSVerify"), true, why));
            }
        }
    }
}

fn validate_reference(reference: &ServiceReference, path: &Path, errors: &mut Errors) {
    check::required(&path.child("namespace"), reference.namespace.as_deref(), errors);
    check::required(&path.child("name"), reference.name.as_deref(), errors);
    check::service_port(&path.child("port"), reference.port.unwrap_or(0), errors);
}

fn available(service: &APIService) -> String {
    let mut conditions = service.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let Some(condition) = conditions.find(|c| c.type_ == "Available") else { return "Unknown".into() };
    match condition.reason.as_deref().filter(|r| !r.is_empty() && condition.status != "True") {
        Some(reason) => format!("{} ({reason})", condition.status),
        None => condition.status.clone(),
    }
}
