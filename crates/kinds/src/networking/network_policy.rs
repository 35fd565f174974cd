//! NetworkPolicy: which traffic pods may have.

use std::time::SystemTime;

use gantry_api::field::{Error, Path};
use gantry_api::networking::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use gantry_api::{IntOrString, names};
use serde_json::{Value, json};

use crate::common::at::At;
use crate::common::{cells, check, network, selectors};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::{AGE, Column, age};

/// The kind.
pub struct NetworkPolicyKind;

impl Kind for NetworkPolicyKind {
    type Object = NetworkPolicy;
    const NAMES: Names =
        Names { singular: "networkpolicy", short: &["netpol"], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };

    fn defaults(policy: &mut NetworkPolicy) {
        let spec = policy.spec.get_or_insert_default();
        spec.pod_selector.get_or_insert_default();
        let ingress = spec.ingress.iter_mut().flatten().flat_map(|r| r.ports.iter_mut().flatten());
        let egress = spec.egress.iter_mut().flatten().flat_map(|r| r.ports.iter_mut().flatten());
        for port in ingress.chain(egress) {
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
        if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
            let mut types = vec!["Ingress".to_owned()];
            if spec.egress.as_ref().is_some_and(|e| !e.is_empty()) {
                types.push("Egress".to_owned());
            }
            spec.policy_types = Some(types);
        }
    }

    fn prepare_create(policy: &mut NetworkPolicy) {
        policy.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut NetworkPolicy, old: &NetworkPolicy) {
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn validate(policy: &NetworkPolicy) -> Errors {
        validate_policy(policy, None)
    }

    fn validate_replacement(new: &NetworkPolicy, old: &NetworkPolicy) -> Errors {
        validate_policy(new, Some(old))
    }

    fn warnings(policy: &NetworkPolicy) -> Vec<String> {
        let mut warnings = Vec::new();
        for (path, peer) in peers(policy.spec.as_ref()) {
            let Some(block) = &peer.ip_block else { continue };
            let at = path.child("ipBlock");
            network::warn_cidr(&At::of(&at.child("cidr")), &block.cidr, &mut warnings);
            for (i, except) in block.except.iter().flatten().enumerate() {
                network::warn_cidr(&At::of(&at.child("except").index(i)), except, &mut warnings);
            }
        }
        warnings
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Pod-Selector",
                "string",
                "podSelector selects the pods to which this NetworkPolicy object applies. The array of rules is applied to any pods selected by this field. An empty selector matches all pods in the policy's namespace. Multiple network policies can select the same set of pods. In this case, the ingress rules for each are combined additively. This field is optional. If it is not specified, it defaults to an empty selector.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(policy: &NetworkPolicy, now: SystemTime) -> Vec<Value> {
        let selector = policy.spec.as_ref().and_then(|s| s.pod_selector.as_ref());
        vec![cells::selector(selector), age(&policy.metadata, now)]
    }
}

/// All peers with their paths, those of ingress first.
fn peers(spec: Option<&NetworkPolicySpec>) -> Vec<(Path, &NetworkPolicyPeer)> {
    let path = Path::new("spec");
    let mut all = Vec::new();
    let Some(spec) = spec else { return all };
    for (i, rule) in spec.ingress.iter().flatten().enumerate() {
        let at = path.child("ingress").index(i).child("from");
        all.extend(rule.from.iter().flatten().enumerate().map(|(j, peer)| (at.index(j), peer)));
    }
    for (i, rule) in spec.egress.iter().flatten().enumerate() {
        let at = path.child("egress").index(i).child("to");
        all.extend(rule.to.iter().flatten().enumerate().map(|(j, peer)| (at.index(j), peer)));
    }
    all
}

fn validate_policy(policy: &NetworkPolicy, old: Option<&NetworkPolicy>) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let spec = policy.spec.clone().unwrap_or_default();
    let old = old.and_then(|o| o.spec.as_ref());
    let mut before = Errors::new();
    selectors::validate(old.and_then(|o| o.pod_selector.as_ref()), false, &path, &mut before);
    let lenient = !before.is_empty();
    let blocks = peers(old).into_iter().filter_map(|(_, peer)| peer.ip_block.as_ref());
    let stored: Vec<String> =
        blocks.flat_map(|b| std::iter::once(&b.cidr).chain(b.except.iter().flatten())).cloned().collect();
    selectors::validate(spec.pod_selector.as_ref(), lenient, &path.child("podSelector"), &mut errors);
    let scope = Scope { lenient, stored: &stored };
    for (i, rule) in spec.ingress.iter().flatten().enumerate() {
        let at = path.child("ingress").index(i);
        validate_ports(rule.ports.as_deref(), &at.child("ports"), &mut errors);
        scope.validate_peers(rule.from.as_deref(), &at.child("from"), &mut errors);
    }
    for (i, rule) in spec.egress.iter().flatten().enumerate() {
        let at = path.child("egress").index(i);
        validate_ports(rule.ports.as_deref(), &at.child("ports"), &mut errors);
        scope.validate_peers(rule.to.as_deref(), &at.child("to"), &mut errors);
    }
    let types = spec.policy_types.as_deref().unwrap_or_default();
    let at = path.child("policyTypes");
    if types.len() > 2 {
        errors.push(Error::invalid(&at, json!(types), "may not specify more than two policyTypes"));
        return errors;
    }
    for (i, kind) in types.iter().enumerate() {
        check::supported(&at.index(i), kind, &["Ingress", "Egress"], &mut errors);
    }
    errors
}

