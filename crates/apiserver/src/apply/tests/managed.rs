use gantry_api::schema::{Node, lookup_kind};
use serde_json::{Value, json};

use crate::apply::{MAX_UPDATE_MANAGERS, OneVersion, Reset, Writer, update_managed_fields};

pub fn deployment() -> Node<'static> {
    lookup_kind("apps", "v1", "Deployment").unwrap().node()
}

pub fn writer<'a>(manager: &'a str, time: &'a str) -> Writer<'a> {
    Writer {
        manager,
        api_version: "apps/v1",
        subresource: "",
        time,
        reset: Reset::Fields(&[&["status"]]),
        others: &OneVersion,
    }
}

pub const T0: &str = "2026-01-01T00:00:00Z";
pub const T1: &str = "2026-01-01T00:00:01Z";
pub const T2: &str = "2026-01-01T00:00:02Z";

pub fn web() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "1",
            "generation": 1, "creationTimestamp": T0, "labels": {"app": "web"}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "nginx",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}]}]},
            },
        },
    })
}

/// The object with everything owned by its creator.
pub fn created(manager: &str, mut object: Value) -> Value {
    update_managed_fields(None, &mut object, &writer(manager, T0), deployment());
    object
}

/// Who owns what: manager, operation, subresource, fields.
pub fn owners(object: &Value) -> Vec<(String, Value)> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let entry = |e: &Value| {
        let text = |name: &str| e.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        (format!("{} {} {}", text("manager"), text("operation"), text("time")), e["fieldsV1"].clone())
    };
    entries.into_iter().flatten().map(entry).collect()
}

#[test]
fn a_creator_owns_what_it_wrote() {
    let object = created("kubectl-create", web());
    let fields = json!({
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {
            "f:replicas": {},
            "f:selector": {},
            "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
            "f:template": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {
                    ".": {}, "f:name": {}, "f:image": {},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                        ".": {}, "f:containerPort": {}, "f:protocol": {}}},
                }}},
            },
        },
    });
    assert_eq!(owners(&object), [(format!("kubectl-create Update {T0}"), fields)]);
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!(entry["apiVersion"], "apps/v1");
    assert_eq!(entry["fieldsType"], "FieldsV1");
}

#[test]
fn an_update_takes_what_it_changes() {
    let live = created("creator", web());
    let mut new = live.clone();
    new["spec"]["replicas"] = json!(3);
    new["metadata"]["labels"] = json!({"tier": "front"});
    update_managed_fields(Some(&live), &mut new, &writer("editor", T1), deployment());
    let owners = owners(&new);
    assert_eq!(owners.len(), 2);
    assert_eq!(owners[0].0, format!("creator Update {T0}"));
    assert!(owners[0].1.pointer("/f:spec/f:replicas").is_none());
    assert_eq!(owners[0].1["f:metadata"], json!({"f:labels": {}}));
    let taken = json!({"f:metadata": {"f:labels": {"f:tier": {}}}, "f:spec": {"f:replicas": {}}});
    assert_eq!(owners[1], (format!("editor Update {T1}"), taken));
}

#[test]
fn an_update_that_changes_nothing_leaves_no_trace() {
    let live = created("creator", web());
    let mut new = live.clone();
    new["metadata"]["resourceVersion"] = json!("7");
    new["metadata"].as_object_mut().unwrap().remove("managedFields");
    update_managed_fields(Some(&live), &mut new, &writer("creator", T1), deployment());
    assert_eq!(new["metadata"]["managedFields"], live["metadata"]["managedFields"]);
}

#[test]
fn subresources_have_managers_of_their_own() {
    let live = created("controller", web());
    let mut new = live.clone();
    new["status"] = json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    let status = Writer {
        subresource: "status",
        reset: Reset::Fields(&[&["spec"], &["metadata", "labels"]]),
        ..writer("controller", T1)
    };
    update_managed_fields(Some(&live), &mut new, &status, deployment());
    let entries = new["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1]["subresource"], "status");
    let owned = json!({"f:status": {"f:replicas": {}, "f:conditions": {".": {}, "k:{\"type\":\"Available\"}": {
        ".": {}, "f:type": {}, "f:status": {}}}}});
    assert_eq!(entries[1]["fieldsV1"], owned);
    // What the endpoint resets, its writer does not come to own.
    let mut main = new.clone();
    main["status"]["replicas"] = json!(5);
    update_managed_fields(Some(&new), &mut main, &writer("stranger", T2), deployment());
    assert_eq!(main["metadata"]["managedFields"], new["metadata"]["managedFields"]);
}

#[test]
fn clients_can_reset_but_not_lose_entries() {
    let live = created("creator", web());
    for reset in [json!([]), json!([{}])] {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = reset;
        update_managed_fields(Some(&live), &mut new, &writer("x", T1), deployment());
        assert!(new.pointer("/metadata/managedFields").is_none());
    }
    // Nobody owns anything: the object stays untracked.
    let mut untracked = web();
    let mut new = untracked.clone();
    new["spec"]["replicas"] = json!(2);
    update_managed_fields(Some(&untracked), &mut new, &writer("x", T1), deployment());
    assert!(new.pointer("/metadata/managedFields").is_none());
    untracked["metadata"]["managedFields"] = json!([{"manager": "m", "operation": "Explode"}]);
    let mut new = live.clone();
    new["metadata"]["managedFields"] = untracked["metadata"]["managedFields"].clone();
    update_managed_fields(Some(&live), &mut new, &writer("x", T1), deployment());
    assert_eq!(new["metadata"]["managedFields"], live["metadata"]["managedFields"]);
}

#[test]
fn updaters_are_capped() {
    let mut live = created("m00", web());
    for i in 1..15 {
        let mut new = live.clone();
        new["metadata"]["labels"][format!("l{i}")] = json!("x");
        let (manager, time) = (format!("m{i:02}"), format!("2026-01-01T00:01:{i:02}Z"));
        update_managed_fields(Some(&live), &mut new, &writer(&manager, &time), deployment());
        live = new;
    }
    let owners = owners(&live);
    assert_eq!(owners.len(), MAX_UPDATE_MANAGERS);
    assert_eq!(owners[0].0, "ancient-changes Update 2026-01-01T00:01:05Z");
    assert!(owners[0].1.pointer("/f:metadata/f:labels/f:l5").is_some());
    assert!(owners[0].1.pointer("/f:spec/f:replicas").is_some());
    assert_eq!(owners[9].0, "m14 Update 2026-01-01T00:01:14Z");
}
