//! Signs approved requests for the signers of Kubernetes.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::ObjectKey;
use gantry_api::certificates::{CertificateSigningRequest, CertificateSigningRequestCondition};
use gantry_api::meta::MetaExt;
use gantry_api::time;
use gantry_client::{Informer, InformerSet};

use super::request::{Request, check_client_usages};
use super::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, has, issued};
use crate::engine::{Controller, Effect, Moment, Plan, Watch, Write};

/// The longest life of a certificate, and that of one that asks for none (`--cluster-signing-duration`).
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
const SHORTEST: Duration = Duration::from_secs(600);

/// The signing controller.
pub struct Signer {
    requests: Informer<CertificateSigningRequest>,
}

impl Signer {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { requests: informers.of() }
    }
}

impl Controller for Signer {
    const NAME: &'static str = "certificatesigningrequest-signing-controller";
    const ACCOUNT: &'static str = "certificate-controller";
    const COMPONENT: &'static str = "certificate-controller";
    type Seen = Arc<CertificateSigningRequest>;

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::each(&self.requests)]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Self::Seen> {
        let ours = [CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY];
        let csr = self.requests.get(key)?;
        let to_sign = ours.contains(&csr.spec.signer_name.as_str())
            && has(&csr, "Approved")
            && !has(&csr, "Denied")
            && !has(&csr, "Failed")
            && issued(&csr).is_none();
        to_sign.then_some(csr)
    }

    fn plan(csr: &Self::Seen, moment: &Moment) -> Plan {
        let request = match Request::parse(&csr.spec.request.0) {
            Ok(request) => request,
            Err(why) => return Plan::fail(format!("unable to parse csr {:?}: {why}", csr.name())),
        };
        let usages = csr.spec.usages.clone().unwrap_or_default();
        let accepted = match csr.spec.signer_name.as_str() {
            KUBELET_CLIENT => request.check_kubelet_client(&usages),
            KUBELET_SERVING => request.check_kubelet_serving(&usages),
            CLIENT => check_client_usages(&usages),
            _ => Ok(()),
        };
        let mut plan = Plan::nothing();
        match accepted {
            Ok(()) => plan.push(Effect::Certificate {
                csr: Box::new((**csr).clone()),
                usages,
                life: life(csr.spec.expiration_seconds),
            }),
            Err(why) => {
                let mut failed = (**csr).clone();
                let conditions = failed.status.get_or_insert_default().conditions.get_or_insert_default();
                conditions.push(CertificateSigningRequestCondition {
                    type_: "Failed".to_owned(),
                    status: "True".to_owned(),
                    reason: Some("SignerValidationFailure".to_owned()),
                    message: Some(why),
                    last_update_time: Some(time::time(moment.now)),
                    ..CertificateSigningRequestCondition::default()
                });
                plan.push(Write::update_status(&failed));
            }
        }
        plan
    }
}

fn life(asked: Option<i32>) -> Duration {
    let asked = asked.map(|seconds| Duration::from_secs(u64::from(seconds.max(0).unsigned_abs())));
    asked.unwrap_or(LONGEST).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_kept_within_bounds() {
        assert_eq!(life(None), LONGEST);
        assert_eq!(life(Some(60)), SHORTEST);
        assert_eq!(life(Some(86_400)), Duration::from_secs(86_400));
        assert_eq!(life(Some(i32::MAX)), LONGEST);
    }
}
