//! Object metadata: keys and owners.

use std::fmt;
use std::sync::Arc;

use crate::metav1::{ObjectMeta, OwnerReference};
use crate::object::Object;

/// Namespace and name of an object within its resource. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// The object's name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The key of `name` in `namespace` (empty for cluster scope).
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: impl Into<Arc<str>>) -> Self {
        Self::new("", name)
    }

    /// The key of the object with this metadata.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""))
    }

    /// Reads `namespace/name`, or `name` for cluster scope.
    pub fn parse(text: &str) -> Self {
        match text.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Self::cluster(text),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Shorthands on an object's metadata. Missing strings read as empty.
pub trait MetaExt {
    /// The metadata itself.
    fn meta(&self) -> &ObjectMeta;

    /// `metadata.name`
    fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or("")
    }

    /// `metadata.namespace`
    fn namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or("")
    }

    /// `metadata.uid`
    fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or("")
    }

    /// `metadata.generation`, 0 if there is none.
    fn generation(&self) -> i64 {
        self.meta().generation.unwrap_or(0)
    }

    /// `metadata.resourceVersion` as the number that it is in this server; 0 if there is none.
    fn revision(&self) -> u64 {
        self.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// The object's key.
    fn key(&self) -> ObjectKey {
        ObjectKey::of(self.meta())
    }

    /// One label.
    fn label(&self, key: &str) -> Option<&str> {
        self.meta().labels.as_ref()?.get(key).map(String::as_str)
    }

    /// One annotation.
    fn annotation(&self, key: &str) -> Option<&str> {
        self.meta().annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether deletion has begun.
    fn is_terminating(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }

    /// Whether this finalizer is present.
    fn has_finalizer(&self, finalizer: &str) -> bool {
        self.meta().finalizers.as_ref().is_some_and(|list| list.iter().any(|f| f == finalizer))
    }

    /// The owner that controls this object.
    fn controller(&self) -> Option<&OwnerReference> {
        self.meta().owner_references.as_ref()?.iter().find(|o| o.controller == Some(true))
    }

    /// Whether the object with this UID controls it.
    fn is_controlled_by(&self, uid: &str) -> bool {
        self.controller().is_some_and(|o| o.uid == uid)
    }
}

impl MetaExt for ObjectMeta {
    fn meta(&self) -> &ObjectMeta {
        self
    }
}

impl<K: Object> MetaExt for K {
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }
}

/// The owner reference that makes `owner` the controller of an object, blocking its foreground deletion.
pub fn controller_reference<K: Object>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::RESOURCE.api_version(),
        kind: K::RESOURCE.kind.to_string(),
        name: owner.name().to_owned(),
        uid: owner.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}
