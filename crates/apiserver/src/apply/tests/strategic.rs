use gantry_api::schema::{Node, lookup_kind};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::apply::strategic_merge_patch;

fn node(kind: &str) -> Node<'static> {
    let group = if matches!(kind, "Deployment") { "apps" } else { "" };
    lookup_kind(group, "v1", kind).unwrap().node()
}

/// A pod's spec before, the patch, and after.
fn spec(current: Value, patch: Value, expected: Value) {
    let patched =
        strategic_merge_patch(json!({"spec": current}), json!({"spec": patch.clone()}), node("Pod"));
    match patched {
        Ok(patched) => assert_eq!(patched["spec"], expected, "{patch}"),
        Err(error) => panic!("{patch}: {}", error.message()),
    }
}

#[test]
fn lists_with_a_merge_key_merge() {
    spec(
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}),
        json!({"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "1"}]}),
        json!({"containers": [
            {"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "1"}]}),
    );
    // Nested: the ports of a container by containerPort, the environment by name.
    spec(
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "web"}],
            "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}]}),
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "env": [{"name": "Y", "$patch": "delete"}, {"name": "X", "value": null, "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]}]}),
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "web", "protocol": "TCP"}],
            "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]}]}),
    );
}

#[test]
fn lists_without_a_merge_key_are_replaced() {
    spec(
        json!({"containers": [{"name": "a", "args": ["x", "y"]}], "tolerations": [{"key": "a"}]}),
        json!({"containers": [{"name": "a", "args": ["z"]}], "tolerations": [{"key": "b"}]}),
        json!({"containers": [{"name": "a", "args": ["z"]}], "tolerations": [{"key": "b"}]}),
    );
}

#[test]
fn directives_on_maps() {
    let selector = json!({"nodeSelector": {"a": "1", "b": "2"}});
    spec(
        selector.clone(),
        json!({"nodeSelector": {"$patch": "replace", "c": "3"}}),
        json!({"nodeSelector": {"c": "3"}}),
    );
    spec(selector.clone(), json!({"nodeSelector": {"$patch": "delete"}}), json!({"nodeSelector": {}}));
    spec(selector.clone(), json!({"nodeSelector": {"a": null}}), json!({"nodeSelector": {"b": "2"}}));
    spec(selector, json!({"nodeSelector": null}), json!({}));
    spec(json!({}), json!({"securityContext": {"$patch": "delete"}}), json!({}));
    spec(json!({}), json!({"nodeSelector": {"a": null, "b": "1"}}), json!({"nodeSelector": {"b": "1"}}));
}

#[test]
fn directives_on_lists() {
    let volumes = json!({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}]});
    spec(
        volumes.clone(),
        json!({"volumes": [{"$patch": "replace"}, {"name": "c", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "c", "emptyDir": {}}]}),
    );
    spec(
        volumes.clone(),
        json!({"volumes": [{"name": "a", "$patch": "delete"}]}),
        json!({"volumes": [{"name": "b", "emptyDir": {}}]}),
    );
    // What is not there yet takes no directives with it.
    spec(
        json!({}),
        json!({"volumes": [{"name": "a", "$patch": "delete"}, {"name": "b", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "b", "emptyDir": {}}]}),
    );
    // As kubectl sends it when a volume changes its kind.
    spec(
        volumes,
        json!({"volumes": [{"name": "a", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}),
        json!({"volumes": [{"name": "a", "hostPath": {"path": "/x"}}, {"name": "b", "emptyDir": {}}]}),
    );
}

#[test]
fn retain_keys_of_a_deployment_strategy() {
    let current = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let patched = strategic_merge_patch(current.clone(), patch, node("Deployment")).unwrap();
    assert_eq!(patched, json!({"spec": {"strategy": {"type": "Recreate"}}}));
    let stray = json!({"spec": {"strategy": {"$retainKeys": ["rollingUpdate"], "type": "Recreate"}}});
    let refused = strategic_merge_patch(current, stray, node("Deployment")).unwrap_err();
    assert_eq!((refused.code(), refused.message()), (400, "invalid patch format of retainKeys"));
}

#[test]
fn the_order_of_elements() {
    let current = json!({"containers": [{"name": "server"}, {"name": "a"}, {"name": "b"}]});
    spec(
        current.clone(),
        json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
        json!({"containers": [{"name": "server"}, {"name": "b"}, {"name": "a"}]}),
    );
    spec(
        current,
        json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}],
            "containers": [{"name": "c", "image": "i"}]}),
        json!({"containers": [{"name": "c", "image": "i"}, {"name": "server"}, {"name": "a"}, {"name": "b"}]}),
    );
    let mismatch = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}],
        "containers": [{"name": "z"}]}});
    let refused =
        strategic_merge_patch(json!({"spec": {"containers": []}}), mismatch, node("Pod")).unwrap_err();
    assert_eq!(
        refused.message(),
        "The order in patch list:\n[map[name:z]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n"
    );
}

