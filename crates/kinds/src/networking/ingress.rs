//! Ingress: how HTTP from outside reaches services.

use std::collections::BTreeSet;
use std::time::SystemTime;

use gantry_api::core::TypedLocalObjectReference;
use gantry_api::field::{Error, Path};
use gantry_api::names;
use gantry_api::networking::{
    HTTPIngressPath, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec, IngressStatus,
    IngressTLS,
};
use serde_json::{Value, json};

use crate::common::at::At;
use crate::common::{check, network};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::{AGE, Column, age};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const NO_ADDRESS: &str = "must be a DNS name, not an IP address";

/// The kind.
pub struct IngressKind;

impl Kind for IngressKind {
    type Object = Ingress;
    const NAMES: Names =
        Names { singular: "ingress", short: &["ing"], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };

    fn prepare_create(ingress: &mut Ingress) {
        let status = IngressStatus { load_balancer: Some(Default::default()) };
        ingress.status = Some(status);
        ingress.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut Ingress, old: &Ingress) {
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn prepare_status_update(new: &mut Ingress, old: &Ingress) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(ingress: &Ingress) -> Errors {
        let mut errors = validate_ingress(ingress, Lenience::default());
        let class = ingress.spec.as_ref().and_then(|s| s.ingress_class_name.as_deref());
        if let (Some(note), Some(class)) = (class_annotation(ingress), class)
            && note != class
        {
            let path = Path::new("annotations").child(CLASS_ANNOTATION);
            let why = "must match `ingressClassName` when both are specified";
            errors.push(Error::invalid(&path, note, why));
        }
        errors
    }

    fn validate_replacement(new: &Ingress, old: &Ingress) -> Errors {
        validate_ingress(new, Lenience::of(old))
    }

    fn validate_status_update(new: &Ingress, old: &Ingress) -> Errors {
        let mut errors = Errors::new();
        let points = |ingress: &Ingress| {
            let balancer = ingress.status.as_ref().and_then(|s| s.load_balancer.clone());
            balancer.and_then(|b| b.ingress).unwrap_or_default()
        };
        let stored: Vec<String> = points(old).into_iter().filter_map(|p| p.ip).collect();
        let path = Path::new("status").child("loadBalancer").child("ingress");
        for (i, point) in points(new).iter().enumerate() {
            let at = path.index(i);
            if let Some(ip) = point.ip.as_deref().filter(|ip| !ip.is_empty()) {
                network::check_ip(&At::of(&at.child("ip")), ip, &stored, &mut errors);
            }
            if let Some(host) = point.hostname.as_deref().filter(|h| !h.is_empty()) {
                let at = at.child("hostname");
                check::name(&at, host, names::dns1123_subdomain(host), &mut errors);
                if network::sloppy_ip(host).is_some() {
                    errors.push(Error::invalid(&at, host, NO_ADDRESS));
                }
            }
        }
        errors
    }

    fn warnings(ingress: &Ingress) -> Vec<String> {
        let class = ingress.spec.as_ref().and_then(|s| s.ingress_class_name.as_ref());
        if class_annotation(ingress).is_none() || class.is_some() {
            return Vec::new();
        }
        vec![format!(
            "annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"
        )]
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Class",
                "string",
                "The name of the IngressClass resource that should be used for additional configuration",
            ),
            Column::new(
                "Hosts",
                "string",
                "Hosts that incoming requests are matched against before the ingress rule",
            ),
            Column::new(
                "Address",
                "string",
                "Address is a list containing ingress points for the load-balancer",
            ),
            Column::new("Ports", "string", "Ports of TLS configurations that open"),
            AGE,
        ];
        COLUMNS
    }

    fn cells(ingress: &Ingress, now: SystemTime) -> Vec<Value> {
        let spec = ingress.spec.clone().unwrap_or_default();
        let secured = spec.tls.as_ref().is_some_and(|tls| !tls.is_empty());
        vec![
            spec.ingress_class_name.clone().unwrap_or_else(|| "<none>".into()).into(),
            hosts(spec.rules.as_deref().unwrap_or_default()).into(),
            addresses(ingress).into(),
            if secured { "80, 443" } else { "80" }.into(),
            age(&ingress.metadata, now),
        ]
    }
}

