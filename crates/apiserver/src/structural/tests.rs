//! Golden cases of structural schemas.

use gantry_api::field::Path;
use serde_json::{Value, json};

use super::CustomSchema;
use crate::apply::{OneVersion, Reset, Writer, apply, unknown_fields};

fn parse(schema: Value) -> CustomSchema {
    CustomSchema::parse(&schema).unwrap()
}

/// A resource whose spec has these properties.
fn with(properties: Value) -> CustomSchema {
    parse(json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}))
}

fn texts(schema: &CustomSchema, spec: Value) -> Vec<String> {
    let object = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "n"}, "spec": spec});
    schema.validate(&object, None).iter().map(ToString::to_string).collect()
}

#[test]
fn errors_read_as_upstream() {
    let integer = json!({"replicas": {"type": "integer", "minimum": 1, "maximum": 10}});
    let cases = [
        (
            integer.clone(),
            json!({"replicas": "x"}),
            "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
        ),
        (
            integer.clone(),
            json!({"replicas": 0}),
            "spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1",
        ),
        (
            integer.clone(),
            json!({"replicas": 11}),
            "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
        ),
        (
            integer.clone(),
            json!({"replicas": true}),
            "spec.replicas: Invalid value: \"boolean\": spec.replicas in body must be of type integer: \"boolean\"",
        ),
        (
            integer,
            json!({"replicas": null}),
            "spec.replicas: Invalid value: \"null\": spec.replicas in body must be of type integer: \"null\"",
        ),
        (
            json!({"name": {"type": "string", "pattern": "^[a-z]+$"}}),
            json!({"name": "A"}),
            "spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]+$'",
        ),
        (
            json!({"name": {"type": "string", "minLength": 2}}),
            json!({"name": "A"}),
            "spec.name: Invalid value: \"A\": spec.name in body should be at least 2 chars long",
        ),
        (
            json!({"name": {"type": "string", "enum": ["a", "b"]}}),
            json!({"name": "c"}),
            "spec.name: Unsupported value: \"c\": supported values: \"a\", \"b\"",
        ),
        (
            json!({"list": {"type": "array", "minItems": 1, "items": {"type": "string"}}}),
            json!({"list": []}),
            "spec.list: Invalid value: 0: spec.list in body should have at least 1 items",
        ),
        (
            json!({"list": {"type": "array", "items": {"type": "string"}}}),
            json!({"list": ["a", 1]}),
            "spec.list[1]: Invalid value: \"integer\": spec.list[1] in body must be of type string: \"integer\"",
        ),
        (
            json!({"list": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}),
            json!({"list": ["a", "b", "a", "a"]}),
            "spec.list[2]: Duplicate value: \"a\"",
        ),
        (
            json!({"list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}),
            json!({"list": [{"k": "a"}, {"k": "a"}]}),
            "spec.list[1]: Duplicate value: {\"k\":\"a\"}",
        ),
        (
            json!({"day": {"type": "string", "format": "date"}}),
            json!({"day": "yesterday"}),
            "spec.day: Invalid value: \"yesterday\": spec.day in body must be of type date: \"yesterday\"",
        ),
        (
            json!({"a": {"type": "object", "required": ["b"], "properties": {"b": {"type": "string"}}}}),
            json!({"a": {}}),
            "spec.a.b: Required value",
        ),
        (
            json!({"a": {"type": "string", "anyOf": [{"pattern": "x"}, {"pattern": "y"}]}}),
            json!({"a": "xy"}),
            "",
        ),
        (json!({"port": {"x-kubernetes-int-or-string": true}}), json!({"port": "http"}), ""),
        (json!({"port": {"x-kubernetes-int-or-string": true}}), json!({"port": 80}), ""),
        (
            json!({"port": {"x-kubernetes-int-or-string": true}}),
            json!({"port": {}}),
            "spec.port: Invalid value: \"object\": spec.port in body must be of type integer,string: \"object\"",
        ),
        (json!({"null": {"type": "string", "nullable": true}}), json!({"null": null}), ""),
    ];
    for (properties, spec, expected) in cases {
        let expected: Vec<&str> = if expected.is_empty() { Vec::new() } else { vec![expected] };
        assert_eq!(texts(&with(properties.clone()), spec.clone()), expected, "{properties} {spec}");
    }
}

#[test]
fn junctors() {
    let schema = with(json!({"a": {"type": "integer", "oneOf": [{"minimum": 5}, {"maximum": 10}]}}));
    assert!(texts(&schema, json!({"a": 20})).is_empty());
    assert_eq!(
        texts(&schema, json!({"a": 7})),
        [
            "<nil>: Invalid value: \"\": \"spec.a\" must validate one and only one schema (oneOf). Found 2 valid alternatives"
        ]
    );
    let schema = with(json!({"a": {"type": "integer", "not": {"minimum": 5}}}));
    assert_eq!(
        texts(&schema, json!({"a": 7})),
        ["<nil>: Invalid value: \"\": \"spec.a\" must not validate the schema (not)"]
    );
}

#[test]
fn pruning_and_defaulting() {
    let schema = with(json!({
        "kept": {"type": "string", "default": "here"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"strict": {"type": "object", "properties": {"a": {"type": "string"}}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {
            "b": {"type": "integer", "default": 3}}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "boolean", "default": true}}}},
        "template": {"type": "object", "x-kubernetes-embedded-resource": true,
            "properties": {"spec": {"type": "object"}}},
    }));
    let mut object = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "n", "labels": {"a": "b"}},
        "extra": 1, "spec": {"gone": 1, "kept": null, "free": {"x": {"y": 1}, "strict": {"a": "1", "z": 1}},
            "map": {"k": {"z": 1}}, "list": [{"z": 1}],
            "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "t"}, "status": {}}}});
    assert_eq!(
        unknown_fields(&object, schema.node()),
        [
            "extra",
            "spec.free.strict.z",
            "spec.gone",
            "spec.list[0].z",
            "spec.map.k.z",
            "spec.template.status"
        ]
        .map(|path| format!("unknown field \"{path}\""))
    );
    schema.prune(&mut object);
    schema.default(&mut object);
    assert_eq!(
        object["spec"],
        json!({"kept": "here", "free": {"x": {"y": 1}, "strict": {"a": "1"}},
        "map": {"k": {"b": 3}}, "list": [{"c": true}],
        "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "t"}}})
    );
    assert_eq!(object["metadata"], json!({"name": "n", "labels": {"a": "b"}}));
    assert!(object.get("extra").is_none());
    assert!(schema.validate(&object, None).is_empty());
}

#[test]
fn what_is_not_structural_is_told() {
    let problems = |schema: Value| -> Vec<String> {
        let path = Path::new("schema");
        parse(schema).problems(&path).iter().map(ToString::to_string).collect()
    };
    assert!(
        problems(json!({"type": "object", "properties": {"p": {"x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}]}}}))
        .is_empty()
    );
    assert_eq!(problems(json!({})), ["schema.type: Required value: must not be empty at the root"]);
    assert_eq!(
        problems(json!({"type": "object", "properties": {"a": {}, "l": {"type": "array"}}})),
        [
            "schema.properties[a].type: Required value: must not be empty for specified object fields",
            "schema.properties[l].items: Required value: must be specified",
        ]
    );
    assert_eq!(
        problems(json!({"type": "object", "anyOf": [{"properties": {"b": {"type": "string"}}}]})),
        [
            "schema.anyOf[0].properties[b].type: Forbidden: must be empty to be structural",
            "schema.properties[b]: Required value: because it is defined in schema.anyOf[0].properties[b]",
        ]
    );
    assert_eq!(
        problems(json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {
            "labels": {"type": "object"}}}}})),
        [
            "schema.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but \
          metadata is implicitly specified"
        ]
    );
    assert_eq!(
        CustomSchema::parse(&json!({"$ref": "#/x"})).unwrap_err(),
        "OpenAPIV3Schema '$ref' is not supported"
    );
}

#[test]
fn custom_resources_can_be_applied() {
    let schema = with(json!({
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }));
    let run = |live: Option<&Value>, manager, spec: Value| {
        let writer = Writer {
            manager,
            api_version: "x/v1",
            subresource: "",
            time: "2026-01-01T00:00:00Z",
            reset: Reset::Fields(&[]),
            others: &OneVersion,
        };
        let config = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "n"}, "spec": spec});
        apply(live, &config, &writer, "X", false, schema.node()).map(|applied| applied.object.unwrap())
    };
    let first = run(None, "a", json!({"list": [{"k": "x", "v": 1}], "free": {"p": {"q": [1]}}})).unwrap();
    let second = run(Some(&first), "b", json!({"list": [{"k": "y"}], "free": {"p": {"r": 2}}})).unwrap();
    assert_eq!(
        second["spec"],
        json!({"list": [{"k": "x", "v": 1}, {"k": "y"}], "free": {"p": {"q": [1], "r": 2}}})
    );
    let refused = run(Some(&second), "b", json!({"list": [{"k": "x", "v": 2}]})).unwrap_err();
    assert_eq!(refused.message(), "Apply failed with 1 conflict: conflict with \"a\": .spec.list[k=\"x\"].v");
    assert_eq!(
        run(None, "a", json!({"nope": 1})).unwrap_err().message(),
        "failed to create typed patch object (/n; x/v1, Kind=X): .spec.nope: field not declared in schema"
    );
}
