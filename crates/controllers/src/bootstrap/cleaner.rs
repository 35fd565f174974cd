//! Deletes bootstrap tokens that have expired.

use std::sync::Arc;

use gantry_api::core::Secret;
use gantry_api::meta::MetaExt;
use gantry_api::{Object, ObjectKey};
use gantry_client::{Informer, InformerSet};

use super::{BootstrapSecret, left};
use crate::engine::{Controller, Moment, Plan, Watch, Write};

/// The token cleaner.
pub struct TokenCleaner {
    secrets: Informer<BootstrapSecret>,
}

impl TokenCleaner {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { secrets: informers.of() }
    }
}

impl Controller for TokenCleaner {
    const NAME: &'static str = "token-cleaner-controller";
    const ACCOUNT: &'static str = "token-cleaner";
    const COMPONENT: &'static str = "token-cleaner";
    type Seen = Arc<Secret>;

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::each(&self.secrets)]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Arc<Secret>> {
        Some(Arc::clone(&self.secrets.get(key)?.secret))
    }

    fn plan(secret: &Arc<Secret>, moment: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        match left(secret, moment.now) {
            None => {}
            Some(left) if left.is_zero() => {
                let write = Write::delete_exactly(Secret::RESOURCE, secret.key(), secret.uid());
                plan.push(write.tolerating("NotFound").tolerating("Conflict"));
            }
            Some(left) => plan.requeue_after(left),
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_token_is_deleted_when_its_time_has_come() {
        let plan = |expiration: Option<&str>| {
            let mut secret = Secret::default();
            if let Some(text) = expiration {
                let bytes = gantry_api::k8s_openapi::ByteString(text.as_bytes().to_vec());
                secret.data.get_or_insert_default().insert("expiration".into(), bytes);
            }
            let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
            TokenCleaner::plan(&Arc::new(secret), &Moment::at(SystemTime::from(now)))
        };
        assert!(plan(None).is_empty() && plan(None).requeue().is_none());
        let waiting = plan(Some("2026-01-01T01:00:00Z"));
        assert_eq!((waiting.is_empty(), waiting.requeue()), (true, Some(Duration::from_secs(3600))));
        assert_eq!(plan(Some("2025-12-31T23:59:59Z")).writes().count(), 1);
        assert_eq!(plan(Some("soon")).writes().count(), 1);
    }
}
