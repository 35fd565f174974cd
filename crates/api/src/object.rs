//! The typed kinds, behind functions that are compiled once.

use std::{fmt, io};

use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use serde_json::Value;

use crate::metav1::ObjectMeta;
use crate::resource::Resource;
use crate::{go_json, schema, zero_time};

/// A typed Kubernetes object with metadata.
pub trait Object: Clone + Default + fmt::Debug + PartialEq + Send + Sync + 'static {
    /// Its resource's names.
    const RESOURCE: Resource;

    /// `metadata`
    fn metadata(&self) -> &ObjectMeta;
    /// `metadata`
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    /// Reads JSON. Unknown fields are dropped.
    fn decode(json: &[u8]) -> Result<Self, DecodeError>;
    /// Writes JSON, `apiVersion` and `kind` included.
    fn encode(&self) -> Vec<u8>;

    // The serde code of a kind costs seconds to compile: only the two functions above instantiate it. What follows
    // goes through bytes, which costs a few microseconds.

    /// Reads JSON and what strict validation says of it: `unknown field "spec.template.spce"`, each once.
    fn decode_strict(json: &[u8]) -> Result<(Self, Vec<String>), DecodeError> {
        let object = Self::decode(json)?;
        let resource = Self::RESOURCE;
        let unknown = match schema::lookup_kind(&resource.group, &resource.version, &resource.kind) {
            Some(definition) => schema::unknown_fields(&serde_json::from_slice(json)?, definition.node()),
            None => Vec::new(),
        };
        Ok((object, unknown))
    }

    /// Reads a JSON tree. Unknown fields are dropped.
    fn decode_value(value: &Value) -> Result<Self, DecodeError> {
        Self::decode(&serde_json::to_vec(value)?)
    }

    /// The object as a JSON tree, `apiVersion` and `kind` included.
    fn encode_value(&self) -> Value {
        serde_json::from_slice(&self.encode())
            .unwrap_or_else(|e| panic!("what was just written can be read: {e}"))
    }
}

/// Why an object could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    message: String,
}

