//! The graph: objects by UID, and the dependents of each owner (present or not).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use gantry_api::{ObjectKey, Resource};

/// An object's UID.
pub type Uid = Arc<str>;

/// What an owner reference calls the owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnerName {
    /// `apiVersion`
    pub api_version: String,
    /// `kind`
    pub kind: String,
    /// `name`
    pub name: String,
    /// `uid`
    pub uid: Uid,
}

/// An owner reference. Dependents of one owner share its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Who.
    pub name: Arc<OwnerName>,
    /// `controller`
    pub controller: Option<bool>,
    /// `blockOwnerDeletion`
    pub blocking: Option<bool>,
}

/// The metadata of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Of which resource.
    pub resource: Arc<Resource>,
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`
    pub uid: Uid,
    /// `metadata.resourceVersion`
    pub revision: u64,
    /// Whether deletion has begun.
    pub deleting: bool,
    /// `metadata.finalizers`
    pub finalizers: Box<[Arc<str>]>,
    /// `metadata.ownerReferences`
    pub owners: Box<[Owner]>,
}

impl Node {
    /// Whether it carries this finalizer.
    pub fn has_finalizer(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| &**f == finalizer)
    }

    /// Whether it waits for its dependents' deletion.
    pub fn awaits_dependents(&self) -> bool {
        self.deleting && self.has_finalizer("foregroundDeletion")
    }

    /// Whether a reference to it blocks its deletion.
    pub fn blocks(&self, owner: &str) -> bool {
        self.owners.iter().any(|o| &*o.name.uid == owner && o.blocking == Some(true))
    }
}

/// A change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The object as it is, or was last.
    pub node: Arc<Node>,
    /// Its owners before, where they were others.
    pub lost_owners: Vec<Uid>,
    /// Whether it is gone.
    pub gone: bool,
    /// Whether anything but its revision changed.
    pub telling: bool,
}

#[derive(Default)]
struct Shelf {
    uids: BTreeMap<ObjectKey, Uid>,
    revision: u64,
    listed: bool,
}

#[derive(Default)]
struct Dependents {
    uids: HashSet<Uid>,
    names: Vec<Arc<OwnerName>>,
}

/// All objects and their owners.
#[derive(Default)]
pub struct Graph {
    nodes: HashMap<Uid, Arc<Node>>,
    dependents: HashMap<Uid, Dependents>,
    shelves: HashMap<Arc<Resource>, Shelf>,
    finalizers: HashSet<Arc<str>>,
}

impl Graph {
    /// One object.
    pub fn get(&self, uid: &str) -> Option<&Arc<Node>> {
        self.nodes.get(uid)
    }

    /// The object of a name.
    pub fn find(&self, resource: &Resource, key: &ObjectKey) -> Option<&Arc<Node>> {
        self.nodes.get(self.shelves.get(resource)?.uids.get(key)?)
    }

    /// The objects that name this owner.
    pub fn dependents(&self, owner: &str) -> Vec<Arc<Node>> {
        let uids = self.dependents.get(owner).into_iter().flat_map(|d| &d.uids);
        uids.filter_map(|uid| self.nodes.get(uid).cloned()).collect()
    }

    /// Everything, as changes.
    pub fn all(&self) -> Vec<Change> {
        let change = |node: &Arc<Node>| Change {
            node: node.clone(),
            lost_owners: Vec::new(),
            gone: false,
            telling: true,
        };
        self.nodes.values().map(change).collect()
    }

    /// The objects of a namespace, of all resources.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<Node>> {
        let from = ObjectKey::new(namespace, "");
        let shelves = self.shelves.iter().filter(|(resource, _)| resource.namespaced);
        let range = |shelf: &Shelf| {
            let range = shelf.uids.range(from.clone()..);
            let uids: Vec<_> = range.take_while(|(k, _)| &*k.namespace == namespace).collect();
            uids.into_iter().filter_map(|(_, uid)| self.nodes.get(uid).cloned()).collect::<Vec<_>>()
        };
        shelves.flat_map(|(_, shelf)| range(shelf)).collect()
    }

    /// Whether a resource has been listed.
    pub fn is_listed(&self, resource: &Resource) -> bool {
        self.shelves.get(resource).is_some_and(|shelf| shelf.listed)
    }

    /// How far a resource has been followed.
    pub fn revision(&self, resource: &Resource) -> u64 {
        self.shelves.get(resource).map_or(0, |shelf| shelf.revision)
    }

    /// The followed resource of an `apiVersion` and kind, of whatever version.
    pub fn resource_of(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.shelves.keys().find(|r| r.group == group && r.kind == kind).cloned()
    }

    /// Replaces all objects of a resource: the result of a list.
    pub(crate) fn replace(
        &mut self,
        resource: &Arc<Resource>,
        nodes: Vec<Node>,
        revision: u64,
    ) -> Vec<Change> {
        let fresh: HashSet<Uid> = nodes.iter().map(|node| node.uid.clone()).collect();
        let old = self.shelves.entry(Arc::clone(resource)).or_default().uids.values();
        let gone: Vec<Uid> = old.filter(|uid| !fresh.contains(*uid)).cloned().collect();
        let mut changes: Vec<_> = gone.iter().filter_map(|uid| self.remove(uid)).collect();
        changes.extend(nodes.into_iter().filter_map(|node| self.put(node)));
        self.advance(resource, revision);
        self.shelves.entry(Arc::clone(resource)).or_default().listed = true;
        changes
    }

    /// Forgets a resource that is no longer served.
    pub(super) fn forget(&mut self, resource: &Arc<Resource>) -> Vec<Change> {
        let uids: Vec<Uid> = match self.shelves.get(resource) {
            Some(shelf) => shelf.uids.values().cloned().collect(),
            None => Vec::new(),
        };
        let changes = uids.iter().filter_map(|uid| self.remove(uid)).collect();
        self.shelves.remove(resource);
        changes
    }

    pub(super) fn advance(&mut self, resource: &Arc<Resource>, revision: u64) {
        let shelf = self.shelves.entry(Arc::clone(resource)).or_default();
        shelf.revision = shelf.revision.max(revision);
    }

    /// Adds or changes an object; `None` if that is no news.
    pub(crate) fn put(&mut self, mut node: Node) -> Option<Change> {
        if self.nodes.get(&node.uid).is_some_and(|old| old.revision >= node.revision) {
            return None;
        }
        let shelf = self.shelves.entry(Arc::clone(&node.resource)).or_default();
        // An object of the same name with another UID: its deletion went by unseen.
        let before = shelf.uids.insert(node.key.clone(), Arc::clone(&node.uid));
        if let Some(before) = before.filter(|uid| *uid != node.uid) {
            self.nodes.remove(&before).iter().for_each(|old| self.unlink(old));
        }
        let old = self.nodes.get(&node.uid).cloned();
        node.owners.iter_mut().for_each(|owner| owner.name = self.shared_name(&owner.name));
        node.finalizers.iter_mut().for_each(|finalizer| *finalizer = self.shared_finalizer(finalizer));
        let node = Arc::new(node);
        // Most changes are of the status: the edges stay.
        if old.as_ref().is_none_or(|old| old.owners != node.owners) {
            old.iter().for_each(|old| self.unlink(old));
            self.link(&node);
        }
        let telling = old.as_ref().is_none_or(|old| {
            old.owners != node.owners || old.deleting != node.deleting || old.finalizers != node.finalizers
        });
        self.nodes.insert(Arc::clone(&node.uid), Arc::clone(&node));
        let kept = |uid: &Uid| node.owners.iter().any(|o| o.name.uid == *uid);
        let owners = old.iter().flat_map(|old| old.owners.iter().map(|o| Arc::clone(&o.name.uid)));
        let lost_owners = owners.filter(|uid| !kept(uid)).collect();
        Some(Change { node, lost_owners, gone: false, telling })
    }

    /// Removes an object.
    pub(super) fn remove(&mut self, uid: &str) -> Option<Change> {
        let node = self.nodes.remove(uid)?;
        self.unlink(&node);
        if let Some(shelf) = self.shelves.get_mut(&node.resource)
            && shelf.uids.get(&node.key) == Some(&node.uid)
        {
            shelf.uids.remove(&node.key);
        }
        Some(Change { node, lost_owners: Vec::new(), gone: true, telling: true })
    }

    fn link(&mut self, node: &Arc<Node>) {
        for owner in &node.owners {
            let entry = self.dependents.entry(Arc::clone(&owner.name.uid)).or_default();
            entry.uids.insert(Arc::clone(&node.uid));
            if !entry.names.iter().any(|name| Arc::ptr_eq(name, &owner.name)) {
                entry.names.push(Arc::clone(&owner.name));
            }
        }
    }

    fn unlink(&mut self, node: &Node) {
        for owner in &node.owners {
            let Some(entry) = self.dependents.get_mut(&owner.name.uid) else { continue };
            entry.uids.remove(&node.uid);
            if entry.uids.is_empty() {
                self.dependents.remove(&owner.name.uid);
            }
        }
    }

    fn shared_name(&self, name: &Arc<OwnerName>) -> Arc<OwnerName> {
        let known = self.dependents.get(&name.uid).map(|d| d.names.as_slice()).unwrap_or_default();
        known.iter().find(|known| *known == name).unwrap_or(name).clone()
    }

    fn shared_finalizer(&mut self, finalizer: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.finalizers.get(finalizer) {
            return Arc::clone(known);
        }
        // Bounded: an odd one that comes late is simply not shared.
        if self.finalizers.len() < 1024 {
            self.finalizers.insert(Arc::clone(finalizer));
        }
        Arc::clone(finalizer)
    }
}
