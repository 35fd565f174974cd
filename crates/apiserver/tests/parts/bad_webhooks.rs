//! Webhooks that answer with the wrong thing, change what nobody may change, or are not there.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_apiserver::limits::MAX_CALL_ANSWER_BYTES;
use gantry_apiserver::testing::hook;
use http::Response;
use serde_json::{Value, json};

use crate::webhooks::{Lab, MAPS, MUTATING, VALIDATING, map, says};

/// What is answered on paths where the answer is no proper review.
pub(crate) fn raw(path: &str, review: &Value) -> Option<Response<Bytes>> {
    let coded = |code: u16, body: &'static str| {
        Response::builder().status(code).body(Bytes::from_static(body.as_bytes())).ok()
    };
    let uid = &review["request"]["uid"];
    let yes = json!({"uid": uid, "allowed": true});
    let typed = |kind: &str, version: &str, response: Value| {
        Some(hook::json(&json!({"kind": kind, "apiVersion": version, "response": response})))
    };
    let patched = |patch: Value| {
        let patch = STANDARD.encode(patch.to_string());
        typed(
            "AdmissionReview",
            "admission.k8s.io/v1",
            json!({"uid": uid, "allowed": true, "patchType": "JSONPatch", "patch": patch}),
        )
    };
    let set = |path: &str, value: Value| patched(json!([{"op": "add", "path": path, "value": value}]));
    match path {
        "/broken" => coded(500, "on fire\n"),
        "/unavailable" => coded(503, ""),
        "/moved" => Response::builder().status(302).header("location", "/allow").body(Bytes::new()).ok(),
        "/oversized" => Some(Response::new(Bytes::from(vec![b' '; MAX_CALL_ANSWER_BYTES + 1]))),
        "/no-types" => Some(hook::json(&json!({"response": yes}))),
        "/list" => coded(200, "[]"),
        "/nothing" => coded(200, ""),
        "/patch-without-type" => typed(
            "AdmissionReview",
            "admission.k8s.io/v1",
            json!({"uid": uid, "allowed": true, "patch": "W10="}),
        ),
        "/type-without-patch" => typed(
            "AdmissionReview",
            "admission.k8s.io/v1",
            json!({"uid": uid, "allowed": true, "patchType": "JSONPatch"}),
        ),
        "/strange-type" => typed(
            "AdmissionReview",
            "admission.k8s.io/v1",
            json!({"uid": uid, "allowed": true, "patchType": "Merge", "patch": "W3t9XQ=="}),
        ),
        "/object-patch" => patched(json!({"a": "b"})),
        "/test-fails" => patched(json!([{"op": "test", "path": "/data/a", "value": "not this"}])),
        "/remove-missing" => patched(json!([{"op": "remove", "path": "/data/none"}])),
        "/wrong-type" => set("/data", json!([1])),
        "/rename" => set("/metadata/name", json!("elsewhere")),
        "/move" => set("/metadata/namespace", json!("kube-system")),
        "/invalid-name" => set("/metadata/name", json!("Not A Name")),
        "/immutable" => set("/immutable", json!(true)),
        "/change-data" => set("/data/a", json!("changed")),
        "/other-uid" => set("/metadata/uid", json!("00000000-0000-0000-0000-000000000000")),
        _ => None,
    }
}

