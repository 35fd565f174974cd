//! Servers behind this one: APIServices.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_apiserver::testing::hook::{self, Handle, Hook};
use gantry_apiserver::testing::http;
use gantry_base::Tasks;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::Lab;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const THINGS: &str = "/apis/ext.example.com/v1/namespaces/default/things";

async fn server(lab: &Lab) -> Hook {
    publishing(&lab.tasks, Arc::new(AtomicUsize::new(1))).await
}

/// A server whose v2 document is of this edition, which ends with these tasks.
async fn publishing(tasks: &Tasks, edition: Arc<AtomicUsize>) -> Hook {
    let handle: Handle = Arc::new(move |request: Request<Bytes>| {
        let edition = edition.load(Ordering::SeqCst);
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let header = |name: &str| -> Vec<String> {
                let all = request.headers().get_all(name).iter();
                all.filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
            };
            Some(match path.as_str() {
                "/apis/ext.example.com/v1" => hook::json(
                    &json!({"kind": "APIResourceList", "groupVersion": "ext.example.com/v1", "resources": [
                    {"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": ["get", "list"]},
                    {"name": "things/status", "singularName": "", "namespaced": true, "kind": "Thing", "verbs": ["get"]}]}),
                ),
                "/openapi/v2" if header("if-none-match") == [format!("\"{edition}\"")] => {
                    Response::builder().status(304).body(Bytes::new()).ok()?
                }
                "/openapi/v2" => {
                    let mut document = hook::json(
                        &json!({"swagger": "2.0", "paths": {"/apis/ext.example.com/v1/things": {}, "/version": {}},
                        "definitions": {"com.example.Thing": {"type": "object", "description": format!("edition {edition}")}}}),
                    );
                    let tag = format!("\"{edition}\"").parse().expect("a header");
                    document.headers_mut().insert("etag", tag);
                    document
                }
                "/openapi/v3" => hook::json(
                    &json!({"paths": {"apis/ext.example.com/v1": {"serverRelativeURL": "/openapi/v3/apis/ext.example.com/v1?hash=ABC"}}}),
                ),
                "/openapi/v3/apis/ext.example.com/v1" => hook::json(&json!({"openapi": "3.0.0"})),
                "/apis/ext.example.com/v1/hang" => std::future::pending().await,
                "/apis/ext.example.com/v1/moved" => Response::builder()
                    .status(302)
                    .header("location", "/elsewhere")
                    .body(Bytes::new())
                    .ok()?,
                THINGS => {
                    hook::json(&json!({"method": request.method().as_str(), "query": request.uri().query(),
                    "user": header("x-remote-user"), "groups": header("x-remote-group"), "auth": header("authorization"),
                    "impersonate": header("x-remote-extra-evil"), "body": String::from_utf8_lossy(request.body())}))
                }
                _ => Response::builder().status(404).body(Bytes::from_static(b"nothing")).ok()?,
            })
        })
    });
    Hook::start(&["ext.default.svc"], handle, tasks).await
}

fn service(hook: &Hook) -> Value {
    json!({"metadata": {"name": "v1.ext.example.com"}, "spec": {"group": "ext.example.com", "version": "v1",
        "groupPriorityMinimum": 19000, "versionPriority": 15, "caBundle": STANDARD.encode(&hook.ca_pem),
        "service": {"namespace": "default", "name": "ext", "port": hook.address.port()}}})
}

