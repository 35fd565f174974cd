//! What the server puts into new objects and keeps out of updates, kind by kind.

use serde_json::{Value, json};

use crate::Lab;

#[tokio::test]
async fn a_pods_own_labels_go_into_the_selectors_that_name_them() {
    let lab = Lab::new().await;
    let term = |own: &str, keys: &[&str]| {
        let mut term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"x": "y"}}});
        term[own] = json!(keys);
        term
    };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "labels": {"app": "a", "hash": "1"}},
        "spec": {
            "containers": [{"name": "c", "image": "i"}],
            "affinity": {
                "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term("matchLabelKeys", &["app", "none"])]},
                "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "podAffinityTerm": term("mismatchLabelKeys", &["hash"])},
                ]},
            },
            "topologySpreadConstraints": [{
                "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"x": "y"}}, "matchLabelKeys": ["hash"],
            }],
        },
    });
    let made = lab.create("/api/v1/namespaces/default/pods", &pod).await;
    let expression = |key: &str, operator: &str, value: &str| json!([{"key": key, "operator": operator, "values": [value]}]);
    let at =
        |path: &str| made.pointer(&format!("/spec/{path}/matchExpressions")).cloned().unwrap_or_default();
    assert_eq!(
        at("affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/labelSelector"),
        expression("app", "In", "a")
    );
    assert_eq!(
        at(
            "affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/podAffinityTerm/labelSelector"
        ),
        expression("hash", "NotIn", "1")
    );
    assert_eq!(at("topologySpreadConstraints/0/labelSelector"), expression("hash", "In", "1"));
    lab.end().await;
}

#[tokio::test]
async fn a_daemon_sets_templates_are_counted() {
    const SETS: &str = "/apis/apps/v1/namespaces/default/daemonsets";
    let lab = Lab::new().await;
    let set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    });
    let counts = |set: &Value| {
        let annotations = &set["metadata"]["annotations"];
        let template = annotations["deprecated.daemonset.template.generation"].as_str().unwrap_or_default();
        (template.to_owned(), set["metadata"]["generation"].as_i64().unwrap_or_default())
    };
    let made = lab.create(SETS, &set).await;
    assert_eq!(counts(&made), ("1".to_owned(), 1));
    let patches = [
        (json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "j"}]}}}}), ("2", 2)),
        (json!({"spec": {"minReadySeconds": 5}}), ("2", 3)),
        (
            json!({"metadata": {"annotations": {"deprecated.daemonset.template.generation": "9", "x": "y"}}}),
            ("2", 3),
        ),
        (json!({"metadata": {"annotations": null}}), ("2", 3)),
    ];
    for (patch, (template, generation)) in patches {
        let patched = lab.patch(&format!("{SETS}/d"), "merge-patch+json", &patch).await.json();
        assert_eq!(counts(&patched), (template.to_owned(), generation), "{patch}");
    }
    lab.end().await;
}