fn validate_ports(ports: Option<&[NetworkPolicyPort]>, path: &Path, errors: &mut Errors) {
    for (i, port) in ports.unwrap_or_default().iter().enumerate() {
        let at = path.index(i);
        let protocols = ["TCP", "UDP", "SCTP"];
        check::supported_if_set(&at.child("protocol"), port.protocol.as_deref(), &protocols, errors);
        let end_at = at.child("endPort");
        match (&port.port, port.end_port) {
            (None, Some(end)) => {
                errors.push(Error::invalid(
                    &end_at,
                    end,
                    "may not be specified when `port` is not specified",
                ));
            }
            (None, None) => {}
            (Some(IntOrString::Int(number)), end) => {
                if let Err(why) = names::port_number(*number) {
                    errors.push(Error::invalid(&at.child("port"), *number, why));
                }
                let Some(end) = end else { continue };
                if end < *number {
                    errors.push(Error::invalid(&end_at, *number, "must be greater than or equal to `port`"));
                }
                if let Err(why) = names::port_number(end) {
                    errors.push(Error::invalid(&end_at, end, why));
                }
            }
            (Some(IntOrString::String(name)), end) => {
                if let Some(end) = end {
                    let why = "may not be specified when `port` is non-numeric";
                    errors.push(Error::invalid(&end_at, end, why));
                }
                check::name(&at.child("port"), name, names::port_name(name), errors);
            }
        }
    }
}

/// What the old policy allows the new one to keep.
struct Scope<'a> {
    lenient: bool,
    stored: &'a [String],
}

impl Scope<'_> {
    fn validate_peers(&self, peers: Option<&[NetworkPolicyPeer]>, path: &Path, errors: &mut Errors) {
        for (i, peer) in peers.unwrap_or_default().iter().enumerate() {
            let at = path.index(i);
            selectors::validate(peer.pod_selector.as_ref(), self.lenient, &at.child("podSelector"), errors);
            let namespaces = at.child("namespaceSelector");
            selectors::validate(peer.namespace_selector.as_ref(), self.lenient, &namespaces, errors);
            if let Some(block) = &peer.ip_block {
                self.validate_block(block, &at.child("ipBlock"), errors);
            }
            let selectors = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
            if !selectors && peer.ip_block.is_none() {
                errors.push(Error::required(&at, "must specify a peer"));
            } else if selectors && peer.ip_block.is_some() {
                errors.push(Error::forbidden(&at, "may not specify both ipBlock and another peer"));
            }
        }
    }

    fn validate_block(&self, block: &IPBlock, path: &Path, errors: &mut Errors) {
        let at = path.child("cidr");
        if block.cidr.is_empty() {
            errors.push(Error::required(&at, ""));
            return;
        }
        network::check_cidr(&At::of(&at), &block.cidr, self.stored, errors);
        let Some((base, length)) = network::sloppy_cidr(&block.cidr) else { return };
        for (i, except) in block.except.iter().flatten().enumerate() {
            let at = path.child("except").index(i);
            network::check_cidr(&At::of(&at), except, self.stored, errors);
            let Some((inner, inner_length)) = network::sloppy_cidr(except) else { continue };
            let inside = network::masked(inner, length) == network::masked(base, length);
            if !inside || length >= inner_length {
                errors.push(Error::invalid(&at, except.as_str(), "must be a strict subset of `cidr`"));
            }
        }
    }
}
