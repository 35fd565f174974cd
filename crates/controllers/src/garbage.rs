//! The garbage collector: deletes what has lost its owners, in the order that the deletion asked for.
//!
//! Behaviour: `pkg/controller/garbagecollector` and the documentation of owners and dependents. It decides on the
//! [`Inventory`]; that an owner is gone is verified on the server before a dependent is deleted. Its keys are UIDs.

use std::sync::Arc;

use gantry_api::core::ObjectReference;
use gantry_api::{ObjectKey, Resource};
use gantry_client::{DeleteOptions, PatchKind, Propagation};
use serde_json::{Value, json};

use crate::engine::{Check, Controller, Event, Moment, Plan, Watch, Write};
use crate::inventory::{Change, Graph, Inventory, Node, Owner, OwnerName};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// The garbage collector.
pub struct Garbage {
    inventory: Arc<Inventory>,
}

impl Garbage {
    /// A collector that decides on `inventory`.
    pub fn new(inventory: Arc<Inventory>) -> Self {
        Self { inventory }
    }

    fn standing(&self, graph: &Graph, node: &Node, owner: &Owner) -> Standing {
        let name = &owner.name;
        let resource = graph.resource_of(&name.api_version, &name.kind).map(|r| (*r).clone());
        let Some(resource) = resource.or_else(|| self.unwatched(name)) else { return Standing::Unknown };
        if resource.namespaced && !node.resource.namespaced {
            return Standing::WrongNamespace;
        }
        let namespace = if resource.namespaced { Arc::clone(&node.key.namespace) } else { "".into() };
        let key = ObjectKey::new(namespace, name.name.as_str());
        match graph.get(&name.uid) {
            Some(found) if *found.resource == resource && found.key == key => {
                if found.awaits_dependents() {
                    Standing::Waiting
                } else {
                    Standing::Solid
                }
            }
            found => Standing::Absent { resource, key, elsewhere: found.is_some() },
        }
    }

    /// A resource that can be read but not watched.
    fn unwatched(&self, name: &OwnerName) -> Option<Resource> {
        let group = name.api_version.split_once('/').map_or("", |(group, _)| group);
        let discovered = self.inventory.discovered()?;
        let mut resources = discovered.resources.iter().map(|d| &d.resource);
        resources.find(|r| r.group == group && r.kind == name.kind).cloned()
    }
}

/// How an owner stands.
#[derive(Debug)]
enum Standing {
    /// It is there, and keeps its dependents.
    Solid,
    /// It waits for its dependents to go first.
    Waiting,
    /// It seems to be gone.
    Absent { resource: Resource, key: ObjectKey, elsewhere: bool },
    /// A cluster-scoped object cannot be owned by a namespaced one.
    WrongNamespace,
    /// Nothing of that kind is served.
    Unknown,
}

/// What the collector sees of an object.
pub struct Seen {
    node: Arc<Node>,
    owners: Vec<(Owner, Standing)>,
    dependents: Vec<Arc<Node>>,
}

/// Whom a change concerns: the object itself, its dependents if it is gone or waits for them, and owners that wait.
fn concerned(graph: &Graph, change: &Change) -> Vec<ObjectKey> {
    let node = &change.node;
    if !change.telling {
        return Vec::new();
    }
    let key = |uid: &str| ObjectKey::cluster(uid);
    let owners = node.owners.iter().map(|owner| &owner.name.uid).chain(&change.lost_owners);
    let waiting = |uid: &&Arc<str>| graph.get(uid).is_some_and(|owner| owner.awaits_dependents());
    let mut keys: Vec<_> = owners.filter(waiting).map(|uid| key(uid)).collect();
    if change.gone || node.awaits_dependents() {
        keys.extend(graph.dependents(&node.uid).iter().map(|dependent| key(&dependent.uid)));
    }
    if !change.gone && (!node.owners.is_empty() || node.deleting) {
        keys.push(key(&node.uid));
    }
    keys
}

impl Controller for Garbage {
    const NAME: &'static str = "garbage-collector-controller";
    const ACCOUNT: &'static str = "generic-garbage-collector";
    const COMPONENT: &'static str = "garbage-collector-controller";
    const WORKERS: usize = 20;
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        vec![self.inventory.watch(concerned)]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        self.inventory.read(|graph| {
            let node = graph.get(&key.name)?.clone();
            let standing = |owner: &Owner| (owner.clone(), self.standing(graph, &node, owner));
            let owners = node.owners.iter().map(standing).collect();
            let dependents = graph.dependents(&node.uid);
            Some(Seen { node, owners, dependents })
        })
    }

    fn plan(seen: &Seen, _: &Moment) -> Plan {
        let node = &*seen.node;
        if node.deleting && node.has_finalizer(ORPHAN) {
            return orphan(seen);
        }
        if node.awaits_dependents() {
            let blocked = seen.dependents.iter().any(|dependent| dependent.blocks(&node.uid));
            let mut plan = Plan::nothing();
            if !blocked {
                plan.push(without_finalizer(node, FOREGROUND));
            }
            return plan;
        }
        if node.deleting || node.owners.is_empty() {
            return Plan::nothing();
        }
        judge(seen)
    }
}

