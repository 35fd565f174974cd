//! Which images may run: by the one line of `--image-policy`, and by a webhook that is asked about each pod.
//!
//! Behaviour and texts of the webhook: `plugin/pkg/admission/imagepolicy`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::Resource;
use gantry_api::core::{Container, Pod};
use gantry_api::status::Result;
use gantry_base::image::ImagePolicy;
use gantry_base::{Clock, Error};
use gantry_kinds::AnyObject;
use hashbrown::HashMap;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::common::{forbidden, is_core, is_write};
use super::registry::PluginDeps;
use super::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::callout::{CallError, Caller, Config as CallConfig};

const DEBUGGERS: &str = "ephemeralcontainers";
/// The beginning of audit annotations.
const AUDIT: &str = "imagepolicywebhook.image-policy.k8s.io/";
/// Verdicts that are remembered.
const REMEMBERED: usize = 1024;
/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a call is tried.
const ATTEMPTS: u32 = 5;

fn handles(operation: Operation, resource: &Resource, subresource: &str) -> bool {
    is_write(operation) && is_core(resource, "pods") && matches!(subresource, "" | DEBUGGERS)
}

/// The images of a pod: of its containers, or through `ephemeralcontainers` of those.
fn images(pod: &Pod, subresource: &str) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let image = |image: &Option<String>| image.clone().unwrap_or_default();
    if subresource == DEBUGGERS {
        return spec.ephemeral_containers.iter().flatten().map(|c| image(&c.image)).collect();
    }
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    all.map(|c: &Container| image(&c.image)).collect()
}

/// The line.
pub(super) struct ImageRules {
    policy: ImagePolicy,
}

impl ImageRules {
    pub(super) fn new(policy: ImagePolicy) -> Self {
        Self { policy }
    }
}

#[async_trait]
impl AdmissionPlugin for ImageRules {
    fn name(&self) -> &'static str {
        "ImagePolicy"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        !self.policy.is_empty() && handles(operation, resource, subresource)
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(pod) = object.and_then(|o| o.downcast::<Pod>()) else { return Ok(()) };
        let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        let mounted = volumes.filter_map(|v| v.image.as_ref()?.reference.clone());
        for image in images(pod, request.subresource).into_iter().chain(mounted) {
            self.policy.check(&image).map_err(|why| forbidden(request, object, why))?;
        }
        Ok(())
    }
}

/// The webhook.
pub(super) struct ImagePolicyWebhook {
    caller: Caller,
    clock: Arc<dyn Clock>,
    config: Config,
    verdicts: Mutex<Verdicts>,
}

