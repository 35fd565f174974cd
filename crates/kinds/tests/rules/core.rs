//! The core group.

use serde_json::{Value, json};

use crate::Subject;

#[test]
fn limit_ranges() {
    let minimal =
        json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]}});
    let subject = Subject::new("v1", "limitranges", minimal);
    subject.defaults_to(&[
        ("/spec/limits/0/default", json!({"cpu": "2"})),
        ("/spec/limits/0/defaultRequest", json!({"cpu": "2", "memory": "1Mi"})),
    ]);
    let limits = |limits: Value| json!({"spec": {"limits": limits}});
    subject.refuses(
        &limits(json!([{"type": "Pod", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1"}, "max": {"cpus": "1"}}, {"type": "Pod"}])),
        &[
            r#"spec.limits[0].max[cpus]: Invalid value: "cpus": must be a standard resource type or fully qualified"#,
            r#"spec.limits[0].max[cpus]: Invalid value: "cpus": must be a standard resource for containers"#,
            "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
            "spec.limits[0].defaultRequest: Forbidden: may not be specified when `type` is 'Pod'",
            r#"spec.limits[1].type: Duplicate value: "Pod""#,
        ],
    );
    subject.refuses(
        &limits(json!([{"type": "Volume"}, {"type": "PersistentVolumeClaim"}])),
        &[
            r#"spec.limits[0].type: Invalid value: "Volume": must be a standard limit type or fully qualified"#,
            "spec.limits[1].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
        ],
    );
    subject.refuses(
        &limits(json!([{
            "type": "Container", "min": {"cpu": "3"}, "max": {"cpu": "2"}, "default": {"cpu": "1"},
            "defaultRequest": {"cpu": "4"}, "maxLimitRequestRatio": {"cpu": "500m"},
        }])),
        &[
            r#"spec.limits[0].min[cpu]: Invalid value: "3": min value 3 is greater than max value 2"#,
            r#"spec.limits[0].defaultRequest[cpu]: Invalid value: "4": default request value 4 is greater than max value 2"#,
            r#"spec.limits[0].defaultRequest[cpu]: Invalid value: "4": default request value 4 is greater than default limit value 1"#,
            r#"spec.limits[0].default[cpu]: Invalid value: "3": min value 3 is greater than default value 1"#,
            r#"spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1"#,
        ],
    );
    subject.refuses(
        &limits(json!([{"type": "Pod", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}}])),
        &[r#"spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "3": ratio 3 is greater than max/min = 2.000000"#],
    );
}

#[test]
fn resource_quotas() {
    let subject = Subject::new("v1", "resourcequotas", json!({"spec": {"hard": {"pods": "3"}}}));
    subject.defaults_to(&[("/status", json!({}))]);
    assert_eq!(subject.created(&json!({"status": {"used": {"pods": "1"}}}))["status"], json!({}));
    subject.refuses(
        &json!({"spec": {"hard": {"pods": "-1", "secrets": "1500m", "things": "1", "storage": "1", "example.com/gpu": "1"}}}),
        &[
            r#"spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0"#,
            r#"spec.hard[secrets]: Invalid value: "1500m": must be an integer"#,
            r#"spec.hard[storage]: Invalid value: "storage": must be a standard resource for quota"#,
            r#"spec.hard[things]: Invalid value: "things": must be a standard resource type or fully qualified"#,
            r#"spec.hard[things]: Invalid value: "things": must be a standard resource for quota"#,
        ],
    );
    subject.refuses(
        &json!({"spec": {"hard": {"secrets": "1"}, "scopes": ["BestEffort", "NotBestEffort", "Odd"]}}),
        &[
            r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Odd"]: unsupported scope applied to resource"#,
            r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Odd"]: unsupported scope applied to resource"#,
            r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Odd"]: unsupported scope"#,
            r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Odd"]: conflicting scopes"#,
        ],
    );
    let selector = |operator: &str, scope: &str, values: Value| json!({"spec": {"scopeSelector": {"matchExpressions": [{"operator": operator, "scopeName": scope, "values": values}]}}});
    subject.refuses(
        &selector("In", "PriorityClass", json!([])),
        &["spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"],
    );
    subject.refuses(
        &selector("Exists", "BestEffort", json!(["a"])),
        &[r#"spec.scopeSelector.matchExpressions.values: Invalid value: ["a"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"#],
    );
    subject.refuses_update(
        &Value::Null,
        &json!({"spec": {"scopes": ["BestEffort"]}}),
        &[r#"spec.scopes: Invalid value: ["BestEffort"]: field is immutable"#],
    );
    let (status, errors) = subject.part_updated(
        "status",
        &json!({"spec": {"hard": {"pods": "9"}}, "status": {"used": {"pods": "-2"}}}),
    );
    assert_eq!(status["spec"]["hard"]["pods"], "3");
    assert_eq!(errors, [r#"status.used[pods]: Invalid value: "-2": must be greater than or equal to 0"#]);
    let counted = json!({"status": {"hard": {"pods": "3", "limits.cpu": "4"}, "used": {"pods": "1"}}});
    assert_eq!(subject.cells(&counted), ["pods: 1/3", "limits.cpu: 0/4", "3h"]);
}

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

#[test]
fn replication_controllers() {
    let subject = Subject::new("v1", "replicationcontrollers", json!({"spec": {"template": template()}}));
    subject.defaults_to(&[
        ("/spec/replicas", json!(1)),
        ("/spec/selector", json!({"a": "b"})),
        ("/metadata/labels", json!({"a": "b"})),
        ("/metadata/generation", json!(1)),
        ("/status", json!({"replicas": 0})),
        ("/spec/template/spec/restartPolicy", json!("Always")),
    ]);
    subject.refuses(
        &json!({"spec": {"template": null}}),
        &["spec.selector: Required value", "spec.template: Required value"],
    );
    subject.refuses(
        &json!({"spec": {
            "replicas": -1, "minReadySeconds": -1, "selector": {"a": "c"},
            "template": {"spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 1}},
        }}),
        &[
            "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            r#"spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`"#,
            r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#,
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicationController is not Supported",
        ],
    );
    let (updated, errors) =
        subject.updated(&Value::Null, &json!({"spec": {"replicas": 2}, "status": {"replicas": 7}}));
    assert_eq!((&updated["metadata"]["generation"], &updated["status"]["replicas"]), (&json!(2), &json!(0)));
    assert!(errors.is_empty());
    let (_, errors) = subject.part_updated(
        "status",
        &json!({"status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": 3}}),
    );
    assert_eq!(
        errors,
        [
            "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas",
        ]
    );
    assert_eq!(subject.cells(&Value::Null), ["1", "0", "0", "3h", "c", "i:1", "a=b"]);
}

#[test]
fn pod_templates() {
    let subject = Subject::new("v1", "podtemplates", json!({"template": template()}));
    subject.defaults_to(&[
        ("/metadata/generation", json!(1)),
        ("/template/spec/dnsPolicy", json!("ClusterFirst")),
    ]);
    subject.refuses(
        &json!({"template": {"metadata": {"labels": {"a b": "c"}}}}),
        &["template.labels: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"],
    );
    let (updated, _) =
        subject.updated(&Value::Null, &json!({"template": {"metadata": {"labels": {"a": "c"}}}}));
    assert_eq!(updated["metadata"]["generation"], 2);
    assert_eq!(subject.cells(&Value::Null), ["c", "i:1", "a=b"]);
}
