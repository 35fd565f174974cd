//! ResourceQuotas: what a namespace really holds, added up anew whenever something goes.
//!
//! Behaviour: `pkg/controller/resourcequota`. The API server charges what comes; this controller gives back what goes,
//! and corrects what was charged for nothing. What counts is in [`gantry_kinds::quota`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::core::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, Service};
use gantry_api::k8s_openapi::api::resource::v1::ResourceClaim;
use gantry_api::meta::MetaExt;
use gantry_api::{Object, ObjectKey, Quantity};
use gantry_client::{Delta, Informer, InformerSet, Projection};
use gantry_kinds::quota::{Measure, Measured};
use gantry_kinds::resources::{Amounts, add, amounts, to_wire};
use std::marker::PhantomData;

use crate::engine::{Controller, Moment, Plan, Watch, Write};
use crate::inventory::{Change, Inventory};

/// All is added up again after this long, even if nothing goes.
const RECOUNT: Duration = Duration::from_secs(300);
/// … and after this long when something was corrected: what was being created meanwhile may have been missed.
const SETTLE: Duration = Duration::from_secs(5);
/// A resource that is not listed yet is looked for again after this long; and limits that are new are counted again.
const UNLISTED: Duration = Duration::from_secs(1);

/// What is kept of an object that counts by more than its number.
pub struct Charged<K> {
    key: ObjectKey,
    revision: u64,
    measured: Measured,
    kind: PhantomData<fn() -> K>,
}

impl<K: Object> Projection for Charged<K> {
    type Object = K;

    fn project(object: Arc<K>) -> Arc<Self> {
        let measured = Measure::of(&K::RESOURCE.group, &K::RESOURCE.plural).measure(&*object);
        let (key, revision) = (object.key(), MetaExt::revision(&*object));
        Arc::new(Self { key, revision, measured, kind: PhantomData })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}

/// The resourcequota controller.
pub struct Quotas {
    quotas: Informer<ResourceQuota>,
    pods: Informer<Charged<Pod>>,
    services: Informer<Charged<Service>>,
    claims: Informer<Charged<PersistentVolumeClaim>>,
    devices: Informer<Charged<ResourceClaim>>,
    inventory: Arc<Inventory>,
}

impl Quotas {
    /// A controller that reads `informers` and `inventory`.
    pub fn new(informers: &InformerSet, inventory: Arc<Inventory>) -> Self {
        Self {
            quotas: informers.of(),
            pods: informers.of(),
            services: informers.of(),
            claims: informers.of(),
            devices: informers.of(),
            inventory,
        }
    }

    /// Objects that count by their number: by the names that quotas have for it; `None` for what is not listed yet.
    fn counts(&self, namespace: &str, hard: &Amounts) -> BTreeMap<String, Option<usize>> {
        let mut counts = BTreeMap::new();
        let Some(discovered) = self.inventory.discovered() else { return counts };
        self.inventory.read(|graph| {
            for resource in discovered.resources.iter().map(|d| &d.resource).filter(|r| r.namespaced) {
                let Measure::Count(names) = Measure::of(&resource.group, &resource.plural) else { continue };
                let wanted: Vec<_> = names.iter().filter(|name| hard.contains_key(&***name)).collect();
                if wanted.is_empty() || resource.plural == "events" {
                    continue;
                }
                let count = graph.is_listed(resource).then(|| {
                    graph.in_namespace(namespace).iter().filter(|node| *node.resource == *resource).count()
                });
                counts.extend(wanted.into_iter().map(|name| (name.to_string(), count)));
            }
        });
        counts
    }
}

/// What the controller sees of a quota.
pub struct Seen {
    quota: Arc<ResourceQuota>,
    pods: Vec<Arc<Charged<Pod>>>,
    services: Vec<Arc<Charged<Service>>>,
    claims: Vec<Arc<Charged<PersistentVolumeClaim>>>,
    devices: Vec<Arc<Charged<ResourceClaim>>>,
    counts: BTreeMap<String, Option<usize>>,
}

/// A charge changes the status a moment before the object is there: to count at that moment would undo it.
fn wants_recount(delta: &Delta<ResourceQuota>) -> Vec<ObjectKey> {
    let hard = |quota: &ResourceQuota| quota.spec.as_ref().and_then(|s| s.hard.clone()).unwrap_or_default();
    let told = |quota: &ResourceQuota| quota.status.as_ref().and_then(|s| s.hard.clone()).unwrap_or_default();
    let wanted = match (&delta.old, &delta.new) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(old), Some(new)) => {
            old.spec != new.spec || amounts(Some(&hard(new))) != amounts(Some(&told(new)))
        }
    };
    if wanted { vec![delta.key.clone()] } else { Vec::new() }
}