fn class_annotation(ingress: &Ingress) -> Option<&str> {
    ingress.metadata.annotations.as_ref()?.get(CLASS_ANNOTATION).map(String::as_str)
}

fn hosts(rules: &[IngressRule]) -> String {
    const SHOWN: usize = 3;
    let mut list = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= list.len() == SHOWN;
        let host = rule.host.as_deref().unwrap_or("");
        if !more && !host.is_empty() {
            list.push(host);
        }
    }
    match list.join(",") {
        text if text.is_empty() => "*".into(),
        text if more => format!("{text} + {} more...", rules.len() - SHOWN),
        text => text,
    }
}

fn addresses(ingress: &Ingress) -> String {
    const WIDTH: usize = 16;
    let balancer = ingress.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let points = balancer.and_then(|b| b.ingress.as_ref()).into_iter().flatten();
    let set: BTreeSet<&str> = points
        .filter_map(|p| [&p.ip, &p.hostname].into_iter().flatten().find(|t| !t.is_empty()))
        .map(String::as_str)
        .collect();
    let text = set.into_iter().collect::<Vec<_>>().join(",");
    if text.len() > WIDTH { format!("{}...", &text[..WIDTH - 3]) } else { text }
}

/// What the old object did wrong already.
#[derive(Clone, Copy, Default)]
struct Lenience {
    secrets: bool,
    wildcards: bool,
}

impl Lenience {
    fn of(old: &Ingress) -> Self {
        let spec = old.spec.clone().unwrap_or_default();
        let bad_rule = |rule: &IngressRule| {
            let mut errors = Errors::new();
            validate_paths(rule, &Path::root(), &mut errors);
            rule.host.as_deref().unwrap_or("").contains('*') && !errors.is_empty()
        };
        Self {
            secrets: spec.tls.iter().flatten().any(|tls| check_secret(tls).is_err()),
            wildcards: spec.rules.iter().flatten().any(bad_rule),
        }
    }
}

fn check_secret(tls: &IngressTLS) -> Result<(), String> {
    match tls.secret_name.as_deref().unwrap_or("") {
        "" => Ok(()),
        name => names::dns1123_subdomain(name),
    }
}

fn validate_ingress(ingress: &Ingress, lenience: Lenience) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let spec: IngressSpec = ingress.spec.clone().unwrap_or_default();
    let rules = spec.rules.as_deref().unwrap_or_default();
    if rules.is_empty() && spec.default_backend.is_none() {
        let why = "either `defaultBackend` or `rules` must be specified";
        errors.push(Error::invalid(&path, json!(spec.rules), why));
    }
    if let Some(backend) = &spec.default_backend {
        validate_backend(backend, &path.child("defaultBackend"), &mut errors);
    }
    for (i, rule) in rules.iter().enumerate() {
        validate_rule(rule, lenience, &path.child("rules").index(i), &mut errors);
    }
    for (i, tls) in spec.tls.iter().flatten().enumerate() {
        let at = path.child("tls").index(i);
        for (j, host) in tls.hosts.iter().flatten().enumerate() {
            check::name(&at.child("hosts").index(j), host, check_host(host), &mut errors);
        }
        if !lenience.secrets {
            let name = tls.secret_name.as_deref().unwrap_or("");
            check::name(&at.child("secretName"), name, check_secret(tls), &mut errors);
        }
    }
    if let Some(class) = &spec.ingress_class_name {
        check::name(&path.child("ingressClassName"), class, names::dns1123_subdomain(class), &mut errors);
    }
    errors
}

fn check_host(host: &str) -> Result<(), String> {
    if !host.contains('*') {
        return names::dns1123_subdomain(host);
    }
    if host.strip_prefix("*.").is_some_and(|rest| names::dns1123_subdomain(rest).is_ok()) {
        return Ok(());
    }
    let message = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
    let format = r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
    Err(names::regex_error(message, format, &["*.example.com"]))
}

