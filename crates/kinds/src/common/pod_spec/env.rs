//! Environment variables: their names, and where their values come from.

use gantry_api::core::{EnvFromSource, EnvVar, EnvVarSource, FileKeySelector, ObjectFieldSelector};
use gantry_api::core::{PodSpec, ResourceFieldSelector};
use gantry_api::names;
use gantry_api::quantity::Quantity;

use super::super::at::{At, Complaints, items, text};
use super::visit_containers;
use super::volumes::check_no_backsteps;
use crate::kind::Errors;

/// Fields of the pod that a variable can show.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of the pod that a file can show.
pub(super) const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Resources of a container that a variable or a file can show.
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn check_env(variables: &[EnvVar], at: &At<'_>, errors: &mut Errors) {
    for (i, variable) in variables.iter().enumerate() {
        let at = at.index(i);
        if variable.name.is_empty() {
            errors.required(&at.child("name"), "");
        } else {
            errors.check(&at.child("name"), variable.name.as_str(), names::env_var(&variable.name));
        }
        if let Some(source) = &variable.value_from {
            check_source(source, text(&variable.value), &at.child("valueFrom"), errors);
        }
    }
}

fn check_source(source: &EnvVarSource, value: &str, at: &At<'_>, errors: &mut Errors) {
    let mut count = 0;
    if let Some(field) = &source.field_ref {
        count += 1;
        check_field(field, &ENV_FIELDS, &at.child("fieldRef"), errors);
    }
    if let Some(resource) = &source.resource_field_ref {
        count += 1;
        check_resource(resource, false, &at.child("resourceFieldRef"), errors);
    }
    if let Some(map) = &source.config_map_key_ref {
        count += 1;
        check_key_of(&map.name, &map.key, &at.child("configMapKeyRef"), errors);
    }
    if let Some(secret) = &source.secret_key_ref {
        count += 1;
        check_key_of(&secret.name, &secret.key, &at.child("secretKeyRef"), errors);
    }
    if let Some(file) = &source.file_key_ref {
        count += 1;
        check_file(file, &at.child("fileKeyRef"), errors);
    }
    let why = if count == 0 {
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
    } else if !value.is_empty() {
        "may not be specified when `value` is not empty"
    } else if count > 1 {
        "may not have more than one field specified at a time"
    } else {
        return;
    };
    errors.invalid(at, "", why);
}

/// A field of the pod, one of `allowed`.
pub(super) fn check_field(field: &ObjectFieldSelector, allowed: &[&str], at: &At<'_>, errors: &mut Errors) {
    let version = text(&field.api_version);
    if version.is_empty() {
        errors.required(&at.child("apiVersion"), "");
        return;
    }
    if field.field_path.is_empty() {
        errors.required(&at.child("fieldPath"), "");
        return;
    }
    let path = field.field_path.as_str();
    if let Err(why) = known_field(version, path) {
        let why = format!("error converting fieldPath: {why}");
        errors.invalid(&at.child("fieldPath"), path, why);
        return;
    }
    match split_subscript(path) {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            errors.qualified(at, &key);
        }
        Some(("metadata.labels", key)) => errors.qualified(at, key),
        Some((path, _)) => errors.invalid(at, path, "does not support subscript"),
        None => {
            let path = if path == "spec.host" { "spec.nodeName" } else { path };
            errors.among(&at.child("fieldPath"), path, allowed);
        }
    }
}

/// `metadata.labels['app']` as the path and the key.
fn split_subscript(path: &str) -> Option<(&str, &str)> {
    let inner = path.strip_suffix("']")?;
    inner.split_once("['").filter(|(path, _)| !path.is_empty())
}

fn known_field(version: &str, path: &str) -> Result<(), String> {
    const KNOWN: [&str; 15] = [
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.serviceAccountName",
        "spec.schedulerName",
        "status.phase",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
        "spec.host",
    ];
    if version != "v1" {
        return Err(format!("unsupported pod version: {version}"));
    }
    match split_subscript(path) {
        Some(("metadata.annotations" | "metadata.labels", _)) => Ok(()),
        Some(_) => Err(format!("field label does not support subscript: {path}")),
        None if KNOWN.contains(&path) => Ok(()),
        None => Err(format!("field label not supported: {path}")),
    }
}

