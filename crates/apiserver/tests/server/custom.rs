//! Custom resources.

use std::time::Duration;

use gantry_apiserver::testing::http;
use serde_json::{Value, json};

use crate::{Lab, refused};

pub(crate) const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub(crate) const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

pub(crate) fn definition(plural: &str, kind: &str) -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1}, "color": {"type": "string", "default": "red"},
            "replicas": {"type": "integer"}}},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "shortNames": ["wd"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]}]}})
}

/// Reads until `done` says so. What is waited for comes from another task of the server.
pub(crate) async fn eventually(lab: &Lab, path: &str, done: impl Fn(u16, &Value) -> bool) -> Value {
    for _ in 0..500 {
        let answer = lab.get(path).await;
        let value = answer.json();
        if done(answer.code, &value) {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{path} did not come to what was waited for: {}", lab.get(path).await.json());
}

pub(crate) fn condition(crd: &Value, kind: &str) -> String {
    let list = crd["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = list.iter().find(|c| c["type"] == kind);
    found.and_then(|c| c["status"].as_str()).unwrap_or("").to_owned()
}

/// Defines widgets, and waits until they are served.
pub(crate) async fn define(lab: &Lab) {
    lab.create(CRDS, &definition("widgets", "Widget")).await;
    let crd = format!("{CRDS}/widgets.example.com");
    eventually(lab, &crd, |_, c| condition(c, "Established") == "True").await;
    eventually(lab, WIDGETS, |code, _| code == 200).await;
}

#[tokio::test]
async fn a_custom_resource_is_served_like_any_other() {
    let lab = Lab::new().await;
    lab.create(CRDS, &definition("widgets", "Widget")).await;
    let crd = format!("{CRDS}/widgets.example.com");
    eventually(&lab, &crd, |_, c| {
        condition(c, "Established") == "True" && condition(c, "NamesAccepted") == "True"
    })
    .await;

    let body = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3, "extra": 1}});
    let answer = lab.send("POST", WIDGETS, &body).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    assert_eq!(answer.headers["warning"], "299 - \"unknown field \\\"spec.extra\\\"\"");
    let widget = answer.json();
    assert_eq!(widget["spec"], json!({"size": 3, "color": "red"}));
    assert_eq!(widget["metadata"]["generation"], 1);
    let mut bad = body.clone();
    bad["metadata"]["name"] = json!("x");
    bad["spec"] = json!({"size": 0});
    refused(
        &lab.send("POST", WIDGETS, &bad).await,
        422,
        "Invalid",
        "Widget.example.com \"x\" is invalid: spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
    );
    let status = lab
        .patch(
            &format!("{WIDGETS}/w/status"),
            "merge-patch+json",
            &json!({"status": {"replicas": 2}, "spec": {"size": 9}}),
        )
        .await
        .json();
    assert_eq!((&status["status"]["replicas"], &status["spec"]["size"]), (&json!(2), &json!(3)));
    let scale = lab
        .patch(&format!("{WIDGETS}/w/scale"), "merge-patch+json", &json!({"spec": {"replicas": 7}}))
        .await
        .json();
    assert_eq!(scale["spec"]["replicas"], 7, "{scale}");
    let changed = lab.get(&format!("{WIDGETS}/w")).await.json();
    assert_eq!((&changed["spec"]["replicas"], &changed["metadata"]["generation"]), (&json!(7), &json!(2)));
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let rows = http(&lab.server, "GET", WIDGETS, &table, "").await.json();
    assert_eq!(rows["rows"][0]["cells"], json!(["w", 3]));
    let discovered = lab.get("/apis/example.com/v1").await.json();
    assert!(
        discovered["resources"]
            .as_array()
            .is_some_and(|r| r.iter().any(|r| r["name"] == "widgets" && r["shortNames"] == json!(["wd"])))
    );

    let mut second = definition("gadgets", "Widget");
    second["spec"]["names"]["shortNames"] = json!([]);
    lab.create(CRDS, &second).await;
    let refused = eventually(&lab, &format!("{CRDS}/gadgets.example.com"), |_, c| {
        condition(c, "NamesAccepted") == "False"
    })
    .await;
    assert_eq!(condition(&refused, "Established"), "False");

    lab.send("DELETE", &crd, &json!({})).await;
    eventually(&lab, &crd, |code, _| code == 404).await;
    eventually(&lab, WIDGETS, |code, _| code == 404).await;
    lab.end().await;
}

