//! The list of plugins, in the order in which they run. Adding one is one file and one line.

use std::net::Ipv4Addr;
use std::sync::Arc;

use gantry_base::{Clock, Result};
use gantry_client::{InformerSet, Transport};

use super::AdmissionPlugin;
use crate::authorize::Rbac;
use crate::lookup::{Accounts, Lookup};

/// What the plugins are made of.
pub struct PluginDeps {
    /// The loopback transport.
    pub transport: Arc<dyn Transport>,
    /// Informers on it.
    pub informers: Arc<InformerSet>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Roles and bindings.
    pub rbac: Arc<Rbac>,
    /// Addresses of services: network and prefix length.
    pub service_cidr: (Ipv4Addr, u8),
}

/// The plugins that are on by default, in upstream's order.
///
/// # Errors
/// The service network is too small or too large.
pub fn default_plugins(deps: &PluginDeps) -> Result<Vec<Arc<dyn AdmissionPlugin>>> {
    let lookup = Lookup::new(Arc::clone(&deps.transport));
    let accounts = Accounts::new(&deps.informers, lookup.clone());
    Ok(vec![
        Arc::new(super::namespace_lifecycle::NamespaceLifecycle::new(
            &deps.informers,
            lookup.clone(),
            Arc::clone(&deps.clock),
        )),
        Arc::new(super::service_account::ServiceAccounts::new(accounts)),
        Arc::new(super::node_restriction::NodeRestriction::new(lookup)),
        Arc::new(super::node_taint::TaintNodesByCondition),
        Arc::new(super::priority::Priority),
        Arc::new(super::default_tolerations::DefaultTolerationSeconds),
        Arc::new(super::storage_in_use::StorageObjectInUseProtection),
        Arc::new(super::default_storage_class::DefaultStorageClass::new(&deps.informers)),
        Arc::new(super::volume_resize::PersistentVolumeClaimResize::new(&deps.informers)),
        // What follows belongs to the storage of its kinds upstream.
        Arc::new(super::escalation::Escalation::new(Arc::clone(&deps.rbac))),
        Arc::new(super::service_addresses::ServiceAddresses::new(
            deps.service_cidr,
            &deps.informers,
            Arc::clone(&deps.transport),
            Arc::clone(&deps.clock),
        )?),
    ])
}
