//! What is taken of a service, but does not do what its author may think.

use gantry_api::core::{Service, ServiceSpec};

use crate::common::at::{At, items, text};
use crate::common::network::{warn_cidr, warn_ip};

pub(super) fn warnings(service: &Service) -> Vec<String> {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    const MODE: &str = "service.kubernetes.io/topology-mode";
    let mut warnings = Vec::new();
    if service.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(HINTS)) {
        warnings.push(format!("annotation {HINTS} is deprecated, please use {MODE} instead"));
    }
    let Some(spec) = &service.spec else { return warnings };
    warn_addresses(spec, &mut warnings);
    let (kind, external) = (text(&spec.type_), "ExternalName");
    if kind == external && !items(&spec.external_ips).is_empty() {
        warnings.push(format!("spec.externalIPs is ignored when spec.type is {external:?}"));
    }
    if kind != external && !text(&spec.external_name).is_empty() {
        warnings.push(format!("spec.externalName is ignored when spec.type is not {external:?}"));
    }
    if spec.traffic_distribution.as_deref() == Some("PreferClose") {
        warnings.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned(),
        );
    }
    warnings
}

fn warn_addresses(spec: &ServiceSpec, warnings: &mut Vec<String>) {
    let at = At::root("spec");
    let ip = text(&spec.cluster_ip);
    if !ip.is_empty() && ip != "None" {
        let list = at.child("clusterIPs");
        for (i, ip) in items(&spec.cluster_ips).iter().enumerate() {
            warn_ip(&list.index(i), ip, warnings);
        }
    }
    let headless = text(&spec.type_) == "ClusterIP" && ip == "None";
    let (balancer, external) = (text(&spec.load_balancer_ip), items(&spec.external_ips));
    if headless {
        for (ignored, what) in [
            (!balancer.is_empty(), "loadBalancerIP"),
            (!external.is_empty(), "externalIPs"),
            (text(&spec.session_affinity) != "None", "SessionAffinity"),
        ] {
            if ignored {
                warnings.push(format!("spec.{what} is ignored for headless services"));
            }
        }
    }
    let list = at.child("externalIPs");
    for (i, ip) in external.iter().enumerate() {
        warn_ip(&list.index(i), ip, warnings);
    }
    if !external.is_empty() && !headless && text(&spec.type_) != "ExternalName" {
        warnings
            .push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".into());
    }
    if !balancer.is_empty() {
        warn_ip(&at.child("loadBalancerIP"), balancer, warnings);
    }
    let list = at.child("loadBalancerSourceRanges");
    for (i, range) in items(&spec.load_balancer_source_ranges).iter().enumerate() {
        warn_cidr(&list.index(i), range, warnings);
    }
}