#[tokio::test]
async fn new_defaults_show_in_what_is_stored() {
    let lab = Lab::new().await;
    lab.create(CRDS, &definition("widgets", "Widget")).await;
    let crd = format!("{CRDS}/widgets.example.com");
    eventually(&lab, &crd, |_, c| condition(c, "Established") == "True").await;
    let body = json!({
        "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3},
    });
    lab.create(WIDGETS, &body).await;
    let patch = json!([{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/shape",
        "value": {"type": "string", "default": "round"}}]);
    assert_eq!(lab.patch(&crd, "json-patch+json", &patch).await.code, 200);
    let read = eventually(&lab, &format!("{WIDGETS}/w"), |_, w| w["spec"]["shape"] == "round").await;
    assert_eq!(read["spec"]["size"], 3);
    lab.end().await;
}

#[tokio::test]
async fn schemas_that_are_not_structural_are_refused() {
    let lab = Lab::new().await;
    let mut bad = definition("widgets", "Widget");
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["type"] = json!(null);
    let answer = lab.send("POST", CRDS, &bad).await;
    assert_eq!(answer.code, 422, "{}", answer.json());
    lab.end().await;
}

/// Changes a definition at a JSON pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut crd = definition("widgets", "Widget");
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    crd.pointer_mut(parent).expect("a place")[key] = value;
    crd
}

#[tokio::test]
async fn definitions_are_checked_in_upstreams_words() {
    let lab = Lab::new().await;
    let schema = "/spec/versions/0/schema/openAPIV3Schema";
    let color = &format!("{schema}/properties/spec/properties/color");
    let at = "spec.validation.openAPIV3Schema";
    let listed = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "properties": {"k": {"type": "string"}}}});
    let table = [
        (
            "/spec/group",
            json!("example"),
            "spec.group: Invalid value: \"example\": should be a domain with at least one dot",
        ),
        (
            "/spec/scope",
            json!("World"),
            "spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        (
            "/metadata/name",
            json!("x.example.com"),
            "metadata.name: Invalid value: \"x.example.com\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            "/spec/preserveUnknownFields",
            json!(true),
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ),
        (
            "/spec/versions/0/storage",
            json!(false),
            "\"Storage\":false,\"Deprecated\":false,\"DeprecationWarning\":null,\"Schema\":null,\"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null}]: must have exactly one version marked as storage version",
        ),
        (
            "/spec/versions/0/additionalPrinterColumns/0/type",
            json!("text"),
            "spec.additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string",
        ),
        (
            "/spec/versions/0/selectableFields",
            json!([{"jsonPath": ".spec.nothing"}]),
            "spec.selectableFields[0].jsonPath: Invalid value: \".spec.nothing\": is an invalid path: does not refer to a valid field",
        ),
        (
            "/spec/conversion",
            json!({"strategy": "Webhook"}),
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
        ),
        (
            color,
            json!({}),
            &format!(
                "{at}.properties[spec].properties[color].type: Required value: must not be empty for specified object fields"
            ),
        ),
        (
            color,
            json!({"type": "string", "default": 1}),
            &format!(
                "{at}.properties[spec].properties[color].default: Invalid value: \"integer\":  in body must be of type string: \"integer\""
            ),
        ),
        (
            color,
            json!({"type": "object", "default": {"x": 1}}),
            &format!(
                "{at}.properties[spec].properties[color].default: Invalid value: {{\"x\":1}}: must not have unknown fields"
            ),
        ),
        (
            color,
            json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}}),
            &format!(
                "{at}.properties[spec].properties[color].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
            ),
        ),
        (
            color,
            listed,
            &format!(
                "{at}.properties[spec].properties[color].items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            ),
        ),
        (
            &format!("{schema}/nullable"),
            json!(true),
            &format!("{at}.nullable: Forbidden: nullable cannot be true at the root"),
        ),
    ];
    for (pointer, value, expected) in table {
        let answer = lab.send("POST", CRDS, &with(pointer, value)).await;
        let message = answer.json()["message"].as_str().unwrap_or("").to_owned();
        assert_eq!(answer.code, 422, "{pointer}: {message}");
        assert!(message.contains(expected), "{pointer}:\n{message}\n{expected}");
    }
    let mut community = definition("widgets", "Widget");
    community["metadata"]["name"] = json!("widgets.x.k8s.io");
    community["spec"]["group"] = json!("x.k8s.io");
    let answer = lab.send("POST", CRDS, &community).await;
    assert!(answer.json()["message"].as_str().is_some_and(|m| m.contains("metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation \"api-approved.kubernetes.io\"")), "{}", answer.json());
    community["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "unapproved, a test"});
    lab.create(CRDS, &community).await;
    eventually(&lab, &format!("{CRDS}/widgets.x.k8s.io"), |_, c| {
        condition(c, "KubernetesAPIApprovalPolicyConformant") == "False"
            && condition(c, "Established") == "True"
    })
    .await;
    lab.end().await;
}