/// A resource of a container, in a file (`volume`) or in a variable.
pub(super) fn check_resource(
    selector: &ResourceFieldSelector,
    volume: bool,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let resource = selector.resource.as_str();
    let pages = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if volume && text(&selector.container_name).is_empty() {
        errors.required(&at.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&at.child("resource"), "");
    } else if !pages {
        errors.among(&at.child("resource"), resource, &RESOURCES);
    }
    let divisor = selector.divisor.as_ref().and_then(|d| Quantity::from_wire(d).ok());
    if let Some(divisor) = divisor.filter(|d| !d.is_zero()) {
        check_divisor(resource, pages, divisor, &at.child("divisor"), errors);
    }
}

fn check_divisor(resource: &str, pages: bool, divisor: Quantity, at: &At<'_>, errors: &mut Errors) {
    const BYTES: [&str; 13] =
        ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let divisor = divisor.to_string();
    let what = match resource {
        "limits.cpu" | "requests.cpu" => {
            if !["1m", "1"].contains(&divisor.as_str()) {
                let why = "only divisor's values 1m and 1 are supported with the cpu resource";
                errors.invalid(at, resource, why);
            }
            return;
        }
        "limits.memory" | "requests.memory" => "memory",
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => "local ephemeral storage",
        _ if pages => "hugepages",
        _ => return,
    };
    if !BYTES.contains(&divisor.as_str()) {
        let why =
            format!("only divisor's values {} are supported with the {what} resource", BYTES.join(", "));
        errors.invalid(at, resource, why);
    }
}

fn check_key_of(name: &str, key: &str, at: &At<'_>, errors: &mut Errors) {
    errors.check(&at.child("name"), name, names::dns1123_subdomain(name));
    if key.is_empty() {
        errors.required(&at.child("key"), "");
    } else {
        errors.check(&at.child("key"), key, names::config_key(key));
    }
}

fn check_file(file: &FileKeySelector, at: &At<'_>, errors: &mut Errors) {
    if file.key.is_empty() {
        errors.required(&at.child("key"), "");
    } else {
        errors.check(&at.child("key"), file.key.as_str(), names::env_var(&file.key));
    }
    if file.volume_name.is_empty() {
        errors.required(&at.child("volumeName"), "");
    } else {
        let name = file.volume_name.as_str();
        errors.check(&at.child("volumeName"), name, names::dns1123_label(name));
    }
    if file.path.is_empty() {
        errors.required(&at.child("path"), "");
    } else {
        check_no_backsteps(&file.path, &at.child("path"), errors);
    }
}

/// Files of variables are in volumes of type `emptyDir`.
pub(super) fn check_file_volumes(spec: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    let volumes = items(&spec.volumes);
    visit_containers(spec, at, |container, at| {
        let list = at.child("env");
        for (i, variable) in items(&container.env).iter().enumerate() {
            let Some(file) = variable.value_from.as_ref().and_then(|from| from.file_key_ref.as_ref()) else {
                continue;
            };
            let here = list.index(i);
            let at = here.child("valueFrom.fileKeyRef.volumeName");
            match volumes.iter().find(|v| v.name == file.volume_name) {
                None => errors.not_found(&at, &file.volume_name),
                Some(volume) if volume.empty_dir.is_none() => {
                    let why = "referenced volume must be of type emptyDir";
                    errors.invalid(&at, file.volume_name.as_str(), why);
                }
                Some(_) => {}
            }
        }
    });
}

pub(super) fn check_env_from(sources: &[EnvFromSource], at: &At<'_>, errors: &mut Errors) {
    for (i, source) in sources.iter().enumerate() {
        let here = at.index(i);
        let prefix = text(&source.prefix);
        if !prefix.is_empty() {
            errors.check(&here.child("prefix"), prefix, names::env_var(prefix));
        }
        let refs = [
            ("configMapRef", source.config_map_ref.as_ref().map(|r| r.name.as_str())),
            ("secretRef", source.secret_ref.as_ref().map(|r| r.name.as_str())),
        ];
        for (field, name) in refs {
            let Some(name) = name else { continue };
            let at = here.child(field);
            if name.is_empty() {
                errors.required(&at.child("name"), "");
            } else {
                errors.check(&at.child("name"), name, names::dns1123_subdomain(name.trim_end_matches('-')));
            }
        }
        match refs.iter().filter(|(_, name)| name.is_some()).count() {
            0 => errors.invalid(at, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(at, "", "may not have more than one field specified at a time"),
        }
    }
}
