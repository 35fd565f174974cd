//! StatefulSet: pods with a stable name and stable storage each.

use std::time::SystemTime;

use gantry_api::apps::{RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use gantry_api::core::{PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume};
use gantry_api::field::ordered;
use gantry_api::meta::MetaExt;
use gantry_api::{LabelSelector, names};
use serde_json::{Value, json};

use crate::common::at::{At, Complaints, items, text};
use crate::common::pod_spec::{claim_defaults, template_warnings};
use crate::common::{cells, internal, pod_spec, workload};
use crate::core::persistent_volume_claim::{check_claim_spec, warn_claim_spec};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::scale::Scale;
use crate::table::{AGE, Column, age};

/// The kind.
pub struct StatefulSetKind;

impl Kind for StatefulSetKind {
    type Object = StatefulSet;
    const NAMES: Names =
        Names { singular: "statefulset", short: &["sts"], categories: &["all"], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: true, scale: true, connect: &[] };

    fn defaults(set: &mut StatefulSet) {
        let spec = set.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.pod_management_policy.get_or_insert_with(|| "OrderedReady".into());
        let strategy = spec.update_strategy.get_or_insert_default();
        if strategy.type_.as_deref().unwrap_or("").is_empty() {
            strategy.type_ = Some("RollingUpdate".into());
            strategy.rolling_update.get_or_insert_with(RollingUpdateStatefulSetStrategy::default);
        }
        if strategy.type_.as_deref() == Some("RollingUpdate")
            && let Some(rolling) = &mut strategy.rolling_update
        {
            rolling.partition.get_or_insert(0);
            // `MaxUnavailableStatefulSet` is off by default.
            rolling.max_unavailable = None;
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        retention.when_deleted.get_or_insert_with(|| "Retain".into());
        retention.when_scaled.get_or_insert_with(|| "Retain".into());
        workload::template_defaults(&mut spec.template);
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            claim_defaults(claim.spec.get_or_insert_default());
            claim.status.get_or_insert_default().phase.get_or_insert_with(|| "Pending".into());
        }
    }

    fn recall(set: &mut StatefulSet, sent: &[u8]) {
        if let Some(spec) = &mut set.spec {
            workload::recall_selector(&mut spec.selector, sent);
        }
    }

    fn prepare_create(set: &mut StatefulSet) {
        set.status = Some(StatefulSetStatus::default());
        set.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut StatefulSet, old: &StatefulSet) {
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn prepare_status_update(new: &mut StatefulSet, old: &StatefulSet) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(set: &StatefulSet) -> Errors {
        let mut errors = Errors::new();
        let name = set.name();
        if let Err(why) = names::dns1123_label(name)
            && !name.is_empty()
        {
            errors.invalid(&At::root("metadata.name"), name, why);
        }
        check(set, None, &Leniency::default(), &mut errors);
        errors
    }

    fn validate_replacement(new: &StatefulSet, old: &StatefulSet) -> Errors {
        const WHY: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        let mut errors = Errors::new();
        // What cannot change any more may stay as it is.
        let mut leniency = Leniency { service_name: true, claims: true, template: false };
        let mut before = Errors::new();
        check(old, Some(old), &leniency, &mut before);
        leniency.template = !before.is_empty();
        check(new, Some(old), &leniency, &mut errors);
        let (Some(spec), Some(old_spec)) = (&new.spec, &old.spec) else { return errors };
        let leveled = StatefulSetSpec {
            replicas: old_spec.replicas,
            template: old_spec.template.clone(),
            ordinals: old_spec.ordinals.clone(),
            update_strategy: old_spec.update_strategy.clone(),
            min_ready_seconds: old_spec.min_ready_seconds,
            revision_history_limit: old_spec.revision_history_limit,
            persistent_volume_claim_retention_policy: old_spec
                .persistent_volume_claim_retention_policy
                .clone(),
            ..spec.clone()
        };
        if !internal::same(&leveled, old_spec) {
            errors.forbidden(&At::root("spec"), WHY);
        }
        errors
    }

    fn validate_status_update(new: &StatefulSet, old: &StatefulSet) -> Errors {
        let mut errors = Errors::new();
        let at = At::root("status");
        let status = new.status.clone().unwrap_or_default();
        let wide = |count: Option<i32>| count.map(i64::from);
        let (ready, available) =
            (("readyReplicas", status.ready_replicas), ("availableReplicas", status.available_replicas));
        workload::check_counts(
            &[
                ("replicas", wide(Some(status.replicas))),
                ("readyReplicas", wide(ready.1)),
                ("currentReplicas", wide(status.current_replicas)),
                ("updatedReplicas", wide(status.updated_replicas)),
                ("availableReplicas", wide(available.1)),
                ("observedGeneration", status.observed_generation),
                ("collisionCount", wide(status.collision_count)),
            ],
            &at,
            &mut errors,
        );
        let counts = [
            ready,
            ("currentReplicas", status.current_replicas),
            ("updatedReplicas", status.updated_replicas),
            available,
        ];
        let why = "cannot be greater than status.replicas";
        workload::check_below(&counts, status.replicas, why, &at, &mut errors);
        let why = "cannot be greater than status.readyReplicas";
        workload::check_below(&[available], ready.1.unwrap_or(0), why, &at, &mut errors);
        let before = old.status.as_ref().and_then(|s| s.collision_count);
        workload::check_collisions(status.collision_count, before, &at, &mut errors);
        errors
    }

    fn warnings(set: &StatefulSet) -> Vec<String> {
        let Some(spec) = &set.spec else { return Vec::new() };
        let mut warnings = template_warnings(&spec.template, &At::root("spec.template"));
        warn_rest(spec, "", &mut warnings);
        warnings
    }

    fn update_warnings(new: &StatefulSet, old: &StatefulSet) -> Vec<String> {
        let generations = (new.metadata.generation, old.metadata.generation);
        let mut warnings = workload::update_warnings(generations, new.spec.as_ref().map(|s| &s.template));
        if let Some(spec) = &new.spec {
            // Upstream's path differs between creations and updates.
            warn_rest(spec, "Spec", &mut warnings);
        }
        warnings
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Ready", "string", "Number of the pod with ready state"),
            AGE,
            Column::wide("Containers", "string", "Names of each container in the template."),
            Column::wide("Images", "string", "Images referenced by each container in the template."),
        ];
        COLUMNS
    }

    fn cells(set: &StatefulSet, now: SystemTime) -> Vec<Value> {
        let spec = set.spec.clone().unwrap_or_default();
        let ready = set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
        let containers = spec.template.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
        let [names, images] = cells::containers(containers);
        vec![format!("{ready}/{}", spec.replicas.unwrap_or(0)).into(), age(&set.metadata, now), names, images]
    }

    fn scale(set: &StatefulSet) -> Option<Scale> {
        let spec = set.spec.clone().unwrap_or_default();
        Some(Scale {
            replicas: spec.replicas.unwrap_or(0),
            current: set.status.as_ref().map_or(0, |s| s.replicas),
            selector: workload::selector_text(Some(&spec.selector)),
        })
    }

    fn set_replicas(set: &mut StatefulSet, replicas: i32) {
        set.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

/// What an update may keep although a new set could not have it.
#[derive(Default)]
struct Leniency {
    service_name: bool,
    claims: bool,
    template: bool,
}

fn check(set: &StatefulSet, old: Option<&StatefulSet>, leniency: &Leniency, errors: &mut Errors) {
    let empty = StatefulSetSpec::default();
    let spec = set.spec.as_ref().unwrap_or(&empty);
    let at = At::root("spec");
    match text(&spec.pod_management_policy) {
        "" => errors.required(&at.child("podManagementPolicy"), ""),
        "OrderedReady" | "Parallel" => {}
        other => {
            let why = "must be 'OrderedReady' or 'Parallel'";
            errors.invalid(&at.child("podManagementPolicy"), other, why);
        }
    }
    check_strategy(spec, &at.child("updateStrategy"), errors);
    if let Some(retention) = &spec.persistent_volume_claim_retention_policy {
        let at = at.child("persistentVolumeClaimRetentionPolicy");
        for (field, policy) in
            [("whenDeleted", &retention.when_deleted), ("whenScaled", &retention.when_scaled)]
        {
            errors.among(&at.child(field), text(policy), &["Retain", "Delete"]);
        }
    }
    let list = at.child("volumeClaimTemplates");
    for (i, claim) in items(&spec.volume_claim_templates).iter().enumerate().filter(|_| !leniency.claims) {
        let claim = claim.spec.clone().unwrap_or_default();
        check_claim_spec(&claim, Default::default(), &list.index(i).child("spec"), errors);
    }
    errors.non_negative(&at.child("replicas"), spec.replicas.unwrap_or(0).into());
    errors.non_negative(&at.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0).into());
    let start = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
    errors.non_negative(&at.child("ordinals.start"), start.into());
    let service = text(&spec.service_name);
    if !service.is_empty() && !leniency.service_name {
        errors.check(&at.child("serviceName"), service, names::dns1123_label(service));
    }
    let (selector_at, template_at) = (at.child("selector"), at.child("template"));
    let old = old.and_then(|o| o.spec.as_ref()).map(|s| &s.template);
    match workload::check_selector(&spec.selector, "statefulset", &selector_at, errors) {
        Ok(selector) => check_set_template(spec, selector.as_ref(), old, leniency, &template_at, errors),
        Err(workload::Unreadable) => errors.invalid(&selector_at, json!(spec.selector), ""),
    }
    workload::check_restarted_forever(spec.template.spec.as_ref(), "StatefulSet", &template_at, errors);
}

/// The template, with a volume for each claim template; the set gives its pods their host names.
fn check_set_template(
    spec: &StatefulSetSpec,
    selector: Option<&LabelSelector>,
    old: Option<&PodTemplateSpec>,
    leniency: &Leniency,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let mut template = spec.template.clone();
    if let Some(pod) = &mut template.spec {
        pod.subdomain = None;
        pod.hostname = None;
        let claims: Vec<&str> =
            items(&spec.volume_claim_templates).iter().map(|claim| claim.name()).collect();
        let mut volumes: Vec<Volume> = claims.iter().map(|name| claim_volume(name)).collect();
        let own = pod.volumes.take().unwrap_or_default();
        volumes.extend(own.into_iter().filter(|v| !claims.contains(&v.name.as_str())));
        pod.volumes = Some(volumes);
    }
    workload::check_selected(selector, &template, at, errors);
    if !leniency.template {
        pod_spec::check_template(&template, old, at, errors);
    }
}

fn check_strategy(spec: &StatefulSetSpec, at: &At<'_>, errors: &mut Errors) {
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    let shown_rolling = |rolling: &RollingUpdateStatefulSetStrategy| {
        ordered(&[
            ("Partition", json!(rolling.partition.unwrap_or(0))),
            ("MaxUnavailable", json!(rolling.max_unavailable)),
        ])
    };
    let rolling_at = at.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("", _) => errors.required(at, ""),
        ("OnDelete", Some(rolling)) => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            errors.invalid(&rolling_at, shown_rolling(rolling), why);
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        ("RollingUpdate", Some(rolling)) => {
            let partition = rolling.partition.unwrap_or(0);
            errors.non_negative(&rolling_at.child("partition"), partition.into());
            if let Some(value) = &rolling.max_unavailable {
                let at = rolling_at.child("maxUnavailable");
                workload::check_int_or_percent(value, &at, errors);
                if workload::number(Some(value)) == 0 {
                    errors.invalid(&at, json!(value), "cannot be 0");
                }
                workload::check_at_most_100_percent(value, &at, errors);
            }
        }
        (other, rolling) => {
            let shown = super::deployment::shown(other, rolling.as_ref().map(shown_rolling));
            errors.invalid(at, shown, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}

fn warn_rest(spec: &StatefulSetSpec, below: &str, warnings: &mut Vec<String>) {
    let list = At::root("spec.volumeClaimTemplates");
    for (i, claim) in items(&spec.volume_claim_templates).iter().enumerate() {
        let at = list.index(i);
        let claim = claim.spec.clone().unwrap_or_default();
        warn_claim_spec(&claim, &at.child(below), warnings);
    }
    if spec.revision_history_limit.is_some_and(|limit| limit < 0) {
        warnings.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".into());
    }
}

fn claim_volume(name: &str) -> Volume {
    let source = PersistentVolumeClaimVolumeSource { claim_name: name.to_owned(), ..Default::default() };
    Volume { name: name.to_owned(), persistent_volume_claim: Some(source), ..Volume::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_template_can_be_mounted() {
        let mut set: StatefulSet = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "db", "namespace": "default"},
            "spec": {
                "serviceName": "db",
                "selector": {"matchLabels": {"app": "db"}},
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [
                    {"name": "db", "image": "db", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
                ]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                    "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}
                }}]
            }
        }))
        .expect("a set");
        StatefulSetKind::defaults(&mut set);
        assert_eq!(StatefulSetKind::validate(&set), Errors::new());
    }
}
