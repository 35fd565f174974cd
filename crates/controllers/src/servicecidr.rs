//! ServiceCIDRs: ready while they live; those that are deleted go when no address depends on them any more.
//!
//! Behaviour: `pkg/controller/servicecidrs`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::meta::MetaExt;
use gantry_api::metav1::Condition;
use gantry_api::networking::{IPAddress, ServiceCIDR};
use gantry_api::time::{system_time, time};
use gantry_api::{Object, ObjectKey};
use gantry_client::{Delta, Informer, InformerSet, PatchKind};
use serde_json::json;

use crate::engine::{Controller, Moment, Plan, Watch, Write};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// What marks the addresses of services.
pub(crate) const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
/// Allocators may take this long to learn that a range is going.
const GRACE: Duration = Duration::from_secs(10);
const READY: &str = "Ready";

/// The service-cidr controller.
pub struct ServiceCidrs {
    ranges: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
}

impl ServiceCidrs {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { ranges: informers.of(), addresses: informers.of() }
    }
}

/// What the controller sees of a range.
pub struct Seen {
    range: Arc<ServiceCIDR>,
    /// All ranges, and the addresses of services: only where the range is being deleted.
    ranges: Vec<Arc<ServiceCIDR>>,
    addresses: Vec<IpAddr>,
}

/// A network.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Net(IpAddr, u8);

impl Net {
    fn read(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        Some(Self(address.parse().ok()?, prefix.parse().ok()?))
    }

    fn contains(self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, bits: u8| {
            let shift = u32::from(bits).saturating_sub(u32::from(self.1));
            a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
        };
        match (self.0, address) {
            (IpAddr::V4(net), IpAddr::V4(a)) => {
                same(u128::from(u32::from(net)), u128::from(u32::from(a)), 32)
            }
            (IpAddr::V6(net), IpAddr::V6(a)) => same(u128::from(net), u128::from(a), 128),
            _ => false,
        }
    }

    fn covers(self, other: Self) -> bool {
        self.1 <= other.1 && self.contains(other.0)
    }
}

fn nets(range: &ServiceCIDR) -> Vec<Net> {
    let cidrs = range.spec.as_ref().and_then(|s| s.cidrs.as_ref());
    cidrs.into_iter().flatten().filter_map(|text| Net::read(text)).collect()
}

impl Controller for ServiceCidrs {
    const NAME: &'static str = "service-cidr-controller";
    const ACCOUNT: &'static str = "service-cidrs-controller";
    const COMPONENT: &'static str = "service-cidr-controller";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let overlapping = |ranges: &Informer<ServiceCIDR>, found: &dyn Fn(&ServiceCIDR) -> bool| {
            let all = ranges.list();
            all.iter().filter(|r| r.is_terminating() && found(r)).map(|r| r.key()).collect::<Vec<_>>()
        };
        let (r1, r2) = (self.ranges.clone(), self.ranges.clone());
        let of_range = move |delta: &Delta<ServiceCIDR>| {
            let mut keys = overlapping(&r1, &|_| true);
            keys.push(delta.key.clone());
            keys
        };
        let of_address = move |delta: &Delta<IPAddress>| {
            let address: Option<IpAddr> = delta.key.name.parse().ok();
            let gone = address.filter(|_| delta.new.is_none());
            gone.map(|a| overlapping(&r2, &|r| nets(r).iter().any(|net| net.contains(a)))).unwrap_or_default()
        };
        vec![Watch::on(&self.ranges, of_range), Watch::on(&self.addresses, of_address)]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let range = self.ranges.get(key)?;
        if !range.is_terminating() {
            return Some(Seen { range, ranges: Vec::new(), addresses: Vec::new() });
        }
        let (label, value) = MANAGED_BY;
        let addresses = self.addresses.list();
        let own = addresses.iter().filter(|a| a.label(label) == Some(value));
        let addresses = own.filter_map(|a| a.name().parse().ok()).collect();
        Some(Seen { range, ranges: self.ranges.list(), addresses })
    }

    fn plan(seen: &Seen, moment: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let range = &*seen.range;
        let finalizers = range.metadata.finalizers.as_deref().unwrap_or_default();
        let held = finalizers.iter().any(|f| f == FINALIZER);
        let patch = |body: serde_json::Value| {
            let write = Write::patch(ServiceCIDR::RESOURCE, range.key(), "", PatchKind::Strategic, &body);
            write.tolerating("NotFound")
        };
        let Some(deleted) = &range.metadata.deletion_timestamp else {
            if !held {
                plan.push(patch(json!({"metadata": {"finalizers": [FINALIZER]}})));
                return plan;
            }
            condition(range, "True", "", "Kubernetes Service CIDR is ready", moment, &mut plan);
            return plan;
        };
        if !may_go(seen) {
            let text = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
            condition(range, "False", "Terminating", text, moment, &mut plan);
            return plan;
        }
        match (system_time(&deleted.0) + GRACE).duration_since(moment.now) {
            Ok(left) if !left.is_zero() => plan.requeue_after(left),
            _ if held => {
                plan.push(patch(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}})));
            }
            _ => {}
        }
        plan
    }
}