impl DecodeError {
    /// What was wrong, and where.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl From<serde_json::Error> for DecodeError {
    fn from(error: serde_json::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<DecodeError> for gantry_base::Error {
    fn from(error: DecodeError) -> Self {
        Self::invalid(error.message)
    }
}

/// Writes numbers as Go does.
struct GoNumbers;

impl serde_json::ser::Formatter for GoNumbers {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write!(writer, "{}", go_json::number(value))
    }
}

fn encode_json<T: Serialize>(object: &T, group: &str, version: &str, kind: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut writer = serde_json::Serializer::with_formatter(&mut out, GoNumbers);
    object.serialize(&mut writer).unwrap_or_else(|e| panic!("a {kind} can always be written as JSON: {e}"));
    complete(out, group, version, kind)
}

/// What is written is what upstream writes for the object.
fn complete(json: Vec<u8>, group: &str, version: &str, kind: &str) -> Vec<u8> {
    let json = zero_time::to_null(json);
    match schema::lookup_kind(group, version, kind) {
        Some(definition) => schema::fill(json, definition),
        None => json,
    }
}

fn decode_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, DecodeError> {
    match serde_json::from_slice(json) {
        Err(error) if zero_time::is_missing(&error) => Ok(serde_json::from_slice(&zero_time::fill(json)?)?),
        read => Ok(read?),
    }
}

macro_rules! objects {
    ($($ty:path, $group:literal, $version:literal, $kind:literal, $plural:literal, $namespaced:literal;)*) => {$(
        impl Object for $ty {
            const RESOURCE: Resource = Resource::fixed($group, $version, $kind, $plural, $namespaced);
            fn metadata(&self) -> &ObjectMeta { &self.metadata }
            fn metadata_mut(&mut self) -> &mut ObjectMeta { &mut self.metadata }
            fn decode(json: &[u8]) -> Result<Self, DecodeError> { decode_json(json) }
            fn encode(&self) -> Vec<u8> { encode_json(self, $group, $version, $kind) }
        }
    )*};
}

objects! {
    crate::core::ConfigMap, "", "v1", "ConfigMap", "configmaps", true;
    crate::core::Endpoints, "", "v1", "Endpoints", "endpoints", true;
    crate::core::Event, "", "v1", "Event", "events", true;
    crate::core::Namespace, "", "v1", "Namespace", "namespaces", false;
    crate::core::Node, "", "v1", "Node", "nodes", false;
    crate::core::PersistentVolume, "", "v1", "PersistentVolume", "persistentvolumes", false;
    crate::core::PersistentVolumeClaim, "", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", true;
    crate::core::Pod, "", "v1", "Pod", "pods", true;
    crate::core::Secret, "", "v1", "Secret", "secrets", true;
    crate::core::Service, "", "v1", "Service", "services", true;
    crate::core::ServiceAccount, "", "v1", "ServiceAccount", "serviceaccounts", true;
    crate::apps::ControllerRevision, "apps", "v1", "ControllerRevision", "controllerrevisions", true;
    crate::apps::DaemonSet, "apps", "v1", "DaemonSet", "daemonsets", true;
    crate::apps::Deployment, "apps", "v1", "Deployment", "deployments", true;
    crate::apps::ReplicaSet, "apps", "v1", "ReplicaSet", "replicasets", true;
    crate::apps::StatefulSet, "apps", "v1", "StatefulSet", "statefulsets", true;
    crate::batch::Job, "batch", "v1", "Job", "jobs", true;
    crate::coordination::Lease, "coordination.k8s.io", "v1", "Lease", "leases", true;
    crate::discovery::EndpointSlice, "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true;
    crate::events::Event, "events.k8s.io", "v1", "Event", "events", true;
    crate::rbac::ClusterRole, "rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false;
    crate::rbac::ClusterRoleBinding, "rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", false;
    crate::rbac::Role, "rbac.authorization.k8s.io", "v1", "Role", "roles", true;
    crate::rbac::RoleBinding, "rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", true;
    crate::storage::StorageClass, "storage.k8s.io", "v1", "StorageClass", "storageclasses", false;
    crate::core::LimitRange, "", "v1", "LimitRange", "limitranges", true;
    crate::core::PodTemplate, "", "v1", "PodTemplate", "podtemplates", true;
    crate::core::ReplicationController, "", "v1", "ReplicationController", "replicationcontrollers", true;
    crate::core::ResourceQuota, "", "v1", "ResourceQuota", "resourcequotas", true;
    crate::core::ComponentStatus, "", "v1", "ComponentStatus", "componentstatuses", false;
    crate::admissionregistration::MutatingAdmissionPolicy, "admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies", false;
    crate::admissionregistration::MutatingAdmissionPolicyBinding, "admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", false;
    crate::admissionregistration::MutatingWebhookConfiguration, "admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", false;
    crate::admissionregistration::ValidatingAdmissionPolicy, "admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", false;
    crate::admissionregistration::ValidatingAdmissionPolicyBinding, "admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", false;
    crate::admissionregistration::ValidatingWebhookConfiguration, "admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", false;
    crate::apiregistration::APIService, "apiregistration.k8s.io", "v1", "APIService", "apiservices", false;
    crate::autoscaling::HorizontalPodAutoscaler, "autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true;
    crate::autoscaling_v1::HorizontalPodAutoscaler, "autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true;
    crate::batch::CronJob, "batch", "v1", "CronJob", "cronjobs", true;
    crate::certificates::CertificateSigningRequest, "certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests", false;
    crate::flowcontrol::FlowSchema, "flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas", false;
    crate::flowcontrol::PriorityLevelConfiguration, "flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", false;
    crate::networking::IPAddress, "networking.k8s.io", "v1", "IPAddress", "ipaddresses", false;
    crate::networking::Ingress, "networking.k8s.io", "v1", "Ingress", "ingresses", true;
    crate::networking::IngressClass, "networking.k8s.io", "v1", "IngressClass", "ingressclasses", false;
    crate::networking::NetworkPolicy, "networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", true;
    crate::networking::ServiceCIDR, "networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", false;
    crate::node::RuntimeClass, "node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", false;
    crate::policy::PodDisruptionBudget, "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true;
    crate::dynamic_resource::DeviceClass, "resource.k8s.io", "v1", "DeviceClass", "deviceclasses", false;
    crate::dynamic_resource::ResourceClaim, "resource.k8s.io", "v1", "ResourceClaim", "resourceclaims", true;
    crate::dynamic_resource::ResourceClaimTemplate, "resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates", true;
    crate::dynamic_resource::ResourceSlice, "resource.k8s.io", "v1", "ResourceSlice", "resourceslices", false;
    crate::scheduling::PriorityClass, "scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", false;
    crate::storage::CSIDriver, "storage.k8s.io", "v1", "CSIDriver", "csidrivers", false;
    crate::storage::CSINode, "storage.k8s.io", "v1", "CSINode", "csinodes", false;
    crate::storage::CSIStorageCapacity, "storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities", true;
    crate::storage::VolumeAttachment, "storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments", false;
    crate::storage::VolumeAttributesClass, "storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses", false;
    crate::apiextensions::CustomResourceDefinition, "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Pod;

    #[test]
    fn unknown_fields_are_noted_by_their_path_and_dropped() {
        let json =
            br#"{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"a","imag":"x"}]},"extra":1}"#;
        let (pod, mut unknown) = Pod::decode_strict(json).expect("a pod");
        unknown.sort();
        assert_eq!(unknown, ["unknown field \"extra\"", "unknown field \"spec.containers[0].imag\""]);
        assert_eq!(pod.spec.expect("spec").containers[0].name, "a");
    }
}
