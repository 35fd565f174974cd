use proptest::prelude::*;
use serde_json::{Value, json};

use crate::apply::{MAX_OPERATIONS, json_patch, merge_patch};

#[test]
fn merge_patch_follows_rfc_7386() {
    // The examples of the RFC's appendix whose patch is an object.
    let cases = [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ];
    for (current, patch, expected) in cases {
        assert_eq!(merge_patch(current.clone(), patch.clone()).unwrap(), expected, "{current} + {patch}");
    }
    let refused = merge_patch(json!({}), json!([1])).unwrap_err();
    assert_eq!((refused.code(), refused.message()), (400, "Invalid JSON Patch"));
}

#[test]
fn json_patch_operations() {
    let document = json!({"a": [1, 2, 3], "b": {"c": "d"}, "x/y": 1});
    let cases = [
        (json!([{"op": "add", "path": "/a/1", "value": 9}]), json!([1, 9, 2, 3])),
        (json!([{"op": "add", "path": "/a/-", "value": 9}]), json!([1, 2, 3, 9])),
        (json!([{"op": "remove", "path": "/a/-1"}]), json!([1, 2])),
        (json!([{"op": "replace", "path": "/a/0", "value": {}}]), json!([{}, 2, 3])),
        (json!([{"op": "copy", "from": "/a/0", "path": "/a/3"}]), json!([1, 2, 3, 1])),
        (json!([{"op": "move", "from": "/a/0", "path": "/a/2"}]), json!([2, 3, 1])),
        (json!([{"op": "test", "path": "/a/0", "value": 1.0}]), json!([1, 2, 3])),
        (json!([{"op": "test", "path": "/gone", "value": null}]), json!([1, 2, 3])),
    ];
    for (patch, expected) in cases {
        let patched =
            json_patch(document.clone(), &patch).unwrap_or_else(|e| panic!("{patch}: {}", e.message()));
        assert_eq!(patched["a"], expected, "{patch}");
    }
    let escaped = json_patch(document.clone(), &json!([{"op": "remove", "path": "/x~1y"}])).unwrap();
    assert!(escaped.get("x/y").is_none());
    let inapplicable = [
        json!([{"op": "remove", "path": "/gone"}]),
        json!([{"op": "add", "path": "/gone/deeper", "value": 1}]),
        json!([{"op": "add", "path": "/a/9", "value": 1}]),
        json!([{"op": "test", "path": "/b/c", "value": "other"}]),
        json!([{"op": "move", "from": "/b", "path": "/b/c"}]),
        json!([{"op": "dance", "path": "/a"}]),
    ];
    for patch in inapplicable {
        assert_eq!(json_patch(document.clone(), &patch).unwrap_err().code(), 422, "{patch}");
    }
}

#[test]
fn json_patch_is_bounded() {
    let many = vec![json!({"op": "test", "path": "/gone"}); MAX_OPERATIONS + 1];
    let refused = json_patch(json!({}), &Value::Array(many)).unwrap_err();
    assert_eq!(refused.code(), 413);
    assert!(refused.message().contains("The allowed maximum operations in a JSON patch is 10000, got 10001"));
    // Every copy doubles the document.
    let doubling: Vec<Value> =
        (0..40).map(|i| json!({"op": "copy", "from": "", "path": format!("/{i}")})).collect();
    let refused = json_patch(json!({"text": "x".repeat(1000)}), &Value::Array(doubling)).unwrap_err();
    assert_eq!(refused.code(), 422);
    let refused = json_patch(json!({}), &json!({"op": "test"})).unwrap_err();
    assert_eq!(refused.message(), "json: cannot unmarshal object into Go value of type jsonpatch.Patch");
}

/// Small JSON documents.
pub fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (0i64..5).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|m| m.into_iter().collect()),
        ]
    });
    prop::collection::btree_map("[a-d]", value, 0..4).prop_map(|m| m.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn merging_twice_is_merging_once(current in document(), patch in document()) {
        let once = merge_patch(current, patch.clone()).unwrap();
        prop_assert_eq!(merge_patch(once.clone(), patch).unwrap(), once);
    }

    #[test]
    fn the_empty_patch_changes_nothing(current in document()) {
        prop_assert_eq!(merge_patch(current.clone(), json!({})).unwrap(), current);
    }

    #[test]
    fn any_document_can_be_reached(current in document(), wanted in document()) {
        let mut patch = wanted.as_object().unwrap().clone();
        for key in current.as_object().unwrap().keys().filter(|k| !wanted.as_object().unwrap().contains_key(*k)) {
            patch.insert(key.clone(), Value::Null);
        }
        // Nested objects would merge: replace them by first removing what is there.
        let cleared = json!({"a": null, "b": null, "c": null, "d": null});
        let cleared = merge_patch(current, cleared).unwrap();
        prop_assert_eq!(merge_patch(cleared, Value::Object(patch)).unwrap(), wanted);
    }
}

#[test]
fn operations_do_not_stack_values_without_end() {
    let mut deep = json!({});
    for _ in 0..100 {
        deep = json!({"a": deep});
    }
    let add = |times: usize| json!({"op": "add", "path": "/a".repeat(100 * times), "value": deep});
    let few: Vec<Value> = (1..4).map(add).collect();
    assert!(json_patch(deep.clone(), &json!(few)).is_ok());
    let many: Vec<Value> = (1..100).map(add).collect();
    assert_eq!(json_patch(deep.clone(), &json!(many)).unwrap_err().code(), 422);
    // To and fro, a hundred deeper each time.
    let place = "/a".repeat(100);
    let moves = (0..2_000).flat_map(|_| {
        [
            json!({"op": "add", "path": "/x", "value": deep}),
            json!({"op": "move", "from": "/a", "path": format!("/x{place}/a")}),
            json!({"op": "move", "from": "/x", "path": "/a"}),
        ]
    });
    let moves: Vec<Value> = moves.collect();
    assert_eq!(json_patch(deep.clone(), &json!(moves)).unwrap_err().code(), 422);
    let wide = (0..2_000).flat_map(|_| {
        [json!({"op": "move", "from": "/a", "path": "/b"}), json!({"op": "move", "from": "/b", "path": "/a"})]
    });
    assert!(json_patch(deep, &json!(wide.collect::<Vec<_>>())).is_ok());
}
