//! What objects count towards a ResourceQuota: the admission plugin charges by it, the controller adds it up.
//!
//! Behaviour: `pkg/quota/v1/evaluator/core` and `k8s.io/apiserver/pkg/quota/v1`.

mod claims;
mod devices;
mod pods;
mod scopes;
mod services;

use std::borrow::Cow;
use std::time::SystemTime;

use gantry_api::Quantity;
use gantry_api::core::{PersistentVolumeClaim, Pod, ResourceQuotaSpec, Service};
use gantry_api::k8s_openapi::api::resource::v1::ResourceClaim;

pub use pods::constraints;
pub use scopes::{Facts, Scope, selectors};

use crate::AnyObject;
use crate::resources::Amounts;

/// How the objects of a resource are measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// By their number, their requests and limits.
    Pods,
    /// By their number, node ports and load balancers.
    Services,
    /// By their number and the storage they ask for, also by class.
    Claims,
    /// By their number and devices by class.
    Devices,
    /// By their number alone, under these names.
    Count(Vec<Cow<'static, str>>),
}

/// What one object counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// What it uses.
    pub usage: Amounts,
    /// What scopes see of it.
    pub facts: Facts,
    /// From this moment on it counts as an object only: it should have been gone by then.
    pub expires: Option<SystemTime>,
}

impl Measured {
    /// What it uses at `now`.
    pub fn usage_at(&self, now: SystemTime) -> Cow<'_, Amounts> {
        if self.expires.is_none_or(|at| now <= at) {
            return Cow::Borrowed(&self.usage);
        }
        Cow::Owned(
            self.usage
                .iter()
                .filter(|(k, _)| k.starts_with("count/"))
                .map(|(k, v)| (k.clone(), *v))
                .collect(),
        )
    }
}

/// `count/pods`, `count/deployments.apps`
pub fn count_name(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") }
}