#[tokio::test]
async fn answers_that_are_none_fail_the_call_or_are_passed_over() {
    let lab = Lab::new().await;
    let failed = |path: &str, why: &str| {
        format!("Internal error occurred: failed calling webhook \"{path}.example.com\": {why}")
    };
    let called = "failed to call webhook: ";
    let invalid = "received invalid webhook response: ";
    let expected = "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got ";
    let undecodable = "received undecodable patch in webhook response: ";
    let table = [
        (
            "broken",
            VALIDATING,
            format!("{called}an error on the server (\"on fire\") has prevented the request from succeeding"),
        ),
        (
            "broken",
            MUTATING,
            format!("{called}an error on the server (\"on fire\") has prevented the request from succeeding"),
        ),
        ("unavailable", VALIDATING, format!("{called}the server is currently unable to handle the request")),
        ("no-types", VALIDATING, format!("{invalid}{expected}/, Kind=")),
        (
            "nothing",
            VALIDATING,
            format!("{called}0-length response with status code: 200 and content type: "),
        ),
        (
            "patch-without-type",
            MUTATING,
            format!("{invalid}webhook returned response.patch but not response.patchType"),
        ),
        (
            "type-without-patch",
            MUTATING,
            format!("{invalid}webhook returned response.patchType but not response.patch"),
        ),
        (
            "type-without-patch",
            VALIDATING,
            format!("{invalid}validating webhook may not return response.patchType"),
        ),
        ("strange-type", MUTATING, "unsupported patch type \"Merge\"".to_owned()),
        (
            "object-patch",
            MUTATING,
            format!("{undecodable}json: cannot unmarshal object into Go value of type jsonpatch.Patch"),
        ),
        (
            "moved",
            VALIDATING,
            format!(
                "{called}the server responded with the status code 302 but did not return more information"
            ),
        ),
    ];
    for (path, kind, why) in table {
        lab.hooks(kind, "x", &[&format!("/{path}")], json!({})).await;
        let answer = lab.send("POST", MAPS, &map("a")).await;
        says(&answer, 500, &failed(path, &why));
        assert_eq!(answer.json()["reason"], "InternalError");
        lab.forget(kind, "x").await;
        lab.hooks(kind, "x", &[&format!("/{path}")], json!({"failurePolicy": "Ignore"})).await;
        let answer = lab.send("POST", &format!("{MAPS}?dryRun=All"), &map("a")).await;
        assert_eq!(answer.code, 201, "{path}: {}", answer.json());
        lab.forget(kind, "x").await;
    }
    lab.hooks(VALIDATING, "x", &["/oversized"], json!({"timeoutSeconds": 30})).await;
    let why = format!("{called}the answer is larger than {MAX_CALL_ANSWER_BYTES} bytes");
    says(&lab.send("POST", MAPS, &map("a")).await, 500, &failed("oversized", &why));
    lab.end().await;
}

