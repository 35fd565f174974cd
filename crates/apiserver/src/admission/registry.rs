//! The list of plugins, in the order in which they run. Adding one is one file and one line.

use std::net::Ipv4Addr;
use std::sync::Arc;

use gantry_base::{Clock, Result, Tasks};
use gantry_client::{InformerSet, Transport};

use super::{AdmissionOptions, AdmissionPlugin, policies, webhooks};
use crate::authorize::{Authorizer, Rbac};
use crate::callout::Callout;
use crate::lookup::{Accounts, Lookup, Namespaces};

/// What the plugins are made of.
pub struct PluginDeps {
    /// The loopback transport.
    pub transport: Arc<dyn Transport>,
    /// Informers on it.
    pub informers: Arc<InformerSet>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Runs what outlives a request.
    pub tasks: Tasks,
    /// Roles and bindings.
    pub rbac: Arc<Rbac>,
    /// Who may do what.
    pub authorizer: Arc<dyn Authorizer>,
    /// Addresses of services: network and prefix length.
    pub service_cidr: (Ipv4Addr, u8),
    /// Calls webhooks.
    pub callout: Callout,
    /// Which plugins run, and what they are told.
    pub options: AdmissionOptions,
}

impl PluginDeps {
    pub(super) fn lookup(&self) -> Lookup {
        Lookup::new(Arc::clone(&self.transport))
    }

    pub(super) fn namespaces(&self) -> Namespaces {
        Namespaces::new(&self.informers, self.lookup())
    }

    fn webhooks(&self) -> webhooks::Deps {
        webhooks::Deps {
            callout: self.callout.clone(),
            namespaces: self.namespaces(),
            authorizer: Arc::clone(&self.authorizer),
        }
    }

