//! An IPAddress for each address that a service has.
//!
//! Upstream's allocator creates them before the service (`pkg/registry/core/service/ipallocator`). Here the API
//! server allocates by itself, and they follow: creating a service costs no second write.

use std::net::IpAddr;
use std::sync::Arc;

use gantry_api::core::Service;
use gantry_api::meta::MetaExt;
use gantry_api::networking::{IPAddress, IPAddressSpec, ParentReference};
use gantry_api::{Object, ObjectKey};
use gantry_client::{Index, Informer, InformerSet, Projection};

use crate::engine::{Controller, Moment, Plan, Watch, Write};
use crate::servicecidr::MANAGED_BY;

const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const ADDRESS: &str = "address";

/// What is kept of a service.
pub struct Addressed {
    key: ObjectKey,
    revision: u64,
    addresses: Vec<Arc<str>>,
}

impl Projection for Addressed {
    type Object = Service;

    fn project(service: Arc<Service>) -> Arc<Self> {
        let spec = service.spec.as_ref();
        let list = spec.and_then(|s| s.cluster_ips.as_ref()).into_iter().flatten();
        let addresses = list.filter(|ip| ip.parse::<IpAddr>().is_ok()).map(|ip| ip.as_str().into()).collect();
        Arc::new(Self { key: service.key(), revision: MetaExt::revision(&*service), addresses })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }

    fn indexes() -> &'static [Index<Self>] {
        &[Index { name: ADDRESS, values: |service| service.addresses.clone() }]
    }
}

/// The controller of services' addresses.
pub struct ServiceAddresses {
    services: Informer<Addressed>,
    addresses: Informer<IPAddress>,
}

impl ServiceAddresses {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { services: informers.of(), addresses: informers.of() }
    }
}

/// An address: the service that has it, and the object that says so.
pub struct Seen {
    name: String,
    service: Option<ObjectKey>,
    object: Option<Arc<IPAddress>>,
}

fn parent(service: &ObjectKey) -> ParentReference {
    // The core group is not written.
    ParentReference {
        group: None,
        resource: "services".to_owned(),
        namespace: Some(service.namespace.to_string()),
        name: service.name.to_string(),
    }
}

/// Whose the address is, the core group in one form.
fn written_parent(address: &IPAddress) -> ParentReference {
    let mut parent = address.spec.parent_ref.clone();
    parent.group = parent.group.filter(|group| !group.is_empty());
    parent
}

impl Controller for ServiceAddresses {
    const NAME: &'static str = "service-addresses-controller";
    const ACCOUNT: &'static str = "service-addresses-controller";
    const COMPONENT: &'static str = "service-addresses-controller";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::on(&self.services, |delta| {
                let list = |view: &Option<Arc<Addressed>>| {
                    view.as_ref().map(|v| v.addresses.clone()).unwrap_or_default()
                };
                let (mut names, new) = (list(&delta.old), list(&delta.new));
                if names == new && delta.old.is_some() {
                    return Vec::new();
                }
                names.extend(new);
                names.into_iter().map(ObjectKey::cluster).collect()
            }),
            Watch::each(&self.addresses),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let holders = self.services.by_index(ADDRESS, &key.name);
        let object = self.addresses.get(key);
        // Of two that have it for a moment, the one that is written down keeps it.
        let written = object.as_ref().map(|o| written_parent(o));
        let kept = holders.iter().find(|s| Some(parent(&s.key)) == written).or(holders.first());
        Some(Seen { name: key.name.to_string(), service: kept.map(|s| s.key.clone()), object })
    }

    fn plan(seen: &Seen, _: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let (label, value) = MANAGED_BY;
        match (&seen.service, &seen.object) {
            (Some(service), None) => {
                let mut address =
                    IPAddress { spec: IPAddressSpec { parent_ref: parent(service) }, ..IPAddress::default() };
                let family = if seen.name.contains(':') { "IPv6" } else { "IPv4" };
                address.metadata.name = Some(seen.name.clone());
                let labels = [(FAMILY, family), (label, value)];
                address.metadata.labels =
                    Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
                plan.push(Write::create(&address).tolerating("AlreadyExists"));
            }
            (wanted, Some(object))
                if object.label(label) == Some(value)
                    && wanted.as_ref().is_none_or(|s| parent(s) != written_parent(object)) =>
            {
                // A new one follows: whose an address is cannot change.
                let delete = Write::delete_exactly(IPAddress::RESOURCE, object.key(), object.uid());
                plan.push(delete.tolerating("NotFound"));
            }
            _ => {}
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Model;

    #[test]
    fn an_address_lives_as_long_as_its_service() {
        let mut model = Model::default();
        let controller = ServiceAddresses { services: Informer::detached(), addresses: Informer::detached() };
        model.feed(&controller.services);
        model.feed(&controller.addresses);
        let service = |name: &str| {
            let value = json!({
                "metadata": {"namespace": "a", "name": name},
                "spec": {"clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7"]},
            });
            Service::decode_value(&value).expect("a service")
        };
        let key = ObjectKey::cluster("10.43.0.7");
        let first = model.create(&service("one")).key();
        model.settle(&controller, &key);
        let found = |model: &Model| model.get::<IPAddress>(&key);
        let address = found(&model).expect("an address");
        assert_eq!(address.label(FAMILY), Some("IPv4"));
        assert_eq!(address.label(MANAGED_BY.0), Some(MANAGED_BY.1));
        assert_eq!(address.spec.parent_ref, parent(&first));
        model.remove::<Service>(&first);
        let second = model.create(&service("two")).key();
        model.settle(&controller, &key);
        assert_eq!(found(&model).expect("the next").spec.parent_ref, parent(&second));
        model.remove::<Service>(&second);
        model.settle(&controller, &key);
        assert!(found(&model).is_none());
        let foreign = json!({"metadata": {"name": "10.43.0.7"}, "spec": {"parentRef": {"name": "s", "resource": "others"}}});
        model.create(&IPAddress::decode_value(&foreign).expect("an address"));
        model.settle(&controller, &key);
        assert!(found(&model).is_some(), "what somebody else wrote stays");
    }
}
