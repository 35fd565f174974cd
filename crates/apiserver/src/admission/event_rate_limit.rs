//! How many events a server, a namespace, a user or a source may write.
//!
//! Behaviour and texts: `plugin/pkg/admission/eventratelimit`; its configuration is a `Configuration` of
//! `eventratelimit.admission.k8s.io`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource, core, events};
use gantry_base::{Clock, Error};
use gantry_kinds::AnyObject;
use hashbrown::HashMap;
use parking_lot::Mutex;
use serde::Deserialize;

use super::common::{aggregate, is_write};
use super::registry::PluginDeps;
use super::{AdmissionPlugin, AdmissionRequest, Operation};

/// Buckets of one limit that are kept, if the configuration does not say.
const BUCKETS: usize = 4096;

/// The plugin.
pub(super) struct EventRateLimit {
    limits: Vec<Limit>,
    clock: Arc<dyn Clock>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    limits: Vec<LimitConfig>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LimitConfig {
    #[serde(rename = "type")]
    kind: String,
    qps: i32,
    burst: i32,
    cache_size: i32,
}

struct Limit {
    kind: String,
    rate: f64,
    burst: f64,
    buckets: Mutex<Buckets>,
}

/// Token buckets, the least recently used first to go.
struct Buckets {
    capacity: usize,
    known: HashMap<String, Bucket>,
    /// Keys with the number of their use, older uses of a key included.
    order: VecDeque<(u64, String)>,
    uses: u64,
}

struct Bucket {
    tokens: f64,
    at: Duration,
    used: u64,
}

impl EventRateLimit {
    pub(super) fn new(deps: &PluginDeps) -> gantry_base::Result<Self> {
        let config: Config = deps.options.configuration_of("EventRateLimit")?;
        let wrong = |what: String| Error::invalid(format!("EventRateLimit's configuration: {what}"));
        if config.limits.is_empty() {
            return Err(wrong("limits: Invalid value: []: must not be empty".to_owned()));
        }
        let limits = config.limits.into_iter().enumerate().map(|(i, limit)| {
            if !["Server", "Namespace", "User", "SourceAndObject"].contains(&limit.kind.as_str()) {
                return Err(wrong(format!("limits[{i}].type: Unsupported value: {:?}", limit.kind)));
            }
            for (name, value) in [("burst", limit.burst), ("qps", limit.qps)] {
                if value <= 0 {
                    return Err(wrong(format!(
                        "limits[{i}].{name}: Invalid value: {value}: must be positive"
                    )));
                }
            }
            let capacity = usize::try_from(limit.cache_size)
                .map_err(|_| wrong(format!("limits[{i}].cacheSize: Invalid value: must not be negative")))?;
            let capacity = if capacity == 0 { BUCKETS } else { capacity };
            let buckets = Buckets { capacity, known: HashMap::new(), order: VecDeque::new(), uses: 0 };
            let (rate, burst) = (f64::from(limit.qps), f64::from(limit.burst));
            Ok(Limit { kind: limit.kind, rate, burst, buckets: Mutex::new(buckets) })
        });
        Ok(Self { limits: limits.collect::<gantry_base::Result<_>>()?, clock: deps.clock() })
    }
}

impl Limit {
    fn key(&self, request: &AdmissionRequest<'_>, object: Option<&dyn AnyObject>) -> String {
        match self.kind.as_str() {
            "Namespace" => request.namespace.to_owned(),
            "User" => request.user.name.to_string(),
            "SourceAndObject" => object.map(source_and_object).unwrap_or_default(),
            _ => String::new(),
        }
    }

    /// Takes a token, if there is one.
    fn accept(&self, key: &str, now: Duration) -> Result<(), String> {
        let mut buckets = self.buckets.lock();
        if buckets.take(key, self.rate, self.burst, now) {
            return Ok(());
        }
        Err(format!("limit reached on type {} for key {key}", self.kind))
    }
}

impl Buckets {
    fn take(&mut self, key: &str, rate: f64, burst: f64, now: Duration) -> bool {
        self.uses += 1;
        let used = self.uses;
        let bucket = self.known.entry_ref(key).or_insert(Bucket { tokens: burst, at: now, used });
        bucket.tokens = (bucket.tokens + now.saturating_sub(bucket.at).as_secs_f64() * rate).min(burst);
        (bucket.at, bucket.used) = (now, used);
        let granted = bucket.tokens >= 1.0;
        if granted {
            bucket.tokens -= 1.0;
        }
        self.order.push_back((used, key.to_owned()));
        self.forget();
        granted
    }

    fn forget(&mut self) {
        while self.known.len() > self.capacity || self.order.len() > 4 * self.capacity {
            let Some((used, key)) = self.order.pop_front() else { return };
            if self.known.get(&key).is_some_and(|b| b.used == used) {
                if self.known.len() > self.capacity {
                    self.known.remove(&key);
                } else {
                    // Still wanted: it goes to the back of the queue as it is.
                    self.order.push_back((used, key));
                    self.order.retain(|(used, key)| self.known.get(key).is_some_and(|b| b.used == *used));
                }
            }
        }
    }
}

fn source_and_object(object: &dyn AnyObject) -> String {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let join = |source: Option<&core::EventSource>, about: &core::ObjectReference| {
        let (component, host) = source.map(|s| (text(&s.component), text(&s.host))).unwrap_or_default();
        [
            component,
            host,
            text(&about.kind),
            text(&about.namespace),
            text(&about.name),
            text(&about.uid),
            text(&about.api_version),
        ]
        .concat()
    };
    if let Some(event) = object.downcast::<core::Event>() {
        return join(event.source.as_ref(), &event.involved_object);
    }
    match object.downcast::<events::Event>() {
        Some(event) => join(event.deprecated_source.as_ref(), &event.regarding.clone().unwrap_or_default()),
        None => String::new(),
    }
}

#[async_trait]
impl AdmissionPlugin for EventRateLimit {
    fn name(&self) -> &'static str {
        "EventRateLimit"
    }

    fn handles(&self, operation: Operation, resource: &Resource, _subresource: &str) -> bool {
        is_write(operation) && resource.plural == "events" && matches!(&*resource.group, "" | "events.k8s.io")
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        if request.dry_run {
            return Ok(());
        }
        let now = self.clock.monotonic();
        let refused = self.limits.iter().filter_map(|l| l.accept(&l.key(request, object), now).err());
        match aggregate(refused.collect()) {
            None => Ok(()),
            Some(why) => Err(ApiError::too_many_requests(why, 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_fill_up_again_and_the_unused_ones_go() {
        let mut buckets = Buckets { capacity: 2, known: HashMap::new(), order: VecDeque::new(), uses: 0 };
        let at = Duration::from_secs;
        assert!(buckets.take("a", 1.0, 2.0, at(0)) && buckets.take("a", 1.0, 2.0, at(0)));
        assert!(!buckets.take("a", 1.0, 2.0, at(0)));
        assert!(buckets.take("a", 1.0, 2.0, at(1)) && !buckets.take("a", 1.0, 2.0, at(1)));
        for key in ["b", "c"] {
            assert!(buckets.take(key, 1.0, 2.0, at(1)));
        }
        assert!(buckets.take("a", 1.0, 2.0, at(1)), "it was forgotten");
        for _ in 0..100 {
            buckets.take("c", 1.0, 2.0, at(1));
        }
        assert!(buckets.known.len() <= 2 && buckets.order.len() <= 8);
    }
}
