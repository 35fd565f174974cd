//! Approves the requests of kubelets: for client certificates if whoever asks may create such requests, and (which
//! upstream leaves to others) for serving certificates if they name nothing but the node itself.

use std::net::IpAddr;
use std::sync::Arc;

use gantry_api::ObjectKey;
use gantry_api::certificates::{CertificateSigningRequest, CertificateSigningRequestCondition};
use gantry_api::core::Node;
use gantry_api::meta::MetaExt;
use gantry_client::{Informer, InformerSet};

use super::request::Request;
use super::{KUBELET_CLIENT, KUBELET_SERVING, is_pending};
use crate::engine::{Controller, Effect, Moment, Plan, Question, Watch, Write};

/// `csr` with the condition that it is approved.
fn approved(csr: &CertificateSigningRequest, message: &str) -> CertificateSigningRequest {
    let mut csr = csr.clone();
    let conditions = csr.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.push(CertificateSigningRequestCondition {
        type_: "Approved".to_owned(),
        status: "True".to_owned(),
        reason: Some("AutoApproved".to_owned()),
        message: Some(message.to_owned()),
        ..CertificateSigningRequestCondition::default()
    });
    csr
}

/// Approves client certificates of kubelets.
pub struct ClientApprover {
    requests: Informer<CertificateSigningRequest>,
}

impl ClientApprover {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { requests: informers.of() }
    }
}

impl Controller for ClientApprover {
    const NAME: &'static str = "certificatesigningrequest-approving-controller";
    const ACCOUNT: &'static str = "certificate-controller";
    const COMPONENT: &'static str = "certificate-controller";
    type Seen = Arc<CertificateSigningRequest>;

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::each(&self.requests)]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Self::Seen> {
        self.requests.get(key).filter(|csr| is_pending(csr) && csr.spec.signer_name == KUBELET_CLIENT)
    }

    fn plan(csr: &Self::Seen, _: &Moment) -> Plan {
        let request = match Request::parse(&csr.spec.request.0) {
            Ok(request) => request,
            Err(why) => return Plan::fail(format!("unable to parse csr {:?}: {why}", csr.name())),
        };
        let mut plan = Plan::nothing();
        if request.check_kubelet_client(csr.spec.usages.as_deref().unwrap_or_default()).is_err() {
            return plan;
        }
        let question = |subresource: &'static str| Question {
            user: csr.spec.username.clone().unwrap_or_default(),
            uid: csr.spec.uid.clone().unwrap_or_default(),
            groups: csr.spec.groups.clone().unwrap_or_default(),
            extra: csr.spec.extra.clone().unwrap_or_default(),
            verb: "create",
            group: "certificates.k8s.io",
            resource: "certificatesigningrequests",
            subresource,
        };
        let approve = |message: &str| Write::update_subresource(&approved(csr, message), "approval");
        let mut choices = Vec::new();
        if csr.spec.username.as_deref() == Some(request.common_name.as_str()) {
            let message = "Auto approving self kubelet client certificate after SubjectAccessReview.";
            choices.push((question("selfnodeclient"), approve(message)));
        }
        let message = "Auto approving kubelet client certificate after SubjectAccessReview.";
        choices.push((question("nodeclient"), approve(message)));
        plan.push(Effect::FirstAllowed(choices));
        plan
    }
}

/// Approves serving certificates of kubelets.
pub struct ServingApprover {
    requests: Informer<CertificateSigningRequest>,
    nodes: Informer<Node>,
}

impl ServingApprover {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { requests: informers.of(), nodes: informers.of() }
    }
}

/// What it sees of a request.
pub struct Serving {
    csr: Arc<CertificateSigningRequest>,
    node: Option<Arc<Node>>,
}

fn node_name(csr: &CertificateSigningRequest) -> Option<&str> {
    csr.spec.username.as_deref()?.strip_prefix("system:node:")
}

impl Controller for ServingApprover {
    const NAME: &'static str = "kubelet-serving-approving-controller";
    const ACCOUNT: &'static str = "kubelet-serving-approver";
    const COMPONENT: &'static str = "certificate-controller";
    type Seen = Serving;

    fn watches(&self) -> Vec<Watch> {
        let requests = self.requests.clone();
        let of_node = Watch::on(&self.nodes, move |delta| {
            let waits = |csr: &&Arc<CertificateSigningRequest>| {
                is_pending(csr)
                    && csr.spec.signer_name == KUBELET_SERVING
                    && node_name(csr) == Some(&delta.key.name)
            };
            requests.list().iter().filter(waits).map(|csr| csr.key()).collect()
        });
        vec![Watch::each(&self.requests), of_node]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Serving> {
        let csr = self.requests.get(key)?;
        if !is_pending(&csr) || csr.spec.signer_name != KUBELET_SERVING {
            return None;
        }
        let node = node_name(&csr).and_then(|name| self.nodes.get(&ObjectKey::cluster(name)));
        Some(Serving { csr, node })
    }

    fn plan(seen: &Serving, _: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let csr = &seen.csr;
        let Ok(request) = Request::parse(&csr.spec.request.0) else { return plan };
        let usages = csr.spec.usages.as_deref().unwrap_or_default();
        let in_nodes = csr.spec.groups.iter().flatten().any(|g| g == "system:nodes");
        let itself = csr.spec.username.as_deref() == Some(request.common_name.as_str()) && in_nodes;
        let names_only = seen.node.as_deref().is_some_and(|node| names_only(&request, node));
        if itself && names_only && request.check_kubelet_serving(usages).is_ok() {
            let message = "Auto approving kubelet serving certificate: it names nothing but its node.";
            plan.push(Write::update_subresource(&approved(csr, message), "approval"));
        }
        plan
    }
}

/// Whether all names are the node's own.
fn names_only(request: &Request, node: &Node) -> bool {
    let own = node.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or_default();
    let is_name = |name: &String| {
        name == node.name() || own.iter().any(|a| a.type_ != "InternalIP" && a.address == *name)
    };
    let is_address = |address: &IpAddr| {
        address.is_loopback() || own.iter().any(|a| a.address.parse::<IpAddr>().as_ref() == Ok(address))
    };
    request.dns_names.iter().all(is_name) && request.addresses.iter().all(is_address)
}
