//! Other amounts of CPU and memory for a running pod. As `ValidatePodResize`.

use gantry_api::core::{Container, Pod, PodSpec, ResourceRequirements};

use super::{qos_class, validate};
use crate::common::at::{At, Complaints, items, text};
use crate::common::internal;
use crate::common::pod_spec::is_sidecar;
use crate::common::quantities::Resources;
use crate::kind::Errors;

const MUTABLE: &str = "only cpu and memory resources are mutable";

/// Keeps everything of the old pod but the resources and resize policies of the containers, and the pod's own.
///
/// Where the lists of containers do not fit together, nothing is kept and the validation says why.
pub(super) fn prepare(new: &mut Pod, old: &Pod) {
    let (Some(spec), Some(before)) = (&mut new.spec, &old.spec) else { return };
    let init = items(&before.init_containers);
    let fits =
        spec.containers.len() == before.containers.len() && items(&spec.init_containers).len() == init.len();
    if !fits {
        return;
    }
    let mut kept = before.clone();
    kept.resources = spec.resources.take();
    kept.containers = take_resources(std::mem::take(&mut spec.containers), &before.containers);
    let list = spec.init_containers.take().unwrap_or_default();
    kept.init_containers = Some(take_resources(list, init)).filter(|list| !list.is_empty());
    *spec = kept;
    new.status.clone_from(&old.status);
}

fn take_resources(new: Vec<Container>, old: &[Container]) -> Vec<Container> {
    if new.iter().zip(old).any(|(new, old)| new.name != old.name) {
        return new;
    }
    let pairs = new.into_iter().zip(old);
    let merge = |(new, old): (Container, &Container)| Container {
        resources: new.resources,
        resize_policy: new.resize_policy,
        ..old.clone()
    };
    pairs.map(merge).collect()
}

/// May the pod be resized so?
pub(super) fn check(new: &Pod, old: &Pod) -> Errors {
    let mut errors = Errors::new();
    let (spec, before) = (validate::spec_of(new), validate::spec_of(old));
    for (refused, why) in [
        (validate::is_static(old), "static pods cannot be resized"),
        (before.os.as_ref().is_some_and(|os| os.name == "windows"), "windows pods cannot be resized"),
    ] {
        if refused {
            errors.forbidden(&At::root("[]"), why);
            return errors;
        }
    }
    validate::check(&new.metadata, &spec, &validate::options(old), &mut errors);
    let at = At::root("spec");
    let qos = old.status.as_ref().and_then(|s| s.qos_class.as_deref()).unwrap_or_else(|| qos_class(old));
    if qos != qos_class(new) {
        let shown = new.status.as_ref().map_or("", |s| text(&s.qos_class));
        errors.invalid(&at, shown, "Pod QOS Class may not change as a result of resizing");
    }
    if !is_supported(old) {
        errors.forbidden(&at, "Pod running on node without support for resize");
    }
    let mut leveled = spec.clone();
    if has_pod_level(&spec) || has_pod_level(&before) {
        check_pod_level(&mut leveled, &spec, &before, &at, &mut errors);
    }
    let claims = old.status.as_ref().map(|s| items(&s.node_allocatable_resource_claim_statuses));
    if claims.is_some_and(|claims| !claims.is_empty()) {
        errors.forbidden(&at, "pods with node allocatable resource claims cannot be resized");
    }
    let found = errors.len();
    check_order(&spec, &before, &at, &mut errors);
    if errors.len() > found {
        return errors;
    }
    check_lists(&mut leveled, &before, &at, &mut errors);
    if errors.is_empty() && !internal::same(&leveled, &before) {
        errors.forbidden(&at, MUTABLE);
    }
    errors
}

