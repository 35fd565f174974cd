//! What the scheduler needs to know of a node.

use std::sync::Arc;

use gantry_api::core::Node;
use gantry_api::meta::MetaExt;
use gantry_api::selector::Labels;
use gantry_api::{ObjectKey, Quantity};
use gantry_client::Projection;

use crate::pod::Resources;

/// A taint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: Arc<str>,
    /// Its value.
    pub value: Arc<str>,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: Arc<str>,
}

/// A node as the scheduler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: Arc<str>,
    /// `metadata.resourceVersion`
    pub revision: u64,
    /// `metadata.labels`
    pub labels: Labels,
    /// `spec.taints`
    pub taints: Vec<Taint>,
    /// `spec.unschedulable`
    pub unschedulable: bool,
    /// `status.allocatable`
    pub allocatable: Resources,
    /// `status.allocatable.pods`
    pub pods: i64,
    /// `status.images`: names and sizes in bytes.
    pub images: Vec<(Arc<str>, i64)>,
}

impl NodeView {
    /// Whether both would be judged alike.
    pub fn same_for_scheduling(&self, other: &Self) -> bool {
        let alike = Self { revision: self.revision, ..other.clone() };
        *self == alike
    }
}

impl Projection for NodeView {
    type Object = Node;

    fn project(node: Arc<Node>) -> Arc<Self> {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let text = |value: Option<&str>| -> Arc<str> { value.unwrap_or("").into() };
        let taints = spec.iter().flat_map(|s| s.taints.iter().flatten());
        let allocatable = status.and_then(|s| s.allocatable.as_ref());
        let images = status.iter().flat_map(|s| s.images.iter().flatten());
        Arc::new(Self {
            name: node.name().into(),
            revision: MetaExt::revision(&*node),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: taints
                .map(|t| Taint {
                    key: t.key.as_str().into(),
                    value: text(t.value.as_deref()),
                    effect: t.effect.as_str().into(),
                })
                .collect(),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            allocatable: Resources::read(allocatable),
            pods: allocatable
                .and_then(|a| a.get("pods"))
                .and_then(|q| Quantity::from_wire(q).ok())
                .map_or(0, |q| q.value()),
            images: images
                .flat_map(|i| {
                    let size = i.size_bytes.unwrap_or(0);
                    i.names.iter().flatten().map(move |name| (name.as_str().into(), size))
                })
                .collect(),
        })
    }

    fn object_key(&self) -> ObjectKey {
        ObjectKey::cluster(self.name.clone())
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}
