//! Bootstrap tokens: what signs `cluster-info` with them, and what deletes those that have expired.
//!
//! Behaviour: `pkg/controller/bootstrap`.

pub mod cleaner;
pub mod signer;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_api::ObjectKey;
use gantry_api::core::Secret;
use gantry_api::meta::MetaExt;
use gantry_client::{Projection, Scope};

const TYPE: &str = "bootstrap.kubernetes.io/token";
const NAMESPACE: &str = "kube-system";

/// A secret with a bootstrap token.
pub struct BootstrapSecret {
    secret: Arc<Secret>,
}

impl Projection for BootstrapSecret {
    type Object = Secret;

    fn project(secret: Arc<Secret>) -> Arc<Self> {
        Arc::new(Self { secret })
    }

    fn object_key(&self) -> ObjectKey {
        self.secret.key()
    }

    fn object_revision(&self) -> u64 {
        MetaExt::revision(&*self.secret)
    }

    fn scope() -> Scope {
        Scope { namespace: NAMESPACE.to_owned(), ..Scope::with_field("type", TYPE) }
    }
}

fn value<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    bytes.and_then(|b| std::str::from_utf8(&b.0).ok()).unwrap_or("")
}

/// How long the token is still good: `None` for ever, zero if it has expired or its expiry cannot be read.
fn left(secret: &Secret, now: SystemTime) -> Option<Duration> {
    let text = value(secret, "expiration");
    if text.is_empty() {
        return None;
    }
    let at = text.parse::<jiff::Timestamp>().map(SystemTime::from);
    Some(at.ok().and_then(|at| at.duration_since(now).ok()).unwrap_or_default())
}
