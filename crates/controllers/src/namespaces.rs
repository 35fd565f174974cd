//! Namespaces: empties one that is being deleted, pods first, then lets it go.
//!
//! Behaviour: `pkg/controller/namespace` with ordered deletion (KEP-5080). What is left is read from the
//! [`Inventory`]; that nothing is left is verified on the server, resource by resource, before the namespace goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_api::core::{Namespace, NamespaceCondition};
use gantry_api::meta::MetaExt;
use gantry_api::time::time;
use gantry_api::{ObjectKey, Resource};
use gantry_client::{DeleteOptions, Informer, InformerSet, Propagation};

use crate::engine::{Attempt, Check, Controller, Moment, Plan, Watch, Write};
use crate::inventory::{Discovered, Inventory, Node};

const FINALIZER: &str = "kubernetes";
/// A namespace that is not empty yet is looked at again after this long, if nothing happens before.
const RETRY: Duration = Duration::from_secs(15);

/// The namespace controller.
pub struct Namespaces {
    namespaces: Informer<Namespace>,
    inventory: Arc<Inventory>,
}

impl Namespaces {
    /// A controller that reads `informers` and `inventory`.
    pub fn new(informers: &InformerSet, inventory: Arc<Inventory>) -> Self {
        Self { namespaces: informers.of(), inventory }
    }
}

/// What the controller sees of a namespace.
pub struct Seen {
    namespace: Arc<Namespace>,
    discovered: Arc<Discovered>,
    content: Vec<Arc<Node>>,
}

impl Controller for Namespaces {
    const NAME: &'static str = "namespace-controller";
    const ACCOUNT: &'static str = "namespace-controller";
    const COMPONENT: &'static str = "namespace-controller";
    const WORKERS: usize = 10;
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let namespaces = self.namespaces.clone();
        let terminating = move |name: &str| {
            let key = ObjectKey::cluster(name);
            namespaces.get(&key).is_some_and(|n| n.is_terminating()).then_some(key)
        };
        vec![
            Watch::each(&self.namespaces),
            self.inventory.watch(move |_, change| {
                if !change.telling || change.node.key.namespace.is_empty() {
                    return Vec::new();
                }
                terminating(&change.node.key.namespace).into_iter().collect()
            }),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let namespace = self.namespaces.get(key).filter(|n| n.is_terminating())?;
        let discovered = self.inventory.discovered()?;
        let content = self.inventory.read(|graph| graph.in_namespace(&key.name));
        Some(Seen { namespace, discovered, content })
    }

    fn plan(seen: &Seen, moment: &Moment) -> Plan {
        let finalizers = seen.namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref());
        if !finalizers.is_some_and(|list| list.iter().any(|f| f == FINALIZER)) {
            return Plan::nothing();
        }
        if seen.content.is_empty() && seen.discovered.failed.is_empty() {
            return release(seen);
        }
        empty(seen, moment)
    }
}

/// Deletes what is there: pods alone while there are any.
fn empty(seen: &Seen, moment: &Moment) -> Plan {
    let mut plan = Plan::nothing();
    let name = seen.namespace.name();
    if let Some(write) = told(seen, moment) {
        plan.push(write);
    }
    let is_pod = |resource: &Resource| resource.group.is_empty() && resource.plural == "pods";
    let pods_first = seen.content.iter().any(|node| is_pod(&node.resource));
    let chosen = |node: &&Arc<Node>| !node.deleting && (!pods_first || is_pod(&node.resource));
    let mut by_resource: BTreeMap<&Resource, Vec<&Node>> = BTreeMap::new();
    for node in seen.content.iter().filter(chosen) {
        by_resource.entry(&*node.resource).or_default().push(node);
    }
    for (resource, nodes) in by_resource {
        let at_once = seen.discovered.resources.iter().any(|d| d.resource == *resource && d.collectable);
        if at_once {
            let write = Write::delete_collection(resource.clone(), name, &background());
            plan.push(write.tolerating("NotFound").tolerating("MethodNotAllowed"));
        } else {
            plan.extend(
                nodes.into_iter().map(|n| Write::delete(resource.clone(), n.key.clone(), &background())),
            );
        }
    }
    plan.requeue_after(RETRY);
    plan
}

fn background() -> DeleteOptions {
    DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() }
}

