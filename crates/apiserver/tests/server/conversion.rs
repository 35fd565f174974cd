//! Several versions of a custom resource and the webhook that converts them.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_apiserver::testing::hook::{self, Handle, Hook};
use gantry_apiserver::testing::respond;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::{Lab, refused};

pub(crate) const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub(crate) const V1: &str = "/apis/example.com/v1/namespaces/default/hosts";
pub(crate) const V2: &str = "/apis/example.com/v2/namespaces/default/hosts";

/// v1 has `hostPort`, v2 `host` and `port`.
fn convert(object: &Value, to: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!(to);
    if to.ends_with("v2") {
        let (host, port) =
            object["spec"]["hostPort"].as_str().and_then(|t| t.split_once(':')).unwrap_or(("", ""));
        object["spec"] = json!({"host": host, "port": port});
    } else {
        let text = |name: &str| object["spec"][name].as_str().unwrap_or("").to_owned();
        object["spec"] = json!({"hostPort": format!("{}:{}", text("host"), text("port"))});
    }
    if object["metadata"]["name"] == "bad" {
        object["metadata"]["name"] = json!("worse");
    }
    object
}

async fn converter(lab: &Lab) -> Hook {
    let handle: Handle = Arc::new(|request: Request<Bytes>| {
        Box::pin(async move {
            let mut review: Value = serde_json::from_slice(request.body()).ok()?;
            let asked = review["request"].take();
            let to = asked["desiredAPIVersion"].as_str()?;
            let all = asked["objects"].as_array()?.iter();
            let result = match all.clone().any(|o| o["metadata"]["name"] == "no") {
                true => json!({"status": "Failure", "message": "will not"}),
                false => json!({"status": "Success"}),
            };
            let converted: Vec<Value> = all.map(|o| convert(o, to)).collect();
            review["response"] =
                json!({"uid": asked["uid"], "result": result, "convertedObjects": converted});
            Some(hook::json(&review))
        })
    });
    Hook::start(&["localhost"], handle, &lab.tasks).await
}

pub(crate) fn definition(hook: &Hook) -> Value {
    let version = |name: &str, storage: bool, fields: &[&str]| {
        let properties: serde_json::Map<String, Value> =
            fields.iter().map(|f| ((*f).to_owned(), json!({"type": "string"}))).collect();
        let selectable: Vec<Value> =
            fields.iter().map(|f| json!({"jsonPath": format!(".spec.{f}")})).collect();
        json!({"name": name, "served": true, "storage": storage, "selectableFields": selectable,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}}})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "hosts.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "hosts", "kind": "Host"},
            "versions": [version("v1", true, &["hostPort"]), version("v2", false, &["host", "port"])],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {
                "url": format!("https://localhost:{}/convert", hook.address.port()), "caBundle": STANDARD.encode(&hook.ca_pem)}}}}})
}

pub(crate) async fn established(lab: &Lab) {
    for _ in 0..500 {
        if lab.get(V2).await.code == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the definition is not served");
}

pub(crate) fn host(version: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Host", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_webhook_converts_whatever_is_read_and_written() {
    let lab = Lab::new().await;
    let hook = converter(&lab).await;
    lab.create(CRDS, &definition(&hook)).await;
    established(&lab).await;
    lab.create(V1, &host("v1", "a", json!({"hostPort": "one:80"}))).await;
    let made = lab.create(V2, &host("v2", "b", json!({"host": "two", "port": "443"}))).await;
    assert_eq!(made["spec"], json!({"host": "two", "port": "443"}));
    assert_eq!(lab.get(&format!("{V1}/b")).await.json()["spec"], json!({"hostPort": "two:443"}));
    let read = lab.get(&format!("{V2}/a")).await.json();
    assert_eq!(
        (&read["apiVersion"], &read["spec"]),
        (&json!("example.com/v2"), &json!({"host": "one", "port": "80"}))
    );
    let list = lab.get(V2).await.json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(list["items"][1]["spec"]["host"], "two");

    let selected = lab.get(&format!("{V2}?fieldSelector=spec.host%3Dtwo")).await.json();
    assert_eq!(selected["items"].as_array().map(Vec::len), Some(1), "{selected}");
    let answer = lab.get(&format!("{V2}?fieldSelector=spec.hostPort%3Done:80")).await;
    assert_eq!(answer.code, 400, "{}", answer.json());

    let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or("").to_owned();
    let path = format!("{V2}?watch=true&fieldSelector=spec.host%3Dtwo&resourceVersion={revision}");
    let mut watch = respond(&lab.server, "GET", &path, &[], "").await.into_body();
    let patch = |host: &str| json!({"spec": {"host": host}});
    for host in ["three", "two"] {
        let answer = lab.patch(&format!("{V2}/b"), "merge-patch+json", &patch(host)).await;
        assert_eq!(answer.code, 200, "{}", answer.json());
    }
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let frame = watch.frame().await.expect("an event").expect("a whole one").into_data().expect("data");
        for line in frame.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let event: Value = serde_json::from_slice(line).expect("JSON");
            assert_eq!(event["object"]["apiVersion"], "example.com/v2", "{event}");
            seen.push(event["type"].as_str().unwrap_or("").to_owned());
        }
    }
    assert_eq!(seen, ["DELETED", "ADDED"]);
    let apply = host("v2", "b", json!({"host": "four"}));
    let answer = lab.patch(&format!("{V2}/b?fieldManager=me&force=true"), "apply-patch+yaml", &apply).await;
    assert_eq!(answer.json()["spec"], json!({"host": "four", "port": "443"}), "{}", answer.json());
    assert_eq!(lab.get(&format!("{V1}/b")).await.json()["spec"]["hostPort"], "four:443");
    lab.end().await;
}