fn in_namespace(quotas: &Informer<ResourceQuota>, namespace: &str) -> Vec<ObjectKey> {
    quotas.in_namespace(namespace).iter().map(|quota| quota.key()).collect()
}

/// What came is charged already: only what went or changed its cost wakes the quotas.
fn changed<K: Object>(delta: &Delta<Charged<K>>, quotas: &Informer<ResourceQuota>) -> Vec<ObjectKey> {
    let same = match (&delta.old, &delta.new) {
        (None, _) => true,
        (Some(old), Some(new)) => old.measured == new.measured,
        (Some(_), None) => false,
    };
    if same { Vec::new() } else { in_namespace(quotas, &delta.key.namespace) }
}

fn gone(change: &Change, quotas: &Informer<ResourceQuota>) -> Vec<ObjectKey> {
    let resource = &change.node.resource;
    match Measure::of(&resource.group, &resource.plural) {
        Measure::Count(_) if change.gone => in_namespace(quotas, &change.node.key.namespace),
        _ => Vec::new(),
    }
}

impl Controller for Quotas {
    const NAME: &'static str = "resourcequota-controller";
    const ACCOUNT: &'static str = "resourcequota-controller";
    const COMPONENT: &'static str = "resourcequota-controller";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let [q1, q2, q3, q4, q5] = std::array::from_fn(|_| self.quotas.clone());
        vec![
            Watch::on(&self.quotas, wants_recount),
            Watch::on(&self.pods, move |delta| changed(delta, &q1)),
            Watch::on(&self.services, move |delta| changed(delta, &q2)),
            Watch::on(&self.claims, move |delta| changed(delta, &q3)),
            Watch::on(&self.devices, move |delta| changed(delta, &q5)),
            self.inventory.watch(move |_, change| gone(change, &q4)),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let quota = self.quotas.get(key)?;
        let hard = amounts(quota.spec.as_ref().and_then(|s| s.hard.as_ref()));
        Some(Seen {
            pods: self.pods.in_namespace(&key.namespace),
            services: self.services.in_namespace(&key.namespace),
            claims: self.claims.in_namespace(&key.namespace),
            devices: self.devices.in_namespace(&key.namespace),
            counts: self.counts(&key.namespace, &hard),
            quota,
        })
    }

    fn plan(seen: &Seen, moment: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let spec = seen.quota.spec.clone().unwrap_or_default();
        let hard = amounts(spec.hard.as_ref());
        let status = seen.quota.status.as_ref();
        let used = match used(seen, &spec, &hard, moment) {
            Ok(used) => used,
            Err(why) => {
                plan.failed_because(why);
                return plan;
            }
        };
        if seen.counts.values().any(Option::is_none) {
            plan.requeue_after(UNLISTED);
        }
        let told = status.map(|s| (amounts(s.hard.as_ref()), amounts(s.used.as_ref())));
        if told.as_ref() == Some(&(hard.clone(), used.clone())) && status.is_some_and(|s| s.used.is_some()) {
            plan.requeue_after(RECOUNT);
            return plan;
        }
        let mut quota = (*seen.quota).clone();
        let status = quota.status.get_or_insert_default();
        status.hard = Some(spec.hard.clone().unwrap_or_default());
        status.used = Some(to_wire(&used));
        plan.push(Write::update_status(&quota));
        let is_new = told.is_none_or(|(told, _)| told != hard);
        plan.requeue_after(if is_new { UNLISTED } else { SETTLE });
        plan
    }
}

/// What is used of each limit that anybody can tell the use of.
fn used(seen: &Seen, spec: &ResourceQuotaSpec, hard: &Amounts, moment: &Moment) -> Result<Amounts, String> {
    let mut total = Amounts::new();
    sum(Measure::Pods, seen.pods.iter().map(|c| &c.measured), spec, hard, moment, &mut total)?;
    sum(Measure::Services, seen.services.iter().map(|c| &c.measured), spec, hard, moment, &mut total)?;
    sum(Measure::Claims, seen.claims.iter().map(|c| &c.measured), spec, hard, moment, &mut total)?;
    sum(Measure::Devices, seen.devices.iter().map(|c| &c.measured), spec, hard, moment, &mut total)?;
    let scoped = !gantry_kinds::quota::selectors(spec).is_empty();
    for (name, count) in &seen.counts {
        if let Some(count) = count {
            // Scopes pick pods and claims: of other objects a quota with scopes counts none.
            let count = if scoped { 0 } else { i64::try_from(*count).unwrap_or(i64::MAX) };
            total.insert(Cow::Owned(name.clone()), Quantity::from_units(count));
        }
    }
    total.retain(|name, _| hard.contains_key(name));
    Ok(total)
}