    fn policies(&self) -> policies::Deps {
        policies::Deps {
            transport: Arc::clone(&self.transport),
            namespaces: self.namespaces(),
            lookup: self.lookup(),
            authorizer: Arc::clone(&self.authorizer),
        }
    }

    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

type Made = Result<Arc<dyn AdmissionPlugin>>;

/// A plugin of the list.
struct Entry {
    name: &'static str,
    switch: Switch,
    make: fn(&PluginDeps) -> Made,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Switch {
    /// Runs unless it is disabled.
    On,
    /// Runs if it is enabled.
    Off,
    /// Runs: belongs to the storage of its kinds upstream, and is no plugin there.
    Fixed,
}

macro_rules! plugins {
    ($($switch:ident $name:literal => |$deps:ident| $made:expr;)*) => {
        const PLUGINS: &[Entry] = &[$(Entry {
            name: $name,
            switch: Switch::$switch,
            make: |$deps: &PluginDeps| Ok(Arc::new($made)),
        }),*];
    };
}

plugins! {
    Off "AlwaysAdmit" => |_deps| super::always::AlwaysAdmit;
    Off "NamespaceAutoProvision" => |deps| super::namespace_exists::NamespaceAutoProvision {
        namespaces: deps.namespaces(), transport: Arc::clone(&deps.transport) };
    On "NamespaceLifecycle" => |deps| super::namespace_lifecycle::NamespaceLifecycle::new(
        &deps.informers, deps.lookup(), deps.clock());
    Off "NamespaceExists" => |deps| super::namespace_exists::NamespaceExists { namespaces: deps.namespaces() };
    Off "LimitPodHardAntiAffinityTopology" =>
        |_deps| super::hard_anti_affinity::LimitPodHardAntiAffinityTopology;
    On "LimitRanger" => |deps| super::limit_ranger::LimitRanger::new(deps);
    On "ServiceAccount" => |deps| super::service_account::ServiceAccounts::new(
        Accounts::new(&deps.informers, deps.lookup()));
    // Off upstream, but every distribution enables it.
    On "NodeRestriction" => |deps| super::node_restriction::NodeRestriction::new(deps.lookup());
    On "TaintNodesByCondition" => |_deps| super::node_taint::TaintNodesByCondition;
    Off "AlwaysPullImages" => |_deps| super::always_pull_images::AlwaysPullImages;
    Off "ImagePolicyWebhook" => |deps| super::image_policy::ImagePolicyWebhook::new(deps)?;
    // Gantry's own: one line in place of a webhook.
    Fixed "ImagePolicy" => |deps| super::image_policy::ImageRules::new(deps.options.images().clone());
    On "PodSecurity" => |deps| super::pod_security::PodSecurity::new(deps)?;
    Off "PodNodeSelector" => |deps| super::pod_node_selector::PodNodeSelector::new(deps)?;
    On "Priority" => |deps| super::priority::Priority::new(&deps.informers, deps.lookup());
    On "DefaultTolerationSeconds" => |_deps| super::default_tolerations::DefaultTolerationSeconds;
    Off "PodTolerationRestriction" => |deps| super::pod_tolerations::PodTolerationRestriction::new(deps)?;
    Off "EventRateLimit" => |deps| super::event_rate_limit::EventRateLimit::new(deps)?;
    Off "ExtendedResourceToleration" =>
        |_deps| super::extended_resource_toleration::ExtendedResourceToleration;
    On "DefaultStorageClass" => |deps| super::default_storage_class::DefaultStorageClass::new(&deps.informers);
    On "StorageObjectInUseProtection" => |_deps| super::storage_in_use::StorageObjectInUseProtection;
    Off "OwnerReferencesPermissionEnforcement" =>
        |deps| super::owner_references::OwnerReferencesPermissionEnforcement {
            authorizer: Arc::clone(&deps.authorizer) };
    On "PersistentVolumeClaimResize" => |deps| super::volume_resize::PersistentVolumeClaimResize::new(
        &deps.informers);
    On "RuntimeClass" => |deps| super::runtime_class::RuntimeClasses::new(&deps.informers, deps.lookup());
    On "CertificateApproval" => |deps| super::certificates::CertificateApproval {
        authorizer: Arc::clone(&deps.authorizer) };
    On "CertificateSigning" => |deps| super::certificates::CertificateSigning {
        authorizer: Arc::clone(&deps.authorizer) };
    On "CertificateSubjectRestriction" => |_deps| super::certificates::CertificateSubjectRestriction;
    On "DefaultIngressClass" => |deps| super::default_ingress_class::DefaultIngressClass::new(&deps.informers);
    Off "DenyServiceExternalIPs" => |_deps| super::deny_external_ips::DenyServiceExternalIps;
    On "PodTopologyLabels" => |deps| super::nodes::PodTopologyLabels::new(&deps.informers);
    On "PodResizeValidator" => |deps| super::nodes::PodResizeValidator::new(&deps.informers);

    On "MutatingAdmissionPolicy" => |deps| policies::MutatingPolicies::new(&deps.informers, deps.policies());
    On "MutatingAdmissionWebhook" => |deps| webhooks::MutatingWebhooks::new(&deps.informers, deps.webhooks());
    On "ValidatingAdmissionPolicy" => |deps| policies::ValidatingPolicies::new(&deps.informers, deps.policies());
    On "ValidatingAdmissionWebhook" => |deps| webhooks::ValidatingWebhooks::new(&deps.informers, deps.webhooks());

    Fixed "Escalation" => |deps| super::escalation::Escalation::new(Arc::clone(&deps.rbac), Arc::clone(&deps.authorizer));
    Fixed "DeviceAdminAccess" => |deps| super::device_admin::DeviceAdminAccess { namespaces: deps.namespaces() };
    Fixed "ServiceAddresses" => |deps| super::service_addresses::ServiceAddresses::new(
        deps.service_cidr, &deps.informers, Arc::clone(&deps.transport), deps.clock())?;

    // New plugins stand above the policies and webhooks; ResourceQuota and AlwaysDeny are the last.
    On "ResourceQuota" => |deps| super::quota::ResourceQuotas::new(deps)?;
    Off "AlwaysDeny" => |_deps| super::always::AlwaysDeny;
}

/// Plugins of upstream that look at nothing but kinds and features that are alpha: they can be named, and do nothing.
const IDLE: [&str; 5] = [
    "PodGroupProtection",
    "ClusterTrustBundleAttest",
    "PodGroupWorkloadExists",
    "NodeDeclaredFeatureValidator",
    "JobValidation",
];

/// The names of the plugins that can be enabled and disabled.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PLUGINS.iter().filter(|p| p.switch != Switch::Fixed).map(|p| p.name).chain(IDLE)
}

/// Whether the plugin runs if nobody says otherwise.
pub(super) fn is_on_by_default(name: &str) -> bool {
    PLUGINS.iter().any(|p| p.name == name && p.switch == Switch::On)
}

/// The plugins that run, in upstream's order.
///
/// # Errors
/// A plugin is configured wrongly, or the service network is too small or too large.
pub fn plugins(deps: &PluginDeps) -> Result<Vec<Arc<dyn AdmissionPlugin>>> {
    let runs = |entry: &&Entry| entry.switch == Switch::Fixed || deps.options.runs(entry.name);
    PLUGINS.iter().filter(runs).map(|entry| (entry.make)(deps)).collect()
}
