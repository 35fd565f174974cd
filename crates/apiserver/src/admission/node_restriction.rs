//! A node touches nothing but itself, its lease and the pods that are bound to it.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use gantry_api::certificates::CertificateSigningRequest;
use gantry_api::core::{Node, PersistentVolumeClaim, Pod};
use gantry_api::field::quote;
use gantry_api::k8s_openapi::api::resource::v1::ResourceSlice;
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_api::{ApiError, Object, Resource};
use gantry_kinds::AnyObject;

use super::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::authorize;
use crate::lookup::Lookup;

const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASES: &str = "kube-node-lease";
/// Labels of Kubernetes' own that a node may set on itself.
const OWN_LABELS: [&str; 13] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
];

/// The plugin.
pub(super) struct NodeRestriction {
    lookup: Lookup,
}

impl NodeRestriction {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self { lookup }
    }

    async fn create_pod(&self, node: &str, pod: &Pod) -> Result<(), String> {
        let quoted = quote(node);
        if pod.annotation(MIRROR).is_none() {
            return Err(format!(
                "pod does not have {MIRROR:?} annotation, node {quoted} can only create mirror pods"
            ));
        }
        if node_of(pod) != node {
            return Err(format!("node {quoted} can only create pods with spec.nodeName set to itself"));
        }
        let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
        let owner = match owners {
            [owner] if owner.api_version == "v1" && owner.kind == "Node" && owner.name == node => owner,
            [_, _, ..] => {
                return Err(format!(
                    "node {quoted} can only create pods with a single owner reference set to itself"
                ));
            }
            _ => {
                return Err(format!(
                    "node {quoted} can only create pods with an owner reference set to itself"
                ));
            }
        };
        if owner.controller != Some(true) {
            return Err(format!(
                "node {quoted} can only create pods with a controller owner reference set to itself"
            ));
        }
        if owner.block_owner_deletion == Some(true) {
            return Err(format!("node {quoted} must not set blockOwnerDeletion on an owner reference"));
        }
        let found = self.lookup.brief(Node::RESOURCE, "", node).await.map_err(|e| e.to_string())?;
        let uid = found.ok_or_else(|| format!("nodes {quoted} not found"))?.metadata.uid;
        if uid != owner.uid {
            return Err(format!("node {node} UID mismatch: expected {} got {uid}", owner.uid));
        }
        match referenced(pod) {
            Some(what) => Err(format!("node {quoted} can not create pods that reference {what}")),
            None => Ok(()),
        }
    }
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("")
}

/// What API objects a pod refers to.
fn referenced(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    if spec.service_account_name.as_deref().is_some_and(|n| !n.is_empty()) {
        return Some("serviceaccounts");
    }
    let sources =
        |v: &gantry_api::core::Volume| v.projected.clone().and_then(|p| p.sources).unwrap_or_default();
    for volume in spec.volumes.iter().flatten() {
        let projected = sources(volume);
        if volume.secret.is_some() || projected.iter().any(|p| p.secret.is_some()) {
            return Some("secrets");
        }
        if volume.config_map.is_some() || projected.iter().any(|p| p.config_map.is_some()) {
            return Some("configmaps");
        }
        if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
            return Some("persistentvolumeclaims");
        }
    }
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        for from in container.env_from.iter().flatten() {
            match (&from.secret_ref, &from.config_map_ref) {
                (Some(_), _) => return Some("secrets"),
                (_, Some(_)) => return Some("configmaps"),
                _ => {}
            }
        }
        for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            match (&source.secret_key_ref, &source.config_map_key_ref) {
                (Some(_), _) => return Some("secrets"),
                (_, Some(_)) => return Some("configmaps"),
                _ => {}
            }
        }
    }
    spec.image_pull_secrets.as_ref().is_some_and(|s| !s.is_empty()).then_some("secrets")
}

