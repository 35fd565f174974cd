//! policy, scheduling.k8s.io, node.k8s.io: what decides about other people's pods.

use serde_json::{Value, json};

use crate::Subject;

#[test]
fn disruption_budgets() {
    let minimal = json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
    let subject = Subject::new("policy/v1", "poddisruptionbudgets", minimal);
    subject.defaults_to(&[
        ("/metadata/generation", json!(1)),
        (
            "/status",
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}),
        ),
    ]);
    let errors =
        subject.errors(&json!({"spec": {"maxUnavailable": "101%", "unhealthyPodEvictionPolicy": "Never"}}));
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors[0].ends_with("minAvailable and maxUnavailable cannot be both set"));
    assert_eq!(errors[1], r#"spec.maxUnavailable: Invalid value: "101%": must not be greater than 100%"#);
    assert_eq!(
        errors[2],
        r#"spec.unhealthyPodEvictionPolicy: Unsupported value: "Never": supported values: "AlwaysAllow", "IfHealthyBudget""#
    );
    subject.refuses(
        &json!({"spec": {"minAvailable": "many"}}),
        &[r#"spec.minAvailable: Invalid value: "many": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"#],
    );
    let (updated, _) = subject.updated(&Value::Null, &json!({"spec": {"minAvailable": 2}}));
    assert_eq!(updated["metadata"]["generation"], 2);
    let (_, errors) = subject.part_updated("status", &json!({"status": {"disruptionsAllowed": -1}}));
    assert_eq!(errors, ["status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0"]);
    assert_eq!(subject.cells(&Value::Null), ["1", "N/A", "0", "3h"]);
}

#[test]
fn priority_classes() {
    let subject = Subject::new("scheduling.k8s.io/v1", "priorityclasses", json!({"value": 5}));
    subject.defaults_to(&[
        ("/preemptionPolicy", json!("PreemptLowerPriority")),
        ("/metadata/generation", json!(1)),
    ]);
    subject.refuses(
        &json!({"value": 1_000_000_001, "preemptionPolicy": "Sometimes"}),
        &[
            "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
            r#"preemptionPolicy: Unsupported value: "Sometimes": supported values: "PreemptLowerPriority", "Never""#,
        ],
    );
    subject.refuses(
        &json!({"metadata": {"name": "system-mine"}}),
        &["metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-mine is not a known system priority class"],
    );
    subject.refuses(
        &json!({"metadata": {"name": "system-node-critical"}}),
        &["metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: value of system-node-critical PriorityClass must be 2000001000"],
    );
    subject.refuses(&json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000}), &[]);
    subject.refuses_update(
        &Value::Null,
        &json!({"value": 6, "preemptionPolicy": "Never"}),
        &[
            "value: Forbidden: may not be changed in an update.",
            r#"preemptionPolicy: Invalid value: "Never": field is immutable"#,
        ],
    );
    assert_eq!(subject.cells(&Value::Null), ["5", "false", "3h", "PreemptLowerPriority"]);
}

#[test]
fn runtime_classes() {
    let subject = Subject::new("node.k8s.io/v1", "runtimeclasses", json!({"handler": "runc"}));
    subject.refuses(&json!({"handler": null}), &["handler: Required value"]);
    subject.refuses(
        &json!({
            "overhead": {"podFixed": {"cpu": "-1"}},
            "scheduling": {"tolerations": [{"key": "a", "operator": "Exists"}, {"key": "a", "operator": "Exists"}]},
        }),
        &[
            r#"overhead.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0"#,
            r#"scheduling.tolerations[1]: Duplicate value: {"key":"a","operator":"Exists"}"#,
        ],
    );
    subject.refuses_update(
        &Value::Null,
        &json!({"handler": "kata"}),
        &[r#"handler: Invalid value: "kata": field is immutable"#],
    );
    assert_eq!(subject.cells(&Value::Null), ["runc", "3h"]);
}
