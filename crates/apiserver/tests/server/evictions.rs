//! Evictions respect disruption budgets.

use serde_json::{Value, json};

use crate::{Lab, refused};

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

fn eviction(name: &str, options: Value) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, "deleteOptions": options})
}

impl Lab {
    /// A pod on a node with this phase, ready or not.
    async fn pod(&self, name: &str, phase: &str, ready: bool) -> Value {
        let pod = json!({"metadata": {"name": name, "labels": {"app": "x"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
        self.create(PODS, &pod).await;
        let ready = if ready { "True" } else { "False" };
        let status = json!({"status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}});
        self.patch(&format!("{PODS}/{name}/status"), "merge-patch+json", &status).await.json()
    }

    async fn budget(&self, name: &str, policy: Option<&str>, status: Value) {
        let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}, "unhealthyPodEvictionPolicy": policy});
        self.create(BUDGETS, &json!({"metadata": {"name": name}, "spec": spec})).await;
        let path = format!("{BUDGETS}/{name}/status");
        let set = self.patch(&path, "merge-patch+json", &json!({"status": status})).await;
        assert_eq!(set.code, 200, "{}", set.json());
    }

    async fn evict(&self, name: &str, options: Value) -> gantry_apiserver::testing::Answered {
        self.send("POST", &format!("{PODS}/{name}/eviction"), &eviction(name, options)).await
    }
}

fn counts(allowed: i32, healthy: i32, desired: i32) -> Value {
    json!({"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": desired,
        "expectedPods": 3})
}

#[tokio::test]
async fn a_budget_lets_so_many_go() {
    let lab = Lab::new().await;
    lab.budget("b", None, counts(1, 3, 2)).await;
    for name in ["p", "q"] {
        lab.pod(name, "Running", true).await;
    }
    let dry = lab.send("POST", &format!("{PODS}/p/eviction?dryRun=All"), &eviction("p", json!(null))).await;
    assert_eq!(dry.code, 201, "{}", dry.json());
    assert!(lab.get(&format!("{PODS}/p")).await.json()["metadata"].get("deletionTimestamp").is_none());
    assert_eq!(lab.get(&format!("{BUDGETS}/b")).await.json()["status"]["disruptionsAllowed"], 1);

    let evicted = lab.evict("p", json!({"gracePeriodSeconds": 7})).await;
    assert_eq!((evicted.code, evicted.json()["status"].as_str()), (201, Some("Success")));
    let pod = lab.get(&format!("{PODS}/p")).await.json();
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 7);
    let conditions = pod["status"]["conditions"].as_array().expect("conditions");
    let target = conditions.iter().find(|c| c["type"] == "DisruptionTarget").expect("why it goes");
    assert_eq!(target["reason"], "EvictionByEvictionAPI");
    let budget = lab.get(&format!("{BUDGETS}/b")).await.json();
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    assert!(budget["status"]["disruptedPods"]["p"].is_string());
    assert_eq!(budget["status"]["conditions"][0]["reason"], "InsufficientPods");

    let refusal = lab.evict("q", json!({})).await;
    refused(
        &refusal,
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
    );
    assert_eq!(refusal.json()["details"].get("retryAfterSeconds"), None);
    let cause = &refusal.json()["details"]["causes"][0];
    assert_eq!(cause["reason"], "DisruptionBudget");
    assert_eq!(cause["message"], "The disruption budget b does not allow evicting pods currently");
    lab.budget("c", None, counts(1, 3, 2)).await;
    let several = lab.evict("q", json!({})).await;
    assert_eq!((several.code, several.json()["code"].as_i64()), (500, Some(500)));
    assert_eq!(
        several.json()["message"],
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    );
    lab.end().await;
}

#[tokio::test]
async fn what_no_budget_guards_goes() {
    let lab = Lab::new().await;
    lab.budget("b", None, counts(0, 1, 2)).await;
    for (name, phase) in [("done", "Succeeded"), ("failed", "Failed"), ("pending", "Pending")] {
        lab.pod(name, phase, false).await;
        let evicted = lab.evict(name, json!({})).await;
        assert_eq!(evicted.code, 201, "{name}: {}", evicted.json());
    }
    // An unready one counts while too few are healthy …
    lab.pod("unready", "Running", false).await;
    let refusal = lab.evict("unready", json!({})).await;
    assert_eq!(refusal.code, 429);
    assert_eq!(
        refusal.json()["details"]["causes"][0]["message"],
        "The disruption budget b needs 2 healthy pods and has 1 currently"
    );
    // … unless the budget says otherwise.
    let policy = json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}});
    lab.patch(&format!("{BUDGETS}/b"), "merge-patch+json", &policy).await;
    assert_eq!(lab.evict("unready", json!({})).await.code, 201);
    lab.pod("ready", "Running", true).await;
    let behind = lab.evict("ready", json!({})).await;
    assert_eq!(
        behind.json()["details"]["causes"][0]["message"],
        "The disruption budget b is still being processed by the server.",
        "the generation is 2 by now"
    );
    assert_eq!(behind.json()["details"]["retryAfterSeconds"], 10);
    lab.end().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let lab = Lab::new().await;
    let pod = lab.pod("p", "Running", true).await;
    let path = format!("{PODS}/p/eviction");
    let stale = json!({"preconditions": {"resourceVersion": "1"}});
    refused(
        &lab.evict("p", stale).await,
        409,
        "Conflict",
        &format!(
            "Operation cannot be fulfilled on Pod \"p\": the ResourceVersion in the precondition (1) does not match the ResourceVersion in record ({}). The object might have been modified",
            pod["metadata"]["resourceVersion"].as_str().expect("a revision")
        ),
    );
    refused(
        &lab.send("POST", &path, &eviction("q", json!({}))).await,
        400,
        "BadRequest",
        "name in URL does not match name in Eviction object",
    );
    refused(
        &lab.evict("p", json!({"ignoreStoreReadErrorWithClusterBreakingPotential": true})).await,
        422,
        "Invalid",
        "Eviction.policy \"p\" is invalid: deleteOptions.ignoreStoreReadErrorWithClusterBreakingPotential: Invalid value: true: can not be set for pod eviction, try after removing the option",
    );
    refused(&lab.evict("none", json!({})).await, 404, "NotFound", "pods \"none\" not found");
    let older = json!({"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "p"}});
    assert_eq!(lab.send("POST", &path, &older).await.code, 201);
    lab.end().await;
}