fn update_pod_status(node: &str, new: Option<&Pod>, old: Option<&Pod>) -> Result<(), String> {
    if old.is_none_or(|pod| node_of(pod) != node) {
        let quoted = quote(node);
        return Err(format!(
            "node {quoted} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let labels = |pod: Option<&Pod>| pod.and_then(|p| p.metadata.labels.clone()).unwrap_or_default();
    if labels(new) != labels(old) {
        return Err(format!("node {} cannot update labels through pod status", quote(node)));
    }
    let status = |pod: Option<&Pod>| pod.and_then(|p| p.status.clone()).unwrap_or_default();
    let (new, old) = (status(new), status(old));
    if new.resource_claim_statuses.unwrap_or_default() != old.resource_claim_statuses.unwrap_or_default() {
        return Err(format!("node {} cannot update resource claim statues", quote(node)));
    }
    if new.extended_resource_claim_status != old.extended_resource_claim_status {
        return Err(format!("node {} cannot update extended resource claim status", quote(node)));
    }
    Ok(())
}

fn change_node(node: &str, name: &str, new: Option<&Node>, old: Option<&Node>) -> Result<(), String> {
    let quoted = quote(node);
    if name != node {
        return Err(format!("node {quoted} is not allowed to modify node {}", quote(name)));
    }
    let Some(new) = new else { return Ok(()) };
    let labels = |node: Option<&Node>| node.and_then(|n| n.metadata.labels.clone()).unwrap_or_default();
    let forbidden = forbidden_labels(&labels(Some(new)), &labels(old)).join(", ");
    let Some(old) = old else {
        return if forbidden.is_empty() {
            Ok(())
        } else {
            Err(format!("node {quoted} is not allowed to set the following labels: {forbidden}"))
        };
    };
    let taints = |node: &Node| node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    if taints(new) != taints(old) {
        return Err(format!("node {quoted} is not allowed to modify taints"));
    }
    let owners = |node: &Node| node.metadata.owner_references.clone().unwrap_or_default();
    if owners(new) != owners(old) {
        return Err(format!("node {quoted} is not allowed to modify ownerReferences"));
    }
    if forbidden.is_empty() { Ok(()) } else { Err(format!("is not allowed to modify labels: {forbidden}")) }
}

fn forbidden_labels(new: &BTreeMap<String, String>, old: &BTreeMap<String, String>) -> Vec<String> {
    let keys: BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    let changed = keys.into_iter().filter(|key| new.get(*key) != old.get(*key));
    changed.filter(|key| is_forbidden(key)).cloned().collect()
}

fn is_forbidden(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return false };
    let within = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    if within("node-restriction.kubernetes.io") {
        return true;
    }
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    let own = OWN_LABELS.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    kubernetes && !own
}

#[async_trait]
impl AdmissionPlugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, operation: Operation, resource: &Resource, _subresource: &str) -> bool {
        let watched = match &*resource.group {
            "" => matches!(&*resource.plural, "pods" | "nodes" | "persistentvolumeclaims"),
            "coordination.k8s.io" => resource.plural == "leases",
            "storage.k8s.io" => resource.plural == "csinodes",
            "resource.k8s.io" => resource.plural == "resourceslices",
            "certificates.k8s.io" => resource.plural == "certificatesigningrequests",
            _ => false,
        };
        watched && operation != Operation::Connect
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let user = request.user;
        let Some(node) = authorize::node_of(user) else { return Ok(()) };
        if node.is_empty() {
            let why = format!("could not determine node from user {}", quote(&user.name));
            return Err(ApiError::forbidden(request.resource, request.name, why));
        }
        let pod = object.and_then(|o| o.downcast::<Pod>());
        let old_pod = old.and_then(|o| o.downcast::<Pod>());
        let verdict = match (&*request.resource.plural, request.subresource, request.operation) {
            ("pods", "", Operation::Create) => match pod {
                Some(pod) => self.create_pod(node, pod).await,
                None => Ok(()),
            },
            ("pods", "", Operation::Delete) if old_pod.is_some_and(|pod| node_of(pod) == node) => Ok(()),
            ("pods", "", Operation::Delete) => {
                Err(format!("node {} can only delete pods with spec.nodeName set to itself", quote(node)))
            }
            ("pods", "status", Operation::Update) => update_pod_status(node, pod, old_pod),
            ("pods", "eviction", Operation::Create) => {
                let found = self.lookup.brief(Pod::RESOURCE, request.namespace, request.name).await?;
                match found {
                    Some(pod) if pod.spec.node_name != node => {
                        Err(format!("node {node} can only evict pods with spec.nodeName set to itself"))
                    }
                    _ => Ok(()),
                }
            }
            ("pods", "", operation) => {
                let (operation, quoted) = (quote(operation.as_str()), quote(node));
                Err(format!(
                    "unexpected operation {operation}, node {quoted} can only create and delete mirror pods"
                ))
            }
            ("pods", other, _) => {
                Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
            }
            ("nodes", _, _) => {
                let (new, old) =
                    (object.and_then(|o| o.downcast::<Node>()), old.and_then(|o| o.downcast::<Node>()));
                let name = new.map(|n| n.name()).filter(|n| !n.is_empty()).unwrap_or(request.name);
                change_node(node, name, new, old)
            }
            ("persistentvolumeclaims", "status", Operation::Update) => {
                let of = |o: Option<&dyn AnyObject>| {
                    o.and_then(|o| o.downcast::<PersistentVolumeClaim>()).cloned()
                };
                change_claim(node, of(object), of(old))
            }
            ("persistentvolumeclaims", _, _) => Err("may only update PVC status".to_owned()),
            ("leases", _, _) => change_lease(node, request),
            ("csinodes", _, _) if request.name == node => Ok(()),
            ("csinodes", _, _) => {
                Err("can only access CSINode with the same name as the requesting node".to_owned())
            }
            ("resourceslices", "", Operation::Create) => change_slice(node, "create", object),
            ("resourceslices", "", Operation::Delete) => change_slice(node, "delete", old),
            ("certificatesigningrequests", "", Operation::Create) => request_certificate(node, object),
            _ => Ok(()),
        };
        verdict.map_err(|why| ApiError::forbidden(request.resource, request.name, why))
    }
}

