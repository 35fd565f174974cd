//! flowcontrol.apiserver.k8s.io.

use serde_json::{Value, json};

use crate::Subject;

const GROUP: &str = "flowcontrol.apiserver.k8s.io/v1";

#[test]
fn flow_schemas() {
    let subject =
        Subject::new(GROUP, "flowschemas", json!({"spec": {"priorityLevelConfiguration": {"name": "low"}}}));
    subject.defaults_to(&[
        ("/spec/matchingPrecedence", json!(1000)),
        ("/metadata/generation", json!(1)),
        ("/status", json!({})),
    ]);
    subject.refuses(
        &json!({"spec": {"matchingPrecedence": 1, "priorityLevelConfiguration": {"name": null}, "distinguisherMethod": {"type": "ByMoon"}}}),
        &[
            "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
            r#"spec.distinguisherMethod.type: Unsupported value: {"Type":"ByMoon"}: supported values: "ByNamespace", "ByUser""#,
            "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
        ],
    );
    subject.refuses(
        &json!({"spec": {"rules": [{}, {
            "subjects": [{"kind": "User", "group": {"name": "g"}}, {"kind": "ServiceAccount", "serviceAccount": {"name": "", "namespace": ""}}, {"kind": "Robot"}],
            "resourceRules": [{"verbs": ["get", "fly"], "apiGroups": ["*", "a"], "resources": []}],
            "nonResourceRules": [{"verbs": ["*", "get"], "nonResourceURLs": ["a", "/a*"]}],
        }]}}),
        &[
            "spec.rules[0].subjects: Required value: subjects must contain at least one value",
            "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
            "spec.rules[1].subjects[0].user: Required value: user is required when subject kind is 'User'",
            "spec.rules[1].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
            "spec.rules[1].subjects[1].serviceAccount.name: Required value",
            "spec.rules[1].subjects[1].serviceAccount.namespace: Required value: must specify namespace for service account",
            r#"spec.rules[1].subjects[2].kind: Unsupported value: "Robot": supported values: "Group", "ServiceAccount", "User""#,
            r#"spec.rules[1].resourceRules[0].verbs: Unsupported value: ["get","fly"]: supported values: "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch""#,
            r#"spec.rules[1].resourceRules[0].apiGroups: Invalid value: ["*","a"]: if '*' is present, must not specify other api groups"#,
            "spec.rules[1].resourceRules[0].resources: Required value: resource rules must supply at least one resource",
            "spec.rules[1].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
            r#"spec.rules[1].nonResourceRules[0].verbs: Invalid value: ["*","get"]: if '*' is present, must not specify other verbs"#,
            r#"spec.rules[1].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "a": must start with slash"#,
            r#"spec.rules[1].nonResourceRules[0].nonResourceURLs[1]: Invalid value: "/a*": wildcard can only do suffix matching"#,
        ],
    );
    let errors = subject.errors(&json!({"metadata": {"name": "exempt"}, "spec": {"matchingPrecedence": 1}}));
    assert!(
        errors.len() == 1 && errors[0].ends_with("spec of 'exempt' must equal the fixed value"),
        "{errors:?}"
    );
    let (status, errors) = subject.part_updated(
        "status",
        &json!({"spec": {"matchingPrecedence": 5}, "status": {"conditions": [{"type": "A"}, {"type": "A"}, {}]}}),
    );
    assert_eq!(status["spec"]["matchingPrecedence"], 1000);
    assert_eq!(
        errors,
        [r#"status.conditions[1].type: Duplicate value: "A""#, "status.conditions[2].type: Required value"]
    );
    assert_eq!(subject.cells(&Value::Null), ["low", "1000", "<none>", "3h", "?"]);
}

#[test]
fn priority_levels() {
    let minimal =
        json!({"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}});
    let subject = Subject::new(GROUP, "prioritylevelconfigurations", minimal);
    subject.defaults_to(&[(
        "/spec/limited",
        json!({
            "nominalConcurrencyShares": 30, "lendablePercent": 0,
            "limitResponse": {"type": "Queue", "queuing": {"handSize": 8, "queues": 64, "queueLengthLimit": 50}},
        }),
    )]);
    subject.refuses(
        &json!({"spec": {"type": "Exempt"}}),
        &[
            "spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is 'exempt'",
            "spec.limited: Forbidden: must be nil if the type is not Limited",
        ],
    );
    subject.refuses(
        &json!({"spec": {"limited": {"nominalConcurrencyShares": -1, "lendablePercent": 101, "borrowingLimitPercent": -1, "limitResponse": {"queuing": {"queueLengthLimit": -1, "queues": 4}}}}}),
        &[
            "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
            "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive",
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (4)",
            "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
            "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
        ],
    );
    subject.refuses(
        &json!({"spec": {"limited": {"limitResponse": {"queuing": {"queues": 1024, "handSize": 7}}}}}),
        &["spec.limited.limitResponse.queuing.handSize: Invalid value: 7: required entropy bits of deckSize 1024 and handSize 7 should not be greater than 60"],
    );
    let errors = subject.errors(&json!({"metadata": {"name": "catch-all"}}));
    assert!(
        errors.len() == 1 && errors[0].ends_with("spec of 'catch-all' must equal the fixed value"),
        "{errors:?}"
    );
    assert_eq!(subject.cells(&Value::Null), ["Limited", "30", "64", "8", "50", "3h"]);
}
