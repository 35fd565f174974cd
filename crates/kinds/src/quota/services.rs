//! Services: their number, node ports and load balancers.

use std::borrow::Cow;

use gantry_api::Quantity;
use gantry_api::core::Service;

use super::{Measured, one};

const TRACKED: [&str; 4] = ["count/services", "services", "services.nodeports", "services.loadbalancers"];

pub(super) fn tracks(name: &str) -> bool {
    TRACKED.contains(&name)
}

pub(super) fn measure(service: &Service) -> Measured {
    let spec = service.spec.as_ref();
    let ports = || spec.into_iter().flat_map(|s| s.ports.iter().flatten());
    let kind = spec.and_then(|s| s.type_.as_deref()).unwrap_or("");
    let (node_ports, balancers) = match kind {
        "NodePort" => (ports().count(), 0),
        // Node ports that are not allocated yet count as well, unless they are not to be.
        "LoadBalancer" if spec.and_then(|s| s.allocate_load_balancer_node_ports) == Some(false) => {
            (ports().filter(|p| p.node_port.is_some_and(|n| n != 0)).count(), 1)
        }
        "LoadBalancer" => (ports().count(), 1),
        _ => (0, 0),
    };
    let units = |n: usize| Quantity::from_units(i64::try_from(n).unwrap_or(i64::MAX));
    let mut usage = one(["count/services", "services"]);
    usage.insert(Cow::Borrowed("services.nodeports"), units(node_ports));
    usage.insert(Cow::Borrowed("services.loadbalancers"), units(balancers));
    Measured { usage, ..Measured::default() }
}
