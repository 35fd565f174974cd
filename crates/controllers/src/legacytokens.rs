//! Cleans up tokens of service accounts that are kept in secrets, were made by the system, and are used no more: first
//! they are marked as invalid, later deleted.
//!
//! Behaviour: `pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_api::core::{ConfigMap, Secret, ServiceAccount};
use gantry_api::meta::MetaExt;
use gantry_api::{Object, ObjectKey};
use gantry_client::{DeleteOptions, Informer, InformerSet, PatchKind, Projection, Scope};
use serde_json::json;

use crate::engine::{Check, Controller, Moment, Plan, Watch, Write};

const TYPE: &str = "kubernetes.io/service-account-token";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
/// How long a token must not have been used (`--legacy-service-account-token-clean-up-period`).
const PERIOD: Duration = Duration::from_secs(365 * 86_400);
const DAY: Duration = Duration::from_secs(86_400);

/// What is kept of a secret with a token.
pub struct LegacySecret {
    key: ObjectKey,
    revision: u64,
    secret: Option<Kept>,
}

#[derive(Clone)]
struct Kept {
    uid: String,
    account: String,
    account_uid: String,
    created: Option<SystemTime>,
    last_used: Option<String>,
    invalid_since: Option<String>,
}

impl Projection for LegacySecret {
    type Object = Secret;

    fn project(secret: Arc<Secret>) -> Arc<Self> {
        let text = |value: Option<&str>| value.unwrap_or("").to_owned();
        let kept = || Kept {
            uid: secret.uid().to_owned(),
            account: text(secret.annotation("kubernetes.io/service-account.name")),
            account_uid: text(secret.annotation("kubernetes.io/service-account.uid")),
            created: secret.metadata.creation_timestamp.as_ref().map(|t| SystemTime::from(t.0)),
            last_used: secret.label(LAST_USED).map(str::to_owned),
            invalid_since: secret.label(INVALID_SINCE).map(str::to_owned),
        };
        let stays = !secret.is_terminating();
        Arc::new(Self { key: secret.key(), revision: MetaExt::revision(&*secret), secret: stays.then(kept) })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }

    fn scope() -> Scope {
        Scope::with_field("type", TYPE)
    }
}

/// What is kept of the ConfigMap that says since when uses are noted.
pub struct Tracking {
    key: ObjectKey,
    revision: u64,
    since: Option<String>,
}

impl Projection for Tracking {
    type Object = ConfigMap;

    fn project(map: Arc<ConfigMap>) -> Arc<Self> {
        let since = map.data.as_ref().and_then(|data| data.get("since")).cloned();
        Arc::new(Self { key: map.key(), revision: MetaExt::revision(&*map), since })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }

    fn scope() -> Scope {
        Scope::named("kube-system", TRACKING)
    }
}

/// The cleaner.
pub struct LegacyTokens {
    secrets: Informer<LegacySecret>,
    accounts: Informer<ServiceAccount>,
    maps: Informer<Tracking>,
}

impl LegacyTokens {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { secrets: informers.of(), accounts: informers.of(), maps: informers.of() }
    }
}

/// What it sees of a secret that the system made.
pub struct Seen {
    key: ObjectKey,
    revision: u64,
    secret: Kept,
    since: Option<String>,
}

impl Controller for LegacyTokens {
    const NAME: &'static str = "legacy-serviceaccount-token-cleaner-controller";
    const ACCOUNT: &'static str = "legacy-service-account-token-cleaner";
    const COMPONENT: &'static str = "legacy-service-account-token-cleaner";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::on(&self.secrets, |delta| {
                let token = delta.new.as_ref().is_some_and(|secret| secret.secret.is_some());
                token.then(|| delta.key.clone()).into_iter().collect()
            }),
            Watch::reading(&self.accounts),
            Watch::reading(&self.maps),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let view = self.secrets.get(key)?;
        let secret = view.secret.clone()?;
        let account =
            self.accounts.get(&ObjectKey::new(Arc::clone(&key.namespace), secret.account.as_str()))?;
        let same = secret.account_uid.is_empty() || secret.account_uid == account.uid();
        let listed =
            account.secrets.iter().flatten().any(|reference| reference.name.as_deref() == Some(&*key.name));
        let since = self.maps.get(&ObjectKey::new("kube-system", TRACKING)).and_then(|m| m.since.clone());
        (same && listed).then(|| Seen { key: key.clone(), revision: view.revision, secret, since })
    }

    fn plan(seen: &Seen, moment: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        plan.requeue_after(DAY);
        let (now, secret) = (moment.now, &seen.secret);
        let Some(since) = seen.since.as_deref().and_then(parse) else { return plan };
        if now < since + DAY + PERIOD || secret.created.is_some_and(|created| created >= now - PERIOD) {
            return plan;
        }
        let keep_from = day(now - PERIOD);
        match secret.last_used.as_deref() {
            Some(used) if parse(used).is_none() || used >= keep_from.as_str() => return plan,
            _ => {}
        }
        plan.push(Check::Unmounted(seen.key.clone()));
        plan.next_stage();
        match secret.invalid_since.as_deref().filter(|day| parse(day).is_some()) {
            None => {
                let patch = json!({"metadata": {"uid": secret.uid, "labels": {INVALID_SINCE: day(now)}}});
                plan.push(Write::patch(Secret::RESOURCE, seen.key.clone(), "", PatchKind::Merge, &patch));
            }
            Some(marked) if marked >= keep_from.as_str() => return Plan::nothing().again_after(DAY),
            Some(_) => {
                let options = DeleteOptions {
                    resource_version: Some(seen.revision.to_string()),
                    ..DeleteOptions::default()
                };
                let write = Write::delete(Secret::RESOURCE, seen.key.clone(), &options);
                plan.push(write.tolerating("NotFound").tolerating("Conflict"));
            }
        }
        plan
    }
}

fn day(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%d").to_string()
}

fn parse(day: &str) -> Option<SystemTime> {
    let date: jiff::civil::Date = day.parse().ok()?;
    Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SystemTime {
        text.parse::<jiff::Timestamp>().expect("a time").into()
    }

    #[test]
    fn a_token_is_marked_after_a_year_and_deleted_after_another() {
        let writes = |since: &str, last_used: Option<&str>, invalid: Option<&str>| {
            let seen = Seen {
                key: ObjectKey::new("a", "s"),
                revision: 7,
                secret: Kept {
                    uid: "u".into(),
                    account: "b".into(),
                    account_uid: String::new(),
                    created: Some(at("2020-01-01T00:00:00Z")),
                    last_used: last_used.map(str::to_owned),
                    invalid_since: invalid.map(str::to_owned),
                },
                since: Some(since.to_owned()),
            };
            let plan = LegacyTokens::plan(&seen, &Moment::at(at("2026-06-01T12:00:00Z")));
            plan.writes().map(|w| format!("{:?}", w.verb)).collect::<Vec<_>>()
        };
        assert!(writes("2026-01-01", None, None).is_empty(), "not noted for long enough");
        assert_eq!(writes("2024-01-01", None, None), ["Patch"]);
        assert_eq!(writes("2024-01-01", Some("2025-01-01"), None), ["Patch"]);
        assert!(writes("2024-01-01", Some("2026-05-01"), None).is_empty(), "used lately");
        assert!(writes("2024-01-01", Some("sometime"), None).is_empty(), "who knows");
        assert!(writes("2024-01-01", None, Some("2026-05-01")).is_empty(), "marked lately");
        assert_eq!(writes("2024-01-01", None, Some("2025-01-01")), ["Delete"]);
    }
}
