//! Disruption budgets: how many of the pods that a budget selects are healthy, and how many may be evicted.
//!
//! Behaviour: `pkg/controller/disruption`. The eviction subresource spends `disruptionsAllowed` and notes the pod in
//! `disruptedPods`; here both are brought in line with what is there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_api::apps::{Deployment, ReplicaSet, StatefulSet};
use gantry_api::core::{Pod, ReplicationController};
use gantry_api::meta::MetaExt;
use gantry_api::metav1::{Condition, Time};
use gantry_api::policy::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use gantry_api::time::{system_time, time};
use gantry_api::{IntOrString, LabelSelector, Object, ObjectKey};
use gantry_client::views::PodView;
use gantry_client::{Delta, Informer, InformerSet};

use crate::common::number::{count, scaled};
use crate::engine::{Controller, Effect, Event, Moment, Plan, Scaled, Scales, Watch, Write};

/// How long an eviction may take to show as a deletion.
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);
const ALLOWED: &str = "DisruptionAllowed";

/// The disruption controller.
pub struct Disruption {
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<PodView>,
    replica_sets: Informer<ReplicaSet>,
    deployments: Informer<Deployment>,
    stateful_sets: Informer<StatefulSet>,
    controllers: Informer<ReplicationController>,
    /// What the scales of anything else said.
    scales: Arc<Scales>,
}

