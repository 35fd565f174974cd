//! Bootstrap tokens: `ID.SECRET`, kept as secrets of type `bootstrap.kubernetes.io/token` in `kube-system`, let nodes
//! join.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use gantry_api::core::Secret;
use gantry_api::meta::MetaExt;
use gantry_base::Clock;

use super::User;
use super::bearer::AnyAudience;
use crate::lookup::Lookup;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const DEFAULT_GROUP: &str = "system:bootstrappers";

/// Knows the tokens of nodes that join.
pub(super) struct BootstrapTokens {
    pub(super) lookup: Lookup,
    pub(super) clock: Arc<dyn Clock>,
}

/// The two halves of what looks like such a token.
pub(super) fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let fits = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    (fits(id, 6) && fits(secret, 16)).then_some((id, secret))
}

#[async_trait]
impl AnyAudience for BootstrapTokens {
    async fn whose(&self, token: &str) -> Result<Option<User>, String> {
        let Some((id, secret)) = parse(token) else { return Ok(None) };
        let name = format!("bootstrap-token-{id}");
        let found: Option<Arc<Secret>> =
            self.lookup.find("kube-system", &name).await.map_err(|e| e.to_string())?;
        let Some(found) = found else { return Ok(None) };
        match user(&found, id, secret, self.clock.now()) {
            Ok(user) => Ok(Some(user)),
            Err(why) => {
                tracing::debug!("Bootstrap secret kube-system/{name} matching bearer token {why}");
                Ok(None)
            }
        }
    }
}

fn user(secret: &Secret, id: &str, wanted: &str, now: SystemTime) -> Result<User, String> {
    let value = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key)).map(|b| b.0.as_slice());
        String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
    };
    if secret.is_terminating() {
        return Err("is deleted and awaiting removal".to_owned());
    }
    if secret.type_.as_deref() != Some(TYPE) {
        return Err(format!("has invalid type, expected {TYPE}."));
    }
    if !is_equal(&value("token-secret"), wanted) {
        return Err("has invalid value for key token-secret.".to_owned());
    }
    if value("token-id") != id {
        return Err("has invalid value for key token-id.".to_owned());
    }
    if has_expired(&value("expiration"), now) {
        return Err("has expired".to_owned());
    }
    if value("usage-bootstrap-authentication") != "true" {
        return Err("not marked usage-bootstrap-authentication=true.".to_owned());
    }
    let mut groups = BTreeSet::from([DEFAULT_GROUP.to_owned()]);
    for group in value("auth-extra-groups").split(',').filter(|_| !value("auth-extra-groups").is_empty()) {
        if !is_group(group) {
            return Err(format!(
                "has invalid value for key auth-extra-groups: bootstrap group {group:?} is invalid"
            ));
        }
        groups.insert(group.to_owned());
    }
    Ok(User::new(format!("system:bootstrap:{id}"), groups.iter().map(String::as_str)))
}

/// Takes as long wherever the texts differ.
fn is_equal(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

/// An expiry that cannot be read has passed.
fn has_expired(text: &str, now: SystemTime) -> bool {
    if text.is_empty() {
        return false;
    }
    let now = jiff::Timestamp::try_from(now).unwrap_or(jiff::Timestamp::MAX);
    text.parse::<jiff::Timestamp>().map_or(true, |at| at <= now)
}

/// `system:bootstrappers:` and up to 243 lower-case letters, digits, colons and dashes; no dash at the end.
fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b':' || b == b'-';
    (1..=243).contains(&rest.len())
        && rest.bytes().all(inner)
        && rest.bytes().last().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_secret_says_who_bears_its_token() {
        let good = json!({
            "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
        });
        let ask = |change: Value| {
            let mut data = good.clone();
            for (key, value) in change.as_object().expect("a map") {
                data[key] = value.clone();
            }
            let kind = data["type"].as_str().unwrap_or(TYPE).to_owned();
            let entries = data.as_object().expect("a map").iter().map(|(k, v)| {
                (
                    k.clone(),
                    gantry_api::k8s_openapi::ByteString(v.as_str().expect("text").as_bytes().to_vec()),
                )
            });
            let secret = Secret { data: Some(entries.collect()), type_: Some(kind), ..Secret::default() };
            user(&secret, "abcdef", "0123456789abcdef", UNIX_EPOCH + Duration::from_secs(1_800_000_000))
        };
        assert_eq!(ask(json!({})), Ok(User::new("system:bootstrap:abcdef", [DEFAULT_GROUP])));
        let groups = ask(json!({"auth-extra-groups": "system:bootstrappers:b,system:bootstrappers:a"}));
        let wanted = [DEFAULT_GROUP, "system:bootstrappers:a", "system:bootstrappers:b"];
        assert_eq!(groups, Ok(User::new("system:bootstrap:abcdef", wanted)));
        assert!(ask(json!({"expiration": "2030-01-01T00:00:00Z"})).is_ok());
        for change in [
            json!({"token-secret": "0123456789abcdee"}),
            json!({"token-id": "abcdeg"}),
            json!({"expiration": "2020-01-01T00:00:00Z"}),
            json!({"expiration": "soon"}),
            json!({"usage-bootstrap-authentication": "yes"}),
            json!({"auth-extra-groups": "system:masters"}),
            json!({"type": "Opaque"}),
        ] {
            assert!(ask(change.clone()).is_err(), "{change}");
        }
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        assert_eq!((parse("abcdef.0123"), parse("ABCDEF.0123456789abcdef")), (None, None));
    }
}
