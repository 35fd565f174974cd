//! StatefulSet: pods with a stable name and stable storage each.

use std::time::SystemTime;

use gantry_api::apps::{RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetStatus};
use gantry_api::core::{PersistentVolumeClaimVolumeSource, Volume};
use gantry_api::field::{Error, Path};
use gantry_api::meta::MetaExt;
use gantry_api::names;
use serde_json::Value;

use crate::common::pod_spec::one_of;
use crate::common::{cells, workload};
use crate::core::persistent_volume_claim::claim_defaults;
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
        let path = Path::new("spec");
        if let Err(why) = names::dns1123_label(set.name())
            && !set.name().is_empty()
        {
            errors.push(Error::invalid(&Path::new("metadata").child("name"), set.name(), why));
        }
        let Some(spec) = &set.spec else { return vec![Error::required(&path.child("selector"), "")] };
        one_of(
            &path.child("podManagementPolicy"),
            spec.pod_management_policy.as_deref(),
            &["OrderedReady", "Parallel"],
            &mut errors,
        );
        if let Some(strategy) = &spec.update_strategy {
            let at = path.child("updateStrategy");
            one_of(&at.child("type"), strategy.type_.as_deref(), &["OnDelete", "RollingUpdate"], &mut errors);
            let partition = strategy.rolling_update.as_ref().and_then(|r| r.partition);
            workload::non_negative(&at.child("rollingUpdate").child("partition"), partition, &mut errors);
        }
        workload::non_negative(&path.child("replicas"), spec.replicas, &mut errors);
        workload::non_negative(&path.child("minReadySeconds"), spec.min_ready_seconds, &mut errors);
        workload::validate_selector(&spec.selector, Some(&spec.template), &path, &mut errors);
        // A claim template is a volume of its name.
        let mut template = spec.template.clone();
        if let Some(pod) = &mut template.spec {
            let volumes = pod.volumes.get_or_insert_default();
            for claim in spec.volume_claim_templates.iter().flatten() {
                if !volumes.iter().any(|v| v.name == claim.name()) {
                    volumes.push(claim_volume(claim.name()));
                }
            }
        }
        workload::validate_template(&template, &path.child("template"), &["Always"], &mut errors);
        errors
    }

    fn validate_update(new: &StatefulSet, old: &StatefulSet) -> Errors {
        const WHY: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        let mut errors = Errors::new();
        let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return errors };
        let mut leveled = new.clone();
        leveled.replicas = old.replicas;
        leveled.template.clone_from(&old.template);
        leveled.ordinals.clone_from(&old.ordinals);
        leveled.update_strategy.clone_from(&old.update_strategy);
        leveled.revision_history_limit = old.revision_history_limit;
        leveled.min_ready_seconds = old.min_ready_seconds;
        leveled
            .persistent_volume_claim_retention_policy
            .clone_from(&old.persistent_volume_claim_retention_policy);
        if leveled != *old {
            errors.push(Error::forbidden(&Path::new("spec"), WHY));
        }
        errors
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
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]
            }
        }))
        .expect("a set");
        StatefulSetKind::defaults(&mut set);
        assert_eq!(StatefulSetKind::validate(&set), Errors::new());
    }
}