/// Takes the owner out of its dependents, then lets it go.
fn orphan(seen: &Seen) -> Plan {
    let mut plan = Plan::nothing();
    let owner = &seen.node.uid;
    plan.extend(seen.dependents.iter().map(|dependent| {
        let kept = dependent.owners.iter().filter(|o| o.name.uid != *owner);
        with_owners(dependent, kept).tolerating("NotFound")
    }));
    plan.next_stage();
    plan.push(without_finalizer(&seen.node, ORPHAN));
    plan
}

/// Keeps an object that has an owner, and deletes one that has none.
fn judge(seen: &Seen) -> Plan {
    let mut plan = Plan::nothing();
    let node = &*seen.node;
    let (mut solid, mut waiting) = (false, false);
    for (owner, standing) in &seen.owners {
        match standing {
            Standing::Solid => solid = true,
            Standing::Waiting => waiting = true,
            Standing::Absent { resource, key, elsewhere } => {
                plan.push(Check::Absent(resource.clone(), key.clone(), owner.name.uid.to_string()));
                if *elsewhere {
                    plan.event(invalid_namespace(node, &owner.name));
                }
            }
            Standing::WrongNamespace => {
                plan.event(invalid_namespace(node, &owner.name));
                return plan;
            }
            Standing::Unknown => {
                let OwnerName { api_version, kind, .. } = &*owner.name;
                let message = format!("no matches for kind {kind:?} in version {api_version:?}");
                return Plan::fail(message);
            }
        }
    }
    plan.next_stage();
    if !solid {
        plan.append(delete(seen, waiting));
    } else if seen.owners.iter().any(|(_, standing)| !matches!(standing, Standing::Solid)) {
        let kept = seen.owners.iter().filter(|(_, standing)| matches!(standing, Standing::Solid));
        plan.push(with_owners(node, kept.map(|(owner, _)| owner)).tolerating("NotFound"));
    }
    plan
}

fn delete(seen: &Seen, waiting: bool) -> Plan {
    let mut plan = Plan::nothing();
    let node = &*seen.node;
    let foreground = waiting && !seen.dependents.is_empty();
    if foreground && seen.dependents.iter().any(|dependent| dependent.awaits_dependents()) {
        // A circle, maybe: this object must not hold up its owner, or nothing would ever go.
        let unblocked: Vec<Owner> =
            node.owners.iter().map(|o| Owner { blocking: Some(false), ..o.clone() }).collect();
        plan.push(with_owners(node, unblocked.iter()));
        return plan;
    }
    let propagation = match () {
        () if foreground || node.has_finalizer(FOREGROUND) => Propagation::Foreground,
        () if node.has_finalizer(ORPHAN) => Propagation::Orphan,
        () => Propagation::Background,
    };
    let options = DeleteOptions {
        propagation: Some(propagation),
        uid: Some(node.uid.to_string()),
        resource_version: Some(node.revision.to_string()),
        ..DeleteOptions::default()
    };
    plan.push(Write::delete((*node.resource).clone(), node.key.clone(), &options));
    plan
}

fn merge(node: &Node, field: &str, value: Value) -> Write {
    let patch = json!({"metadata": {"resourceVersion": node.revision.to_string(), field: value}});
    Write::patch((*node.resource).clone(), node.key.clone(), "", PatchKind::Merge, &patch)
}

fn without_finalizer(node: &Node, finalizer: &str) -> Write {
    let kept: Vec<&str> = node.finalizers.iter().map(|f| &**f).filter(|f| *f != finalizer).collect();
    merge(node, "finalizers", json!(kept)).tolerating("NotFound")
}

fn with_owners<'a>(node: &Node, owners: impl Iterator<Item = &'a Owner>) -> Write {
    let wire = |owner: &Owner| {
        let OwnerName { api_version, kind, name, uid } = &*owner.name;
        let mut value = json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": &**uid});
        if let Some(controller) = owner.controller {
            value["controller"] = json!(controller);
        }
        if let Some(blocking) = owner.blocking {
            value["blockOwnerDeletion"] = json!(blocking);
        }
        value
    };
    merge(node, "ownerReferences", owners.map(wire).collect())
}

