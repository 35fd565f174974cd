//! Service account tokens for projected volumes: asked for per pod, kept, and renewed before they expire.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_api::ObjectKey;
use gantry_api::core::{Pod, ServiceAccount};
use gantry_api::meta::MetaExt;
use gantry_base::{Clock, Error, Result};
use gantry_client::{Api, Transport};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::pod;

/// A token older than this is renewed even if it is valid for longer.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// At most this many tokens are kept.
const MAX_TOKENS: usize = 4096;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    pod_uid: String,
    account: String,
    audience: String,
    seconds: i64,
}

#[derive(Clone)]
struct Token {
    text: String,
    renew_at: SystemTime,
    expires: SystemTime,
}

/// The tokens of this node's pods.
pub struct Tokens {
    api: Api<ServiceAccount>,
    clock: Arc<dyn Clock>,
    held: Mutex<HashMap<Key, Token>>,
}

impl Tokens {
    /// Asks through `transport`.
    pub fn new(transport: Arc<dyn Transport>, clock: Arc<dyn Clock>) -> Self {
        Self { api: Api::new(transport, "kubelet"), clock, held: Mutex::default() }
    }

    /// A token for the pod's service account, and when to ask for the next one.
    ///
    /// # Errors
    /// The server refuses, or cannot be asked and there is no valid token left.
    pub async fn get(&self, pod: &Pod, audience: &str, seconds: i64) -> Result<(String, SystemTime)> {
        let account = pod::spec(pod).service_account_name.clone().unwrap_or_else(|| "default".to_owned());
        let key = Key { pod_uid: pod.uid().to_owned(), account, audience: audience.to_owned(), seconds };
        let now = self.clock.now();
        let held = self.held.lock().get(&key).cloned();
        if let Some(token) = held.as_ref().filter(|t| now < t.renew_at) {
            return Ok((token.text.clone(), token.renew_at));
        }
        match self.request(pod, &key).await {
            Ok(token) => {
                let mut held = self.held.lock();
                held.retain(|_, t| t.expires > now);
                if held.len() < MAX_TOKENS {
                    held.insert(key, token.clone());
                }
                Ok((token.text, token.renew_at))
            }
            Err(error) => match held.filter(|t| now < t.expires) {
                Some(token) => {
                    tracing::warn!(%error, pod = %pod.key(), "cannot renew a service account token yet");
                    Ok((token.text, now + Duration::from_secs(10)))
                }
                None => Err(error),
            },
        }
    }

    async fn request(&self, pod: &Pod, key: &Key) -> Result<Token> {
        let audiences = if key.audience.is_empty() { vec![] } else { vec![key.audience.clone()] };
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": key.seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": pod.uid()},
            },
        });
        let account = ObjectKey::new(pod.namespace(), key.account.as_str());
        let what = || format!("failed to fetch token for service account {account}");
        let answer = self.api.create_subresource(&account, "token", &body).await;
        let answer = answer.map_err(|e| Error::from(e).while_doing(what()))?;
        let answer: Value =
            serde_json::from_slice(answer.bytes()).map_err(|e| Error::retry(what()).because(e))?;
        let text = answer["status"]["token"].as_str().unwrap_or_default().to_owned();
        if text.is_empty() {
            return Err(Error::retry(format!("{}: the answer holds no token", what())));
        }
        let now = self.clock.now();
        let stamp =
            answer["status"]["expirationTimestamp"].as_str().and_then(|s| s.parse::<jiff::Timestamp>().ok());
        let fallback = now + Duration::from_secs(u64::try_from(key.seconds).unwrap_or(600));
        let expires = stamp.map_or(fallback, |s| gantry_api::time::system_time(&s));
        let life = expires.duration_since(now).unwrap_or_default();
        Ok(Token { text, renew_at: now + life.mul_f64(0.8).min(MAX_AGE), expires })
    }

    /// Forgets the tokens of a pod that is gone.
    pub fn forget(&self, pod_uid: &str) {
        self.held.lock().retain(|key, _| key.pod_uid != pod_uid);
    }
}
