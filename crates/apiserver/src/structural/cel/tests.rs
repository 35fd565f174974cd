//! Rules by their facts: what definitions may have, and what they find.

use gantry_api::field::Path;
use serde_json::{Value, json};

use crate::structural::CustomSchema;

fn schema(spec: Value) -> CustomSchema {
    CustomSchema::parse(&json!({"type": "object", "properties": {"spec": spec}})).expect("it is a schema")
}

fn object(spec: &Value) -> Value {
    json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "n"}, "spec": spec})
}

fn texts(schema: &CustomSchema, spec: Value, old: Option<Value>) -> Vec<String> {
    let old = old.map(|old| object(&old));
    schema.validate(&object(&spec), old.as_ref()).iter().map(ToString::to_string).collect()
}

fn problems(spec: Value) -> Vec<String> {
    schema(spec).problems(&Path::new("schema")).iter().map(ToString::to_string).collect()
}

fn with_rule(rule: Value) -> Value {
    json!({"type": "object", "x-kubernetes-validations": [rule],
           "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}, "name": {"type": "string"}}})
}

#[test]
fn failures_read_as_upstream() {
    let cases = [
        (
            json!({"rule": "self.x < self.y"}),
            json!({"x": 2, "y": 1}),
            "spec: Invalid value: failed rule: self.x < self.y",
        ),
        (
            json!({"rule": "self.x < 1", "message": " too large "}),
            json!({"x": 2}),
            "spec: Invalid value: too large",
        ),
        (
            json!({"rule": "self.x < 1", "messageExpression": "'x is ' + string(self.x)"}),
            json!({"x": 2}),
            "spec: Invalid value: x is 2",
        ),
        (
            json!({"rule": "self.x < 1", "messageExpression": "string(self.y)", "message": "fallback"}),
            json!({"x": 2}),
            "spec: Invalid value: fallback",
        ),
        (
            json!({"rule": "self.x < 1", "fieldPath": ".x", "reason": "FieldValueForbidden"}),
            json!({"x": 2}),
            "spec.x: Forbidden: failed rule: self.x < 1",
        ),
        (
            json!({"rule": "self.y == 1"}),
            json!({"x": 2}),
            "spec: Invalid value: \"object\": no such key: y evaluating rule: self.y == 1",
        ),
        (
            json!({"rule": "1 / self.x == 1"}),
            json!({"x": 0}),
            "spec: Invalid value: \"object\": division by zero evaluating rule: 1 / self.x == 1",
        ),
        (
            json!({"rule": "has(self.name) && self.name.matches('^[a-z]+$')"}),
            json!({"name": "A1"}),
            "spec: Invalid value: failed rule: has(self.name) && self.name.matches('^[a-z]+$')",
        ),
    ];
    for (rule, spec, expected) in cases {
        assert_eq!(texts(&schema(with_rule(rule)), spec, None), [expected]);
    }
    let fits = schema(with_rule(json!({"rule": "self.x < self.y"})));
    assert!(texts(&fits, json!({"x": 1, "y": 2}), None).is_empty());
}

#[test]
fn rules_on_scalars_show_the_value() {
    let schema = schema(json!({"type": "object", "properties": {"n": {"type": "integer",
        "x-kubernetes-validations": [{"rule": "self > 3"}]}}}));
    assert_eq!(texts(&schema, json!({"n": 2}), None), ["spec.n: Invalid value: 2: failed rule: self > 3"]);
}

#[test]
fn transition_rules_run_where_old_and_new_belong_together() {
    let constant = json!([{"rule": "self == oldSelf", "message": "immutable"}]);
    let schema = schema(json!({"type": "object", "properties": {
        "fixed": {"type": "string", "x-kubernetes-validations": constant},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"},
                "v": {"type": "string", "x-kubernetes-validations": constant}}}},
        "map": {"type": "object", "additionalProperties": {"type": "string", "x-kubernetes-validations": constant}},
        "maybe": {"type": "string", "x-kubernetes-validations": [
            {"rule": "!oldSelf.hasValue() || self == oldSelf.value()", "optionalOldSelf": true, "message": "no change"}]}
    }}));
    let old = json!({"fixed": "a", "list": [{"k": "1", "v": "x"}, {"k": "2", "v": "y"}], "map": {"m": "z"}, "maybe": "q"});
    assert!(texts(&schema, old.clone(), None).is_empty());
    assert!(texts(&schema, old.clone(), Some(old.clone())).is_empty());
    let new = json!({"fixed": "b", "list": [{"k": "2", "v": "!"}, {"k": "3", "v": "new"}], "map": {"m": "!", "n": "new"}, "maybe": "r"});
    assert_eq!(
        texts(&schema, new, Some(old.clone())),
        [
            "spec.fixed: Invalid value: \"b\": immutable",
            "spec.list[0].v: Invalid value: \"!\": immutable",
            "spec.map[m]: Invalid value: \"!\": immutable",
            "spec.maybe: Invalid value: \"r\": no change",
        ]
    );
    assert!(texts(&schema, json!({"fixed": "new"}), Some(json!({}))).is_empty());
}