/// Whether another range has all that this one has, or no address is of this one alone.
fn may_go(seen: &Seen) -> bool {
    let others = || seen.ranges.iter().filter(|r| r.name() != seen.range.name());
    let covered = |net: &Net| others().any(|r| nets(r).iter().any(|other| other.covers(*net)));
    let own = nets(&seen.range);
    if own.iter().all(covered) {
        return true;
    }
    let orphan = |address: &IpAddr| {
        own.iter().any(|net| net.contains(*address))
            && !others().any(|r| nets(r).iter().any(|net| net.contains(*address)))
    };
    !seen.addresses.iter().any(orphan)
}

fn condition(
    range: &ServiceCIDR,
    status: &str,
    reason: &str,
    message: &str,
    moment: &Moment,
    plan: &mut Plan,
) {
    let list = range.status.as_ref().and_then(|s| s.conditions.as_ref());
    let old = list.into_iter().flatten().find(|c| c.type_ == READY);
    if old.is_some_and(|c| c.status == status && c.reason == reason && c.message == message) {
        return;
    }
    let new = Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: time(moment.now),
        observed_generation: None,
    };
    let mut updated = range.clone();
    let list = updated.status.get_or_insert_default().conditions.get_or_insert_default();
    list.retain(|c| c.type_ != READY);
    list.push(new);
    plan.push(Write::update_status(&updated));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    #[test]
    fn a_range_is_ready_and_goes_when_no_address_needs_it() {
        let mut model = Model::default();
        let controller = ServiceCidrs { ranges: Informer::detached(), addresses: Informer::detached() };
        model.feed(&controller.ranges);
        model.feed(&controller.addresses);
        let value = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.9.0.0/24"]}});
        let key = model.create(&ServiceCIDR::decode_value(&value).expect("a range")).key();
        model.settle(&controller, &key);
        let told = |model: &Model| {
            let status = model.get::<ServiceCIDR>(&key).and_then(|r| r.status).expect("a status");
            let condition = status.conditions.expect("conditions").remove(0);
            format!("{} {}", condition.status, condition.reason)
        };
        assert_eq!(told(&model), "True ");
        let labels = json!({(MANAGED_BY.0): MANAGED_BY.1});
        let value = json!({"metadata": {"name": "10.9.0.7", "labels": labels}, "spec": {"parentRef": {"name": "s", "resource": "services"}}});
        let address = model.create(&IPAddress::decode_value(&value).expect("an address")).key();
        let options = gantry_client::DeleteOptions::default();
        model.apply(&Write::delete(ServiceCIDR::RESOURCE, key.clone(), &options)).expect("on its way");
        model.settle(&controller, &key);
        assert_eq!(told(&model), "False Terminating");
        model.remove::<IPAddress>(&address);
        model.settle(&controller, &key);
        assert!(model.get::<ServiceCIDR>(&key).is_some(), "allocators may not know yet");
        model.now += GRACE;
        model.settle(&controller, &key);
        assert!(model.get::<ServiceCIDR>(&key).is_none());
    }
}
