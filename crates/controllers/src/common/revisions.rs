//! Controller revisions: the history of a StatefulSet's or DaemonSet's pod template.
//!
//! A revision's data is a patch that replaces the template: `{"spec":{"template":{…,"$patch":"replace"}}}`, as
//! kubectl's `rollout undo` and `rollout history` read it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use gantry_api::apps::ControllerRevision;
use gantry_api::core::PodTemplateSpec;
use gantry_api::k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use gantry_api::meta::{MetaExt, controller_reference};
use gantry_api::{LabelSelector, Object};
use gantry_client::Informer;
use serde_json::{Value, json};

use super::{claim, hash};
use crate::engine::{Plan, Write};

/// The label that names a revision's hash, and on pods the revision that they were made of.
pub const HASH: &str = "controller.kubernetes.io/hash";
/// … on pods.
pub const POD_REVISION: &str = "controller-revision-hash";

/// The revisions of one owner.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Those that it controls, oldest first.
    pub owned: Vec<Arc<ControllerRevision>>,
    orphans: Vec<Arc<ControllerRevision>>,
    /// The names that are taken in the namespace.
    taken: HashSet<String>,
}

impl History {
    /// The history of `owner`.
    pub fn of<K: Object>(
        revisions: &Informer<ControllerRevision>,
        owner: &K,
        selector: &LabelSelector,
    ) -> Self {
        let mut history = Self::default();
        let prefix = format!("{}-", owner.name());
        for revision in revisions.in_namespace(owner.namespace()) {
            if revision.name().starts_with(&prefix) {
                history.taken.insert(revision.name().to_owned());
            }
            match revision.controller() {
                Some(reference) if reference.uid == owner.uid() => history.owned.push(revision),
                None if selector.matches(revision.metadata.labels.as_ref()) => history.orphans.push(revision),
                _ => {}
            }
        }
        history.owned.sort_by(|a, b| order(a).cmp(&order(b)));
        history
    }

    /// Adopts what nothing controls.
    pub fn adopt<K: Object>(&self, owner: &K, plan: &mut Plan) {
        if self.orphans.is_empty() || owner.is_terminating() {
            return;
        }
        plan.push(claim::may_adopt(owner));
        plan.next_stage();
        let resource = ControllerRevision::RESOURCE;
        plan.extend(self.orphans.iter().map(|r| claim::adopt(owner, resource.clone(), r.key(), r.uid())));
        plan.next_stage();
    }

    /// The revision of `template`: an old one, made the newest if need be, or a new one, which is planned. Also
    /// returns how many hash collisions there were.
    pub fn update_revision<K: Object>(
        &self,
        owner: &K,
        template: &PodTemplateSpec,
        collisions: i32,
        plan: &mut Plan,
    ) -> (ControllerRevision, i32) {
        let data = data(template);
        let next = self.owned.last().map_or(1, |r| r.revision + 1);
        let equal = |r: &&Arc<ControllerRevision>| r.data.as_ref().is_some_and(|d| d.0 == data);
        if let Some(found) = self.owned.iter().rev().find(equal) {
            let mut found = (**found).clone();
            if self.owned.last().is_some_and(|newest| newest.uid() != found.uid()) {
                found.revision = next;
                plan.push(Write::update(&found));
                plan.next_stage();
            }
            return (found, collisions);
        }
        let mut collisions = collisions;
        let mut fresh = new_revision(owner, template, &data, next, collisions);
        while self.taken.contains(fresh.name()) {
            collisions += 1;
            fresh = new_revision(owner, template, &data, next, collisions);
        }
        plan.push(Write::create(&fresh));
        plan.next_stage();
        (fresh, collisions)
    }

    /// Deletes the oldest revisions beyond `limit` that are not `live`.
    pub fn truncate(&self, limit: i32, live: &HashSet<&str>, plan: &mut Plan) {
        let dead: Vec<_> = self.owned.iter().filter(|r| !live.contains(r.name())).collect();
        let surplus = dead.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        let resource = ControllerRevision::RESOURCE;
        plan.extend(
            dead.iter().take(surplus).map(|r| Write::delete_exactly(resource.clone(), r.key(), r.uid())),
        );
    }
}

fn order(revision: &ControllerRevision) -> (i64, Option<gantry_api::metav1::Time>, &str) {
    (revision.revision, revision.metadata.creation_timestamp.clone(), revision.name())
}

fn data(template: &PodTemplateSpec) -> Value {
    let mut tree: Value = serde_json::from_slice(&hash::template_json(template)).unwrap_or_default();
    if let Some(fields) = tree.as_object_mut() {
        fields.retain(|key, _| key != "apiVersion" && key != "kind");
        fields.insert("$patch".into(), json!("replace"));
    }
    json!({"spec": {"template": tree}})
}

/// The template in a revision.
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let tree = revision.data.as_ref()?.0.get("spec")?.get("template")?;
    let pod = gantry_api::core::Pod::decode_value(&with_type(tree)).ok()?;
    Some(PodTemplateSpec { metadata: Some(pod.metadata), spec: pod.spec })
}

fn with_type(template: &Value) -> Value {
    let mut tree = template.clone();
    if let Some(fields) = tree.as_object_mut() {
        fields.remove("$patch");
        fields.insert("apiVersion".into(), json!("v1"));
        fields.insert("kind".into(), json!("Pod"));
        fields.entry("metadata").or_insert_with(|| json!({}));
    }
    tree
}

fn new_revision<K: Object>(
    owner: &K,
    template: &PodTemplateSpec,
    data: &Value,
    number: i64,
    collisions: i32,
) -> ControllerRevision {
    let hash = hash::text_hash(&data.to_string(), (collisions > 0).then_some(collisions));
    let mut revision = ControllerRevision {
        data: Some(RawExtension(data.clone())),
        revision: number,
        ..ControllerRevision::default()
    };
    let meta = &mut revision.metadata;
    let name = owner.name();
    meta.name = Some(format!("{}-{hash}", &name[..name.len().min(223)]));
    meta.namespace = owner.metadata().namespace.clone();
    let mut labels: BTreeMap<String, String> =
        template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(HASH.into(), hash);
    meta.labels = Some(labels);
    meta.annotations = owner.metadata().annotations.clone();
    meta.owner_references = Some(vec![controller_reference(owner)]);
    revision
}

/// The hash label of a revision.
pub fn hash_of(revision: &ControllerRevision) -> &str {
    revision.label(HASH).unwrap_or("")
}
