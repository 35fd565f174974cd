//! The list of built-in kinds. Adding a kind is one file, one line here and one fixture.

use std::sync::Arc;

use crate::erased::{AnyKind, Builtin};

macro_rules! kinds {
    ($($kind:path => $definition:literal,)*) => {
        /// All built-in kinds.
        pub fn builtin() -> Vec<Arc<dyn AnyKind>> {
            vec![$(Arc::new(Builtin::<$kind>::new($definition)),)*]
        }
    };
}

kinds! {
    crate::core::config_map::ConfigMapKind => "io.k8s.api.core.v1.ConfigMap",
    crate::core::endpoints::EndpointsKind => "io.k8s.api.core.v1.Endpoints",
    crate::core::event::EventKind => "io.k8s.api.core.v1.Event",
    crate::core::component_status::ComponentStatusKind => "io.k8s.api.core.v1.ComponentStatus",
    crate::core::limit_range::LimitRangeKind => "io.k8s.api.core.v1.LimitRange",
    crate::core::namespace::NamespaceKind => "io.k8s.api.core.v1.Namespace",
    crate::core::node::NodeKind => "io.k8s.api.core.v1.Node",
    crate::core::persistent_volume::PersistentVolumeKind => "io.k8s.api.core.v1.PersistentVolume",
    crate::core::persistent_volume_claim::PersistentVolumeClaimKind => "io.k8s.api.core.v1.PersistentVolumeClaim",
    crate::core::pod::PodKind => "io.k8s.api.core.v1.Pod",
    crate::core::pod_template::PodTemplateKind => "io.k8s.api.core.v1.PodTemplate",
    crate::core::replication_controller::ReplicationControllerKind => "io.k8s.api.core.v1.ReplicationController",
    crate::core::resource_quota::ResourceQuotaKind => "io.k8s.api.core.v1.ResourceQuota",
    crate::core::secret::SecretKind => "io.k8s.api.core.v1.Secret",
    crate::core::service::ServiceKind => "io.k8s.api.core.v1.Service",
    crate::core::service_account::ServiceAccountKind => "io.k8s.api.core.v1.ServiceAccount",
    crate::apps::controller_revision::ControllerRevisionKind => "io.k8s.api.apps.v1.ControllerRevision",
    crate::apps::daemon_set::DaemonSetKind => "io.k8s.api.apps.v1.DaemonSet",
    crate::apps::deployment::DeploymentKind => "io.k8s.api.apps.v1.Deployment",
    crate::apps::replica_set::ReplicaSetKind => "io.k8s.api.apps.v1.ReplicaSet",
    crate::apps::stateful_set::StatefulSetKind => "io.k8s.api.apps.v1.StatefulSet",
    crate::autoscaling::horizontal_pod_autoscaler::HorizontalPodAutoscalerKind =>
        "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    crate::autoscaling::horizontal_pod_autoscaler_v1::HorizontalPodAutoscalerV1Kind =>
        "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
    crate::batch::cron_job::CronJobKind => "io.k8s.api.batch.v1.CronJob",
    crate::batch::job::JobKind => "io.k8s.api.batch.v1.Job",
    crate::certificates::certificate_signing_request::CertificateSigningRequestKind =>
        "io.k8s.api.certificates.v1.CertificateSigningRequest",
    crate::coordination::lease::LeaseKind => "io.k8s.api.coordination.v1.Lease",
    crate::discovery::endpoint_slice::EndpointSliceKind => "io.k8s.api.discovery.v1.EndpointSlice",
    crate::events::event::EventKind => "io.k8s.api.events.v1.Event",
    crate::flowcontrol::flow_schema::FlowSchemaKind => "io.k8s.api.flowcontrol.v1.FlowSchema",
    crate::flowcontrol::priority_level_configuration::PriorityLevelConfigurationKind =>
        "io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
    crate::networking::ingress::IngressKind => "io.k8s.api.networking.v1.Ingress",
    crate::networking::ingress_class::IngressClassKind => "io.k8s.api.networking.v1.IngressClass",
    crate::networking::ip_address::IPAddressKind => "io.k8s.api.networking.v1.IPAddress",
    crate::networking::network_policy::NetworkPolicyKind => "io.k8s.api.networking.v1.NetworkPolicy",
    crate::networking::service_cidr::ServiceCIDRKind => "io.k8s.api.networking.v1.ServiceCIDR",
    crate::node::runtime_class::RuntimeClassKind => "io.k8s.api.node.v1.RuntimeClass",
    crate::policy::pod_disruption_budget::PodDisruptionBudgetKind => "io.k8s.api.policy.v1.PodDisruptionBudget",
    crate::rbac::cluster_role::ClusterRoleKind => "io.k8s.api.rbac.v1.ClusterRole",
    crate::rbac::cluster_role_binding::ClusterRoleBindingKind => "io.k8s.api.rbac.v1.ClusterRoleBinding",
    crate::rbac::role::RoleKind => "io.k8s.api.rbac.v1.Role",
    crate::rbac::role_binding::RoleBindingKind => "io.k8s.api.rbac.v1.RoleBinding",
    crate::resource::device_class::DeviceClassKind => "io.k8s.api.resource.v1.DeviceClass",
    crate::resource::resource_claim::ResourceClaimKind => "io.k8s.api.resource.v1.ResourceClaim",
    crate::resource::resource_claim_template::ResourceClaimTemplateKind =>
        "io.k8s.api.resource.v1.ResourceClaimTemplate",
    crate::resource::resource_slice::ResourceSliceKind => "io.k8s.api.resource.v1.ResourceSlice",
    crate::scheduling::priority_class::PriorityClassKind => "io.k8s.api.scheduling.v1.PriorityClass",
    crate::storage::csi_driver::CSIDriverKind => "io.k8s.api.storage.v1.CSIDriver",
    crate::storage::csi_node::CSINodeKind => "io.k8s.api.storage.v1.CSINode",
    crate::storage::csi_storage_capacity::CSIStorageCapacityKind => "io.k8s.api.storage.v1.CSIStorageCapacity",
    crate::storage::volume_attachment::VolumeAttachmentKind => "io.k8s.api.storage.v1.VolumeAttachment",
    crate::storage::volume_attributes_class::VolumeAttributesClassKind => "io.k8s.api.storage.v1.VolumeAttributesClass",
    crate::storage::storage_class::StorageClassKind => "io.k8s.api.storage.v1.StorageClass",
    crate::admissionregistration::mutating_admission_policy::MutatingAdmissionPolicyKind =>
        "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy",
    crate::admissionregistration::mutating_admission_policy_binding::MutatingAdmissionPolicyBindingKind =>
        "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBinding",
    crate::admissionregistration::mutating_webhook_configuration::MutatingWebhookConfigurationKind =>
        "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
    crate::admissionregistration::validating_admission_policy::ValidatingAdmissionPolicyKind =>
        "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
    crate::admissionregistration::validating_admission_policy_binding::ValidatingAdmissionPolicyBindingKind =>
        "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    crate::admissionregistration::validating_webhook_configuration::ValidatingWebhookConfigurationKind =>
        "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
    crate::apiregistration::api_service::APIServiceKind =>
        "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
    crate::apiextensions::custom_resource_definition::CustomResourceDefinitionKind =>
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_names_of_its_own_and_a_schema() {
        let kinds = builtin();
        let mut seen = std::collections::BTreeSet::new();
        for kind in &kinds {
            let resource = kind.resource();
            assert!(
                seen.insert((resource.group.clone(), resource.version.clone(), resource.plural.clone())),
                "{resource} is listed twice"
            );
            assert_eq!(kind.singular(), resource.kind.to_lowercase());
            assert!(kind.definition().is_some_and(|d| d.ends_with(&*resource.kind)), "{resource}");
        }
    }

    #[test]
    fn tables_have_a_cell_for_each_column_and_selectors_a_value_for_each_field() {
        for kind in builtin() {
            let resource = kind.resource();
            let json = format!(r#"{{"apiVersion":"{}","kind":"{}"}}"#, resource.api_version(), resource.kind);
            let mut object = kind.decode(json.as_bytes(), true).expect("an empty object").object;
            kind.defaults(&mut *object);
            let cells = kind.cells(&*object, std::time::UNIX_EPOCH);
            // Upstream's rows of addresses have an age, for which there is no column.
            let more = usize::from(resource.kind == "IPAddress");
            assert_eq!(cells.len(), kind.columns().len() + more, "{resource}");
            assert_eq!(kind.selectable_values(&*object).len(), kind.selectable().len(), "{resource}");
        }
    }
}