fn validate_rule(rule: &IngressRule, lenience: Lenience, path: &Path, errors: &mut Errors) {
    let host = rule.host.as_deref().unwrap_or("");
    if !host.is_empty() {
        let at = path.child("host");
        if network::sloppy_ip(host).is_some() {
            errors.push(Error::invalid(&at, host, NO_ADDRESS));
        }
        check::name(&at, host, check_host(host), errors);
    }
    if !host.contains('*') || !lenience.wildcards {
        validate_paths(rule, path, errors);
    }
}

fn validate_paths(rule: &IngressRule, path: &Path, errors: &mut Errors) {
    let Some(http) = &rule.http else { return };
    let at = path.child("http").child("paths");
    if http.paths.is_empty() {
        errors.push(Error::required(&at, ""));
    }
    for (i, item) in http.paths.iter().enumerate() {
        validate_path(item, &at.index(i), errors);
    }
}

fn validate_path(item: &HTTPIngressPath, path: &Path, errors: &mut Errors) {
    let text = item.path.as_deref().unwrap_or("");
    let at = path.child("path");
    let absolute = text.starts_with('/');
    match item.path_type.as_str() {
        "" => {
            errors.push(Error::required(&path.child("pathType"), "pathType must be specified"));
            return;
        }
        "Exact" | "Prefix" => {
            if !absolute {
                errors.push(Error::invalid(&at, text, "must be an absolute path"));
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| text.contains(part)) {
                errors.push(Error::invalid(&at, text, format!("must not contain '{part}'")));
            }
            for end in ["/..", "/."].into_iter().filter(|end| text.ends_with(end)) {
                errors.push(Error::invalid(&at, text, format!("cannot end with '{end}'")));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !absolute {
                errors.push(Error::invalid(&at, text, "must be an absolute path"));
            }
        }
        other => {
            let types = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(Error::not_supported(&path.child("pathType"), other, &types));
        }
    }
    validate_backend(&item.backend, &path.child("backend"), errors);
}

fn validate_backend(backend: &IngressBackend, path: &Path, errors: &mut Errors) {
    match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => {
            errors.push(Error::invalid(path, "", "cannot set both resource and service backends"));
        }
        (Some(resource), None) => validate_resource(resource, &path.child("resource"), errors),
        (None, Some(service)) => validate_service(service, path, errors),
        (None, None) => errors.push(Error::invalid(path, "", "resource or service backend is required")),
    }
}

fn validate_resource(resource: &TypedLocalObjectReference, path: &Path, errors: &mut Errors) {
    if let Some(group) = &resource.api_group {
        check::name(&path.child("apiGroup"), group, names::dns1123_subdomain(group), errors);
    }
    for (field, value) in [("kind", &resource.kind), ("name", &resource.name)] {
        let at = path.child(field);
        if value.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            check::name(&at, value, names::path_segment(value), errors);
        }
    }
}

/// The path is the backend's: faults of the port as a whole are told there.
fn validate_service(service: &IngressServiceBackend, path: &Path, errors: &mut Errors) {
    let at = path.child("service");
    if service.name.is_empty() {
        errors.push(Error::required(&at.child("name"), ""));
    } else {
        check::name(&at.child("name"), &service.name, names::dns1123_label(&service.name), errors);
    }
    let port = service.port.clone().unwrap_or_default();
    let at = at.child("port");
    match (port.name.as_deref().unwrap_or(""), port.number.unwrap_or(0)) {
        ("", 0) => errors.push(Error::required(path, "port name or number is required")),
        (name, 0) => check::name(&at.child("name"), name, names::port_name(name), errors),
        ("", number) => {
            if let Err(why) = names::port_number(number) {
                errors.push(Error::invalid(&at.child("number"), number, why));
            }
        }
        _ => errors.push(Error::invalid(path, "", "cannot set both port name & port number")),
    }
}