/// Deletes once more what is not watched, verifies that nothing is left, and removes the finalizer.
fn release(seen: &Seen) -> Plan {
    let mut plan = Plan::nothing();
    let name = seen.namespace.name();
    let resources: Vec<_> = seen.discovered.resources.iter().filter(|d| d.resource.namespaced).collect();
    for unwatched in resources.iter().filter(|d| !d.watchable && d.collectable) {
        let write = Write::delete_collection(unwatched.resource.clone(), name, &background());
        plan.push(write.tolerating("NotFound").tolerating("MethodNotAllowed"));
    }
    plan.next_stage();
    plan.extend(resources.iter().map(|d| Check::Empty(d.resource.clone(), name.to_owned())));
    plan.next_stage();
    let mut released = (*seen.namespace).clone();
    if let Some(finalizers) = released.spec.get_or_insert_default().finalizers.as_mut() {
        finalizers.retain(|f| f != FINALIZER);
    }
    plan.push(Write::update_subresource(&released, "finalize").tolerating("NotFound"));
    plan.requeue_after(RETRY);
    plan
}

/// The status update, if it says anything new.
fn told(seen: &Seen, moment: &Moment) -> Option<Write> {
    let mut updated = (*seen.namespace).clone();
    let status = updated.status.get_or_insert_default();
    let conditions = conditions(seen, moment);
    if status.conditions.as_ref() == Some(&conditions) && status.phase.as_deref() == Some("Terminating") {
        return None;
    }
    status.conditions = Some(conditions);
    status.phase = Some("Terminating".into());
    Some(Write::update_status(&updated))
}

struct Report {
    kind: &'static str,
    good: (&'static str, &'static str),
    bad: Option<(&'static str, String)>,
}

fn conditions(seen: &Seen, moment: &Moment) -> Vec<NamespaceCondition> {
    let stored = seen.namespace.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let mut list = stored;
    for report in reports(seen, moment) {
        set(&mut list, report, moment.now);
    }
    list
}

fn reports(seen: &Seen, moment: &Moment) -> [Report; 5] {
    let failed = &seen.discovered.failed;
    let causes: Vec<&str> = failed.iter().map(|(_, cause)| cause.as_str()).collect();
    let discovery = (!failed.is_empty()).then(|| {
        let text = format!(
            "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {}",
            failed.len(),
            causes.join(", ")
        );
        ("DiscoveryFailed", text)
    });
    let deletion = moment.failure.as_ref().filter(|f| f.attempt == Attempt::Delete).map(|failure| {
        let text = format!("Failed to delete all resource types, 1 remaining: {}", failure.message);
        ("ContentDeletionFailed", text)
    });
    [
        Report {
            kind: "NamespaceDeletionDiscoveryFailure",
            good: ("ResourcesDiscovered", "All resources successfully discovered"),
            bad: discovery,
        },
        Report {
            kind: "NamespaceDeletionGroupVersionParsingFailure",
            good: ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
            bad: None,
        },
        Report {
            kind: "NamespaceDeletionContentFailure",
            good: ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            bad: deletion,
        },
        Report {
            kind: "NamespaceContentRemaining",
            good: ("ContentRemoved", "All content successfully removed"),
            bad: remaining(&seen.content),
        },
        Report {
            kind: "NamespaceFinalizersRemaining",
            good: ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            bad: held(&seen.content),
        },
    ]
}

fn remaining(content: &[Arc<Node>]) -> Option<(&'static str, String)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for node in content {
        *counts.entry(format!("{}.{}", node.resource.plural, node.resource.group)).or_default() += 1;
    }
    let texts: Vec<_> = counts.iter().map(|(r, n)| format!("{r} has {n} resource instances")).collect();
    let text = format!("Some resources are remaining: {}", texts.join(", "));
    (!texts.is_empty()).then_some(("SomeResourcesRemain", text))
}

fn held(content: &[Arc<Node>]) -> Option<(&'static str, String)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for finalizer in content.iter().flat_map(|node| &node.finalizers) {
        *counts.entry(finalizer).or_default() += 1;
    }
    let texts: Vec<_> = counts.iter().map(|(f, n)| format!("{f} in {n} resource instances")).collect();
    let text = format!("Some content in the namespace has finalizers remaining: {}", texts.join(", "));
    (!texts.is_empty()).then_some(("SomeFinalizersRemain", text))
}

fn set(list: &mut Vec<NamespaceCondition>, report: Report, now: SystemTime) {
    let (status, reason, message) = match report.bad {
        Some((reason, message)) => ("True", reason, message),
        None => ("False", report.good.0, report.good.1.to_owned()),
    };
    let mut new = NamespaceCondition {
        type_: report.kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: Some(time(now)),
    };
    match list.iter_mut().find(|c| c.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time.clone_from(&old.last_transition_time);
            }
            *old = new;
        }
        None => list.push(new),
    }
}
