//! API priority and fairness: the objects of a new cluster, and what they do to requests.

use std::sync::Arc;

use gantry_apiserver::admission::AdmissionOptions;
use gantry_apiserver::bootstrap::run;
use serde_json::{Value, json};

use crate::Cluster;
use crate::bootstrap::options;

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

async fn names(cluster: &Cluster, path: &str) -> Vec<String> {
    let list = cluster.send("GET", path, Value::Null).await.json();
    let items = list["items"].as_array().expect("items");
    items.iter().map(|o| o["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn a_new_cluster_has_upstreams_objects_and_keeps_those_that_nobody_took_over() {
    let cluster = Cluster::admitting(AdmissionOptions::default()).await;
    let options = options(&cluster);
    run(Arc::clone(&cluster.transport), &options).await.expect("the first objects");
    assert_eq!(
        names(&cluster, SCHEMAS).await,
        [
            "catch-all",
            "exempt",
            "global-default",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-system-service-accounts",
            "probes",
            "service-accounts",
            "system-leader-election",
            "system-node-high",
            "system-nodes",
        ]
    );
    let levels = names(&cluster, LEVELS).await;
    let suggested =
        ["global-default", "leader-election", "node-high", "system", "workload-high", "workload-low"];
    assert_eq!(levels, [&["catch-all", "exempt"][..], &suggested].concat());

    let shares = |n: i32| json!({"spec": {"limited": {"nominalConcurrencyShares": n}}});
    let patch = |name: &str, body: Value| {
        let (cluster, path) = (&cluster, format!("{LEVELS}/{name}"));
        async move {
            let answer = cluster.send("PATCH", &path, body).await;
            assert_eq!(answer.code, 200, "{}", answer.json());
        }
    };
    patch("system", shares(31)).await;
    patch("workload-low", shares(7)).await;
    let ours = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}});
    patch("workload-low", ours).await;
    patch("node-high", shares(9)).await;
    let unsaid = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": null}}});
    patch("node-high", unsaid).await;
    run(Arc::clone(&cluster.transport), &options).await.expect("a second start");
    for (name, shares, follows) in
        [("system", 30, "true"), ("workload-low", 7, "false"), ("node-high", 9, "false")]
    {
        let level = cluster.send("GET", &format!("{LEVELS}/{name}"), Value::Null).await.json();
        assert_eq!(level["spec"]["limited"]["nominalConcurrencyShares"], shares, "{name}");
        assert_eq!(level["metadata"]["annotations"]["apf.kubernetes.io/autoupdate-spec"], follows, "{name}");
    }
    cluster.end().await;
}
