//! IngressClass: which controller handles an Ingress, and with which parameters.

use std::time::SystemTime;

use gantry_api::field::{Error, Path};
use gantry_api::names;
use gantry_api::networking::{IngressClass, IngressClassParametersReference};
use serde_json::Value;

use crate::common::check;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::{AGE, Column, age};

const MAX_CONTROLLER: usize = 250;
const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// The kind.
pub struct IngressClassKind;

impl Kind for IngressClassKind {
    type Object = IngressClass;
    const NAMES: Names =
        Names { singular: "ingressclass", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };

    fn defaults(class: &mut IngressClass) {
        if let Some(parameters) = class.spec.as_mut().and_then(|s| s.parameters.as_mut()) {
            parameters.scope.get_or_insert_with(|| "Cluster".into());
        }
    }

    fn prepare_create(class: &mut IngressClass) {
        class.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut IngressClass, old: &IngressClass) {
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn validate(class: &IngressClass) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let spec = class.spec.clone().unwrap_or_default();
        let controller = spec.controller.as_deref().unwrap_or("");
        let at = path.child("controller");
        if controller.len() > MAX_CONTROLLER {
            errors.push(Error::too_long(&at, MAX_CONTROLLER));
        }
        validate_controller(controller, &at, &mut errors);
        if let Some(parameters) = &spec.parameters {
            validate_parameters(parameters, &path.child("parameters"), &mut errors);
        }
        errors
    }

    fn validate_replacement(new: &IngressClass, old: &IngressClass) -> Errors {
        let mut errors = Self::validate_update(new, old);
        errors.extend(Self::validate(new));
        errors
    }

    fn validate_update(new: &IngressClass, old: &IngressClass) -> Errors {
        let mut errors = Errors::new();
        let controller =
            |class: &IngressClass| class.spec.as_ref().and_then(|s| s.controller.clone()).unwrap_or_default();
        let path = Path::new("spec").child("controller");
        check::immutable(&path, &controller(new), &controller(old), &mut errors);
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Controller", "string", "Controller that is responsible for handling this class"),
            Column::new("Parameters", "string", "A reference to a resource with additional parameters"),
            AGE,
        ];
        COLUMNS
    }

    fn name_cell(class: &IngressClass) -> String {
        let name = class.metadata.name.clone().unwrap_or_default();
        let annotation = class.metadata.annotations.as_ref().and_then(|a| a.get(DEFAULT_ANNOTATION));
        if annotation.is_some_and(|a| a == "true") { format!("{name} (default)") } else { name }
    }

    fn cells(class: &IngressClass, now: SystemTime) -> Vec<Value> {
        let spec = class.spec.clone().unwrap_or_default();
        let parameters = spec.parameters.map(|p| match p.api_group {
            Some(group) => format!("{}.{group}/{}", p.kind, p.name),
            None => format!("{}/{}", p.kind, p.name),
        });
        vec![
            spec.controller.unwrap_or_default().into(),
            parameters.unwrap_or_else(|| "<none>".into()).into(),
            age(&class.metadata, now),
        ]
    }
}

/// A path under a domain: `example.com/ingress`.
fn validate_controller(controller: &str, path: &Path, errors: &mut Errors) {
    if controller.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    let parts = controller.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty());
    let Some((host, rest)) = parts else {
        let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(Error::invalid(path, controller, why));
        return;
    };
    check::name(path, host, names::dns1123_subdomain(host), errors);
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if !rest.bytes().all(fits) {
        let why = names::regex_error("Invalid path", "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+", &[]);
        errors.push(Error::invalid(path, rest, why));
    }
}

fn validate_parameters(parameters: &IngressClassParametersReference, path: &Path, errors: &mut Errors) {
    if let Some(group) = &parameters.api_group {
        check::name(&path.child("apiGroup"), group, names::dns1123_subdomain(group), errors);
    }
    for (field, value) in [("kind", &parameters.kind), ("name", &parameters.name)] {
        let at = path.child(field);
        if value.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            check::name(&at, value, names::path_segment(value), errors);
        }
    }
    let at = path.child("namespace");
    match (parameters.scope.as_deref(), parameters.namespace.as_deref()) {
        (None, _) => errors.push(Error::required(&path.child("scope"), "")),
        (Some("Namespace"), None) => {
            errors.push(Error::required(&at, "`parameters.scope` is set to 'Namespace'"));
        }
        (Some("Namespace"), Some(namespace)) => {
            check::name(&at, namespace, names::dns1123_label(namespace), errors);
        }
        (Some("Cluster"), Some(_)) => {
            errors.push(Error::forbidden(&at, "`parameters.scope` is set to 'Cluster'"));
        }
        (Some("Cluster"), None) => {}
        (Some(other), _) => {
            errors.push(Error::not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]));
        }
    }
}
