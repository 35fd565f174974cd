//! Limit ranges, quotas, runtime and priority classes through the server's door.

use gantry_api::ObjectKey;
use gantry_api::core::ResourceQuota;
use gantry_apiserver::admission::AdmissionOptions;
use gantry_apiserver::testing::Answered;
use serde_json::{Value, json};

use crate::Cluster;

const PODS: &str = "/api/v1/namespaces/shop/pods";

impl Cluster {
    /// A namespace `shop` with its default account.
    async fn shop(options: AdmissionOptions) -> Self {
        let cluster = Self::admitting(options).await;
        cluster.namespace("shop").await;
        cluster.account("shop", "default").await;
        cluster
    }

    async fn post(&self, path: &str, body: Value) -> Answered {
        self.send("POST", path, body).await
    }

    /// Creates an object, then asks with dry runs until admission, whose informers may be a moment behind, knows it.
    async fn settled(&self, path: &str, body: Value, probe: Value, known: impl Fn(&Answered) -> bool) {
        let made = self.post(path, body).await;
        assert_eq!(made.code, 201, "{}", made.json());
        self.until(probe, known).await;
    }

    async fn until(&self, probe: Value, known: impl Fn(&Answered) -> bool) {
        while !known(&self.post(&format!("{PODS}?dryRun=All"), probe.clone()).await) {
            tokio::task::yield_now().await;
        }
    }
}

fn pod(name: &str, resources: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"automountServiceAccountToken": false,
        "containers": [{"name": "c", "image": "x", "resources": resources}]}})
}

fn said(answered: &Answered) -> (u16, String) {
    (answered.code, answered.json()["message"].as_str().unwrap_or("").to_owned())
}