impl Disruption {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self {
            budgets: informers.of(),
            pods: informers.of(),
            replica_sets: informers.of(),
            deployments: informers.of(),
            stateful_sets: informers.of(),
            controllers: informers.of(),
            scales: Arc::default(),
        }
    }

    /// What controls a pod, if it is of a kind that is not known here.
    fn foreign(pod: &PodView, asker: &ObjectKey) -> Option<Scaled> {
        let (kind, name) = pod.owner.split_once('/')?;
        let group = pod.owner_version.split_once('/').map_or("", |(group, _)| group);
        let known = match kind {
            "ReplicationController" => group.is_empty(),
            "ReplicaSet" | "Deployment" | "StatefulSet" => matches!(group, "apps" | "extensions"),
            _ => false,
        };
        (!known).then(|| Scaled {
            asker: asker.clone(),
            api_version: pod.owner_version.to_string(),
            kind: kind.to_owned(),
            namespace: pod.namespace().to_owned(),
            name: name.to_owned(),
            uid: pod.owner_uid.to_string(),
        })
    }

    /// The UID and the wanted size of what finally controls a pod; of a kind that is known here.
    fn scale(&self, pod: &PodView) -> Option<(String, i32)> {
        let (kind, name) = pod.owner.split_once('/')?;
        let key = ObjectKey::new(pod.namespace(), name);
        let own = |uid: &str| uid == &*pod.owner_uid;
        match kind {
            "ReplicaSet" => {
                let set = self.replica_sets.get(&key).filter(|s| own(s.uid()))?;
                let Some(owner) = set.controller().filter(|o| o.kind == "Deployment") else {
                    return Some((set.uid().to_owned(), set.spec.as_ref()?.replicas.unwrap_or(1)));
                };
                let deployment =
                    self.deployments.get(&ObjectKey::new(pod.namespace(), owner.name.as_str()))?;
                let same = deployment.uid() == owner.uid;
                same.then(|| {
                    (owner.uid.clone(), deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1))
                })
            }
            "StatefulSet" => {
                let set = self.stateful_sets.get(&key).filter(|s| own(s.uid()))?;
                Some((set.uid().to_owned(), set.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            "ReplicationController" => {
                let set = self.controllers.get(&key).filter(|s| own(s.uid()))?;
                Some((set.uid().to_owned(), set.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            _ => None,
        }
    }
}

/// The UID and the size of what controls a pod.
type Owner = (String, i32);

/// What the controller sees of a budget.
pub struct Seen {
    budget: Arc<PodDisruptionBudget>,
    /// The pods that it selects, each with the UID and size of what controls it.
    pods: Vec<(Arc<PodView>, Option<Owner>)>,
    /// Controllers whose scale has to be read first.
    unread: Vec<Scaled>,
    /// Why the scale of one cannot be read.
    unreadable: Option<String>,
    /// Controllers whose scale is read anew before the next attempt, if this one fails.
    again: Vec<Scaled>,
    scales: Arc<Scales>,
}

/// Whether the budget is about a share of what the controllers of its pods want.
fn is_relative(spec: Option<&PodDisruptionBudgetSpec>) -> bool {
    spec.is_some_and(|s| {
        s.max_unavailable.is_some() || matches!(s.min_available, Some(IntOrString::String(_)))
    })
}

fn selector(budget: &PodDisruptionBudget) -> Option<LabelSelector> {
    LabelSelector::from_spec(budget.spec.as_ref()?.selector.as_ref()).ok()
}

fn budgets_of(delta: &Delta<PodView>, budgets: &Informer<PodDisruptionBudget>) -> Vec<ObjectKey> {
    let views = || delta.old.iter().chain(&delta.new);
    let all = budgets.in_namespace(&delta.key.namespace);
    let concerned = all.iter().filter(|budget| {
        selector(budget).is_some_and(|s| views().any(|pod| s.matches(pod.labels.as_deref())))
    });
    concerned.map(|budget| budget.key()).collect()
}

impl Controller for Disruption {
    const NAME: &'static str = "disruption-controller";
    const ACCOUNT: &'static str = "disruption-controller";
    const COMPONENT: &'static str = "controllermanager";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let budgets = self.budgets.clone();
        let none = |_: &ObjectKey| Vec::new();
        vec![
            Watch::each(&self.budgets),
            Watch::on(&self.pods, move |delta| budgets_of(delta, &budgets)),
            // Their sizes are read; that they change shows in their pods.
            Watch::on(&self.replica_sets, move |d| none(&d.key)),
            Watch::on(&self.deployments, move |d| none(&d.key)),
            Watch::on(&self.stateful_sets, move |d| none(&d.key)),
            Watch::on(&self.controllers, move |d| none(&d.key)),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let Some(budget) = self.budgets.get(key) else {
            self.scales.keep(key, &[]);
            return None;
        };
        let selector = selector(&budget)?;
        let pods = self.pods.in_namespace(&key.namespace);
        let selected = pods.into_iter().filter(|pod| selector.matches(pod.labels.as_deref()));
        let selected: Vec<Arc<PodView>> = selected.collect();
        let mut foreign: Vec<Scaled> = Vec::new();
        if is_relative(budget.spec.as_ref()) {
            for owner in selected.iter().filter_map(|pod| Self::foreign(pod, key)) {
                if !foreign.contains(&owner) {
                    foreign.push(owner);
                }
            }
        }
        self.scales.keep(key, &foreign);
        let mut seen = Seen {
            budget,
            pods: Vec::new(),
            unread: Vec::new(),
            unreadable: None,
            again: Vec::new(),
            scales: Arc::clone(&self.scales),
        };
        let mut known: HashMap<String, i32> = HashMap::new();
        for of in &foreign {
            match self.scales.get(of) {
                Some(Ok(Some(replicas))) => drop(known.insert(of.uid.clone(), replicas)),
                Some(Ok(None)) => {}
                Some(Err(why)) => drop(seen.unreadable.get_or_insert(why)),
                None => seen.unread.push(of.clone()),
            }
        }
        if known.len() == foreign.len() {
            // The next look asks anew. Answers that lead nowhere stay until the next attempt is due.
            self.scales.keep(key, &[]);
        } else {
            seen.again = foreign;
        }
        seen.pods = selected
            .into_iter()
            .map(|pod| {
                let foreign =
                    known.get(&*pod.owner_uid).map(|replicas| (pod.owner_uid.to_string(), *replicas));
                let scale = foreign.or_else(|| self.scale(&pod));
                (pod, scale)
            })
            .collect();
        Some(seen)
    }

    fn plan(seen: &Seen, moment: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let budget = &*seen.budget;
        if !seen.unread.is_empty() {
            plan.extend(reads(&seen.unread, &seen.scales));
            plan.requeue_after(Duration::ZERO);
            return plan;
        }
        let spec = budget.spec.clone().unwrap_or_default();
        if seen.pods.is_empty() {
            plan.event(Event::normal(budget, "NoPods", "No matching pods found"));
        }
        let expected = match expected(seen, &spec) {
            Ok(expected) => expected,
            Err(why) => {
                let text = format!("Failed to calculate the number of expected pods: {why}");
                plan.event(Event::warning(budget, "CalculateExpectedPodCountFailed", text));
                fail_safe(budget, &why, moment.now, &mut plan);
                plan.extend(reads(&seen.again, &seen.scales));
                return plan;
            }
        };
        if expected.unmanaged {
            plan.event(Event::warning(budget, "UnmanagedPods", unmanaged_text(&spec)));
        }
        let disrupted = disrupted(seen, moment.now, &mut plan);
        let healthy = healthy(seen, &disrupted);
        let left = if expected.pods > 0 { (healthy - expected.desired).max(0) } else { 0 };
        let mut status = PodDisruptionBudgetStatus {
            current_healthy: Some(healthy),
            desired_healthy: Some(expected.desired),
            expected_pods: Some(expected.pods),
            disruptions_allowed: Some(left),
            disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
            observed_generation: Some(budget.generation()),
            conditions: budget.status.as_ref().and_then(|s| s.conditions.clone()),
        };
        let (value, reason) =
            if left > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        set_condition(&mut status, value, reason, "", moment.now);
        if !is_same(budget.status.as_ref(), &status) {
            plan.push(Write::update_status(&PodDisruptionBudget { status: Some(status), ..budget.clone() }));
            return plan;
        }
        // Nothing new to say: events would only repeat themselves.
        plan.stages.clear();
        plan
    }
}

fn reads(list: &[Scaled], into: &Arc<Scales>) -> Vec<Effect> {
    list.iter().map(|of| Effect::ReadScale { of: of.clone(), into: Arc::clone(into) }).collect()
}

struct Expected {
    pods: i32,
    desired: i32,
    unmanaged: bool,
}

fn expected(seen: &Seen, spec: &PodDisruptionBudgetSpec) -> Result<Expected, String> {
    if let Some(most) = &spec.max_unavailable {
        let (pods, unmanaged) = scale(seen)?;
        let desired = (pods - scaled(Some(most), pods, true)).max(0);
        return Ok(Expected { pods, desired, unmanaged });
    }
    match &spec.min_available {
        Some(IntOrString::Int(desired)) => {
            Ok(Expected { pods: count(seen.pods.len()), desired: *desired, unmanaged: false })
        }
        Some(share) => {
            let (pods, unmanaged) = scale(seen)?;
            Ok(Expected { pods, desired: scaled(Some(share), pods, true), unmanaged })
        }
        None => Ok(Expected { pods: 0, desired: 0, unmanaged: false }),
    }
}

/// The sum of what controls the pods, each once; and whether some are controlled by nothing.
fn scale(seen: &Seen) -> Result<(i32, bool), String> {
    if let Some(why) = &seen.unreadable {
        return Err(why.clone());
    }
    let (mut known, mut sum, mut unmanaged) = (HashSet::new(), 0_i32, false);
    for (pod, scale) in &seen.pods {
        match scale {
            _ if pod.owner_uid.is_empty() => unmanaged = true,
            Some((uid, replicas)) => {
                if known.insert(uid) {
                    sum = sum.saturating_add(*replicas);
                }
            }
            None => return Err(format!("found no controllers for pod {:?}", pod.name())),
        }
    }
    Ok((sum, unmanaged))
}

fn unmanaged_text(spec: &PodDisruptionBudgetSpec) -> String {
    let labels = spec.selector.as_ref().and_then(|s| s.match_labels.clone()).unwrap_or_default();
    let pairs = labels.iter().map(|(key, value)| format!("{key}:{value}")).collect::<Vec<_>>().join(" ");
    format!(
        "Pods selected by this PodDisruptionBudget (selector: &LabelSelector{{MatchLabels:map[string]string{{{pairs}}},MatchExpressions:[]LabelSelectorRequirement{{}},}}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value."
    )
}

/// The evicted pods that are still expected to go.
fn disrupted(seen: &Seen, now: SystemTime, plan: &mut Plan) -> BTreeMap<String, Time> {
    let noted = seen.budget.status.as_ref().and_then(|s| s.disrupted_pods.clone()).unwrap_or_default();
    let mut kept = BTreeMap::new();
    for (pod, _) in seen.pods.iter().filter(|(pod, _)| pod.deleted.is_none()) {
        let Some(since) = noted.get(pod.name()) else { continue };
        let expected = system_time(&since.0) + DELETION_TIMEOUT;
        match expected.duration_since(now) {
            Ok(left) => {
                plan.requeue_after(left.max(Duration::from_millis(1)));
                kept.insert(pod.name().to_owned(), since.clone());
            }
            Err(_) => {
                let text = format!(
                    "Pod was expected by PDB {0}/{0} to be deleted but it wasn't",
                    seen.budget.namespace()
                );
                plan.event(Event {
                    regarding: pod_reference(pod),
                    warning: true,
                    reason: "NotDeleted",
                    message: text,
                });
            }
        }
    }
    kept
}

fn pod_reference(pod: &PodView) -> gantry_api::core::ObjectReference {
    gantry_api::core::ObjectReference {
        api_version: Some(Pod::RESOURCE.api_version()),
        kind: Some(Pod::RESOURCE.kind.to_string()),
        name: Some(pod.name().to_owned()),
        namespace: Some(pod.namespace().to_owned()),
        uid: Some(pod.uid.to_string()),
        ..Default::default()
    }
}

fn healthy(seen: &Seen, disrupted: &BTreeMap<String, Time>) -> i32 {
    let counts = |pod: &PodView| pod.deleted.is_none() && pod.ready && !disrupted.contains_key(pod.name());
    count(seen.pods.iter().filter(|(pod, _)| counts(pod)).count())
}

/// Nothing may be disrupted while nobody knows how much there is.
fn fail_safe(budget: &PodDisruptionBudget, why: &str, now: SystemTime, plan: &mut Plan) {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    set_condition(&mut status, "False", "SyncFailed", why, now);
    if is_same(budget.status.as_ref(), &status) {
        plan.stages.clear();
    } else {
        plan.push(Write::update_status(&PodDisruptionBudget { status: Some(status), ..budget.clone() }));
    }
    plan.failed_because(why);
}

fn set_condition(
    status: &mut PodDisruptionBudgetStatus,
    value: &str,
    reason: &str,
    message: &str,
    now: SystemTime,
) {
    let list = status.conditions.get_or_insert_default();
    let generation = status.observed_generation;
    match list.iter_mut().find(|c| c.type_ == ALLOWED) {
        Some(found) => {
            if found.status != value {
                found.last_transition_time = time(now);
            }
            found.status = value.to_owned();
            found.reason = reason.to_owned();
            found.message = message.to_owned();
            found.observed_generation = generation;
        }
        None => list.push(Condition {
            type_: ALLOWED.to_owned(),
            status: value.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: generation,
            last_transition_time: time(now),
        }),
    }
}

/// Whether two statuses say the same; absent numbers are zero.
fn is_same(old: Option<&PodDisruptionBudgetStatus>, new: &PodDisruptionBudgetStatus) -> bool {
    let numbers = |s: &PodDisruptionBudgetStatus| {
        [s.current_healthy, s.desired_healthy, s.expected_pods, s.disruptions_allowed].map(|n| n.unwrap_or(0))
    };
    old.is_some_and(|old| {
        numbers(old) == numbers(new)
            && old.disrupted_pods.clone().unwrap_or_default()
                == new.disrupted_pods.clone().unwrap_or_default()
            && old.observed_generation == new.observed_generation
            && old.conditions == new.conditions
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Action;
    use crate::model::Model;
    use serde_json::{Value, json};

    fn fixture() -> (Model, Disruption) {
        let mut model = Model::default();
        let controller = Disruption {
            budgets: Informer::detached(),
            pods: Informer::detached(),
            replica_sets: Informer::detached(),
            deployments: Informer::detached(),
            stateful_sets: Informer::detached(),
            controllers: Informer::detached(),
            scales: Arc::default(),
        };
        model.feed(&controller.budgets);
        model.feed(&controller.pods);
        model.feed(&controller.replica_sets);
        model.feed(&controller.deployments);
        model.feed(&controller.stateful_sets);
        model.feed(&controller.controllers);
        (model, controller)
    }

    fn make<K: Object>(model: &mut Model, value: Value) -> K {
        model.create(&K::decode_value(&value).expect("an object"))
    }

    fn pods(model: &mut Model, n: usize, ready: usize, owner: Option<&ReplicaSet>) {
        for i in 0..n {
            let owners = owner.map(|o| vec![gantry_api::meta::controller_reference(o)]);
            let state = if i < ready { "True" } else { "False" };
            let mut pod: Pod =
                Pod::decode_value(&json!({"metadata": {"name": format!("p{i}"), "namespace": "a",
                "labels": {"app": "x"}}, "status": {"conditions": [{"type": "Ready", "status": state}]}}))
                .expect("a pod");
            pod.metadata.owner_references = owners;
            let made = model.create(&pod);
            model.edit::<Pod>(&made.key(), |p| p.status.clone_from(&pod.status));
        }
    }

    fn budget(model: &mut Model, spec: Value) -> ObjectKey {
        let mut spec = spec;
        spec["selector"] = json!({"matchLabels": {"app": "x"}});
        make::<PodDisruptionBudget>(model, json!({"metadata": {"name": "b", "namespace": "a"}, "spec": spec}))
            .key()
    }

    fn told(model: &Model, key: &ObjectKey) -> String {
        let status = model.get::<PodDisruptionBudget>(key).and_then(|b| b.status).expect("a status");
        let n = |n: Option<i32>| n.unwrap_or(0);
        let condition = &status.conditions.as_ref().expect("conditions")[0];
        format!(
            "{}/{} of {} allow {}: {} {}",
            n(status.current_healthy),
            n(status.desired_healthy),
            n(status.expected_pods),
            n(status.disruptions_allowed),
            condition.status,
            condition.reason
        )
    }

    #[test]
    fn budgets_tell_how_much_may_go() {
        for (spec, replicas, made, ready, expected) in [
            (json!({"minAvailable": 2}), 0, 3, 3, "3/2 of 3 allow 1: True SufficientPods"),
            (json!({"minAvailable": 2}), 0, 3, 2, "2/2 of 3 allow 0: False InsufficientPods"),
            (json!({"minAvailable": 0}), 0, 0, 0, "0/0 of 0 allow 0: False InsufficientPods"),
            (json!({"minAvailable": "50%"}), 5, 5, 5, "5/3 of 5 allow 2: True SufficientPods"),
            (json!({"maxUnavailable": 1}), 4, 3, 3, "3/3 of 4 allow 0: False InsufficientPods"),
            (json!({"maxUnavailable": "30%"}), 4, 4, 4, "4/2 of 4 allow 2: True SufficientPods"),
        ] {
            let (mut model, controller) = fixture();
            let owner = (replicas > 0).then(|| {
                make::<ReplicaSet>(
                    &mut model,
                    json!({"metadata": {"name": "s", "namespace": "a"},
                    "spec": {"replicas": replicas, "selector": {}}}),
                )
            });
            pods(&mut model, made, ready, owner.as_ref());
            let key = budget(&mut model, spec.clone());
            model.settle(&controller, &key);
            assert_eq!(told(&model, &key), expected, "{spec}");
        }
    }

    #[test]
    fn an_evicted_pod_counts_no_longer_until_it_did_not_go() {
        let (mut model, controller) = fixture();
        pods(&mut model, 3, 3, None);
        let key = budget(&mut model, json!({"minAvailable": 1}));
        model.settle(&controller, &key);
        assert_eq!(told(&model, &key), "3/1 of 3 allow 2: True SufficientPods");
        let now = time(model.now);
        let mut evicted = model.get::<PodDisruptionBudget>(&key).expect("a budget");
        evicted.status.get_or_insert_default().disrupted_pods =
            Some([("p0".to_owned(), now.clone()), ("gone".to_owned(), now)].into());
        model.apply(&Write::update_status(&evicted)).expect("noted");
        model.settle(&controller, &key);
        assert_eq!(told(&model, &key), "2/1 of 3 allow 1: True SufficientPods");
        let noted = |model: &Model| {
            let status = model.get::<PodDisruptionBudget>(&key).and_then(|b| b.status);
            status
                .and_then(|s| s.disrupted_pods)
                .map(|p| p.into_keys().collect::<Vec<_>>())
                .unwrap_or_default()
        };
        assert_eq!(noted(&model), ["p0"]);
        model.now += DELETION_TIMEOUT + Duration::from_secs(1);
        model.settle(&controller, &key);
        assert_eq!(told(&model, &key), "3/1 of 3 allow 2: True SufficientPods");
        assert!(noted(&model).is_empty() && model.events.contains(&"NotDeleted".to_owned()));
    }

    #[test]
    fn pods_of_nobody_known_keep_the_budget_shut() {
        let (mut model, controller) = fixture();
        pods(&mut model, 2, 2, None);
        let key = budget(&mut model, json!({"maxUnavailable": 1}));
        model.settle(&controller, &key);
        assert_eq!(told(&model, &key), "2/0 of 0 allow 0: False InsufficientPods");
        assert!(model.events.contains(&"UnmanagedPods".to_owned()));
        model.edit::<Pod>(&ObjectKey::new("a", "p0"), |pod| {
            pod.metadata.owner_references = Some(vec![rocket()]);
        });
        for (answer, expected) in [
            (Ok(Some(4)), "2/3 of 4 allow 0: False InsufficientPods"),
            (Ok(Some(2)), "2/1 of 2 allow 1: True SufficientPods"),
            (Ok(None), "2/1 of 2 allow 0: False SyncFailed"),
        ] {
            // First the scale is read.
            let seen = controller.observe(&key).expect("a budget");
            let plan = Disruption::plan(&seen, &Moment::at(model.now));
            assert_eq!(plan.requeue(), Some(Duration::ZERO));
            let of = seen.unread.first().cloned().expect("a question");
            assert_eq!((of.api_version.as_str(), of.name.as_str()), ("example.com/v1", "r"));
            controller.scales.note(of, answer);
            let seen = controller.observe(&key).expect("a budget");
            model.perform_plan(&Disruption::plan(&seen, &Moment::at(model.now)));
            assert_eq!(told(&model, &key), expected);
        }
        // Where that leads nowhere it is read again, but with back-off.
        let seen = controller.observe(&key).expect("a budget");
        let plan = Disruption::plan(&seen, &Moment::at(model.now));
        assert!(seen.unread.is_empty() && plan.requeue().is_none());
        assert!(
            plan.actions()
                .any(|a| matches!(a, Action::Effect(effect) if matches!(**effect, Effect::ReadScale { .. })))
        );
        // A budget of a number asks nothing.
        model.edit::<PodDisruptionBudget>(&key, |b| {
            b.spec.get_or_insert_default().max_unavailable = None;
            b.spec.get_or_insert_default().min_available = Some(IntOrString::Int(1));
        });
        assert!(controller.observe(&key).expect("a budget").unread.is_empty());
    }

    fn rocket() -> gantry_api::metav1::OwnerReference {
        gantry_api::metav1::OwnerReference {
            api_version: "example.com/v1".into(),
            kind: "Rocket".into(),
            name: "r".into(),
            uid: "u".into(),
            controller: Some(true),
            ..Default::default()
        }
    }
}