impl Measure {
    /// How the objects of this resource are measured.
    pub fn of(group: &str, plural: &str) -> Self {
        match (group, plural) {
            ("", "pods") => Self::Pods,
            ("", "services") => Self::Services,
            ("", "persistentvolumeclaims") => Self::Claims,
            ("resource.k8s.io", "resourceclaims") => Self::Devices,
            _ => {
                let mut names = vec![Cow::Owned(count_name(group, plural))];
                let older = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];
                if let Some(alias) = older.iter().find(|p| group.is_empty() && **p == plural) {
                    names.push(Cow::Borrowed(*alias));
                }
                Self::Count(names)
            }
        }
    }

    /// Whether a quota of the resource `name` concerns these objects.
    pub fn tracks(&self, name: &str) -> bool {
        match self {
            Self::Pods => pods::tracks(name),
            Self::Services => services::tracks(name),
            Self::Claims => claims::tracks(name),
            Self::Devices => devices::tracks(name),
            Self::Count(names) => names.iter().any(|n| n == name),
        }
    }

    /// What an object counts; of an object of another type, its number alone.
    pub fn measure(&self, object: &dyn AnyObject) -> Measured {
        match self {
            Self::Pods => object.downcast::<Pod>().map(pods::measure),
            Self::Services => object.downcast::<Service>().map(services::measure),
            Self::Claims => object.downcast::<PersistentVolumeClaim>().map(claims::measure),
            Self::Devices => object.as_any().downcast_ref::<ResourceClaim>().map(devices::measure),
            Self::Count(_) => Some(self.one()),
        }
        .unwrap_or_default()
    }

    /// What an object of a resource counts that is measured by number alone.
    pub fn one(&self) -> Measured {
        let Self::Count(names) = self else { return Measured::default() };
        let usage = names.iter().map(|name| (name.clone(), Quantity::from_units(1))).collect();
        Measured { usage, ..Measured::default() }
    }

    /// Whether a quota with these scopes concerns an object.
    ///
    /// # Errors
    /// A selector that makes no sense.
    pub fn is_in_scope(&self, spec: &ResourceQuotaSpec, facts: &Facts) -> Result<bool, String> {
        for scope in selectors(spec) {
            if !self.matches(&scope, facts)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether an object is in one scope.
    ///
    /// # Errors
    /// A selector that makes no sense.
    pub fn matches(&self, scope: &Scope, facts: &Facts) -> Result<bool, String> {
        match self {
            Self::Pods => scopes::pod_matches(scope, facts),
            Self::Claims => scopes::claim_matches(scope, facts),
            _ => Ok(false),
        }
    }

    /// Whether usage may depend on scopes at all.
    pub fn knows_scopes(&self) -> bool {
        matches!(self, Self::Pods | Self::Claims)
    }
}

fn one(names: impl IntoIterator<Item = &'static str>) -> Amounts {
    names.into_iter().map(|name| (Cow::Borrowed(name), Quantity::from_units(1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::Object;
    use serde_json::{Value, json};

    fn text(amounts: &Amounts) -> String {
        amounts.iter().map(|(n, q)| format!("{n}={q}")).collect::<Vec<_>>().join(",")
    }

    fn usage<K: Object>(measure: &Measure, value: Value) -> String {
        text(&measure.measure(&K::decode_value(&value).expect("an object")).usage)
    }

    #[test]
    fn objects_are_measured_as_upstream_measures_them() {
        let service = |spec: Value| usage::<Service>(&Measure::Services, json!({"spec": spec}));
        assert_eq!(
            service(json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]})),
            "count/services=1,services=1,services.loadbalancers=0,services.nodeports=2"
        );
        assert_eq!(
            service(
                json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 1}]})
            ),
            "count/services=1,services=1,services.loadbalancers=1,services.nodeports=0"
        );
        let claim =
            json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}});
        assert_eq!(
            usage::<PersistentVolumeClaim>(&Measure::Claims, claim),
            "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi"
        );
        let pod = |status: &str| {
            let resources = json!({"requests": {"cpu": "1", "example.com/gpu": "2", "hugepages-2Mi": "4Mi"}, "limits": {"cpu": "2"}});
            json!({"spec": {"containers": [{"name": "a", "resources": resources}]}, "status": {"phase": status}})
        };
        assert_eq!(
            usage::<Pod>(&Measure::Pods, pod("Running")),
            "count/pods=1,cpu=1,hugepages-2Mi=4Mi,limits.cpu=2,pods=1,requests.cpu=1,requests.example.com/gpu=2,requests.hugepages-2Mi=4Mi"
        );
        assert_eq!(usage::<Pod>(&Measure::Pods, pod("Succeeded")), "count/pods=1");
        assert_eq!(text(&Measure::of("", "secrets").one().usage), "count/secrets=1,secrets=1");
        assert_eq!(text(&Measure::of("apps", "deployments").one().usage), "count/deployments.apps=1");
    }

    #[test]
    fn scopes_pick_pods() {
        let pod = |spec: Value| {
            let pod = Pod::decode_value(&json!({"spec": spec})).expect("a pod");
            Measure::Pods.measure(&pod).facts
        };
        let plain = pod(json!({"containers": [{"name": "a"}]}));
        let dated = pod(json!({"activeDeadlineSeconds": 5, "priorityClassName": "gold",
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]}));
        let far = pod(json!({"containers": [{"name": "a"}], "affinity": {"podAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "k", "namespaces": ["x"]}]}}}));
        let named = |name: &str| json!({"scopes": [name]});
        let selected = |operator: &str, values: Value| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
        };
        for (spec, expected) in [
            (named("Terminating"), [false, true, false]),
            (named("NotTerminating"), [true, false, true]),
            (named("BestEffort"), [true, false, true]),
            (named("NotBestEffort"), [false, true, false]),
            (named("PriorityClass"), [false, true, false]),
            (named("CrossNamespacePodAffinity"), [false, false, true]),
            (named("VolumeAttributesClass"), [false, false, false]),
            (selected("In", json!(["gold"])), [false, true, false]),
            (selected("NotIn", json!(["gold"])), [true, false, true]),
            (selected("DoesNotExist", json!([])), [true, false, true]),
        ] {
            let spec: ResourceQuotaSpec = serde_json::from_value(spec).expect("a spec");
            let found =
                [&plain, &dated, &far].map(|f| Measure::Pods.is_in_scope(&spec, f).expect("it makes sense"));
            assert_eq!(found, expected, "{spec:?}");
        }
    }
}