#[tokio::test]
async fn a_webhook_that_lies_or_refuses_is_named() {
    let lab = Lab::new().await;
    let hook = converter(&lab).await;
    lab.create(CRDS, &definition(&hook)).await;
    established(&lab).await;
    let failed = "conversion webhook for example.com/v2, Kind=Host";
    let spec = json!({"host": "x", "port": "1"});
    refused(
        &lab.send("POST", V2, &host("v2", "no", spec.clone())).await,
        500,
        "",
        &format!("{failed} failed: will not"),
    );
    refused(
        &lab.send("POST", V2, &host("v2", "bad", spec)).await,
        500,
        "",
        &format!("{failed} returned invalid object: must have the same name: bad != worse"),
    );
    lab.end().await;
}

/// `manager apiVersion fields` of each entry.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries
        .map(|e| {
            let text = |key: &str| e[key].as_str().unwrap_or("-");
            format!("{} {} {}", text("manager"), text("apiVersion"), e["fieldsV1"])
        })
        .collect()
}

#[tokio::test]
async fn who_writes_in_one_version_takes_from_the_managers_of_another() {
    let lab = Lab::new().await;
    let hook = converter(&lab).await;
    lab.create(CRDS, &definition(&hook)).await;
    established(&lab).await;
    let (v1, v2) = (format!("{V1}/a"), format!("{V2}/a"));
    let apply = async |path: &str, manager: &str, object: Value| {
        lab.patch(&format!("{path}?fieldManager={manager}"), "apply-patch+yaml", &object).await
    };
    let made = apply(&v1, "first", host("v1", "a", json!({"hostPort": "one:80"}))).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let shared = apply(&v2, "second", host("v2", "a", json!({"host": "one"}))).await.json();
    let own = "first example.com/v1 {\"f:spec\":{\"f:hostPort\":{}}}";
    assert!(managers(&shared).contains(&own.to_owned()), "{shared}");

    // A new port is another `hostPort`.
    let path = format!("{v2}?fieldManager=third");
    let changed = lab.patch(&path, "merge-patch+json", &json!({"spec": {"port": "443"}})).await.json();
    let left = [
        "second example.com/v2 {\"f:spec\":{\"f:host\":{}}}",
        "third example.com/v2 {\"f:spec\":{\"f:port\":{}}}",
    ];
    assert_eq!(managers(&changed), left, "{changed}");

    // Each conflict is told in the version of whom it is with.
    let other = apply(&v1, "first", host("v1", "a", json!({"hostPort": "two:1"}))).await;
    let why = "Apply failed with 2 conflicts: conflicts with \"second\":\n- .spec.host\nconflicts with \"third\" using example.com/v2:\n- .spec.port";
    refused(&other, 409, "Conflict", why);
    let forced = lab
        .patch(
            &format!("{v1}?fieldManager=first&force=true"),
            "apply-patch+yaml",
            &host("v1", "a", json!({"hostPort": "two:1"})),
        )
        .await;
    assert_eq!(managers(&forced.json()), [own], "{}", forced.json());

    // What was applied in one version and is not any more in another goes.
    let path = format!("{V2}/b");
    let mut labeled = host("v2", "b", json!({"host": "one", "port": "80"}));
    labeled["metadata"]["labels"] = json!({"a": "b"});
    let made = apply(&path, "first", labeled).await;
    assert_eq!(made.json()["metadata"]["labels"], json!({"a": "b"}), "{}", made.json());
    let pruned =
        apply(&format!("{V1}/b"), "first", host("v1", "b", json!({"hostPort": "one:80"}))).await.json();
    let left = (&pruned["metadata"]["labels"], &pruned["spec"]);
    assert_eq!(left, (&Value::Null, &json!({"hostPort": "one:80"})), "{pruned}");
    assert_eq!(managers(&pruned), [own]);
    lab.end().await;
}

#[tokio::test]
async fn entries_follow_a_definition_whose_list_becomes_atomic() {
    let lab = Lab::new().await;
    let schema = |list: Value| {
        let mut items = json!({"type": "array", "items": {"type": "object", "required": ["name"],
            "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}});
        items.as_object_mut().expect("an object").extend(list.as_object().expect("an object").clone());
        json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}, "items": items}}}}}}])
    };
    let keyed = schema(json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}));
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "hosts.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "hosts", "kind": "Host"}, "versions": keyed}});
    lab.create(CRDS, &crd).await;
    let path = format!("{V1}/a?fieldManager=me");
    let config = host("v1", "a", json!({"items": [{"name": "x", "port": 1}]}));
    let mut made = lab.patch(&path, "apply-patch+yaml", &config).await;
    for _ in 0..500 {
        if made.code == 201 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        made = lab.patch(&path, "apply-patch+yaml", &config).await;
    }
    let fine = "me example.com/v1 {\"f:spec\":{\"f:items\":{\"k:{\\\"name\\\":\\\"x\\\"}\":{\".\":{},\"f:name\":{},\"f:port\":{}}}}}";
    assert_eq!(managers(&made.json()), [fine]);
    let atomic = json!({"spec": {"versions": schema(json!({"x-kubernetes-list-type": "atomic"}))}});
    let answer = lab.patch(&format!("{CRDS}/hosts.example.com"), "merge-patch+json", &atomic).await;
    assert_eq!(answer.code, 200, "{}", answer.json());
    let whole = "me example.com/v1 {\"f:spec\":{\"f:items\":{}}}".to_owned();
    let (path, mut size) = (format!("{V1}/a?fieldManager=you"), 0);
    loop {
        size += 1;
        let changed = lab.patch(&path, "merge-patch+json", &json!({"spec": {"size": size}})).await.json();
        if managers(&changed).contains(&whole) {
            break;
        }
        assert!(size < 500, "{changed}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    lab.end().await;
}
