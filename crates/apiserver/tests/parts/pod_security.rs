//! Pod Security through the server's door: what is refused, what is warned about, who is exempt.

use gantry_apiserver::admission::AdmissionOptions;
use gantry_apiserver::testing::Answered;
use serde_json::{Value, json};

use crate::Cluster;

fn warnings(answered: &Answered) -> Vec<String> {
    let texts = answered.headers.get_all("warning").iter().filter_map(|v| v.to_str().ok());
    let unquoted = |t: &str| t.strip_prefix("299 - \"")?.strip_suffix('"').map(|t| t.replace("\\\"", "\""));
    texts.filter_map(unquoted).collect()
}

fn namespace(name: &str, labels: &[(&str, &str)]) -> Value {
    let label = |(key, value): &(&str, &str)| (format!("pod-security.kubernetes.io/{key}"), json!(value));
    let labels: serde_json::Map<String, Value> = labels.iter().map(label).collect();
    json!({"metadata": {"name": name, "labels": labels}})
}

/// A pod that violates nothing, changed by `patch`.
fn pod(name: &str, patch: &Value) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": {
        "automountServiceAccountToken": false,
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "image": "x", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    }});
    merge(&mut pod["spec"], patch);
    pod
}

fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (target, patch) => target.clone_from(patch),
    }
}

async fn cluster_with(labels: &[(&str, &str)]) -> Cluster {
    let cluster = Cluster::admitting(AdmissionOptions::default()).await;
    let made = cluster.send("POST", "/api/v1/namespaces", namespace("shop", labels)).await;
    assert_eq!(made.code, 201, "{:?}", made.json());
    cluster.account("shop", "default").await;
    cluster
}

