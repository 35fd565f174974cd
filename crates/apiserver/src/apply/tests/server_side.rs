use gantry_api::ApiError;
use gantry_api::schema::{Node, lookup_kind};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::managed::{T0, T1, T2, created, deployment, owners, web, writer};
use crate::apply::{LAST_APPLIED, Writer, update_managed_fields};

/// What an apply made of an object.
#[derive(Debug, PartialEq)]
struct Applied {
    object: Value,
    changed: bool,
}

fn apply(
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    kind: &str,
    force: bool,
    node: Node<'_>,
) -> Result<Applied, ApiError> {
    let applied = crate::apply::apply(live, config, writer, kind, force, node)?;
    let changed = applied.object.is_some();
    Ok(Applied { object: applied.object.or(live.cloned()).unwrap_or_default(), changed })
}

fn run(live: Option<&Value>, config: &Value, manager: &str, force: bool) -> Result<Applied, ApiError> {
    apply(live, config, &writer(manager, T1), "Deployment", force, deployment())
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn ports(ports: Value) -> Value {
    config(json!({"template": {"spec": {"containers": [{"name": "web", "ports": ports}]}}}))
}

#[test]
fn creating_by_apply() {
    let mut config = web();
    config["metadata"] = json!({"name": "web", "labels": {"app": "web"}});
    let applied = run(None, &config, "me", false).unwrap();
    assert!(applied.changed);
    let owners = owners(&applied.object);
    assert_eq!(owners.len(), 1);
    assert_eq!(owners[0].0, format!("me Apply {T1}"));
    assert_eq!(owners[0].1["f:metadata"], json!({"f:labels": {"f:app": {}}}));
    assert_eq!(
        owners[0].1.pointer("/f:spec/f:template/f:spec/f:containers").unwrap(),
        &json!({"k:{\"name\":\"web\"}": {".": {}, "f:image": {}, "f:name": {}, "f:ports": {
            "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}}}})
    );
}

#[test]
fn conflicts_read_as_upstream() {
    let mut live = created("creator", web());
    live["metadata"]["managedFields"][0]["manager"] = json!("kubectl-client-side-apply");
    let refused = run(Some(&live), &config(json!({"replicas": 5})), "me", false).unwrap_err();
    assert_eq!((refused.code(), refused.reason()), (409, "Conflict"));
    assert_eq!(
        refused.message(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    let cause = &refused.status().details.as_ref().unwrap().causes.as_ref().unwrap()[0];
    assert_eq!(cause.reason.as_deref(), Some("FieldManagerConflict"));
    assert_eq!(cause.message.as_deref(), Some("conflict with \"kubectl-client-side-apply\" using apps/v1"));
    assert_eq!(cause.field.as_deref(), Some(".spec.replicas"));

    let both = config(json!({"replicas": 5, "template": {"spec": {"containers": [
        {"name": "web", "image": "other"}]}}}));
    let refused = run(Some(&live), &both, "me", false).unwrap_err();
    assert_eq!(
        refused.message(),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n\
         - .spec.replicas\n- .spec.template.spec.containers[name=\"web\"].image"
    );

    let forced = run(Some(&live), &both, "me", true).unwrap();
    assert_eq!(forced.object["spec"]["replicas"], 5);
    let owners = owners(&forced.object);
    assert_eq!(owners[0].1.pointer("/f:spec/f:replicas"), Some(&json!({})));
    assert!(owners[1].1.pointer("/f:spec/f:replicas").is_none());
}

#[test]
fn equal_values_are_shared() {
    let first = run(None, &config(json!({"replicas": 1})), "a", false).unwrap().object;
    let second = run(Some(&first), &config(json!({"replicas": 1})), "b", false).unwrap();
    assert!(second.changed);
    assert_eq!(owners(&second.object).len(), 2);
    // Each alone can let go without the field going.
    let third = run(Some(&second.object), &config(json!({})), "a", false).unwrap().object;
    assert_eq!(third["spec"]["replicas"], 1);
    let conflict = run(Some(&second.object), &config(json!({"replicas": 2})), "a", false).unwrap_err();
    assert_eq!(conflict.message(), "Apply failed with 1 conflict: conflict with \"b\": .spec.replicas");
    let fourth = run(Some(&third), &config(json!({})), "b", false).unwrap().object;
    assert!(fourth["spec"].get("replicas").is_none());
}

#[test]
fn what_is_no_longer_applied_goes() {
    let one = config(
        json!({"replicas": 2, "template": {"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {
        "securityContext": {"runAsUser": 1}, "containers": [
            {"name": "x", "image": "i", "env": [{"name": "K", "value": "v"}]}, {"name": "y", "image": "i"}]}}}),
    );
    let live = run(None, &one, "me", false).unwrap().object;
    // Somebody else adds a container, and a label; they stay.
    let mut edited = live.clone();
    edited["spec"]["template"]["metadata"]["labels"]["c"] = json!("3");
    let containers = edited["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap();
    containers.insert(0, json!({"name": "injected", "image": "s"}));
    update_managed_fields(Some(&live), &mut edited, &writer("injector", T1), deployment());
    let two = config(json!({"template": {"metadata": {"labels": {"a": "1"}}, "spec": {
        "containers": [{"name": "y", "image": "i"}]}}}));
    let applied = run(Some(&edited), &two, "me", false).unwrap().object;
    assert!(applied["spec"].get("replicas").is_none());
    let template = &applied["spec"]["template"];
    assert_eq!(template["metadata"]["labels"], json!({"a": "1", "c": "3"}));
    assert!(template["spec"].get("securityContext").is_none());
    let names: Vec<&Value> =
        template["spec"]["containers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["injected", "y"]);
}

#[test]
fn lists_of_maps_merge_by_their_keys() {
    let first = run(None, &ports(json!([{"containerPort": 80}])), "a", false).unwrap().object;
    // The same port for another protocol is another element; the default protocol is part of the key.
    let more = ports(json!([{"containerPort": 80, "protocol": "UDP"}, {"containerPort": 443}]));
    let second = run(Some(&first), &more, "b", false).unwrap().object;
    assert_eq!(
        second["spec"]["template"]["spec"]["containers"][0]["ports"],
        json!([{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}, {"containerPort": 443}])
    );
    let entry = &owners(&second)[1].1;
    let keys: Vec<&String> = entry
        .pointer("/f:spec/f:template/f:spec/f:containers/k:{\"name\":\"web\"}/f:ports")
        .and_then(Value::as_object)
        .unwrap()
        .keys()
        .collect();
    assert_eq!(
        keys,
        ["k:{\"containerPort\":443,\"protocol\":\"TCP\"}", "k:{\"containerPort\":80,\"protocol\":\"UDP\"}"]
    );
    let twice = ports(json!([{"containerPort": 80}, {"containerPort": 80, "protocol": "TCP"}]));
    let refused = run(None, &twice, "a", false).unwrap_err();
    assert!(
        refused.message().ends_with(
            ".spec.template.spec.containers[name=\"web\"].ports: duplicate entries for key \
         [containerPort=80,protocol=\"TCP\"]"
        ),
        "{}",
        refused.message()
    );
}

#[test]
fn the_configuration_orders_a_list() {
    let named = |names: &[&str]| {
        let containers: Vec<Value> = names.iter().map(|n| json!({"name": n})).collect();
        config(json!({"template": {"spec": {"containers": containers}}}))
    };
    let order = |object: &Value| -> Vec<String> {
        let list = object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        list.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = run(None, &named(&["a", "b", "c"]), "me", false).unwrap().object;
    let second = run(Some(&first), &named(&["x", "c"]), "you", false).unwrap().object;
    assert_eq!(order(&second), ["a", "b", "x", "c"]);
    let third = run(Some(&second), &named(&["c", "b", "a"]), "me", false).unwrap().object;
    assert_eq!(order(&third), ["x", "c", "b", "a"]);
}

#[test]
fn atomic_things_have_one_owner() {
    let selector = |app: &str| config(json!({"selector": {"matchLabels": {"app": app}}}));
    let first = run(None, &selector("a"), "me", false).unwrap().object;
    assert_eq!(owners(&first)[0].1, json!({"f:spec": {"f:selector": {}}}));
    let refused = run(Some(&first), &selector("b"), "you", false).unwrap_err();
    assert_eq!(refused.message(), "Apply failed with 1 conflict: conflict with \"me\": .spec.selector");
    let forced = run(Some(&first), &selector("b"), "you", true).unwrap().object;
    assert_eq!(forced["spec"]["selector"], json!({"matchLabels": {"app": "b"}}));
    assert_eq!(owners(&forced).len(), 1);
}

#[test]
fn before_the_first_apply() {
    let live = web();
    let applied = run(Some(&live), &config(json!({"replicas": 1})), "me", false).unwrap();
    let names: Vec<String> = owners(&applied.object).into_iter().map(|(name, _)| name).collect();
    // Who changed nothing has no time.
    assert_eq!(names, ["me Apply ".to_owned(), format!("before-first-apply Update {T1}")]);
    let refused = run(Some(&live), &config(json!({"replicas": 2})), "me", false).unwrap_err();
    assert_eq!(
        refused.message(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
    );
}

#[test]
fn kubectl_takes_over_from_its_client_side_apply() {
    let last = config(json!({"replicas": 1})).to_string();
    let mut live = web();
    live["metadata"]["annotations"] = json!({LAST_APPLIED: last});
    let live = created("kubectl-client-side-apply", live);
    let new = config(json!({"replicas": 3}));
    let applied = run(Some(&live), &new, "kubectl", false).unwrap().object;
    assert_eq!(applied["spec"]["replicas"], 3);
    let annotation = applied["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(annotation).unwrap(), new);
    // Others, and fields that were changed since, conflict.
    assert_eq!(run(Some(&live), &new, "argo", false).unwrap_err().code(), 409);
    let mut edited = live.clone();
    edited["spec"]["replicas"] = json!(2);
    update_managed_fields(Some(&live), &mut edited, &writer("editor", T1), deployment());
    assert_eq!(run(Some(&edited), &new, "kubectl", false).unwrap_err().code(), 409);
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |config: Value| {
        let error = run(None, &config, "me", false).unwrap_err();
        (error.code(), error.message().to_owned())
    };
    assert_eq!(
        refused(config(json!({"foo": 1}))),
        (500, "failed to create typed patch object (/web; apps/v1, Kind=Deployment): .spec.foo: field not declared \
               in schema".to_owned())
    );
    assert_eq!(
        refused(config(json!({"replicas": "one"}))).1,
        "failed to create typed patch object (/web; apps/v1, Kind=Deployment): .spec.replicas: expected numeric \
         (int or float), got string"
    );
    let mut other = config(json!({}));
    other["kind"] = json!("ReplicaSet");
    assert_eq!(refused(other), (400, "invalid object type: apps/v1, Kind=ReplicaSet".to_owned()));
    let mut managed = config(json!({}));
    managed["metadata"]["managedFields"] = json!([]);
    assert_eq!(refused(managed), (400, "metadata.managedFields must be nil".to_owned()));
}

#[test]
fn the_same_apply_again_changes_nothing() {
    let mut config = web();
    config["metadata"] = json!({"name": "web", "labels": {"app": "web"}, "finalizers": ["a/b"]});
    let first = run(None, &config, "me", false).unwrap().object;
    let mut stored = first;
    // What the server adds is nobody's business.
    stored["metadata"]["uid"] = json!("u");
    stored["metadata"]["resourceVersion"] = json!("5");
    stored["metadata"]["creationTimestamp"] = json!(T0);
    stored["spec"]["revisionHistoryLimit"] = json!(10);
    let later = Writer { time: T2, ..writer("me", T2) };
    let again = apply(Some(&stored), &config, &later, "Deployment", false, deployment()).unwrap();
    assert_eq!(again, Applied { object: stored, changed: false });
}

/// Pods whose lists and maps overlap.
fn pod() -> impl Strategy<Value = Value> {
    let container = ("[a-d]", prop::option::of("[xy]"), prop::collection::btree_set(1u16..4, 0..3)).prop_map(
        |(name, image, ports)| {
            let ports: Vec<Value> = ports.into_iter().map(|p| json!({"containerPort": p})).collect();
            let mut container = json!({"name": name, "ports": ports});
            if let Some(image) = image {
                container["image"] = image.into();
            }
            (name, container)
        },
    );
    let containers = prop::collection::vec(container, 0..4).prop_map(|list| {
        let mut seen = std::collections::HashSet::new();
        Value::Array(list.into_iter().filter(|(name, _)| seen.insert(name.clone())).map(|(_, c)| c).collect())
    });
    let labels = prop::collection::btree_map("[a-c]", "[xy]", 0..3);
    let finalizers = prop::collection::btree_set("[a-c]", 0..3);
    let selector = prop::option::of(prop::collection::btree_map("[a-c]", "[xy]", 0..3));
    (containers, labels, finalizers, selector, any::<bool>()).prop_map(
        |(containers, labels, finalizers, selector, network)| {
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "labels": labels, "finalizers": finalizers},
                "spec": {"containers": containers, "nodeSelector": selector, "hostNetwork": network}})
        },
    )
}

fn pod_node() -> Node<'static> {
    lookup_kind("", "v1", "Pod").unwrap().node()
}

fn pod_writer<'a>(manager: &'a str, time: &'a str) -> Writer<'a> {
    Writer { api_version: "v1", ..writer(manager, time) }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applying_twice_is_applying_once(base in pod(), other in pod(), config in pod()) {
        let by = |live: Option<&Value>, config: &Value, manager, time| {
            apply(live, config, &pod_writer(manager, time), "Pod", true, pod_node()).unwrap()
        };
        let live = by(None, &base, "me", T0).object;
        let live = by(Some(&live), &other, "you", T0).object;
        let once = by(Some(&live), &config, "me", T1).object;
        let twice = by(Some(&once), &config, "me", T2);
        prop_assert!(!twice.changed);
        prop_assert_eq!(&twice.object, &once);
        // Everything that was applied is there.
        let kept = by(Some(&twice.object), &config, "third", T2).object;
        prop_assert_eq!(&kept["spec"], &once["spec"]);
    }

    #[test]
    fn an_updater_owns_what_it_changed(old in pod(), new in pod()) {
        let mut live = old;
        update_managed_fields(None, &mut live, &pod_writer("creator", T0), pod_node());
        let mut changed = new;
        changed["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
        update_managed_fields(Some(&live), &mut changed, &pod_writer("editor", T1), pod_node());
        // Applying the object as it is conflicts with nobody.
        let mut config = changed.clone();
        config["metadata"].as_object_mut().unwrap().remove("managedFields");
        let applied = apply(Some(&changed), &config, &pod_writer("me", T2), "Pod", false, pod_node());
        prop_assert!(applied.is_ok(), "{}", applied.unwrap_err().message());
    }
}