#[test]
fn lists_of_scalars() {
    let metadata = |current: Value, patch: Value, expected: Value| {
        let patched =
            strategic_merge_patch(json!({"metadata": current}), json!({"metadata": patch}), node("Pod"));
        assert_eq!(patched.unwrap()["metadata"], expected);
    };
    metadata(
        json!({"finalizers": ["a/x", "b/y"]}),
        json!({"finalizers": ["c/z", "a/x"]}),
        json!({"finalizers": ["c/z", "a/x", "b/y"]}),
    );
    metadata(
        json!({"finalizers": ["a/x", "b/y"]}),
        json!({"$deleteFromPrimitiveList/finalizers": ["a/x"]}),
        json!({"finalizers": ["b/y"]}),
    );
    metadata(json!({}), json!({"$deleteFromPrimitiveList/finalizers": ["a/x"]}), json!({}));
    metadata(
        json!({"finalizers": ["a/x", "b/y", "live/z"]}),
        json!({"$deleteFromPrimitiveList/finalizers": ["b/y"], "$setElementOrder/finalizers": ["n/w", "a/x"],
            "finalizers": ["n/w"]}),
        json!({"finalizers": ["n/w", "a/x", "live/z"]}),
    );
}

/// What `kubectl apply` sends for: last applied, live, new → the patch it computes, and the result.
#[test]
fn three_way_patches_of_kubectl() {
    let live = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "old",
            "deployment.kubernetes.io/revision": "1"}},
        "spec": {"replicas": 5, "template": {"spec": {"containers": [
            {"name": "web", "image": "nginx:1", "terminationMessagePath": "/dev/termination-log",
                "env": [{"name": "GONE", "value": "1"}, {"name": "STAYS", "value": "1"}],
                "ports": [{"containerPort": 80, "protocol": "TCP"}]},
            {"name": "injected", "image": "sidecar"}]}}},
    });
    let patch = json!({
        "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "new"}},
        "spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "web"}],
            "containers": [{
                "$setElementOrder/env": [{"name": "STAYS"}],
                "$setElementOrder/ports": [{"containerPort": 8080}],
                "env": [{"$patch": "delete", "name": "GONE"}],
                "image": "nginx:2", "name": "web",
                "ports": [{"containerPort": 8080}, {"$patch": "delete", "containerPort": 80}]}]}}},
    });
    let expected = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "new",
            "deployment.kubernetes.io/revision": "1"}},
        "spec": {"replicas": 5, "template": {"spec": {"containers": [
            {"name": "web", "image": "nginx:2", "terminationMessagePath": "/dev/termination-log",
                "env": [{"name": "STAYS", "value": "1"}],
                "ports": [{"containerPort": 8080}]},
            {"name": "injected", "image": "sidecar"}]}}},
    });
    assert_eq!(strategic_merge_patch(live, patch, node("Deployment")).unwrap(), expected);
}

#[test]
fn errors_read_as_upstream() {
    let error = |current: Value, patch: Value| {
        let error = strategic_merge_patch(current, patch, node("Pod")).unwrap_err();
        (error.code(), error.message().to_owned())
    };
    assert_eq!(
        error(
            json!({"spec": {"containers": [{"name": "a"}]}}),
            json!({"spec": {"containers": [{"image": "b"}]}})
        ),
        (500, "map: map[image:b] does not contain declared merge key: name".to_owned())
    );
    assert_eq!(
        error(json!({"spec": {}}), json!({"spec": {"$patch": "explode"}})),
        (500, "unknown patch type: explode in map: map[$patch:explode]".to_owned())
    );
    assert_eq!(
        error(json!({"spec": {"volumes": [{"name": "a"}]}}), json!({"spec": {"volumes": [[1]]}})).0,
        422
    );
    let custom = gantry_api::schema::Structural::default();
    assert_eq!(strategic_merge_patch(json!({}), json!({}), Node::Owned(&custom)).unwrap_err().code(), 415);
}

