//! The claims of a StatefulSet's pods: made before them, and owned as the retention policy says.

use gantry_api::core::PersistentVolumeClaim;
use gantry_api::meta::MetaExt;
use gantry_api::metav1::OwnerReference;
use gantry_client::views::PodView;

use super::Sync;
use crate::engine::{Event, Write};

/// Who is to own a claim, so that it goes when its owner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeper {
    Nobody,
    Set,
    Pod,
}

impl Sync<'_> {
    /// The claims of an ordinal, each with its template's name.
    pub(super) fn claims(&self, ordinal: i32) -> Vec<(String, PersistentVolumeClaim)> {
        let templates = self.spec.volume_claim_templates.iter().flatten();
        let selected = self.spec.selector.match_labels.clone().unwrap_or_default();
        let claim = |template: &PersistentVolumeClaim| {
            let mut claim = template.clone();
            let name = format!("{}-{}-{ordinal}", template.name(), self.set().name());
            claim.metadata.name = Some(name);
            claim.metadata.namespace = self.set().metadata.namespace.clone();
            claim.metadata.labels.get_or_insert_default().extend(selected.clone());
            claim.status = None;
            (template.name().to_owned(), claim)
        };
        templates.map(claim).collect()
    }

    /// Makes the claims of an ordinal that are missing, before anything else.
    pub(super) fn create_claims(&mut self, ordinal: i32) {
        for (_, mut claim) in self.claims(ordinal) {
            let name = claim.name().to_owned();
            match self.seen.claims.get(&name) {
                Some(old) if old.is_terminating() => {
                    self.plan.failed_because(format!("pvc {name} is being deleted"));
                }
                Some(_) => {}
                None => {
                    if self.keeper(ordinal) == Keeper::Set {
                        let own = gantry_api::meta::controller_reference(self.set());
                        claim.metadata.owner_references = Some(vec![own]);
                    }
                    let write = self.announced(&claim, ordinal);
                    self.plan.push(write.tolerating("AlreadyExists"));
                }
            }
        }
        self.plan.next_stage();
    }

    fn announced(&self, claim: &PersistentVolumeClaim, ordinal: i32) -> Write {
        let (name, set) = (claim.name(), self.set().name());
        let done = format!("Create Claim {name} Pod {set}-{ordinal} in StatefulSet {set} success");
        let failed = format!(
            "Create Claim {name} for Pod {set}-{ordinal} in StatefulSet {set} failed error: {{error}}"
        );
        Write::create(claim)
            .announcing(Event::normal(self.set(), "SuccessfulCreate", done))
            .lamenting(Event::warning(self.set(), "FailedCreate", failed))
    }

    fn keeper(&self, ordinal: i32) -> Keeper {
        let policy = self.spec.persistent_volume_claim_retention_policy.as_ref();
        let deletes = |when: Option<&String>| when.is_some_and(|w| w == "Delete");
        let when_scaled = deletes(policy.and_then(|p| p.when_scaled.as_ref()));
        let when_deleted = deletes(policy.and_then(|p| p.when_deleted.as_ref()));
        match (when_scaled, when_deleted) {
            (true, _) if !self.in_range(ordinal) => Keeper::Pod,
            (_, true) => Keeper::Set,
            _ => Keeper::Nobody,
        }
    }

    /// A claim that still belongs to an earlier pod of that name is on its way out.
    pub(super) fn claim_is_stale(&self, ordinal: i32) -> bool {
        let pod = format!("{}-{ordinal}", self.set().name());
        self.claims(ordinal).iter().any(|(_, claim)| {
            let stored = self.seen.claims.get(claim.name());
            let owners = stored.and_then(|c| c.metadata.owner_references.as_ref());
            owners.into_iter().flatten().any(|o| o.kind == "Pod" && o.name == pod)
        })
    }

    /// Gives each claim of an ordinal the owner that the policy names.
    pub(super) fn fix_claims(&mut self, ordinal: i32, pod: Option<&PodView>) {
        let keeper = self.keeper(ordinal);
        let pod_name = format!("{}-{ordinal}", self.set().name());
        for (_, claim) in self.claims(ordinal) {
            let Some(stored) = self.seen.claims.get(claim.name()).cloned() else { continue };
            let owners = stored.metadata.owner_references.clone().unwrap_or_default();
            let ours = |o: &OwnerReference| {
                (o.kind == "StatefulSet" && o.name == self.set().name())
                    || (o.kind == "Pod" && o.name == pod_name)
            };
            let stale = |o: &&OwnerReference| {
                ours(o) && o.uid != self.set().uid() && pod.is_none_or(|pod| *pod.uid != *o.uid)
            };
            if owners.iter().any(|o| stale(&o)) {
                continue;
            }
            let mut wanted: Vec<_> = owners.iter().filter(|o| !ours(o)).cloned().collect();
            if wanted.iter().any(|o| o.controller == Some(true)) {
                self.conflict(claim.name());
            } else {
                wanted.extend(self.keeper_reference(keeper, pod));
            }
            if wanted != owners {
                let mut updated = (*stored).clone();
                updated.metadata.owner_references = Some(wanted);
                self.plan.push(Write::update(&updated));
            }
        }
    }

    fn keeper_reference(&self, keeper: Keeper, pod: Option<&PodView>) -> Option<OwnerReference> {
        match keeper {
            Keeper::Nobody => None,
            Keeper::Set => Some(gantry_api::meta::controller_reference(self.set())),
            Keeper::Pod => pod.map(|pod| OwnerReference {
                api_version: "v1".into(),
                kind: "Pod".into(),
                name: pod.name().to_owned(),
                uid: pod.uid.to_string(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }),
        }
    }

    fn conflict(&mut self, claim: &str) {
        let policy = self.spec.persistent_volume_claim_retention_policy.as_ref();
        let retains = |when: Option<&String>| when.is_none_or(|w| w == "Retain");
        let retained =
            policy.is_none_or(|p| retains(p.when_scaled.as_ref()) && retains(p.when_deleted.as_ref()));
        if !retained {
            let message = format!(
                "PersistentVolumeClaim {claim} has a conflicting OwnerReference that acts as a manging controller, the retention policy is ignored for this claim"
            );
            let event = Event::warning(self.set(), "ConflictingController", message);
            self.plan.event(event);
        }
    }
}
