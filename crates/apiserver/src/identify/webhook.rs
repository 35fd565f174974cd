//! The token webhook: another server is asked, by a TokenReview, whose a token is.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_api::k8s_openapi::api::authentication::v1::TokenReviewStatus;
use gantry_base::{Backoff, BackoffPolicy, Clock};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::bearer::{TokenAuthenticator, Verdict};
use super::cache::Answers;
use super::{User, from_user_info};
use crate::callout::{CallError, Caller};

/// Answers that are remembered at one time.
const CAPACITY: usize = 4096;
/// How long the other server may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Tries, where the other server does not answer (upstream's default back-off).
const ATTEMPTS: usize = 5;

/// Calls until there is an answer that a further call would not change.
pub(crate) async fn persistently<F>(mut call: impl FnMut() -> F) -> Result<Bytes, CallError>
where
    F: Future<Output = Result<Bytes, CallError>>,
{
    let policy = BackoffPolicy::doubling(Duration::from_millis(500), Duration::from_secs(5));
    let mut backoff = Backoff::new(policy);
    for _ in 1..ATTEMPTS {
        match call().await {
            Err(CallError::Unanswered(why)) => tracing::warn!(why, "a webhook did not answer"),
            Err(CallError::Refused(error)) if error.code() >= 500 || error.code() == 429 => {
                tracing::warn!(%error, "a webhook failed");
            }
            other => return other,
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
    call().await
}

/// What was answered.
type Answer = Result<Option<Verdict>, String>;

/// Asks another server.
pub(super) struct Webhook {
    caller: Caller,
    version: String,
    own: Vec<String>,
    life: Duration,
    known: Answers<Answer>,
}

impl Webhook {
    /// Asks `caller` in `version` (`v1` or `v1beta1`) of the API; `own` are this server's audiences. An answer holds
    /// for `life`.
    pub(super) fn new(
        caller: Caller,
        version: &str,
        own: Vec<String>,
        life: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { caller, version: version.to_owned(), own, life, known: Answers::new(CAPACITY, clock) }
    }

    async fn ask(&self, token: &str, audiences: &[String]) -> Result<Option<Verdict>, String> {
        let review = json!({
            "kind": "TokenReview",
            "apiVersion": format!("authentication.k8s.io/{}", self.version),
            "metadata": {"creationTimestamp": null},
            "spec": {"token": token, "audiences": audiences},
            "status": {"user": {}},
        });
        let body = Bytes::from(review.to_string());
        let answer = persistently(|| self.caller.post_json(body.clone(), TIMEOUT));
        let answer = answer.await.map_err(|e| e.to_string())?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|e| e.to_string())?;
        let status: TokenReviewStatus =
            serde_json::from_value(answer["status"].clone()).map_err(|e| e.to_string())?;
        self.verdict(status, audiences)
    }

    fn verdict(&self, status: TokenReviewStatus, wanted: &[String]) -> Result<Option<Verdict>, String> {
        if status.authenticated != Some(true) {
            return match status.error.filter(|e| !e.is_empty()) {
                Some(error) => Err(error),
                None => Ok(None),
            };
        }
        // A server that knows no audiences speaks for all of ours.
        let audiences = status.audiences.filter(|list| !list.is_empty());
        let mut audiences = audiences.unwrap_or_else(|| self.own.clone());
        audiences.retain(|a| wanted.contains(a));
        if audiences.is_empty() {
            return Ok(None);
        }
        let user: User = from_user_info(status.user.unwrap_or_default());
        Ok(Some(Verdict::new(user, audiences)))
    }
}

#[async_trait]
impl TokenAuthenticator for Webhook {
    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Verdict>, String> {
        let mut hash = Sha256::new();
        for part in std::iter::once(token).chain(audiences.iter().map(String::as_str)) {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let key: [u8; 32] = hash.finalize().into();
        if let Some(answer) = self.known.get(&key) {
            return answer;
        }
        let answer = self.ask(token, audiences).await;
        // Failures to answer are not remembered: the next request tries again.
        if answer.is_ok() {
            self.known.put(key, answer.clone(), self.life);
        }
        answer
    }
}