fn invalid_namespace(node: &Node, owner: &OwnerName) -> Event {
    let namespace = &node.key.namespace;
    let OwnerName { api_version, kind, name, uid } = owner;
    Event {
        regarding: ObjectReference {
            api_version: Some(node.resource.api_version()),
            kind: Some(node.resource.kind.to_string()),
            namespace: (!namespace.is_empty()).then(|| namespace.to_string()),
            name: Some(node.key.name.to_string()),
            uid: Some(node.uid.to_string()),
            ..ObjectReference::default()
        },
        warning: true,
        reason: "OwnerRefInvalidNamespace",
        message: format!(
            "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in namespace \"{namespace}\""
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Action;
    use gantry_client::Verb;
    use std::time::SystemTime;

    const SETS: Resource = Resource::fixed("apps", "v1", "ReplicaSet", "replicasets", true);
    const PODS: Resource = Resource::fixed("", "v1", "Pod", "pods", true);

    fn node(resource: Resource, uid: &str, owners: &[&str]) -> Node {
        let owner = |uid: &&str| Owner {
            name: Arc::new(OwnerName {
                api_version: "apps/v1".into(),
                kind: "ReplicaSet".into(),
                name: (*uid).into(),
                uid: (*uid).into(),
            }),
            controller: Some(true),
            blocking: Some(true),
        };
        Node {
            resource: Arc::new(resource),
            key: ObjectKey::new("a", uid),
            uid: uid.into(),
            revision: 1,
            deleting: false,
            finalizers: Box::default(),
            owners: owners.iter().map(owner).collect(),
        }
    }

    fn deleting(mut node: Node, finalizer: &str) -> Node {
        node.deleting = true;
        node.finalizers = [finalizer.into()].into();
        node
    }

    fn plan(nodes: Vec<Node>, uid: &str) -> Plan {
        let inventory = Arc::new(Inventory::detached());
        inventory.change(|graph| {
            let mut changes = graph.replace(&Arc::new(SETS), Vec::new(), 1);
            changes.extend(nodes.into_iter().filter_map(|node| graph.put(node)));
            changes
        });
        let collector = Garbage::new(inventory);
        let seen = collector.observe(&ObjectKey::cluster(uid)).expect("an object");
        Garbage::plan(&seen, &Moment::at(SystemTime::UNIX_EPOCH))
    }

    fn text(plan: &Plan) -> Vec<String> {
        let describe = |action: &Action| match action {
            Action::Write(write) => {
                let verb = if write.verb == Verb::Delete { "delete" } else { "patch" };
                format!("{verb} {} {}", write.key.name, String::from_utf8_lossy(&write.payload.bytes))
            }
            Action::Check(check) => format!("{check:?}").split('(').next().unwrap_or("").to_owned(),
            Action::Event(event) => event.reason.to_owned(),
            Action::Effect(_) => String::new(),
        };
        plan.actions().map(describe).collect()
    }

    #[test]
    fn an_object_with_an_owner_stays() {
        assert!(plan(vec![node(SETS, "set", &[]), node(PODS, "pod", &["set"])], "pod").is_empty());
    }

    #[test]
    fn an_object_without_owners_is_verified_and_deleted() {
        let actions = text(&plan(vec![node(PODS, "pod", &["gone"])], "pod"));
        assert_eq!(actions[0], "Absent");
        assert!(actions[1].starts_with("delete pod") && actions[1].contains("Background"), "{actions:?}");
    }

    #[test]
    fn of_several_owners_only_the_lost_reference_goes() {
        let nodes = vec![node(SETS, "set", &[]), node(PODS, "pod", &["set", "gone"])];
        let actions = text(&plan(nodes, "pod"));
        assert!(actions[1].starts_with("patch pod") && actions[1].contains("\"uid\":\"set\""), "{actions:?}");
        assert!(!actions[1].contains("gone"));
    }

    #[test]
    fn a_foreground_deletion_waits_for_its_dependents() {
        let set = || deleting(node(SETS, "set", &[]), FOREGROUND);
        let with_pod = vec![set(), node(PODS, "pod", &["set"])];
        assert!(plan(with_pod.clone(), "set").is_empty(), "the set waits");
        assert!(text(&plan(with_pod, "pod"))[0].starts_with("delete pod"));
        assert!(text(&plan(vec![set()], "set"))[0].contains("\"finalizers\":[]"));
    }

    #[test]
    fn an_orphaning_deletion_frees_its_dependents_first() {
        let set = deleting(node(SETS, "set", &[]), ORPHAN);
        let plan = plan(vec![set, node(PODS, "pod", &["set"])], "set");
        assert_eq!(plan.stages.len(), 2);
        let actions = text(&plan);
        assert!(actions[0].contains("\"ownerReferences\":[]") && actions[1].starts_with("patch set"));
    }
}