async fn condition(lab: &Lab, reason: &str) -> String {
    for _ in 0..1000 {
        let object = lab.get(&format!("{SERVICES}/v1.ext.example.com")).await.json();
        let condition = &object["status"]["conditions"][0];
        if condition["reason"] == reason {
            return condition["message"].as_str().unwrap_or("").to_owned();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{}", lab.get(&format!("{SERVICES}/v1.ext.example.com")).await.json());
}

#[tokio::test]
async fn a_server_behind_is_checked_passed_to_and_merged() {
    let lab = Lab::new().await;
    let hook = server(&lab).await;
    lab.create(SERVICES, &service(&hook)).await;
    assert_eq!(condition(&lab, "ServiceNotFound").await, "service/ext in \"default\" is not present");
    let answer = lab.get(THINGS).await;
    assert_eq!((answer.code, &answer.bytes[..]), (503, &b"service unavailable\n"[..]));

    let spec =
        json!({"metadata": {"name": "ext"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    lab.create("/api/v1/namespaces/default/services", &spec).await;
    assert_eq!(condition(&lab, "Passed").await, "all checks passed");
    for _ in 0..1000 {
        if lab.get(THINGS).await.code == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let headers = [("authorization", "Bearer secret"), ("x-remote-extra-evil", "yes")];
    let seen = http(&lab.server, "POST", &format!("{THINGS}?a=b%20c"), &headers, "{\"x\":1}").await.json();
    let expected = json!({"method": "POST", "query": "a=b%20c", "user": ["system:apiserver"],
        "groups": ["system:authenticated", "system:masters"], "auth": [], "impersonate": [], "body": "{\"x\":1}"});
    assert_eq!(seen, expected);
    assert_eq!(lab.get("/apis/ext.example.com/v1/nothing").await.code, 404);
    assert_eq!(lab.get("/apis/ext.example.com/v1/moved").await.code, 502);

    let groups = lab.get("/apis").await.json();
    let names: Vec<&str> =
        groups["groups"].as_array().into_iter().flatten().filter_map(|g| g["name"].as_str()).collect();
    assert_eq!(names[..3], ["apiregistration.k8s.io", "ext.example.com", "apps"], "{names:?}");
    assert_eq!(lab.get("/apis/ext.example.com").await.json()["preferredVersion"]["version"], "v1");
    assert_eq!(lab.get("/apis/ext.example.com/v1").await.json()["resources"][0]["name"], "things");
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let all = http(&lab.server, "GET", "/apis", &accept, "").await.json();
    let mut items = all["items"].as_array().into_iter().flatten();
    let found = items.find(|g| g["metadata"]["name"] == "ext.example.com").expect("the group");
    assert_eq!(found["versions"][0]["freshness"], "Current");
    assert_eq!(found["versions"][0]["resources"][0]["subresources"][0]["subresource"], "status", "{found}");
    let v2 = lab.get("/openapi/v2").await.json();
    assert!(v2["definitions"]["com.example.Thing"].is_object());
    assert!(v2["paths"]["/apis/ext.example.com/v1/things"].is_object() && v2["paths"]["/version"].is_null());
    let index = lab.get("/openapi/v3").await.json();
    assert_eq!(
        index["paths"]["apis/ext.example.com/v1"]["serverRelativeURL"],
        "/openapi/v3/apis/ext.example.com/v1?hash=ABC"
    );
    assert_eq!(lab.get("/openapi/v3/apis/ext.example.com/v1").await.json()["openapi"], "3.0.0");

    assert_eq!(lab.send("DELETE", &format!("{SERVICES}/v1.ext.example.com"), &json!({})).await.code, 200);
    for _ in 0..1000 {
        if lab.get("/apis/ext.example.com").await.code == 404 {
            return lab.end().await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the group is still there");
}

/// Asks until the answer has this code.
async fn until(lab: &Lab, path: &str, code: u16) -> gantry_apiserver::testing::Answered {
    for _ in 0..1000 {
        let answer = lab.get(path).await;
        if answer.code == code {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{path} is never answered with {code}: {:?}", lab.get(path).await);
}

/// Makes the controller look at the service again, now.
async fn touch(lab: &Lab) {
    let path = format!("{SERVICES}/v1.ext.example.com");
    let patch =
        json!({"metadata": {"annotations": {"touched": format!("{:?}", std::thread::current().id())}}});
    assert_eq!(lab.patch(&path, "merge-patch+json", &patch).await.code, 200);
}

async fn named_service(lab: &Lab) {
    let spec =
        json!({"metadata": {"name": "ext"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    lab.create("/api/v1/namespaces/default/services", &spec).await;
}

#[tokio::test]
async fn a_server_that_vanishes_is_missed() {
    let lab = Lab::new().await;
    let theirs = Tasks::new();
    let hook = publishing(&theirs, Arc::new(AtomicUsize::new(1))).await;
    named_service(&lab).await;
    lab.create(SERVICES, &service(&hook)).await;
    assert_eq!(condition(&lab, "Passed").await, "all checks passed");
    until(&lab, THINGS, 200).await;
    // A request and a watch are under way when it goes.
    let hanging = "/apis/ext.example.com/v1/hang";
    let watching = format!("{hanging}?watch=true");
    let going = async {
        // Both have been sent when a third one has been answered.
        assert_eq!(lab.get(THINGS).await.code, 200);
        theirs.shut_down(Duration::ZERO).await;
    };
    let (request, watch, ()) = tokio::join!(lab.get(hanging), lab.get(&watching), going);
    for answer in [request, watch] {
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert_eq!(answer.code, 503, "{text}");
        assert!(text.starts_with("error trying to reach service: "), "{text}");
    }
    touch(&lab).await;
    let why = condition(&lab, "FailedDiscoveryCheck").await;
    let url = format!("https://ext.default.svc:{}/apis/ext.example.com/v1", hook.address.port());
    assert!(
        why.starts_with(&format!("failing or missing response from {url}: Get \"{url}\": dial tcp ")),
        "{why}"
    );
    let answer = until(&lab, THINGS, 503).await;
    assert_eq!(&answer.bytes[..], b"service unavailable\n");
    // The group stays, and says that it is stale.
    let groups = lab.get("/apis").await.json();
    assert!(groups["groups"].as_array().is_some_and(|g| g.iter().any(|g| g["name"] == "ext.example.com")));
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let all = http(&lab.server, "GET", "/apis", &accept, "").await.json();
    let mut items = all["items"].as_array().into_iter().flatten();
    let found = items.find(|g| g["metadata"]["name"] == "ext.example.com").expect("the group");
    assert_eq!(found["versions"][0]["freshness"], "Stale", "{found}");
    lab.end().await;
}

#[tokio::test]
async fn a_server_whose_documents_are_garbage_spoils_nothing() {
    let lab = Lab::new().await;
    let handle: Handle = Arc::new(|request: Request<Bytes>| {
        Box::pin(async move {
            Some(match request.uri().path() {
                "/apis/ext.example.com/v1" => Response::new(Bytes::from_static(b"garbage")),
                "/openapi/v2" => hook::json(&json!({"paths": 7, "definitions": ["x"], "parameters": null})),
                "/openapi/v3" => hook::json(&json!({"paths": {"apis/ext.example.com/v1": "x"}})),
                _ => Response::new(Bytes::from_static(b"{\"resources\": 7}")),
            })
        })
    });
    let hook = Hook::start(&["ext.default.svc"], handle, &lab.tasks).await;
    named_service(&lab).await;
    lab.create(SERVICES, &service(&hook)).await;
    assert_eq!(condition(&lab, "Passed").await, "all checks passed");
    until(&lab, THINGS, 200).await;
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let all = http(&lab.server, "GET", "/apis", &accept, "").await.json();
    let mut items = all["items"].as_array().into_iter().flatten();
    let found = items.find(|g| g["metadata"]["name"] == "ext.example.com").expect("the group");
    assert_eq!(
        (&found["versions"][0]["freshness"], found["versions"][0].get("resources")),
        (&json!("Stale"), None)
    );
    let v2 = lab.get("/openapi/v2").await.json();
    assert!(v2["paths"].is_object() && v2["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    assert!(lab.get("/openapi/v3").await.json()["paths"]["api/v1"].is_object());
    assert_eq!(lab.get("/api/v1/namespaces").await.code, 200);
    lab.end().await;
}

#[tokio::test]
async fn what_a_server_behind_publishes_is_asked_for_again() {
    let lab = Lab::new().await;
    let edition = Arc::new(AtomicUsize::new(1));
    let hook = publishing(&lab.tasks, Arc::clone(&edition)).await;
    let spec =
        json!({"metadata": {"name": "ext"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    lab.create("/api/v1/namespaces/default/services", &spec).await;
    lab.create(SERVICES, &service(&hook)).await;
    for wanted in ["edition 1", "edition 2"] {
        let mut rounds = 0;
        loop {
            let document = lab.get("/openapi/v2").await.json();
            if document["definitions"]["com.example.Thing"]["description"] == wanted {
                break;
            }
            rounds += 1;
            assert!(rounds < 1000, "{wanted} never comes");
            // A change of the APIService makes the server look again, as time does.
            let patch = json!({"metadata": {"annotations": {"round": rounds.to_string()}}});
            lab.patch(&format!("{SERVICES}/v1.ext.example.com"), "merge-patch+json", &patch).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        edition.store(2, Ordering::SeqCst);
    }
    lab.end().await;
}

#[tokio::test]
async fn what_is_served_here_has_an_apiservice_too() {
    let lab = Lab::new().await;
    let wanted = async |name: &str| {
        for _ in 0..1000 {
            let answer = lab.get(&format!("{SERVICES}/{name}")).await;
            if answer.code == 200 {
                return answer.json();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("there is no {name}");
    };
    let apps = wanted("v1.apps").await;
    assert_eq!(apps["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    assert_eq!(
        apps["spec"],
        json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15})
    );
    let condition = &apps["status"]["conditions"][0];
    assert_eq!((&condition["reason"], &condition["status"]), (&json!("Local"), &json!("True")));
    wanted("v1.").await;
    // One that was deleted comes back.
    assert_eq!(lab.send("DELETE", &format!("{SERVICES}/v1.apps"), &json!({})).await.code, 200);
    wanted("v1.apps").await;
    lab.end().await;
}
