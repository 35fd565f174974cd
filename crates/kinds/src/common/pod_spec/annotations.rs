//! Annotations that mean something to pods.

use std::collections::BTreeMap;

use gantry_api::core::{AppArmorProfile, PodSpec, SeccompProfile, Toleration};

use super::super::at::{At, Complaints, text};
use super::options::Options;
use super::volumes::check_descending_path;
use super::{check_tolerations, visit_containers};
use crate::kind::Errors;

/// Marks the image of a static pod.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
/// The seccomp profile of a pod, before there was a field.
pub const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
/// The seccomp profile of a container, before there was a field.
pub const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
/// The AppArmor profile of a container, before there was a field.
pub const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

type Annotations = BTreeMap<String, String>;

/// A cost is a number of 32 bits in its shortest form.
pub(super) fn has_valid_deletion_cost(annotations: Option<&Annotations>) -> bool {
    let Some(cost) = annotations.and_then(|a| a.get(DELETION_COST)) else { return true };
    let digits = cost.strip_prefix('-').unwrap_or(cost);
    let first = cost.as_bytes().first().copied().unwrap_or(0);
    let sound = first == b'-' || (first == b'0' && cost == "0") || (b'1'..=b'9').contains(&first);
    sound && !digits.is_empty() && cost.parse::<i32>().is_ok()
}

/// The annotations of a pod or a template at `at`.
pub fn check_annotations(
    annotations: Option<&Annotations>,
    spec: &PodSpec,
    options: &Options,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let Some(annotations) = annotations else { return };
    if let Some(mirror) = annotations.get(MIRROR)
        && text(&spec.node_name).is_empty()
    {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        errors.invalid(&at.key(MIRROR), mirror.as_str(), why);
    }
    if let Some(list) = annotations.get(TOLERATIONS).filter(|list| !list.is_empty()) {
        match Vec::<Toleration>::deserialize_json(list) {
            Ok(list) => check_tolerations(&list, false, &at.child(TOLERATIONS), errors),
            Err(why) => errors.invalid(at, TOLERATIONS, why),
        }
    }
    if !options.bad_deletion_cost && !has_valid_deletion_cost(Some(annotations)) {
        let cost = annotations.get(DELETION_COST).map_or("", String::as_str);
        errors.invalid(&at.key(DELETION_COST), cost, "must be a 32bit integer");
    }
    if let Some(profile) = annotations.get(SECCOMP_POD) {
        check_seccomp(profile, &at.child(SECCOMP_POD), errors);
    }
    for (key, profile) in annotations.iter().filter(|(key, _)| key.starts_with(SECCOMP_CONTAINER)) {
        check_seccomp(profile, &at.child(key), errors);
    }
    for (key, profile) in annotations {
        if let Some(container) = key.strip_prefix(APP_ARMOR) {
            check_app_armor(container, profile, spec, &at.key(key), errors);
        }
    }
}

/// Reads a list of tolerations. A trait of our own, since no other crate instantiates serde for wire types.
trait FromText: Sized {
    fn deserialize_json(text: &str) -> Result<Self, String>;
}

impl FromText for Vec<Toleration> {
    fn deserialize_json(text: &str) -> Result<Self, String> {
        let list: Vec<serde_json::Map<String, serde_json::Value>> =
            serde_json::from_str(text).map_err(|e| e.to_string())?;
        let word = |map: &serde_json::Map<String, serde_json::Value>, name: &str| {
            map.get(name).and_then(|v| v.as_str()).map(str::to_owned)
        };
        let toleration = |map: &serde_json::Map<String, serde_json::Value>| Toleration {
            effect: word(map, "effect"),
            key: word(map, "key"),
            operator: word(map, "operator"),
            toleration_seconds: map.get("tolerationSeconds").and_then(serde_json::Value::as_i64),
            value: word(map, "value"),
        };
        Ok(list.iter().map(toleration).collect())
    }
}

fn check_seccomp(profile: &str, at: &At<'_>, errors: &mut Errors) {
    match profile {
        "runtime/default" | "docker/default" | "unconfined" => {}
        other => match other.strip_prefix("localhost/") {
            Some(path) => check_descending_path(path, at, errors),
            None => errors.invalid(at, other, "must be a valid seccomp profile"),
        },
    }
}