/// What `kubectl patch` would send to make `wanted` of `live`: a pod's spec with lists that merge by key.
fn two_way(live: &Value, wanted: &Value, key: Option<&str>) -> Value {
    let (live, wanted) = (live.as_object().unwrap(), wanted.as_object().unwrap());
    let mut patch = serde_json::Map::new();
    for (name, new) in wanted {
        match (live.get(name), new) {
            (Some(old), new) if old == new => {}
            (Some(Value::Array(old)), Value::Array(new)) if merge_key(name).is_some() => {
                let by = merge_key(name).unwrap();
                let named = |list: &[Value], id: &Value| list.iter().find(|e| &e[by] == id).cloned();
                let mut changes = Vec::new();
                for element in new {
                    match named(old, &element[by]) {
                        Some(before) if &before == element => {}
                        Some(before) => changes.push(two_way(&before, element, Some(by))),
                        None => changes.push(element.clone()),
                    }
                }
                let gone = old.iter().filter(|e| named(new, &e[by]).is_none());
                changes.extend(gone.map(|e| json!({by: e[by], "$patch": "delete"})));
                let order: Vec<Value> = new.iter().map(|e| json!({by: e[by]})).collect();
                patch.insert(format!("$setElementOrder/{name}"), order.into());
                patch.insert(name.clone(), changes.into());
            }
            (Some(Value::Object(_)), Value::Object(_)) => {
                patch.insert(name.clone(), two_way(&live[name], new, None));
            }
            _ => drop(patch.insert(name.clone(), new.clone())),
        }
    }
    for name in live.keys().filter(|name| !wanted.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    if let Some(key) = key {
        patch.insert(key.to_owned(), wanted[key].clone());
    }
    Value::Object(patch)
}

fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "env" => Some("name"),
        "ports" => Some("containerPort"),
        _ => None,
    }
}

/// Pods' specs with lists and maps that overlap.
fn pod_spec() -> impl Strategy<Value = Value> {
    let named = |names: &'static str| {
        prop::collection::btree_map(names, "[xyz]", 0..4).prop_map(|entries| {
            let list = entries.into_iter().map(|(name, value)| json!({"name": name, "value": value}));
            list.collect::<Vec<Value>>()
        })
    };
    let container = (prop::option::of("[xy]"), named("[A-C]"), prop::collection::btree_set(1u16..4, 0..3));
    let containers = prop::collection::vec(("[a-d]", container), 1..4).prop_map(|list| {
        let mut seen = std::collections::HashSet::new();
        let unique = list.into_iter().filter(|(name, _)| seen.insert(name.clone()));
        let container = |(name, (image, env, ports)): (String, (Option<String>, Vec<Value>, _))| {
            let ports: std::collections::BTreeSet<u16> = ports;
            let ports: Vec<Value> = ports.into_iter().map(|p| json!({"containerPort": p})).collect();
            let mut container = json!({"name": name, "env": env, "ports": ports});
            if let Some(image) = image {
                container["image"] = image.into();
            }
            container
        };
        unique.map(container).collect::<Vec<Value>>()
    });
    let selector = prop::option::of(prop::collection::btree_map("[a-c]", "[xy]", 1..3));
    (containers, selector).prop_map(|(containers, selector)| {
        let mut spec = json!({"containers": containers});
        if let Some(selector) = selector {
            spec["nodeSelector"] = json!(selector);
        }
        spec
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_two_way_patch_leads_where_it_should(live in pod_spec(), wanted in pod_spec()) {
        let patch = two_way(&live, &wanted, None);
        let patched = strategic_merge_patch(json!({"spec": live}), json!({"spec": patch}), node("Pod"));
        prop_assert_eq!(&patched.unwrap()["spec"], &wanted);
    }
}
