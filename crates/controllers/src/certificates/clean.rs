//! Deletes certificate requests that are over and done with.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_api::certificates::CertificateSigningRequest;
use gantry_api::meta::MetaExt;
use gantry_api::metav1::Time;
use gantry_api::{Object, ObjectKey};
use gantry_client::{Informer, InformerSet};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{conditions, issued};
use crate::engine::{Controller, Moment, Plan, Watch, Write};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The cleaner.
pub struct Cleaner {
    requests: Informer<CertificateSigningRequest>,
}

impl Cleaner {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { requests: informers.of() }
    }
}

impl Controller for Cleaner {
    const NAME: &'static str = "certificatesigningrequest-cleaner-controller";
    const ACCOUNT: &'static str = "certificate-controller";
    const COMPONENT: &'static str = "certificate-controller";
    type Seen = Arc<CertificateSigningRequest>;

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::each(&self.requests)]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Self::Seen> {
        self.requests.get(key).filter(|csr| !csr.is_terminating())
    }

    fn plan(csr: &Self::Seen, moment: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        match due(csr) {
            Some(due) if due <= moment.now => {
                let write = Write::delete_exactly(CertificateSigningRequest::RESOURCE, csr.key(), csr.uid());
                plan.push(write.tolerating("NotFound"));
            }
            Some(due) => {
                // A little later: what is exactly as old as allowed stays.
                let left = due.duration_since(moment.now).unwrap_or_default();
                plan.requeue_after(left + Duration::from_secs(1));
            }
            None => {}
        }
        plan
    }
}

/// When the request is to go.
fn due(csr: &CertificateSigningRequest) -> Option<SystemTime> {
    let after = |time: Option<&Time>, life: Duration| time.map(|t| SystemTime::from(t.0) + life);
    let is_issued = issued(csr).is_some();
    let mut all = Vec::new();
    if conditions(csr).is_empty() {
        all.extend(after(csr.metadata.creation_timestamp.as_ref(), DAY));
    }
    for condition in conditions(csr) {
        let since = condition.last_update_time.as_ref();
        match condition.type_.as_str() {
            "Denied" | "Failed" => all.extend(after(since, HOUR)),
            "Approved" if is_issued => {
                all.extend(after(since, HOUR));
                all.extend(issued(csr).and_then(expiry));
            }
            "Approved" => all.extend(after(since, DAY)),
            _ => {}
        }
    }
    all.into_iter().min()
}

fn expiry(pem: &[u8]) -> Option<SystemTime> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&block.contents).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn each_state_has_its_time() {
        let csr = |status: Value| -> CertificateSigningRequest {
            serde_json::from_value(json!({
                "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"request": "", "signerName": "x/y"},
                "status": status,
            }))
            .expect("a request")
        };
        let condition =
            |kind: &str| json!({"type": kind, "status": "True", "lastUpdateTime": "2026-01-02T00:00:00Z"});
        let hours = |status: Value| {
            let start: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
            let due = due(&csr(status)).expect("a time");
            due.duration_since(start.into()).expect("later").as_secs() / 3600
        };
        assert_eq!(hours(json!({})), 24);
        assert_eq!(hours(json!({"conditions": [condition("Denied")]})), 25);
        assert_eq!(hours(json!({"conditions": [condition("Approved"), condition("Failed")]})), 25);
        assert_eq!(hours(json!({"conditions": [condition("Approved")]})), 48);
        assert_eq!(hours(json!({"conditions": [condition("Approved")], "certificate": "eA=="})), 25);
    }
}
