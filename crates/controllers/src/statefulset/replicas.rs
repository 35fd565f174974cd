//! Which pods to make, remove and replace, and in which order.

use std::sync::Arc;

use gantry_api::Object;
use gantry_api::core::{PersistentVolumeClaimVolumeSource, Pod, Volume};
use gantry_api::meta::MetaExt;
use gantry_client::PatchKind;
use gantry_client::views::{Phase, PodView};
use serde_json::json;

use super::{Sync, parent, revision_of};
use crate::common::claim::ViewKey;
use crate::common::number::{scaled, size};
use crate::common::pods;
use crate::common::revisions::POD_REVISION;
use crate::engine::{Event, Write};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// Whether to look at the next pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoOn,
    Stop,
}

impl Sync<'_> {
    /// Brings the pods to what they should be, as far as the order allows now.
    pub(super) fn reconcile(&mut self) {
        let ordered = self.spec.pod_management_policy.as_deref() != Some("Parallel");
        let mut replicas: Vec<Option<Arc<PodView>>> = vec![None; size(self.wanted())];
        let mut condemned = Vec::new();
        for pod in self.pods.clone() {
            match parent(pod.name()) {
                Some((_, ordinal)) if self.in_range(ordinal) => {
                    replicas[size(ordinal - self.first())] = Some(pod);
                }
                Some((_, ordinal)) => condemned.push((ordinal, pod)),
                None => {}
            }
        }
        condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
        for (ordinal, pod) in (self.first()..).zip(&replicas) {
            if self.process(ordinal, pod.as_deref(), ordered) == Then::Stop && ordered {
                return;
            }
        }
        for (ordinal, pod) in &condemned {
            self.fix_claims(*ordinal, Some(pod));
        }
        let first_unavailable = condemned.iter().rev().find(|(_, pod)| self.is_unavailable(pod));
        let first_unavailable = first_unavailable.map(|(ordinal, _)| *ordinal);
        for (ordinal, pod) in &condemned {
            if self.condemn(pod, ordered, first_unavailable == Some(*ordinal)) == Then::Stop && ordered {
                return;
            }
        }
        if self.strategy() == "RollingUpdate" {
            self.replace_old(&replicas);
        }
    }

    fn is_unavailable(&self, pod: &PodView) -> bool {
        !self.is_available(pod) || pod.deleted.is_some()
    }

    fn process(&mut self, ordinal: i32, pod: Option<&PodView>, ordered: bool) -> Then {
        let Some(pod) = pod else {
            if self.claim_is_stale(ordinal) {
                return Then::Stop;
            }
            self.create(ordinal);
            return if ordered { Then::Stop } else { Then::GoOn };
        };
        if pod.is_finished() {
            if pod.deleted.is_none() {
                self.delete(pod);
            }
            return Then::Stop;
        }
        if pod.phase == Phase::Pending {
            self.create_claims(ordinal);
        }
        let settled = pod.deleted.is_none() && self.is_ready(pod) && self.is_available(pod);
        if ordered && !settled {
            return Then::Stop;
        }
        self.fix_identity(ordinal, pod);
        self.fix_claims(ordinal, Some(pod));
        Then::GoOn
    }

    fn condemn(&mut self, pod: &PodView, ordered: bool, first_unavailable: bool) -> Then {
        if pod.deleted.is_some() {
            return Then::Stop;
        }
        let settled = self.is_ready(pod) && self.is_available(pod);
        if ordered && !settled && !first_unavailable {
            return Then::Stop;
        }
        self.delete(pod);
        Then::Stop
    }

    /// Deletes pods of older revisions, the highest ordinals first, within what may be unavailable.
    fn replace_old(&mut self, replicas: &[Option<Arc<PodView>>]) {
        let rolling = self.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let partition = size(rolling.and_then(|r| r.partition).unwrap_or(0));
        let most = rolling.and_then(|r| r.max_unavailable.as_ref());
        let most = most.map_or(1, |value| scaled(Some(value), self.wanted(), false)).max(1);
        let unavailable = |pod: &Option<Arc<PodView>>| pod.as_ref().is_none_or(|p| self.is_unavailable(p));
        let down = replicas.iter().filter(|pod| unavailable(pod)).count();
        let room = size(most).saturating_sub(down);
        let old =
            |pod: &&Arc<PodView>| pod.deleted.is_none() && revision_of(pod) != Some(self.update.as_str());
        let chosen = replicas.iter().skip(partition).rev().flatten().filter(old).take(room);
        for pod in chosen.cloned().collect::<Vec<_>>() {
            self.delete(&pod);
        }
    }

    fn pod_name(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.set().name())
    }

    fn create(&mut self, ordinal: i32) {
        self.create_claims(ordinal);
        self.fix_claims(ordinal, None);
        let pod = self.new_pod(ordinal);
        let (pod_name, set_name) = (self.pod_name(ordinal), self.set().name());
        let done = format!("Create Pod {pod_name} in StatefulSet {set_name} successful");
        let failed = format!("Create Pod {pod_name} in StatefulSet {set_name} failed error: {{error}}");
        let write = Write::create(&pod)
            .announcing(Event::normal(self.set(), "SuccessfulCreate", done))
            .lamenting(Event::warning(self.set(), "FailedCreate", failed));
        self.plan.push(write);
    }

    /// Whether a new pod of this ordinal is made of the current template, not yet of the newest.
    fn starts_at_current(&self, ordinal: i32) -> bool {
        if self.strategy() != "RollingUpdate" {
            return false;
        }
        let rolling = self.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let kept = match rolling {
            Some(rolling) => rolling.partition.unwrap_or(0),
            None => self.stored.current_replicas.unwrap_or(0),
        };
        ordinal < self.first() + kept
    }

    fn new_pod(&self, ordinal: i32) -> Pod {
        let (template, revision) = match self.starts_at_current(ordinal) {
            true => (&self.current_template, &self.current),
            false => (&self.spec.template, &self.update),
        };
        let mut pod = pods::from_template(template, self.set());
        let name = self.pod_name(ordinal);
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(POD_NAME.into(), name.clone());
        labels.insert(POD_INDEX.into(), ordinal.to_string());
        labels.insert(POD_REVISION.into(), revision.clone());
        pod.metadata.name = Some(name.clone());
        let claims = self.claims(ordinal);
        let spec = pod.spec.get_or_insert_default();
        spec.hostname = Some(name);
        spec.subdomain = self.spec.service_name.clone().filter(|s| !s.is_empty());
        let volumes = spec.volumes.get_or_insert_default();
        volumes.retain(|volume| !claims.iter().any(|(template, _)| *template == volume.name));
        volumes.extend(claims.into_iter().map(|(template, claim)| Volume {
            name: template,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.name().to_owned(),
                read_only: None,
            }),
            ..Volume::default()
        }));
        pod
    }

    fn delete(&mut self, pod: &PodView) {
        let (name, set) = (pod.name(), self.set().name());
        let done = format!("Delete Pod {name} in StatefulSet {set} successful");
        let failed = format!("Delete Pod {name} in StatefulSet {set} failed error: {{error}}");
        let write = Write::delete_exactly(Pod::RESOURCE, pod.view_key(), &pod.uid)
            .announcing(Event::normal(self.set(), "SuccessfulDelete", done))
            .lamenting(Event::warning(self.set(), "FailedDelete", failed));
        self.plan.push(write);
    }

    /// The labels that say who a pod is.
    fn fix_identity(&mut self, ordinal: i32, pod: &PodView) {
        let label = |key| pod.labels.as_deref().and_then(|l| l.get(key)).map(String::as_str);
        let index = ordinal.to_string();
        if label(POD_NAME) == Some(pod.name()) && label(POD_INDEX) == Some(&index) {
            return;
        }
        let patch =
            json!({"metadata": {"uid": &*pod.uid, "labels": {POD_NAME: pod.name(), POD_INDEX: index}}});
        let write = Write::patch(Pod::RESOURCE, pod.view_key(), "", PatchKind::Strategic, &patch);
        self.plan.push(write.tolerating("NotFound"));
    }
}