fn check_lists(leveled: &mut PodSpec, before: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    let init = leveled.init_containers.clone().unwrap_or_default();
    for (field, list, old) in [
        ("initContainers", init.as_slice(), items(&before.init_containers)),
        ("containers", leveled.containers.as_slice(), before.containers.as_slice()),
    ] {
        let at = at.child(field);
        for (i, (new, old)) in list.iter().zip(old).enumerate() {
            let at = at.index(i);
            check_removed(
                new.resources.as_ref(),
                old.resources.as_ref(),
                "resource",
                &at.child("resources"),
                errors,
            );
        }
    }
    for (container, old) in leveled.containers.iter_mut().zip(&before.containers) {
        level(&mut container.resources, old.resources.as_ref());
        if !internal::same(container, old) {
            errors.forbidden(at, MUTABLE);
        }
    }
    let list = at.child("initContainers");
    let pairs = leveled.init_containers.iter_mut().flatten().zip(items(&before.init_containers));
    for (i, (container, old)) in pairs.enumerate() {
        let at = list.index(i);
        let changed = !internal::same(container, old);
        level(&mut container.resources, old.resources.as_ref());
        if !internal::same(container, old) {
            let why = "only cpu and memory resources for init or sidecar containers are mutable";
            errors.forbidden(&at, why);
        }
        let restarts =
            items(&container.resize_policy).iter().filter(|p| p.restart_policy == "RestartContainer");
        for _ in restarts.filter(|_| changed && !is_sidecar(old)) {
            let why =
                "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            errors.forbidden(&at, why);
        }
    }
}

/// Whether the node said what the containers have.
fn is_supported(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().map(|s| items(&s.container_statuses)).unwrap_or_default();
    let running = statuses.iter().find(|s| s.state.as_ref().is_some_and(|state| state.running.is_some()));
    running.is_none_or(|status| status.resources.is_some())
}

fn has_pod_level(spec: &PodSpec) -> bool {
    spec.resources.as_ref().is_some_and(|r| {
        r.requests.as_ref().is_some_and(|l| !l.is_empty()) || r.limits.as_ref().is_some_and(|l| !l.is_empty())
    })
}

fn check_pod_level(leveled: &mut PodSpec, new: &PodSpec, old: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    if old.resources.is_some() && new.resources.is_none() {
        errors.forbidden(&at.child("resources"), "pod-level resources cannot be removed");
        return;
    }
    if old.resources.is_some() {
        let (new, old) = (new.resources.as_ref(), old.resources.as_ref());
        check_removed(new, old, "pod-level resource", &at.child("resources"), errors);
    }
    level(&mut leveled.resources, old.resources.as_ref());
    if !internal::same(&leveled.resources, &old.resources) {
        errors.forbidden(at, "only cpu and memory resources are mutable at pod-level");
    }
}

fn check_removed(
    new: Option<&ResourceRequirements>,
    old: Option<&ResourceRequirements>,
    what: &str,
    at: &At<'_>,
    errors: &mut Errors,
) {
    type Pick = fn(&ResourceRequirements) -> Option<&Resources>;
    let lists: [(&str, Pick); 2] = [("requests", |r| r.requests.as_ref()), ("limits", |r| r.limits.as_ref())];
    for (field, pick) in lists {
        let empty = Resources::new();
        let new = new.and_then(pick).unwrap_or(&empty);
        let old = old.and_then(pick).unwrap_or(&empty);
        if old.keys().any(|name| !new.contains_key(name)) {
            errors.forbidden(&at.child(field), format!("{what} {field} cannot be removed"));
        }
    }
}

fn check_order(new: &PodSpec, old: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    let lists = [
        ("containers", new.containers.as_slice(), old.containers.as_slice()),
        ("initContainers", items(&new.init_containers), items(&old.init_containers)),
    ];
    for (field, new, old) in lists {
        let at = at.child(field);
        if new.len() != old.len() {
            errors.forbidden(&at, format!("{field} may not be added or removed on resize"));
            continue;
        }
        for (i, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new.name != old.name) {
            let why = format!("{field} may not be renamed or reordered on resize");
            errors.forbidden(&at.index(i).child("name"), why);
        }
    }
}

/// CPU and memory as they were.
fn level(new: &mut Option<ResourceRequirements>, old: Option<&ResourceRequirements>) {
    let Some(new) = new else { return };
    let empty = Resources::new();
    let restore = |list: &mut Option<Resources>, old: Option<&Resources>| {
        let old = old.unwrap_or(&empty);
        let list = list.get_or_insert_default();
        for name in ["cpu", "memory"] {
            match old.get(name) {
                Some(wire) => list.insert(name.to_owned(), wire.clone()),
                None => list.remove(name),
            };
        }
    };
    restore(&mut new.limits, old.and_then(|r| r.limits.as_ref()));
    restore(&mut new.requests, old.and_then(|r| r.requests.as_ref()));
}
