//! Webhooks as they are called: compiled from their configurations.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_api::ObjectKey;
use gantry_api::admissionregistration::{
    MatchCondition, MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use gantry_api::meta::MetaExt;
use gantry_client::Projection;
use gantry_kinds::rules::cel::Site;

use crate::admission::expressions::Expression;
use crate::admission::matching::{Rule, Selection, selector};
use crate::callout::{Config, Place};

/// A webhook that names no timeout is given this (only objects that were never defaulted).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_PORT: u16 = 443;

/// One webhook.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) name: String,
    pub(super) configuration: String,
    /// Tells webhooks apart that have one name.
    pub(super) uid: String,
    pub(super) selection: Selection,
    /// `failurePolicy: Ignore`
    pub(super) fails_open: bool,
    pub(super) side_effects: Option<String>,
    pub(super) timeout: Duration,
    /// `admissionReviewVersions`
    pub(super) versions: Vec<String>,
    /// `reinvocationPolicy: IfNeeded`
    pub(super) reinvoked: bool,
    pub(super) conditions: Vec<Expression>,
    pub(super) config: Result<Config, String>,
}

fn config(client: &WebhookClientConfig) -> Result<Config, String> {
    let place = match (&client.service, client.url.as_deref()) {
        (Some(service), _) => Place::Service {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            port: service.port.and_then(|p| u16::try_from(p).ok()).unwrap_or(DEFAULT_PORT),
            path: service.path.clone().unwrap_or_default(),
        },
        (None, Some(url)) if !url.is_empty() => Place::Url(url.to_owned()),
        _ => return Err("webhook configuration must have either service or URL".to_owned()),
    };
    let bundle = client.ca_bundle.as_ref().map(|b| Bytes::from(b.0.clone())).unwrap_or_default();
    Ok(Config::new(place, bundle))
}

fn conditions(conditions: Option<&[MatchCondition]>) -> Vec<Expression> {
    let sources = conditions.unwrap_or_default().iter().map(|c| c.expression.as_str());
    sources.map(|source| Expression::new(Site::MatchCondition, source, false, &[])).collect()
}

/// One webhook of either kind: their types have the same fields.
macro_rules! hook {
    ($hook:expr, $configuration:expr, $uid:expr, $reinvoked:expr) => {
        Hook {
            name: $hook.name.clone(),
            configuration: $configuration.to_owned(),
            uid: $uid,
            selection: Selection {
                rules: $hook.rules.iter().flatten().map(Rule::new).collect(),
                excluded: Vec::new(),
                all_without_rules: false,
                equivalent: $hook.match_policy.as_deref() != Some("Exact"),
                namespaces: selector($hook.namespace_selector.as_ref()),
                objects: selector($hook.object_selector.as_ref()),
            },
            fails_open: $hook.failure_policy.as_deref() == Some("Ignore"),
            side_effects: Some($hook.side_effects.clone()).filter(|s| !s.is_empty()),
            timeout: $hook
                .timeout_seconds
                .and_then(|s| u64::try_from(s).ok())
                .map_or(DEFAULT_TIMEOUT, Duration::from_secs),
            versions: $hook.admission_review_versions.clone(),
            reinvoked: $reinvoked,
            conditions: conditions($hook.match_conditions.as_deref()),
            config: config(&$hook.client_config),
        }
    };
}

/// `<configuration>/<webhook>/<how many of that name came before>`
fn uids<'a>(configuration: &'a str) -> impl FnMut(&str) -> String + 'a {
    let mut seen: HashMap<String, usize> = HashMap::new();
    move |name| {
        let count = seen.entry(name.to_owned()).or_default();
        let uid = format!("{configuration}/{name}/{count}");
        *count += 1;
        uid
    }
}

/// A configuration, compiled.
macro_rules! compiled {
    ($(#[$doc:meta])* $name:ident of $object:ident, |$hook:ident| $reinvoked:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name {
            key: ObjectKey,
            revision: u64,
            hooks: Box<[Hook]>,
        }

        impl AsRef<[Hook]> for $name {
            fn as_ref(&self) -> &[Hook] {
                &self.hooks
            }
        }

        impl Projection for $name {
            type Object = $object;

            fn project(object: Arc<$object>) -> Arc<Self> {
                let configuration = object.name();
                let mut uid = uids(configuration);
                let hooks = object.webhooks.iter().flatten();
                let hooks = hooks.map(|$hook| hook!($hook, configuration, uid(&$hook.name), $reinvoked));
                let hooks = hooks.collect();
                Arc::new(Self { key: object.key(), revision: MetaExt::revision(&*object), hooks })
            }

            fn object_key(&self) -> ObjectKey {
                self.key.clone()
            }

            fn object_revision(&self) -> u64 {
                self.revision
            }
        }
    };
}

compiled!(
    /// A `MutatingWebhookConfiguration`.
    Mutating of MutatingWebhookConfiguration, |hook| hook.reinvocation_policy.as_deref() == Some("IfNeeded")
);
compiled!(
    /// A `ValidatingWebhookConfiguration`.
    Validating of ValidatingWebhookConfiguration, |hook| false
);