fn sum<'a>(
    measure: Measure,
    objects: impl Iterator<Item = &'a Measured>,
    spec: &ResourceQuotaSpec,
    hard: &Amounts,
    moment: &Moment,
    total: &mut Amounts,
) -> Result<(), String> {
    let tracked: Vec<_> = hard.keys().filter(|name| measure.tracks(name)).cloned().collect();
    if tracked.is_empty() {
        return Ok(());
    }
    for name in tracked {
        total.entry(name).or_insert(Quantity::ZERO);
    }
    for measured in objects {
        if measure.is_in_scope(spec, &measured.facts)? {
            add(total, &measured.usage_at(moment.now));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use serde_json::{Value, json};

    fn fixture() -> (Model, Quotas) {
        let mut model = Model::default();
        let controller = Quotas {
            quotas: Informer::detached(),
            pods: Informer::detached(),
            services: Informer::detached(),
            claims: Informer::detached(),
            devices: Informer::detached(),
            inventory: Arc::new(Inventory::detached()),
        };
        model.feed(&controller.quotas);
        model.feed(&controller.pods);
        model.feed(&controller.devices);
        model.feed(&controller.services);
        model.feed(&controller.claims);
        (model, controller)
    }

    fn make<K: Object>(model: &mut Model, name: &str, mut value: Value) -> ObjectKey {
        value["metadata"] = json!({"name": name, "namespace": "a"});
        model.create(&K::decode_value(&value).expect("an object")).key()
    }

    fn status(model: &Model, key: &ObjectKey) -> (Value, Value) {
        let status = model.get::<ResourceQuota>(key).and_then(|q| q.status).expect("a status");
        (json!(status.hard), json!(status.used))
    }

    #[test]
    fn what_is_there_is_added_up_and_given_back() {
        let (mut model, controller) = fixture();
        let hard = json!({"pods": "5", "requests.cpu": "2", "services": "3", "requests.storage": "10Gi"});
        let key = make::<ResourceQuota>(&mut model, "q", json!({"spec": {"hard": hard}}));
        model.settle(&controller, &key);
        assert_eq!(
            status(&model, &key),
            (hard, json!({"pods": "0", "requests.cpu": "0", "services": "0", "requests.storage": "0"}))
        );
        let pod =
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}});
        let first = make::<Pod>(&mut model, "p1", pod.clone());
        make::<Pod>(&mut model, "p2", pod);
        make::<Service>(&mut model, "s", json!({"spec": {}}));
        let claim = json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}});
        make::<PersistentVolumeClaim>(&mut model, "c", claim);
        model.settle(&controller, &key);
        let (_, used) = status(&model, &key);
        assert_eq!(
            used,
            json!({"pods": "2", "requests.cpu": "1", "services": "1", "requests.storage": "1Gi"})
        );
        model.remove::<Pod>(&first);
        model.settle(&controller, &key);
        assert_eq!(status(&model, &key).1["pods"], "1");
        model.edit::<ResourceQuota>(&key, |quota| {
            let hard = [("pods".to_owned(), gantry_api::quantity::WireQuantity("9".into()))];
            quota.spec.get_or_insert_default().hard = Some(hard.into());
        });
        model.settle(&controller, &key);
        assert_eq!(status(&model, &key), (json!({"pods": "9"}), json!({"pods": "1"})));
    }

    #[test]
    fn scopes_pick_what_counts() {
        let (mut model, controller) = fixture();
        make::<Pod>(&mut model, "plain", json!({"spec": {"containers": [{"name": "c"}]}}));
        make::<Pod>(
            &mut model,
            "dated",
            json!({"spec": {"activeDeadlineSeconds": 9, "containers": [{"name": "c"}]}}),
        );
        for (scope, count) in [("Terminating", "1"), ("BestEffort", "2"), ("NotBestEffort", "0")] {
            let spec = json!({"spec": {"hard": {"pods": "5"}, "scopes": [scope]}});
            let key = make::<ResourceQuota>(&mut model, &scope.to_lowercase(), spec);
            model.settle(&controller, &key);
            assert_eq!(status(&model, &key).1, json!({"pods": count}), "{scope}");
        }
    }
}
