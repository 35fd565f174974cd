//! Webhooks as they are called: compiled from their configurations.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_api::admissionregistration::{
    MatchCondition, MutatingWebhookConfiguration, RuleWithOperations, ValidatingWebhookConfiguration,
    WebhookClientConfig,
};
use gantry_api::meta::MetaExt;
use gantry_api::{LabelSelector, ObjectKey};
use gantry_client::Projection;

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
    pub(super) rules: Vec<Rule>,
    /// `matchPolicy: Equivalent`
    pub(super) equivalent: bool,
    /// `failurePolicy: Ignore`
    pub(super) fails_open: bool,
    pub(super) namespaces: Result<LabelSelector, String>,
    pub(super) objects: Result<LabelSelector, String>,
    pub(super) side_effects: Option<String>,
    pub(super) timeout: Duration,
    /// `admissionReviewVersions`
    pub(super) versions: Vec<String>,
    /// `reinvocationPolicy: IfNeeded`
    pub(super) reinvoked: bool,
    pub(super) conditions: Vec<MatchCondition>,
    pub(super) config: Result<Config, String>,
}

/// Which requests a webhook is about.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) operations: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) versions: Vec<String>,
    /// Resource and subresource.
    pub(super) resources: Vec<(String, String)>,
    pub(super) scope: Option<String>,
}

impl Rule {
    fn new(rule: &RuleWithOperations) -> Self {
        let split = |text: &String| match text.split_once('/') {
            Some((resource, sub)) => (resource.to_owned(), sub.to_owned()),
            None => (text.clone(), String::new()),
        };
        Self {
            operations: rule.operations.clone().unwrap_or_default(),
            groups: rule.api_groups.clone().unwrap_or_default(),
            versions: rule.api_versions.clone().unwrap_or_default(),
            resources: rule.resources.iter().flatten().map(split).collect(),
            scope: rule.scope.clone(),
        }
    }
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

/// One webhook of either kind: their types have the same fields.
macro_rules! hook {
    ($hook:expr, $configuration:expr, $uid:expr, $reinvoked:expr) => {
        Hook {
            name: $hook.name.clone(),
            configuration: $configuration.to_owned(),
            uid: $uid,
            rules: $hook.rules.iter().flatten().map(Rule::new).collect(),
            equivalent: $hook.match_policy.as_deref() != Some("Exact"),
            fails_open: $hook.failure_policy.as_deref() == Some("Ignore"),
            namespaces: selector($hook.namespace_selector.as_ref()),
            objects: selector($hook.object_selector.as_ref()),
            side_effects: Some($hook.side_effects.clone()).filter(|s| !s.is_empty()),
            timeout: $hook
                .timeout_seconds
                .and_then(|s| u64::try_from(s).ok())
                .map_or(DEFAULT_TIMEOUT, Duration::from_secs),
            versions: $hook.admission_review_versions.clone(),
            reinvoked: $reinvoked,
            conditions: $hook.match_conditions.clone().unwrap_or_default(),
            config: config(&$hook.client_config),
        }
    };
}

/// No selector selects everything here (it is defaulted to an empty one).
fn selector(spec: Option<&gantry_api::metav1::LabelSelector>) -> Result<LabelSelector, String> {
    match spec {
        None => Ok(LabelSelector::everything()),
        Some(spec) => LabelSelector::from_spec(Some(spec)).map_err(|e| e.to_string()),
    }
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