fn check_app_armor(container: &str, profile: &str, spec: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    let mut known = false;
    visit_containers(spec, &At::root("spec"), |c, _| known |= c.name == container);
    if !known {
        errors.invalid(at, container, "container not found");
    }
    let sound = matches!(profile, "" | "runtime/default" | "unconfined") || profile.starts_with("localhost/");
    if !sound {
        errors.invalid(at, profile, format!("invalid AppArmor profile name: {profile:?}"));
    }
}

/// Where an annotation and a field say the same thing, they say the same.
pub fn check_agreement(annotations: Option<&Annotations>, spec: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    let Some(annotations) = annotations else { return };
    let context = spec.security_context.as_ref();
    if let (Some(field), Some(annotation)) =
        (context.and_then(|c| c.seccomp_profile.as_ref()), annotations.get(SECCOMP_POD))
    {
        agree_seccomp(annotation, field, &at.child("securityContext.seccompProfile"), errors);
    }
    visit_containers(spec, at, |container, at| {
        let field = container.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
        let annotation = annotations.get(&format!("{SECCOMP_CONTAINER}{}", container.name));
        if let (Some(field), Some(annotation)) = (field, annotation) {
            agree_seccomp(annotation, field, &at.child("securityContext.seccompProfile"), errors);
        }
    });
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return;
    }
    let pod = context.and_then(|c| c.app_armor_profile.as_ref());
    visit_containers(spec, at, |container, at| {
        let own = container.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
        let annotation = annotations.get(&format!("{APP_ARMOR}{}", container.name));
        if let (Some(field), Some(annotation)) = (own.or(pod), annotation) {
            agree_app_armor(annotation, field, &at.child("securityContext.appArmorProfile"), errors);
        }
    });
}

fn agree_seccomp(annotation: &str, field: &SeccompProfile, at: &At<'_>, errors: &mut Errors) {
    let (same, path) = match field.type_.as_str() {
        "Unconfined" => (annotation == "unconfined", true),
        "RuntimeDefault" => (matches!(annotation, "runtime/default" | "docker/default"), true),
        "Localhost" => {
            let path = annotation.strip_prefix("localhost/");
            (path.is_some(), path == field.localhost_profile.as_deref())
        }
        _ => (true, true),
    };
    if !same {
        errors.forbidden(&at.child("type"), "seccomp type in annotation and field must match");
    } else if !path {
        let why = "seccomp profile in annotation and field must match";
        errors.forbidden(&at.child("localhostProfile"), why);
    }
}

fn agree_app_armor(annotation: &str, field: &AppArmorProfile, at: &At<'_>, errors: &mut Errors) {
    let (same, path) = match field.type_.as_str() {
        "Unconfined" => (annotation == "unconfined", true),
        "RuntimeDefault" => (annotation == "runtime/default", true),
        "Localhost" => {
            let path = annotation.strip_prefix("localhost/");
            (path.is_some(), path == field.localhost_profile.as_deref())
        }
        _ => (true, true),
    };
    if !same {
        errors.forbidden(&at.child("type"), "apparmor type in annotation and field must match");
    } else if !path {
        let why = "apparmor profile in annotation and field must match";
        errors.forbidden(&at.child("localhostProfile"), why);
    }
}

/// What an update of a pod may do to its annotations.
pub fn check_annotation_update(
    new: Option<&Annotations>,
    old: Option<&Annotations>,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let empty = Annotations::new();
    let (new, old) = (new.unwrap_or(&empty), old.unwrap_or(&empty));
    for (key, _) in old.iter().filter(|(key, value)| new.get(*key) != Some(value)) {
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(&at.key(key), "may not remove or update AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&at.key(key), "may not remove or update mirror pod annotation");
        }
    }
    for key in new.keys().filter(|key| !old.contains_key(*key)) {
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(&at.key(key), "may not add AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&at.key(key), "may not add mirror pod annotation");
        }
    }
}