fn change_claim(
    node: &str,
    new: Option<PersistentVolumeClaim>,
    old: Option<PersistentVolumeClaim>,
) -> Result<(), String> {
    let fixed = |claim: Option<PersistentVolumeClaim>| {
        claim.map(|mut claim| {
            claim.metadata.resource_version = None;
            claim.metadata.managed_fields = None;
            let status = claim.status.get_or_insert_default();
            status.capacity = None;
            status.conditions = None;
            status.allocated_resources = None;
            status.allocated_resource_statuses = None;
            claim
        })
    };
    if fixed(new) == fixed(old) {
        return Ok(());
    }
    Err(format!(
        "node {} is not allowed to update fields other than status.quantity and status.conditions",
        quote(node)
    ))
}

/// A node publishes its own devices only.
fn change_slice(node: &str, what: &str, slice: Option<&dyn AnyObject>) -> Result<(), String> {
    let slice = slice.and_then(|o| o.downcast::<ResourceSlice>());
    if slice.is_some_and(|s| s.spec.node_name.as_deref() == Some(node)) {
        return Ok(());
    }
    Err(format!("can only {what} ResourceSlice with the same NodeName as the requesting node"))
}

/// A node asks for certificates of its own name only.
fn request_certificate(node: &str, csr: Option<&dyn AnyObject>) -> Result<(), String> {
    const SIGNERS: [&str; 2] =
        ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
    let csr = csr.and_then(|o| o.downcast::<CertificateSigningRequest>());
    let Some(csr) = csr.filter(|csr| SIGNERS.contains(&csr.spec.signer_name.as_str())) else { return Ok(()) };
    let name = crate::pki::common_name_of_request(&csr.spec.request.0)
        .map_err(|e| format!("unable to parse csr: {e}"))?;
    if name == format!("system:node:{node}") {
        return Ok(());
    }
    Err(format!("can only create a node CSR with CN=system:node:{node}"))
}

fn change_lease(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    if request.namespace != LEASES {
        return Err(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    if request.name != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}