#[test]
fn what_did_not_change_is_forgiven() {
    let schema = schema(json!({"type": "object", "properties": {
        "n": {"type": "integer", "maximum": 5, "x-kubernetes-validations": [{"rule": "self < 3"}]},
        "other": {"type": "string"}
    }}));
    let bad = json!({"n": 7, "other": "a"});
    assert_eq!(texts(&schema, bad.clone(), None).len(), 2);
    let changed = json!({"n": 7, "other": "b"});
    assert!(texts(&schema, changed.clone(), Some(bad.clone())).is_empty());
    assert_eq!(
        schema.forgiven(&object(&changed), &object(&bad)),
        ["spec.n: Invalid value: 7: failed rule: self < 3"]
    );
    assert_eq!(texts(&schema, json!({"n": 8}), Some(bad)).len(), 2);
}

#[test]
fn unreadable_objects_stop_the_rules() {
    let schema = schema(with_rule(json!({"rule": "self.x < 1"})));
    let found = texts(&schema, json!({"x": "text"}), None);
    assert_eq!(
        found.last().map(String::as_str),
        Some(
            "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"
        )
    );
}

#[test]
fn cost_at_run_time_is_limited() {
    let schema =
        schema(json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "integer"},
        "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, self.all(c, a + b + c > 0)))"}]}}}));
    let list: Vec<i32> = (1..200).collect();
    assert_eq!(
        texts(&schema, json!({"l": list}), None),
        [
            "spec.l: Invalid value: \"array\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: self.all(a, self.all(b, self.all(c, a + b + c > 0)))"
        ]
    );
}

#[test]
fn names_are_escaped_and_metadata_is_known() {
    let schema = CustomSchema::parse(&json!({"type": "object",
        "x-kubernetes-validations": [{"rule": "self.metadata.name.startsWith('n') && self.kind == 'X'"}],
        "properties": {"spec": {"type": "object", "properties": {"a-b": {"type": "integer"}, "namespace": {"type": "string"}},
            "x-kubernetes-validations": [{"rule": "self.a__dash__b == 1 && self.__namespace__ == 'q'"}]}}}))
    .expect("it is a schema");
    assert!(schema.problems(&Path::new("schema")).is_empty());
    assert!(texts(&schema, json!({"a-b": 1, "namespace": "q"}), None).is_empty());
}

#[test]
fn definitions_are_refused_as_upstream_does() {
    let at = "schema.properties[spec].x-kubernetes-validations[0]";
    let go = |rule: &str| {
        format!(
            r#"{{"Rule":{rule:?},"Message":"","MessageExpression":"","Reason":null,"FieldPath":"","OptionalOldSelf":null}}"#
        )
    };
    let cases = [
        (
            json!({"rule": "self.z == 100"}),
            format!(
                "{at}.rule: Invalid value: {}: compilation failed: ERROR: <input>:1:5: undefined field 'z'\n | self.z == 100\n | ....^",
                go("self.z == 100")
            ),
        ),
        (
            json!({"rule": "self = 42"}),
            format!(
                "{at}.rule: Invalid value: {}: compilation failed: ERROR: <input>:1:6: Syntax error: token recognition error at: '= '\n | self = 42\n | .....^\nERROR: <input>:1:8: Syntax error: extraneous input '42' expecting <EOF>\n | self = 42\n | .......^",
                go("self = 42")
            ),
        ),
        (
            json!({"rule": "self.x"}),
            format!("{at}.rule: Invalid value: {}: cel expression must evaluate to a bool", go("self.x")),
        ),
        (json!({"rule": " "}), format!("{at}.rule: Required value: rule is not specified")),
        (
            json!({"rule": "true", "message": "a\nb"}),
            format!("{at}.message: Invalid value: \"a\\nb\": must not contain line breaks"),
        ),
        (
            json!({"rule": "true", "fieldPath": ".zz"}),
            format!("{at}.fieldPath: Invalid value: \".zz\": must be a valid path"),
        ),
        (
            json!({"rule": "true", "optionalOldSelf": true}),
            format!(
                "{at}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"
            ),
        ),
    ];
    for (rule, expected) in cases {
        assert_eq!(problems(with_rule(rule)), [expected]);
    }
}

#[test]
fn estimated_cost_is_limited() {
    // The definition of the conformance test.
    let found = problems(
        json!({"type": "object", "properties": {"x": {"type": "array", "items": {"type": "array",
        "items": {"type": "string"}, "x-kubernetes-validations": [{"rule": "self.all(s, s == 'string constant')"}]}}}}),
    );
    assert!(found[0].contains("estimated rule cost exceeds budget by factor of more than 100x"), "{found:?}");
    let bounded = json!({"type": "object", "properties": {"x": {"type": "array", "maxItems": 10, "items": {"type": "string",
        "maxLength": 10}, "x-kubernetes-validations": [{"rule": "self.all(s, s == 'string constant')"}]}}});
    assert!(problems(bounded).is_empty());
    let set = problems(
        json!({"type": "object", "properties": {"x": {"type": "array", "maxItems": 10, "items": {"type": "integer",
        "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}}),
    );
    assert_eq!(
        set,
        [
            "schema.properties[spec].properties[x].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within schema.properties[spec].properties[x]"
        ]
    );
}
