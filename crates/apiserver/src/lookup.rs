//! What the parts of the server want to know of objects that they do not follow: existence, UID, and little more.
//!
//! A full Pod decodes into 24 KB; these read a few fields of its bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::core::{Namespace, ServiceAccount};
use gantry_api::meta::MetaExt;
use gantry_api::selector::Labels;
use gantry_api::status::Result;
use gantry_api::{ApiError, Object, ObjectKey, Resource};
use gantry_client::{Api, Informer, InformerSet, PatchKind, Projection, Target, Transport};
use serde::Deserialize;

/// The fields that are read of any object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Brief {
    pub(crate) metadata: BriefMeta,
    pub(crate) spec: BriefSpec,
    pub(crate) status: BriefStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct BriefMeta {
    pub(crate) uid: String,
    pub(crate) deletion_timestamp: Option<jiff::Timestamp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct BriefSpec {
    pub(crate) node_name: String,
    pub(crate) service_account_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BriefStatus {
    pub(crate) phase: String,
}

/// Reads objects through the loopback transport.
#[derive(Clone)]
pub(crate) struct Lookup {
    transport: Arc<dyn Transport>,
}

impl Lookup {
    pub(crate) fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// The brief of an object; `None` if there is no such object.
    pub(crate) async fn brief(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Brief>> {
        let target = Target { resource, namespace: namespace.into(), name: name.into(), subresource: "" };
        match self.transport.get(&target).await {
            Ok(object) => serde_json::from_slice(object.bytes())
                .map(Some)
                .map_err(|e| ApiError::internal(format!("cannot read {} {name}: {e}", target.resource))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An object of a kind.
    pub(crate) async fn find<K: Object>(&self, namespace: &str, name: &str) -> Result<Option<Arc<K>>> {
        Api::<K>::new(Arc::clone(&self.transport), "gantry-apiserver")
            .find(&ObjectKey::new(namespace, name))
            .await
    }
}

impl Lookup {
    /// Creates an object, or replaces it if it has a revision.
    pub(crate) async fn put<K: Object>(&self, object: &K) -> Result<()> {
        let api = Api::<K>::new(Arc::clone(&self.transport), "gantry-apiserver");
        let is_new = object.metadata().resource_version.is_none();
        let written = if is_new { api.create(object).await } else { api.update(object).await };
        written.map(|_| ())
    }

    /// Merges into a secret.
    pub(crate) async fn label(&self, key: &ObjectKey, patch: &serde_json::Value) -> Result<()> {
        let api = Api::<gantry_api::core::Secret>::new(Arc::clone(&self.transport), "gantry-apiserver");
        api.patch(key, "", PatchKind::Merge, patch).await.map(|_| ())
    }
}

/// Service accounts: from the informer, and where that has none (yet), from the store.
#[derive(Clone)]
pub(crate) struct Accounts {
    informer: Informer<ServiceAccount>,
    lookup: Lookup,
}

impl Accounts {
    pub(crate) fn new(informers: &InformerSet, lookup: Lookup) -> Self {
        Self { informer: informers.of(), lookup }
    }

    pub(crate) async fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<ServiceAccount>>> {
        match self.informer.get(&ObjectKey::new(namespace, name)) {
            Some(account) => Ok(Some(account)),
            None => self.lookup.find(namespace, name).await,
        }
    }
}

/// What is kept of a namespace.
#[derive(Debug)]
pub(crate) struct NamespaceView {
    key: ObjectKey,
    revision: u64,
    pub(crate) terminating: bool,
    /// `metadata.labels`
    pub(crate) labels: Labels,
    /// The annotations that admission plugins read: those of the scheduler.
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The beginning of the annotations that are kept.
const KEPT_ANNOTATIONS: &str = "scheduler.alpha.kubernetes.io/";

impl Projection for NamespaceView {
    type Object = Namespace;

    fn project(namespace: Arc<Namespace>) -> Arc<Self> {
        let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
        let terminating = phase == Some("Terminating");
        let annotations = namespace.metadata.annotations.iter().flatten();
        let kept = annotations.filter(|(key, _)| key.starts_with(KEPT_ANNOTATIONS));
        Arc::new(Self {
            key: namespace.key(),
            revision: MetaExt::revision(&*namespace),
            terminating,
            labels: namespace.metadata.labels.clone().unwrap_or_default(),
            annotations: kept.map(|(key, value)| (key.clone(), value.clone())).collect(),
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}

/// Namespaces: from the informer, and where that has none (yet), from the store.
#[derive(Clone)]
pub(crate) struct Namespaces {
    informer: Informer<NamespaceView>,
    lookup: Lookup,
}

impl Namespaces {
    pub(crate) fn new(informers: &InformerSet, lookup: Lookup) -> Self {
        Self { informer: informers.of(), lookup }
    }

    /// The namespace as the informer has it.
    pub(crate) fn cached(&self, name: &str) -> Option<Arc<NamespaceView>> {
        self.informer.get(&ObjectKey::cluster(name))
    }

    /// The namespace; `None` if there is none.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<Arc<NamespaceView>>> {
        match self.cached(name) {
            Some(view) => Ok(Some(view)),
            None => Ok(self.lookup.find::<Namespace>("", name).await?.map(NamespaceView::project)),
        }
    }
}
