//! Admission webhooks, with a real HTTPS server that answers well, badly or not at all.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_apiserver::admission::AdmissionOptions;
use gantry_apiserver::testing::hook::{self, Handle, Hook};
use gantry_apiserver::testing::{Answered, http};
use http::{Request, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::Cluster;

pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
pub(crate) const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

/// A cluster and a webhook server that remembers what it was asked.
pub(crate) struct Lab {
    pub(crate) cluster: Cluster,
    pub(crate) hook: Hook,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

/// The answer of each path of the server.
fn answer(path: &str, request: &Value) -> Option<Value> {
    let uid = &request["uid"];
    let patch = |patch: Value| json!({"uid": uid, "allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())});
    Some(match path {
        "/allow" => json!({"uid": uid, "allowed": true, "warnings": ["mind the gap"]}),
        "/deny" => {
            json!({"uid": uid, "allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "not today"}})
        }
        "/deny-silently" => json!({"uid": uid, "allowed": false}),
        "/lie" => json!({"uid": "somebody else's", "allowed": true}),
        "/patch-while-validating" => patch(json!([])),
        "/first" => patch(json!([{"op": "add", "path": "/data/first", "value": "yes"}])),
        "/second" => match request["object"]["data"]["first"].as_str() {
            Some(_) => patch(json!([{"op": "add", "path": "/data/second", "value": "yes"}])),
            None => json!({"uid": uid, "allowed": true}),
        },
        "/break-it" => {
            patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"a": "not a value!"}}]))
        }
        "/no-place" => patch(json!([{"op": "add", "path": "/spec/a/b", "value": 1}])),
        "/no-patch" => {
            json!({"uid": uid, "allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode("{")})
        }
        _ => return None,
    })
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let cluster = Cluster::admitting(AdmissionOptions::default()).await;
        let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let heard = Arc::clone(&asked);
        let handle: Handle = Arc::new(move |request: Request<Bytes>| {
            let heard = Arc::clone(&heard);
            Box::pin(async move {
                let path = request.uri().path().to_owned();
                let review: Value = serde_json::from_slice(request.body()).unwrap_or_default();
                heard.lock().push((path.clone(), review.clone()));
                match path.as_str() {
                    "/garbage" => Some(Response::new(Bytes::from_static(b"garbage"))),
                    "/empty" => Some(hook::json(&json!({}))),
                    "/hang" => std::future::pending().await,
                    path => {
                        if let Some(raw) = crate::bad_webhooks::raw(path, &review) {
                            return Some(raw);
                        }
                        let response = answer(path, &review["request"])?;
                        Some(hook::json(
                            &json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response}),
                        ))
                    }
                }
            })
        });
        let hook = Hook::start(&["localhost"], handle, &cluster.tasks).await;
        let lab = Self { cluster, hook, asked };
        let namespace = json!({"metadata": {"name": "default", "labels": {"team": "a"}}});
        let answer = lab.send("POST", "/api/v1/namespaces", &namespace).await;
        if answer.code == 409 {
            let patch = json!({"metadata": {"labels": {"team": "a"}}}).to_string();
            let headers = [("content-type", "application/merge-patch+json")];
            http(&lab.cluster.server, "PATCH", "/api/v1/namespaces/default", &headers, patch).await;
        }
        lab
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> Answered {
        http(&self.cluster.server, method, path, &[], body.to_string()).await
    }

    pub(crate) fn config(&self, path: &str) -> Value {
        json!({"url": format!("https://localhost:{}{path}", self.hook.address.port()), "caBundle": STANDARD.encode(&self.hook.ca_pem)})
    }

    pub(crate) fn hook(&self, path: &str, resource: &str, more: &Value) -> Value {
        let mut hook = json!({
            "name": format!("{}.example.com", path.trim_start_matches('/').replace('/', "-")),
            "clientConfig": self.config(path),
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": [resource], "operations": ["*"]}],
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 1,
        });
        if let (Value::Object(hook), Value::Object(more)) = (&mut hook, more.clone()) {
            hook.extend(more);
        }
        hook
    }

    /// Creates a configuration whose webhooks are `<path>.example.com`, and waits until it counts.
    pub(crate) async fn hooks(&self, kind: &str, name: &str, paths: &[&str], more: Value) {
        let mut hooks: Vec<Value> = paths.iter().map(|path| self.hook(path, "configmaps", &more)).collect();
        hooks.push(self.hook(&format!("/mark/{name}"), "endpoints", &json!({"failurePolicy": "Ignore"})));
        let answer = self.send("POST", kind, &json!({"metadata": {"name": name}, "webhooks": hooks})).await;
        assert_eq!(answer.code, 201, "{}", answer.json());
        while !self.marked(name).await {}
        self.take_asked();
    }

    /// Whether the plugins know the configuration.
    pub(crate) async fn marked(&self, name: &str) -> bool {
        self.take_asked();
        tokio::task::yield_now().await;
        let endpoints = "/api/v1/namespaces/default/endpoints?dryRun=All";
        self.send("POST", endpoints, &json!({"metadata": {"name": "mark"}})).await;
        self.take_asked().iter().any(|(path, _)| *path == format!("/mark/{name}"))
    }

    pub(crate) async fn forget(&self, kind: &str, name: &str) {
        assert_eq!(self.send("DELETE", &format!("{kind}/{name}"), &json!({})).await.code, 200);
        while self.marked(name).await {}
    }

    pub(crate) fn take_asked(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.asked.lock())
    }

    pub(crate) async fn end(self) {
        self.cluster.end().await;
    }
}

pub(crate) fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

#[track_caller]
pub(crate) fn says(answer: &Answered, code: u16, message: &str) {
    let status = answer.json();
    assert_eq!((answer.code, status["message"].as_str().unwrap_or("")), (code, message), "{status}");
}

#[tokio::test]
async fn a_webhook_is_asked_in_upstreams_form_and_may_refuse() {
    let lab = Lab::new().await;
    lab.hooks(VALIDATING, "v", &["/allow"], json!({})).await;
    let answer = lab.send("POST", &format!("{MAPS}?fieldManager=me"), &map("a")).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    assert_eq!(answer.headers["warning"], "299 - \"mind the gap\"");
    let (_, review) = lab.take_asked().remove(0);
    let request = &review["request"];
    assert_eq!(
        (&review["kind"], &review["apiVersion"]),
        (&json!("AdmissionReview"), &json!("admission.k8s.io/v1"))
    );
    for (field, expected) in [
        ("kind", json!({"group": "", "version": "v1", "kind": "ConfigMap"})),
        ("resource", json!({"group": "", "version": "v1", "resource": "configmaps"})),
        ("requestKind", json!({"group": "", "version": "v1", "kind": "ConfigMap"})),
        ("requestResource", json!({"group": "", "version": "v1", "resource": "configmaps"})),
        ("name", json!("a")),
        ("namespace", json!("default")),
        ("operation", json!("CREATE")),
        ("oldObject", Value::Null),
        ("dryRun", json!(false)),
        ("options", json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me"})),
        (
            "userInfo",
            json!({"username": "system:apiserver", "groups": ["system:authenticated", "system:masters"]}),
        ),
    ] {
        assert_eq!(request[field], expected, "{field}");
    }
    assert_eq!(request["object"]["data"], json!({"a": "1"}));
    assert!(request["object"]["metadata"]["uid"].is_string(), "{request}");
    let mut changed = map("a");
    changed["data"]["a"] = json!("2");
    assert_eq!(lab.send("PUT", &format!("{MAPS}/a"), &changed).await.code, 200);
    let (_, review) = lab.take_asked().remove(0);
    assert_eq!(review["request"]["oldObject"]["data"], json!({"a": "1"}));
    assert_eq!(
        review["request"]["options"],
        json!({"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"})
    );
    assert_eq!(lab.send("DELETE", &format!("{MAPS}/a"), &json!({"gracePeriodSeconds": 0})).await.code, 200);
    let (_, review) = lab.take_asked().remove(0);
    assert_eq!(
        (&review["request"]["operation"], &review["request"]["object"]),
        (&json!("DELETE"), &Value::Null)
    );
    assert_eq!(review["request"]["oldObject"]["data"], json!({"a": "2"}));
    assert_eq!(review["request"]["options"]["gracePeriodSeconds"], 0);
    lab.forget(VALIDATING, "v").await;

    lab.hooks(VALIDATING, "v", &["/allow", "/deny"], json!({"failurePolicy": "Ignore"})).await;
    let answer = lab.send("POST", MAPS, &map("a")).await;
    says(&answer, 403, "admission webhook \"deny.example.com\" denied the request: not today");
    assert_eq!(answer.json()["reason"], "Forbidden");
    lab.forget(VALIDATING, "v").await;
    lab.hooks(MUTATING, "m", &["/deny-silently"], json!({})).await;
    let answer = lab.send("POST", MAPS, &map("a")).await;
    says(
        &answer,
        400,
        "admission webhook \"deny-silently.example.com\" denied the request without explanation",
    );
    // Whoever wrote a configuration that refuses everything can take it back.
    let all = json!([{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"]}]);
    let patch = json!([{"op": "replace", "path": "/webhooks/0/rules", "value": all}]).to_string();
    let headers = [("content-type", "application/json-patch+json")];
    let answer = http(&lab.cluster.server, "PATCH", &format!("{MUTATING}/m"), &headers, patch).await;
    assert_eq!(answer.code, 200, "{}", answer.json());
    assert_eq!(lab.send("DELETE", &format!("{MUTATING}/m"), &json!({})).await.code, 200);
    lab.end().await;
}

#[tokio::test]
async fn connections_are_admitted_with_their_options() {
    let lab = Lab::new().await;
    let rules = json!({"rules": [{
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"],
        "resources": ["pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "services/proxy", "nodes/proxy"],
    }]});
    lab.hooks(VALIDATING, "v", &["/allow"], rules.clone()).await;
    let pod = "/api/v1/namespaces/default/pods/p";
    let exec = json!({
        "kind": "PodExecOptions", "apiVersion": "v1", "stdin": true, "stdout": true, "container": "c", "command": ["a", "b"],
    });
    let cases = [
        (
            "POST",
            format!("{pod}/exec?stdin=true&stdout=1&stderr=false&container=c&command=a&command=b"),
            ("pods", "exec", "p", "default"),
            exec,
        ),
        (
            "GET",
            format!("{pod}/exec"),
            ("pods", "exec", "p", "default"),
            json!({"kind": "PodExecOptions", "apiVersion": "v1", "command": null}),
        ),
        (
            "GET",
            format!("{pod}/attach?tty=true"),
            ("pods", "attach", "p", "default"),
            json!({"kind": "PodAttachOptions", "apiVersion": "v1", "tty": true}),
        ),
        (
            "POST",
            format!("{pod}/portforward?ports=80&ports=81"),
            ("pods", "portforward", "p", "default"),
            json!({"kind": "PodPortForwardOptions", "apiVersion": "v1", "ports": [80, 81]}),
        ),
        (
            "GET",
            format!("{pod}/proxy/x/y?z=1"),
            ("pods", "proxy", "p", "default"),
            json!({"kind": "PodProxyOptions", "apiVersion": "v1", "path": "/x/y"}),
        ),
        (
            "DELETE",
            "/api/v1/namespaces/default/services/https:s:80/proxy/x".to_owned(),
            ("services", "proxy", "https:s:80", "default"),
            json!({"kind": "ServiceProxyOptions", "apiVersion": "v1", "path": "/x"}),
        ),
        (
            "PUT",
            "/api/v1/nodes/n/proxy/metrics".to_owned(),
            ("nodes", "proxy", "n", ""),
            json!({"kind": "NodeProxyOptions", "apiVersion": "v1", "path": "/metrics"}),
        ),
    ];
    for (method, path, (resource, subresource, name, namespace), options) in &cases {
        // There is nothing to connect to, which is found out after admission.
        let answer = http(&lab.cluster.server, method, path, &[], "").await;
        assert!(answer.code >= 400, "{path} {}", answer.code);
        let asked = lab.take_asked();
        assert_eq!(asked.len(), 1, "{path}");
        let request = &asked[0].1["request"];
        for (field, expected) in [
            ("operation", json!("CONNECT")),
            ("object", options.clone()),
            ("oldObject", Value::Null),
            ("kind", json!({"group": "", "version": "v1", "kind": options["kind"]})),
            ("resource", json!({"group": "", "version": "v1", "resource": resource})),
            ("subResource", json!(subresource)),
            ("requestSubResource", json!(subresource)),
            ("name", json!(name)),
            ("options", Value::Null),
        ] {
            assert_eq!(request[field], expected, "{path} {field}");
        }
        assert_eq!(request["namespace"].as_str().unwrap_or_default(), *namespace, "{path}");
    }
    lab.forget(VALIDATING, "v").await;
    lab.hooks(VALIDATING, "v", &["/deny"], rules).await;
    for (method, path, ..) in &cases {
        let answer = http(&lab.cluster.server, method, path, &[], "").await;
        says(&answer, 403, "admission webhook \"deny.example.com\" denied the request: not today");
    }
    lab.end().await;
}

#[tokio::test]
async fn webhooks_that_fail_are_passed_over_or_not() {
    let lab = Lab::new().await;
    let address = format!("https://localhost:{}", lab.hook.address.port());
    let failed = |path: &str, why: &str| {
        format!("Internal error occurred: failed calling webhook \"{path}.example.com\": {why}")
    };
    let post = |path: &str| format!("failed to call webhook: Post \"{address}/{path}?timeout=1s\": ");
    let invalid = "received invalid webhook response: ";
    let table = [
        ("hang", MUTATING, post("hang") + "context deadline exceeded"),
        ("hang", VALIDATING, post("hang") + "context deadline exceeded"),
        ("garbage", VALIDATING, "failed to call webhook: couldn't get version/kind; json parse error: json: cannot unmarshal string into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }".to_owned()),
        ("empty", VALIDATING, format!("{invalid}webhook response was absent")),
        ("patch-while-validating", VALIDATING, format!("{invalid}validating webhook may not return response.patch")),
        ("no-patch", MUTATING, "received undecodable patch in webhook response: unexpected end of JSON input".to_owned()),
        ("lie", MUTATING, format!("{invalid}expected response.uid=\"…\", got \"somebody else's\"")),
    ];
    for (path, kind, why) in table {
        lab.hooks(kind, "x", &[&format!("/{path}")], json!({})).await;
        let answer = lab.send("POST", MAPS, &map("a")).await;
        let status = answer.json();
        let mut message = status["message"].as_str().unwrap_or("").to_owned();
        if path == "lie" {
            let uid = lab.take_asked()[0].1["request"]["uid"].as_str().unwrap_or("").to_owned();
            message = message.replace(&uid, "…");
        }
        assert_eq!((answer.code, message), (500, failed(path, &why)));
        assert_eq!(status["reason"], "InternalError");
        lab.forget(kind, "x").await;
        lab.hooks(kind, "x", &[&format!("/{path}")], json!({"failurePolicy": "Ignore"})).await;
        let answer = lab.send("POST", &format!("{MAPS}?dryRun=All"), &map("a")).await;
        assert_eq!(answer.code, 201, "{path}: {}", answer.json());
        lab.forget(kind, "x").await;
    }
    lab.end().await;
}

#[tokio::test]
async fn webhooks_change_objects_one_after_the_other_and_once_more() {
    let lab = Lab::new().await;
    // Sorted by name: `a` sees what `b` did only because it is called again.
    lab.hooks(MUTATING, "a", &["/second"], json!({"reinvocationPolicy": "IfNeeded"})).await;
    lab.hooks(MUTATING, "b", &["/first"], json!({})).await;
    let answer = lab.send("POST", MAPS, &map("a")).await;
    assert_eq!(
        answer.json()["data"],
        json!({"a": "1", "first": "yes", "second": "yes"}),
        "{}",
        answer.json()
    );
    let paths: Vec<String> = lab.take_asked().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["/second", "/first", "/second"]);
    lab.forget(MUTATING, "b").await;
    lab.forget(MUTATING, "a").await;

    lab.hooks(MUTATING, "a", &["/break-it"], json!({})).await;
    let answer = lab.send("POST", MAPS, &map("b")).await;
    assert_eq!(answer.code, 422, "{}", answer.json());
    let message = answer.json()["message"].as_str().unwrap_or("").to_owned();
    assert!(message.starts_with("ConfigMap \"b\" is invalid: metadata.labels"), "{message}");
    lab.forget(MUTATING, "a").await;
    lab.hooks(MUTATING, "a", &["/no-place"], json!({})).await;
    says(
        &lab.send("POST", MAPS, &map("b")).await,
        500,
        "Internal error occurred: add operation does not apply: doc is missing path: \"/spec/a/b\": missing value",
    );
    says(
        &lab.send("DELETE", &format!("{MAPS}/a"), &json!({})).await,
        500,
        "Internal error occurred: admission webhook \"no-place.example.com\" attempted to modify the object, which is not supported for this operation",
    );
    lab.end().await;
}

#[tokio::test]
async fn selectors_dry_runs_and_versions_decide_who_is_asked() {
    let lab = Lab::new().await;
    let labelled = |value: &str| json!({"matchLabels": {"team": value}});
    let table = [
        (json!({"namespaceSelector": labelled("a")}), true),
        (json!({"namespaceSelector": labelled("b")}), false),
        (json!({"objectSelector": labelled("a")}), false),
        (
            json!({"rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["*"], "operations": ["CREATE"], "scope": "Namespaced"}]}),
            true,
        ),
        (
            json!({"rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["*"], "operations": ["CREATE"], "scope": "Cluster"}]}),
            false,
        ),
        (
            json!({"rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps/*"], "operations": ["CREATE"]}]}),
            true,
        ),
        (
            json!({"rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["UPDATE"]}]}),
            false,
        ),
    ];
    for (more, expected) in table {
        lab.hooks(VALIDATING, "v", &["/deny"], more.clone()).await;
        let answer = lab.send("POST", &format!("{MAPS}?dryRun=All"), &map("a")).await;
        assert_eq!(answer.code, if expected { 403 } else { 201 }, "{more}: {}", answer.json());
        lab.forget(VALIDATING, "v").await;
    }
    // An Event of the one group is an Event of the other.
    let rules = json!([{"apiGroups": ["events.k8s.io"], "apiVersions": ["v1"], "resources": ["events"], "operations": ["CREATE"]}]);
    lab.hooks(VALIDATING, "v", &["/allow"], json!({"rules": rules})).await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default", "name": "x"}, "message": "hm", "reason": "Why", "type": "Normal"});
    let answer = lab.send("POST", "/api/v1/namespaces/default/events", &event).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    let asked = lab.take_asked();
    let request = &asked[0].1["request"];
    assert_eq!(
        (&request["object"]["note"], &request["object"]["apiVersion"]),
        (&json!("hm"), &json!("events.k8s.io/v1"))
    );
    assert_eq!(
        (&request["kind"]["group"], &request["requestKind"]["group"]),
        (&json!("events.k8s.io"), &json!(""))
    );
    lab.forget(VALIDATING, "v").await;

    lab.hooks(VALIDATING, "v", &["/allow"], json!({"admissionReviewVersions": ["v0", "v1beta1"]})).await;
    assert_eq!(lab.send("POST", MAPS, &map("b")).await.code, 201);
    assert_eq!(lab.take_asked()[0].1["apiVersion"], "admission.k8s.io/v1beta1");
    lab.end().await;
}

#[tokio::test]
async fn bodies_of_other_kinds_are_shown_as_what_they_are() {
    let lab = Lab::new().await;
    let rules = json!([{"apiGroups": ["apps", ""], "apiVersions": ["v1"], "resources": ["deployments/scale", "serviceaccounts/token"], "operations": ["*"]}]);
    lab.hooks(VALIDATING, "v", &["/allow"], json!({"rules": rules})).await;
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let answer = lab.send("POST", deployments, &deployment).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    let scale = json!({"metadata": {"name": "d", "namespace": "default"}, "spec": {"replicas": 3}});
    let answer = lab.send("PUT", &format!("{deployments}/d/scale"), &scale).await;
    assert_eq!(answer.code, 200, "{}", answer.json());
    let asked = lab.take_asked();
    let request = &asked[0].1["request"];
    assert_eq!(request["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(request["resource"], json!({"group": "apps", "version": "v1", "resource": "deployments"}));
    assert_eq!(
        (&request["subResource"], &request["object"]["spec"]["replicas"]),
        (&json!("scale"), &json!(3))
    );
    assert_eq!(request["oldObject"]["spec"]["replicas"], 1);
    lab.end().await;
}