#[tokio::test]
async fn pods_that_violate_the_enforced_level_are_refused_in_upstreams_words() {
    let cluster = cluster_with(&[("enforce", "restricted")]).await;
    let with =
        |security: Value| json!({"containers": [{"name": "a", "image": "x", "securityContext": security}]});
    let fine = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let and = |more: Value| {
        let mut security = fine.clone();
        merge(&mut security, &more);
        with(security)
    };
    for (patch, what) in [
        (json!({}), ""),
        (json!({"hostUsers": false, "securityContext": {"runAsNonRoot": false, "runAsUser": 0}}), ""),
        (json!({"hostNetwork": true, "hostPID": true}), "host namespaces (hostNetwork=true, hostPID=true)"),
        (
            and(json!({"privileged": false, "allowPrivilegeEscalation": true})),
            r#"allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false)"#,
        ),
        (
            with(json!(null)),
            r#"allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"])"#,
        ),
        (
            and(json!({"capabilities": {"add": ["NET_RAW", "CHOWN"]}})),
            r#"unrestricted capabilities (container "a" must not include "CHOWN", "NET_RAW" in securityContext.capabilities.add)"#,
        ),
        (
            json!({"securityContext": {"runAsNonRoot": null}}),
            r#"runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true)"#,
        ),
        (json!({"securityContext": {"runAsUser": 0}}), "runAsUser=0 (pod must not set runAsUser=0)"),
        (
            json!({"securityContext": {"seccompProfile": null}}),
            r#"seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            r#"seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")"#,
        ),
        (
            json!({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}),
            r#"restricted volume types (volume "h" uses restricted volume type "hostPath")"#,
        ),
        (
            json!({"containers": [{"name": "a", "image": "x", "securityContext": fine, "ports": [{"containerPort": 80, "hostPort": 80}]}]}),
            r#"hostPort (container "a" uses hostPort 80)"#,
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            json!({"securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}}}),
            r#"seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "x"; user may not be set)"#,
        ),
        (
            json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
            r#"forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")"#,
        ),
        (
            json!({"containers": [{"name": "a", "image": "x", "securityContext": fine, "livenessProbe": {"tcpSocket": {"host": "h", "port": 1}}}]}),
            r#"probe or lifecycle host (container "a" uses probe or lifecycle host "h")"#,
        ),
    ] {
        let answered =
            cluster.send("POST", "/api/v1/namespaces/shop/pods?dryRun=All", pod("p", &patch)).await;
        let message = answered.json()["message"].as_str().unwrap_or("").to_owned();
        if what.is_empty() {
            assert_eq!(answered.code, 201, "{patch}: {message}");
            continue;
        }
        let expected = format!(r#"pods "p" is forbidden: violates PodSecurity "restricted:latest": {what}"#);
        assert_eq!((answered.code, message), (403, expected), "{patch}");
    }
    cluster.end().await;
}

#[tokio::test]
async fn older_versions_ask_for_less_and_templates_are_only_warned_about() {
    let labels = [("enforce", "restricted"), ("enforce-version", "v1.7"), ("warn", "baseline")];
    let cluster = cluster_with(&labels).await;
    let bare = json!({"containers": [{"name": "a", "image": "x"}]});
    let made = cluster.send("POST", "/api/v1/namespaces/shop/pods", pod("p", &bare)).await;
    assert_eq!((made.code, warnings(&made)), (201, Vec::new()), "{:?}", made.json());
    let template = json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"hostIPC": true, "containers": [{"name": "a", "image": "x"}]}});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let made = cluster.send("POST", "/apis/apps/v1/namespaces/shop/deployments", deployment).await;
    let told =
        vec![r#"would violate PodSecurity "baseline:latest": host namespaces (hostIPC=true)"#.to_owned()];
    assert_eq!((made.code, warnings(&made)), (201, told));
    cluster.end().await;
}

#[tokio::test]
async fn a_stricter_namespace_warns_of_the_pods_that_it_has() {
    let cluster = cluster_with(&[]).await;
    for name in ["b", "a"] {
        let pod = pod(name, &json!({"hostNetwork": true}));
        assert_eq!(cluster.send("POST", "/api/v1/namespaces/shop/pods", pod).await.code, 201);
    }
    let stricter = namespace("shop", &[("enforce", "baseline")]);
    let answered = cluster.send("PATCH", "/api/v1/namespaces/shop", stricter).await;
    let told = [
        r#"existing pods in namespace "shop" violate the new PodSecurity enforce level "baseline:latest""#,
        "a (and 1 other pod): host namespaces",
    ];
    assert_eq!((answered.code, warnings(&answered)), (200, told.map(str::to_owned).to_vec()));
    let wrong = namespace("shop", &[("enforce", "strict")]);
    let answered = cluster.send("PATCH", "/api/v1/namespaces/shop", wrong).await;
    let text = r#"Namespace "shop" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted"#;
    assert_eq!((answered.code, answered.json()["message"].as_str()), (422, Some(text)));
    cluster.end().await;
}

#[tokio::test]
async fn defaults_and_exemptions_come_from_the_configuration() {
    let options = AdmissionOptions::default().with(
        "PodSecurity",
        json!({"defaults": {"enforce": "baseline", "enforce-version": "latest"},
            "exemptions": {"namespaces": ["free"], "runtimeClasses": []}}),
    );
    let cluster = Cluster::admitting(options).await;
    for name in ["shop", "free"] {
        cluster.namespace(name).await;
        cluster.account(name, "default").await;
    }
    let host = json!({"hostPID": true});
    let refused = cluster.send("POST", "/api/v1/namespaces/shop/pods", pod("p", &host)).await;
    assert_eq!(refused.code, 403);
    let allowed = cluster.send("POST", "/api/v1/namespaces/free/pods", pod("p", &host)).await;
    assert_eq!(allowed.code, 201);
    let labelled = namespace("free", &[("enforce", "restricted")]);
    let answered = cluster.send("PATCH", "/api/v1/namespaces/free", labelled).await;
    let told = r#"namespace "free" is exempt from Pod Security, and the policy (enforce=restricted:latest) will be ignored"#;
    assert_eq!(warnings(&answered), [told]);
    cluster.end().await;
}
