//! Signs the kubeconfig in `kube-public/cluster-info` with each bootstrap token that may sign, so that who joins can
//! tell, knowing the token, that it is the cluster's.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::ObjectKey;
use gantry_api::core::{ConfigMap, Secret};
use gantry_api::meta::MetaExt;
use gantry_client::{Informer, InformerSet, Projection, Scope};

use super::{BootstrapSecret, left, value};
use crate::engine::{Controller, Moment, Plan, Watch, Write};

const MAP_NAMESPACE: &str = "kube-public";
const MAP: &str = "cluster-info";
/// What comes before the token's ID in the key of its signature.
const SIGNATURE: &str = "jws-kubeconfig-";

/// The ConfigMap `cluster-info`.
pub struct ClusterInfo {
    map: Arc<ConfigMap>,
}

impl Projection for ClusterInfo {
    type Object = ConfigMap;

    fn project(map: Arc<ConfigMap>) -> Arc<Self> {
        Arc::new(Self { map })
    }

    fn object_key(&self) -> ObjectKey {
        self.map.key()
    }

    fn object_revision(&self) -> u64 {
        MetaExt::revision(&*self.map)
    }

    fn scope() -> Scope {
        Scope::named(MAP_NAMESPACE, MAP)
    }
}

/// The bootstrap signer.
pub struct BootstrapSigner {
    maps: Informer<ClusterInfo>,
    secrets: Informer<BootstrapSecret>,
}

impl BootstrapSigner {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { maps: informers.of(), secrets: informers.of() }
    }
}

/// What it sees.
pub struct Seen {
    map: Arc<ConfigMap>,
    secrets: Vec<Arc<Secret>>,
}

impl Controller for BootstrapSigner {
    const NAME: &'static str = "bootstrap-signer-controller";
    const ACCOUNT: &'static str = "bootstrap-signer";
    const COMPONENT: &'static str = "bootstrap-signer";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let key = || ObjectKey::new(MAP_NAMESPACE, MAP);
        vec![Watch::each(&self.maps), Watch::on(&self.secrets, move |_| vec![key()])]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let map = Arc::clone(&self.maps.get(key)?.map);
        let secrets = self.secrets.in_namespace(super::NAMESPACE);
        Some(Seen { map, secrets: secrets.iter().map(|s| Arc::clone(&s.secret)).collect() })
    }

    fn plan(seen: &Seen, moment: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let data = seen.map.data.clone().unwrap_or_default();
        let Some(content) = data.get("kubeconfig") else { return plan };
        let mut signed: BTreeMap<String, String> = data
            .iter()
            .filter(|(k, _)| !k.starts_with(SIGNATURE))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        for secret in &seen.secrets {
            let left = left(secret, moment.now);
            if let Some((id, token)) = token(secret).filter(|_| left.is_none_or(|l| !l.is_zero())) {
                signed.insert(format!("{SIGNATURE}{id}"), signature(content, id, token));
                if let Some(left) = left {
                    plan.requeue_after(left);
                }
            }
        }
        if signed != data {
            plan.push(Write::update(&ConfigMap { data: Some(signed), ..(*seen.map).clone() }));
        }
        plan
    }
}

/// ID and secret of a token that may sign.
fn token(secret: &Secret) -> Option<(&str, &str)> {
    let id = secret.name().strip_prefix("bootstrap-token-")?;
    let fits = id.len() == 6 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let text = value(secret, "token-secret");
    let may = value(secret, "usage-bootstrap-signing") == "true";
    (fits && value(secret, "token-id") == id && !text.is_empty() && may).then_some((id, text))
}

/// The detached signature (RFC 7515, appendix F) of `content` by HS256.
fn signature(content: &str, id: &str, secret: &str) -> String {
    use base64::Engine;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let header = encode(serde_json::json!({"alg": "HS256", "kid": id}).to_string().as_bytes());
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let tag = ring::hmac::sign(&key, format!("{header}.{}", encode(content.as_bytes())).as_bytes());
    format!("{header}..{}", encode(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::k8s_openapi::ByteString;
    use serde_json::json;

    fn secret(id: &str, data: &[(&str, &str)]) -> Arc<Secret> {
        let mut secret = Secret::default();
        secret.metadata.name = Some(format!("bootstrap-token-{id}"));
        let bytes = |v: &str| ByteString(v.as_bytes().to_vec());
        secret.data = Some(data.iter().map(|(k, v)| ((*k).to_owned(), bytes(v))).collect());
        Arc::new(secret)
    }

    #[test]
    fn each_good_token_signs_and_old_signatures_go() {
        let map: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": MAP, "namespace": MAP_NAMESPACE},
            "data": {"kubeconfig": "x", "jws-kubeconfig-gone00": "old", "other": "y"},
        }))
        .expect("a map");
        let good = [("token-id", "foo123"), ("token-secret", "bar"), ("usage-bootstrap-signing", "true")];
        let secrets = vec![secret("foo123", &good), secret("nosign", &[("token-id", "nosign")])];
        let now = Moment::at(std::time::SystemTime::UNIX_EPOCH);
        let mut seen = Seen { map: Arc::new(map), secrets };
        let plan = BootstrapSigner::plan(&seen, &now);
        let written: ConfigMap = plan.writes().next().expect("a write").object().expect("a map");
        let data = written.data.clone().expect("data");
        let keys: Vec<&str> = data.keys().map(String::as_str).collect();
        assert_eq!(keys, ["jws-kubeconfig-foo123", "kubeconfig", "other"]);
        seen.map = Arc::new(written);
        assert!(BootstrapSigner::plan(&seen, &now).is_empty(), "nothing more is to be done");
    }

    /// The value of upstream's test of the same content, ID and secret.
    #[test]
    fn the_signature_is_upstreams() {
        let wanted = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8";
        let signature = signature(
            "Hello from the other side. I must have called a thousand times.",
            "joshua",
            "my voice is my passcode",
        );
        assert_eq!(signature, wanted);
    }
}