#[tokio::test]
async fn limit_ranges_fill_in_and_refuse() {
    let cluster = Cluster::shop(AdmissionOptions::default()).await;
    let limits = json!([{"type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "500m"},
        "default": {"cpu": "400m"}, "defaultRequest": {"cpu": "100m"}, "maxLimitRequestRatio": {"cpu": "5"}}]);
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": limits}});
    let filled = |answered: &Answered| answered.json()["metadata"]["annotations"].is_object();
    cluster.settled("/api/v1/namespaces/shop/limitranges", range, pod("probe", json!({})), filled).await;
    let made = cluster.post(PODS, pod("p", json!({}))).await.json();
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "400m"}, "requests": {"cpu": "100m"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    for (resources, why) in [
        (
            json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "50m"}}),
            "minimum cpu usage per Container is 50m, but request is 10m",
        ),
        (
            json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "1"}}),
            "maximum cpu usage per Container is 500m, but limit is 1",
        ),
        (
            json!({"requests": {"cpu": "60m"}, "limits": {"cpu": "450m"}}),
            "cpu max limit to request ratio per Container is 5, but provided ratio is 7.500000",
        ),
        (
            json!({"requests": {"cpu": "20m"}, "limits": {"cpu": "20m"}}),
            "[minimum cpu usage per Container is 50m, but request is 20m]",
        ),
    ] {
        let (code, message) = said(&cluster.post(PODS, pod("bad", resources.clone())).await);
        assert_eq!(code, 403, "{resources}: {message}");
        let why = why.trim_matches(['[', ']']);
        assert_eq!(message, format!(r#"pods "bad" is forbidden: {why}"#), "{resources}");
    }
    cluster.end().await;
}

/// Stands in for the controller: says what the limits are and that nothing is used.
async fn quota(cluster: &Cluster, name: &str, hard: Value, scopes: Value) -> ObjectKey {
    let path = "/api/v1/namespaces/shop/resourcequotas";
    let body = json!({"metadata": {"name": name}, "spec": {"hard": hard, "scopes": scopes}});
    let made = cluster.post(path, body).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let used: serde_json::Map<String, Value> =
        hard.as_object().expect("limits").keys().map(|k| (k.clone(), json!("0"))).collect();
    let status = json!({"status": {"hard": hard, "used": used}});
    let told = cluster.send("PATCH", &format!("{path}/{name}/status"), status).await;
    assert_eq!(told.code, 200, "{}", told.json());
    ObjectKey::new("shop", name)
}

async fn used(cluster: &Cluster, key: &ObjectKey) -> Value {
    let quota = cluster.api::<ResourceQuota>().get(key).await.expect("a quota");
    json!(quota.status.as_ref().and_then(|s| s.used.clone()))
}

#[tokio::test]
async fn quotas_are_charged_exactly_even_by_many_at_once() {
    let cluster = Cluster::shop(AdmissionOptions::default()).await;
    let hard = json!({"pods": "5", "requests.cpu": "1", "count/configmaps": "1"});
    let key = quota(&cluster, "q", hard, json!([])).await;
    cluster.until(pod("probe", json!({})), |answered| answered.code == 403).await;
    let dry =
        cluster.post(&format!("{PODS}?dryRun=All"), pod("dry", json!({"requests": {"cpu": "100m"}}))).await;
    assert_eq!(dry.code, 201, "{}", dry.json());
    let create = |n: usize| {
        let body = pod(&format!("p{n}"), json!({"requests": {"cpu": "100m"}}));
        let cluster = &cluster;
        async move { said(&cluster.post(PODS, body).await) }
    };
    let answers = futures::future::join_all((0..20).map(create)).await;
    let made = answers.iter().filter(|(code, _)| *code == 201).count();
    assert_eq!(made, 5, "{answers:?}");
    let refused = answers.iter().find(|(code, _)| *code != 201).expect("some are refused");
    assert_eq!(refused.0, 403);
    let text = "is forbidden: exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5";
    assert!(refused.1.ends_with(text), "{}", refused.1);
    assert_eq!(
        used(&cluster, &key).await,
        json!({"pods": "5", "requests.cpu": "500m", "count/configmaps": "0"})
    );
    let (code, message) = said(&cluster.post(PODS, pod("silent", json!({}))).await);
    assert_eq!(
        (code, message.as_str()),
        (403, r#"pods "silent" is forbidden: failed quota: q: must specify requests.cpu for: c"#)
    );
    let map = |name: &str| json!({"metadata": {"name": name}});
    let maps = "/api/v1/namespaces/shop/configmaps";
    assert_eq!(cluster.post(maps, map("a")).await.code, 201);
    let (code, message) = said(&cluster.post(maps, map("b")).await);
    assert_eq!(
        (code, message.as_str()),
        (
            403,
            r#"configmaps "b" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1"#
        )
    );
    cluster.end().await;
}

#[tokio::test]
async fn a_quota_with_a_scope_counts_what_is_in_it() {
    let cluster = Cluster::shop(AdmissionOptions::default()).await;
    let best = quota(&cluster, "best", json!({"pods": "1"}), json!(["BestEffort"])).await;
    let not = quota(&cluster, "not", json!({"pods": "1"}), json!(["NotBestEffort"])).await;
    // Admission may see the quotas a moment later.
    let mut charged = 0;
    while used(&cluster, &best).await == json!({"pods": "0"}) {
        charged += 1;
        let made = cluster.post(PODS, pod(&format!("a{charged}"), json!({}))).await;
        assert_eq!(made.code, 201, "{}", made.json());
        tokio::task::yield_now().await;
    }
    assert_eq!(
        (used(&cluster, &best).await, used(&cluster, &not).await),
        (json!({"pods": "1"}), json!({"pods": "0"}))
    );
    assert_eq!(cluster.post(PODS, pod("b", json!({}))).await.code, 403);
    assert_eq!(cluster.post(PODS, pod("c", json!({"requests": {"cpu": "1"}}))).await.code, 201);
    assert_eq!(cluster.post(PODS, pod("d", json!({"requests": {"cpu": "1"}}))).await.code, 403);
    assert_eq!(used(&cluster, &not).await, json!({"pods": "1"}));
    cluster.end().await;
}

#[tokio::test]
async fn a_runtime_class_gives_overhead_and_a_place() {
    let cluster = Cluster::shop(AdmissionOptions::default()).await;
    let class = json!({"metadata": {"name": "kata"}, "handler": "kata", "overhead": {"podFixed": {"cpu": "10m"}},
        "scheduling": {"nodeSelector": {"kata": "yes"}, "tolerations": [{"key": "kata", "operator": "Exists"}]}});
    let made = cluster.post("/apis/node.k8s.io/v1/runtimeclasses", class).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let with = |patch: Value| {
        let mut pod = pod("p", json!({}));
        for (key, value) in patch.as_object().expect("a patch") {
            pod["spec"][key] = value.clone();
        }
        pod
    };
    let dry = format!("{PODS}?dryRun=All");
    let made = cluster.post(&dry, with(json!({"runtimeClassName": "kata"}))).await.json();
    assert_eq!(made["spec"]["overhead"], json!({"cpu": "10m"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"kata": "yes"}));
    assert_eq!(made["spec"]["tolerations"][2]["key"], "kata");
    for (patch, why) in [
        (json!({"runtimeClassName": "gone"}), r#"pod rejected: RuntimeClass "gone" not found"#),
        (
            json!({"overhead": {"cpu": "1"}}),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            json!({"runtimeClassName": "kata", "overhead": {"cpu": "1"}}),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            json!({"runtimeClassName": "kata", "nodeSelector": {"kata": "no"}}),
            "conflict: runtimeClass.scheduling.nodeSelector[kata] = yes; pod.spec.nodeSelector[kata] = no",
        ),
    ] {
        let (code, message) = said(&cluster.post(&dry, with(patch)).await);
        assert_eq!((code, message), (403, format!(r#"pods "p" is forbidden: {why}"#)));
    }
    cluster.end().await;
}

#[tokio::test]
async fn a_priority_class_gives_the_priority_and_only_one_is_the_default() {
    let cluster = Cluster::shop(AdmissionOptions::default()).await;
    let path = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let gold = json!({"metadata": {"name": "gold"}, "value": 1000, "preemptionPolicy": "Never"});
    let made = cluster.post(path, gold).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let base = json!({"metadata": {"name": "base"}, "value": 7, "globalDefault": true});
    let is_base = |answered: &Answered| answered.json()["spec"]["priority"] == 7;
    cluster.settled(path, base, pod("probe", json!({})), is_base).await;
    let with = |patch: Value| {
        let mut pod = pod("p", json!({}));
        for (key, value) in patch.as_object().expect("a patch") {
            pod["spec"][key] = value.clone();
        }
        pod
    };
    let dry = format!("{PODS}?dryRun=All");
    let spec = cluster.post(&dry, with(json!({"priorityClassName": "gold"}))).await.json()["spec"].clone();
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(1000), &json!("Never")));
    let spec = cluster.post(&dry, with(json!({}))).await.json()["spec"].clone();
    assert_eq!((&spec["priority"], &spec["priorityClassName"]), (&json!(7), &json!("base")));
    let (code, message) =
        said(&cluster.post(&dry, with(json!({"priorityClassName": "gold", "priority": 5}))).await);
    assert_eq!(code, 403);
    assert!(message.contains("the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 1000"));
    let second = json!({"metadata": {"name": "second"}, "value": 9, "globalDefault": true});
    let (code, message) = said(&cluster.post(path, second).await);
    assert_eq!(
        (code, message.as_str()),
        (
            403,
            r#"priorityclasses.scheduling.k8s.io "second" is forbidden: PriorityClass base is already marked as default. Only one default can exist"#
        )
    );
    cluster.end().await;
}

#[tokio::test]
async fn plugins_that_are_enabled_do_their_work_and_those_that_are_disabled_do_not() {
    let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let on = [
        "AlwaysPullImages",
        "DenyServiceExternalIPs",
        "EventRateLimit",
        "ExtendedResourceToleration",
        "LimitPodHardAntiAffinityTopology",
        "NamespaceAutoProvision",
        "PodNodeSelector",
        "PodTolerationRestriction",
    ];
    let options = AdmissionOptions::new(&owned(&on), &owned(&["ServiceAccount"])).expect("options");
    let options = options
        .with("EventRateLimit", json!({"limits": [{"type": "Namespace", "qps": 1, "burst": 1}]}))
        .with(
            "PodNodeSelector",
            json!({"podNodeSelectorPluginConfig": {"clusterDefaultNodeSelector": "env=prod"}}),
        )
        .with("PodTolerationRestriction", json!({"default": [{"key": "d", "operator": "Exists"}]}));
    let cluster = Cluster::admitting(options).await;
    let path = "/api/v1/namespaces/fresh/pods";
    let mut wanted =
        pod("p", json!({"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "1"}}));
    let made = cluster.post(path, wanted.clone()).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let spec = made.json()["spec"].clone();
    assert_eq!(spec["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(spec["nodeSelector"], json!({"env": "prod"}));
    let keys: Vec<&str> = spec["tolerations"]
        .as_array()
        .expect("tolerations")
        .iter()
        .filter_map(|t| t["key"].as_str())
        .collect();
    assert!(keys.contains(&"d") && keys.contains(&"example.com/gpu"), "{keys:?}");
    assert!(spec["serviceAccountName"].is_null());

    wanted["metadata"]["name"] = json!("elsewhere");
    wanted["spec"]["nodeSelector"] = json!({"env": "test"});
    let (code, message) = said(&cluster.post(path, wanted.clone()).await);
    assert_eq!(
        (code, message.as_str()),
        (
            403,
            r#"pods "elsewhere" is forbidden: pod node label selector conflicts with its namespace node label selector"#
        )
    );
    wanted["spec"]["nodeSelector"] = json!({});
    wanted["spec"]["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}]}});
    let (code, message) = said(&cluster.post(path, wanted).await);
    assert_eq!(code, 403);
    assert!(
        message.ends_with("has TopologyKey zone but only key kubernetes.io/hostname is allowed"),
        "{message}"
    );

    let service =
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "externalIPs": ["192.0.2.1"]}});
    let (code, message) = said(&cluster.post("/api/v1/namespaces/fresh/services", service).await);
    assert_eq!(
        (code, message.as_str()),
        (403, r#"services "s" is forbidden: Use of external IPs is denied by admission control"#)
    );
    let event = |name: &str| json!({"metadata": {"name": name}, "involvedObject": {"namespace": "fresh"}});
    let events = "/api/v1/namespaces/fresh/events";
    assert_eq!(cluster.post(events, event("a")).await.code, 201);
    let (code, message) = said(&cluster.post(events, event("b")).await);
    assert_eq!(code, 429);
    assert!(message.contains("limit reached on type Namespace for key fresh"), "{message}");
    cluster.end().await;
}