#[tokio::test]
async fn patches_that_make_no_sense_are_refused_whatever_the_policy() {
    let lab = Lab::new().await;
    lab.send("POST", MAPS, &map("there")).await;
    let fixed = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fixed"}, "data": {"a": "1"}, "immutable": true});
    assert_eq!(lab.send("POST", MAPS, &fixed).await.code, 201);
    let internal = "Internal error occurred: ";
    let create: &[(&str, u16, String)] = &[
        ("test-fails", 500, format!("{internal}testing value /data/a failed: test failed")),
        (
            "remove-missing",
            500,
            format!(
                "{internal}error in remove for path: '/data/none': Unable to remove nonexistent key: none: missing value"
            ),
        ),
        (
            "move",
            400,
            "the namespace of the provided object does not match the namespace sent on the request"
                .to_owned(),
        ),
    ];
    for (path, code, message) in create {
        lab.hooks(MUTATING, "x", &[&format!("/{path}")], json!({"failurePolicy": "Ignore"})).await;
        says(&lab.send("POST", MAPS, &map("new")).await, *code, message);
        lab.forget(MUTATING, "x").await;
    }
    let begins: &[(&str, u16, &str)] = &[
        ("wrong-type", 500, "Internal error occurred: "),
        (
            "invalid-name",
            422,
            "ConfigMap \"Not A Name\" is invalid: metadata.name: Invalid value: \"Not A Name\": a lowercase RFC 1123 subdomain",
        ),
    ];
    for (path, code, message) in begins {
        lab.hooks(MUTATING, "x", &[&format!("/{path}")], json!({"failurePolicy": "Ignore"})).await;
        let answer = lab.send("POST", MAPS, &map("new")).await;
        let status = answer.json();
        assert_eq!(answer.code, *code, "{path}: {status}");
        assert!(status["message"].as_str().is_some_and(|m| m.starts_with(message)), "{path}: {status}");
        lab.forget(MUTATING, "x").await;
    }
    let update: &[(&str, &str, u16, &str)] = &[
        (
            "rename",
            "there",
            422,
            "ConfigMap \"elsewhere\" is invalid: metadata.name: Invalid value: \"elsewhere\": field is immutable",
        ),
        (
            "change-data",
            "fixed",
            422,
            "ConfigMap \"fixed\" is invalid: data: Forbidden: field is immutable when `immutable` is set",
        ),
        (
            "move",
            "there",
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
    ];
    for (path, name, code, message) in update {
        lab.hooks(MUTATING, "x", &[&format!("/{path}")], json!({"failurePolicy": "Ignore"})).await;
        let mut object = if *name == "fixed" { fixed.clone() } else { map(name) };
        object["metadata"]["labels"] = json!({"touched": "yes"});
        says(&lab.send("PUT", &format!("{MAPS}/{name}"), &object).await, *code, message);
        lab.forget(MUTATING, "x").await;
    }
    let stored = lab.send("GET", &format!("{MAPS}/there"), &json!({})).await.json();
    assert_eq!(
        (&stored["data"], &stored["metadata"]["labels"]),
        (&json!({"a": "1"}), &Value::Null),
        "nothing was stored"
    );
    lab.end().await;
}

#[tokio::test]
async fn webhooks_that_are_not_there_or_not_who_they_say() {
    let lab = Lab::new().await;
    let port = lab.hook.address.port();
    let closed = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        gone.local_addr().expect("an address").port()
    };
    let stranger = {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        STANDARD.encode(key.cert.pem())
    };
    let service = json!({"service": {"namespace": "default", "name": "gone", "path": "/allow"}, "caBundle": STANDARD.encode(&lab.hook.ca_pem)});
    let url = |host: &str, port: u16, bundle: &str| json!({"url": format!("https://{host}:{port}/allow"), "caBundle": bundle});
    let own = STANDARD.encode(&lab.hook.ca_pem);
    let table = [
        (service, "Post \"https://gone.default.svc:443/allow?timeout=1s\": service \"gone\" not found".to_owned()),
        (
            url("localhost", port, &stranger),
            format!("Post \"https://localhost:{port}/allow?timeout=1s\": tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        ),
        (
            url("127.0.0.1", closed, &own),
            format!("Post \"https://127.0.0.1:{closed}/allow?timeout=1s\": dial tcp 127.0.0.1:{closed}: connect: connection refused"),
        ),
        (
            url("no-such-host.invalid", 443, &own),
            "Post \"https://no-such-host.invalid:443/allow?timeout=1s\": dial tcp: lookup no-such-host.invalid".to_owned(),
        ),
    ];
    for (config, why) in table {
        for kind in [MUTATING, VALIDATING] {
            lab.hooks(kind, "x", &["/away"], json!({"clientConfig": config})).await;
            let answer = lab.send("POST", MAPS, &map("a")).await;
            let status = answer.json();
            let message = status["message"].as_str().unwrap_or("");
            let wanted = format!(
                "Internal error occurred: failed calling webhook \"away.example.com\": failed to call webhook: {why}"
            );
            assert!(answer.code == 500 && message.starts_with(&wanted), "{status}\n{wanted}");
            lab.forget(kind, "x").await;
        }
        lab.hooks(MUTATING, "x", &["/away"], json!({"clientConfig": config, "failurePolicy": "Ignore"}))
            .await;
        assert_eq!(lab.send("POST", &format!("{MAPS}?dryRun=All"), &map("a")).await.code, 201, "{why}");
        lab.forget(MUTATING, "x").await;
    }
    lab.end().await;
}