/// Decided.
struct Config {
    allow_ttl: Duration,
    deny_ttl: Duration,
    backoff: Duration,
    default_allow: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Document {
    image_policy: Settings,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Settings {
    kube_config_file: String,
    #[serde(rename = "allowTTL")]
    allow_ttl: i64,
    #[serde(rename = "denyTTL")]
    deny_ttl: i64,
    retry_backoff: i64,
    default_allow: bool,
}

#[derive(Default)]
struct Verdicts {
    known: HashMap<String, (Verdict, Duration)>,
    order: VecDeque<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Verdict {
    allowed: bool,
    reason: String,
    audit_annotations: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Review {
    status: Verdict,
}

impl ImagePolicyWebhook {
    pub(super) fn new(deps: &PluginDeps) -> gantry_base::Result<Self> {
        if deps.options.configuration("ImagePolicyWebhook").is_none() {
            return Err(Error::invalid("ImagePolicyWebhook: no config specified"));
        }
        let settings = deps.options.configuration_of::<Document>("ImagePolicyWebhook")?.image_policy;
        let (second, millisecond) = (Duration::from_secs(1), Duration::from_millis(1));
        let half_an_hour = 1800 * second;
        let config = Config {
            allow_ttl: period("allow cache", settings.allow_ttl, second, half_an_hour, 300 * second)?,
            deny_ttl: period("deny cache", settings.deny_ttl, second, half_an_hour, 30 * second)?,
            backoff: period("backoff", settings.retry_backoff, millisecond, 300 * second, 500 * millisecond)?,
            default_allow: settings.default_allow,
        };
        let place = CallConfig::from_kubeconfig(settings.kube_config_file.as_ref())?;
        let caller = deps.callout.caller(&place)?;
        Ok(Self { caller, clock: deps.clock(), config, verdicts: Mutex::default() })
    }

    async fn verdict(&self, spec: &Value) -> Result<Verdict, CallError> {
        let key = spec.to_string();
        let now = self.clock.monotonic();
        if let Some((verdict, until)) = self.verdicts.lock().known.get(&key)
            && now < *until
        {
            return Ok(verdict.clone());
        }
        let review = json!({"apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview",
            "metadata": {"creationTimestamp": null}, "spec": spec, "status": {"allowed": false}});
        let verdict = self.ask(review.to_string()).await?;
        let ttl = if verdict.allowed { self.config.allow_ttl } else { self.config.deny_ttl };
        self.verdicts.lock().keep(key, verdict.clone(), now + ttl);
        Ok(verdict)
    }

    /// Asks until there is an answer; what is answered decides, what is not is tried again.
    async fn ask(&self, review: String) -> Result<Verdict, CallError> {
        let body = bytes::Bytes::from(review);
        let mut wait = self.config.backoff;
        let mut attempt = 1;
        loop {
            match self.caller.post_json(body.clone(), TIMEOUT).await {
                Ok(answer) => {
                    return serde_json::from_slice::<Review>(&answer)
                        .map(|review| review.status)
                        .map_err(|e| CallError::Unanswered(e.to_string()));
                }
                Err(error) if attempt == ATTEMPTS || error.status().is_some_and(|s| s.code() < 500) => {
                    return Err(error);
                }
                Err(_) => tokio::time::sleep(wait).await,
            }
            attempt += 1;
            wait = wait.mul_f64(1.5);
        }
    }

    /// Asks about a pod; the error says why it may not run.
    async fn review(&self, request: &AdmissionRequest<'_>, pod: &Pod) -> Result<(), String> {
        let annotations = pod.metadata.annotations.iter().flatten();
        let told: BTreeMap<_, _> =
            annotations.filter(|(key, _)| key.contains(".image-policy.k8s.io/")).collect();
        let containers: Vec<Value> =
            images(pod, request.subresource).into_iter().map(|image| json!({"image": image})).collect();
        let mut spec = json!({"containers": containers, "namespace": request.namespace});
        if !told.is_empty() {
            spec["annotations"] = json!(told);
        }
        let verdict = match self.verdict(&spec).await {
            Ok(verdict) => verdict,
            Err(_) if self.config.default_allow => {
                request.warnings.annotate(format!("{AUDIT}failed-open"), "true");
                return Ok(());
            }
            // As upstream, whose complaint goes through twice.
            Err(error) => return Err(forbidden(request, Some(pod), error).message().to_owned()),
        };
        for (key, value) in &verdict.audit_annotations {
            request.warnings.annotate(format!("{AUDIT}{key}"), value.as_str());
        }
        match (verdict.allowed, verdict.reason.as_str()) {
            (true, _) => Ok(()),
            (false, "") => Err("one or more images rejected by webhook backend".to_owned()),
            (false, why) => Err(format!("image policy webhook backend denied one or more images: {why}")),
        }
    }
}

impl Verdicts {
    fn keep(&mut self, key: String, verdict: Verdict, until: Duration) {
        if self.known.insert(key.clone(), (verdict, until)).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

/// A period of the configuration: 0 is the default, -1 none.
fn period(
    what: &str,
    value: i64,
    unit: Duration,
    most: Duration,
    default: Duration,
) -> gantry_base::Result<Duration> {
    let given = match value {
        0 => return Ok(default),
        -1 => return Ok(Duration::ZERO),
        given => u32::try_from(given).ok().and_then(|n| unit.checked_mul(n)),
    };
    given.filter(|given| *given <= most).ok_or_else(|| {
        Error::invalid(format!(
            "ImagePolicyWebhook: {what}: valid value is between {unit:?} and {most:?}, got {value}"
        ))
    })
}

#[async_trait]
impl AdmissionPlugin for ImagePolicyWebhook {
    fn name(&self) -> &'static str {
        "ImagePolicyWebhook"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        handles(operation, resource, subresource)
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(pod) = object.and_then(|o| o.downcast::<Pod>()) else { return Ok(()) };
        let reviewed = self.review(request, pod).await;
        reviewed.map_err(|why| forbidden(request, object, why))
    }
}
