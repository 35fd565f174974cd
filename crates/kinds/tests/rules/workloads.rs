//! batch and autoscaling.

use serde_json::{Value, json};

use crate::{Subject, kind};

#[test]
fn cron_jobs() {
    let template = json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}});
    let minimal = json!({"spec": {"schedule": "*/5 * * * *", "jobTemplate": template}});
    let subject = Subject::new("batch/v1", "cronjobs", minimal);
    subject.defaults_to(&[
        ("/metadata/generation", json!(1)),
        ("/status", json!({})),
        ("/spec/concurrencyPolicy", json!("Allow")),
        ("/spec/suspend", json!(false)),
        ("/spec/successfulJobsHistoryLimit", json!(3)),
        ("/spec/failedJobsHistoryLimit", json!(1)),
        ("/spec/jobTemplate/spec/template/spec/dnsPolicy", json!("ClusterFirst")),
        ("/spec/jobTemplate/spec/completions", Value::Null),
    ]);
    subject.refuses(
        &json!({"spec": {"schedule": "TZ=UTC * * * * 9", "startingDeadlineSeconds": -1, "timeZone": "Nowhere/There", "concurrencyPolicy": "Some"}}),
        &[
            r#"spec.schedule: Invalid value: "TZ=UTC * * * * 9": end of range (9) above maximum (6): 9"#,
            r#"spec.schedule: Invalid value: "TZ=UTC * * * * 9": cannot use TZ or CRON_TZ in schedule, use timeZone field instead"#,
            "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
            r#"spec.timeZone: Invalid value: "Nowhere/There": unknown time zone Nowhere/There"#,
            r#"spec.concurrencyPolicy: Unsupported value: "Some": supported values: "Allow", "Forbid", "Replace""#,
        ],
    );
    let long = "a".repeat(53);
    subject.refuses(
        &json!({"metadata": {"name": long}}),
        &[&format!("metadata.name: Invalid value: \"{long}\": must be no more than 52 characters")],
    );
    let errors = subject
        .errors(&json!({"spec": {"jobTemplate": {"spec": {"backoffLimit": -1, "manualSelector": true}}}}));
    assert_eq!(
        errors,
        [
            "spec.jobTemplate.spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
            r#"spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false""#,
        ]
    );
    let (updated, _) = subject.updated(&Value::Null, &json!({"spec": {"suspend": true}}));
    assert_eq!(updated["metadata"]["generation"], 2);
    assert_eq!(
        subject.cells(&json!({"spec": {"timeZone": "UTC"}})),
        ["*/5 * * * *", "UTC", "False", "0", "<none>", "3h", "c", "i:1", "<none>"]
    );
}

fn scaler() -> Value {
    json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}})
}

#[test]
fn horizontal_pod_autoscalers() {
    let subject = Subject::new("autoscaling/v2", "horizontalpodautoscalers", scaler());
    subject.defaults_to(&[
        ("/spec/minReplicas", json!(1)),
        (
            "/spec/metrics/0/resource",
            json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}),
        ),
        ("/spec/behavior", Value::Null),
        ("/status", json!({"currentMetrics": null, "desiredReplicas": 0})),
    ]);
    let behavior = subject.created(&json!({"spec": {"behavior": {"scaleDown": {"selectPolicy": "Min"}}}}));
    assert_eq!(
        behavior["spec"]["behavior"],
        json!({
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]},
            "scaleDown": {"selectPolicy": "Min", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
        })
    );
    subject.refuses(
        &json!({"spec": {"minReplicas": 0, "maxReplicas": 0, "scaleTargetRef": {"apiVersion": "v1", "kind": ""}}}),
        &[
            "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
            "spec.maxReplicas: Required value: must be set and greater than 0",
            "spec.scaleTargetRef.kind: Required value",
            r#"spec.scaleTargetRef.apiVersion: Invalid value: "v1": apiVersion must specify API group"#,
            "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
        ],
    );
    let target = json!({"type": "Utilization", "averageUtilization": 0, "averageValue": "1"});
    subject.refuses(
        &json!({"spec": {"metrics": [
            {"type": "Pods", "resource": {"name": "", "target": target}},
            {"type": "External", "external": {"metric": {"name": "m"}, "target": {"type": "Value"}}},
        ]}}),
        &[
            "spec.metrics[0].resource.name: Required value: must specify a resource name",
            "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
            "spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization",
            "spec.metrics[0].pods: Required value: must populate information for the given metric source",
            "spec.metrics[1].external.target.averageValue: Required value: must set either a target value for metric or a per-pod target",
        ],
    );
    subject.refuses(
        &json!({"spec": {"behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601, "selectPolicy": "All", "policies": [{"type": "Pod", "value": 0, "periodSeconds": 1801}]}}}}),
        &[
            "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
            r#"spec.behavior.scaleUp.selectPolicy: Unsupported value: "All": supported values: "Disabled", "Max", "Min""#,
            r#"spec.behavior.scaleUp.policies[0].type: Unsupported value: "Pod": supported values: "Percent", "Pods""#,
            "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
            "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
        ],
    );
    assert_eq!(subject.cells(&Value::Null), ["Deployment/web", "cpu: <unknown>/80%", "1", "3", "0", "3h"]);
}

#[test]
fn the_older_version_of_autoscalers_says_the_rest_in_annotations() {
    let old = kind("autoscaling/v1", "horizontalpodautoscalers");
    let stored = old.stored().expect("stored as v2");
    let object = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a", "namespace": "n"},
        "spec": {
            "maxReplicas": 3, "minReplicas": 1,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "behavior": {"scaleDown": {"selectPolicy": "Min"}},
            "metrics": [
                {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s", "apiVersion": "v1"}, "metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
                {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c", "target": {"type": "Utilization", "averageUtilization": 50}}},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
            ],
        },
        "status": {
            "currentReplicas": 2, "desiredReplicas": 3,
            "conditions": [{"type": "AbleToScale", "status": "True", "lastTransitionTime": null}],
            "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 60, "averageValue": "100m"}}}],
        },
    });
    let older: Value =
        serde_json::from_slice(&(stored.read)(object.to_string().as_bytes()).expect("v1")).expect("JSON");
    assert_eq!(older["apiVersion"], "autoscaling/v1");
    assert_eq!(older["spec"]["targetCPUUtilizationPercentage"], 70);
    assert_eq!(older["status"]["currentCPUUtilizationPercentage"], 60);
    let note = |name: &str| -> Value {
        let text =
            older["metadata"]["annotations"][format!("autoscaling.alpha.kubernetes.io/{name}")].as_str();
        serde_json::from_str(text.expect(name)).expect("JSON")
    };
    assert_eq!(note("behavior"), json!({"ScaleDown": {"SelectPolicy": "Min"}}));
    assert_eq!(
        note("metrics"),
        json!([
            {"type": "Object", "object": {"target": {"kind": "Service", "name": "s", "apiVersion": "v1"}, "metricName": "hits", "targetValue": "0", "averageValue": "5"}},
            {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c", "targetAverageUtilization": 50}},
        ])
    );
    let back: Value =
        serde_json::from_slice(&(stored.write)(older.to_string().as_bytes()).expect("v2")).expect("JSON");
    assert_eq!(back, object, "nothing is lost on the way");

    // What the older version does not say is filled in, and its rules are the newer one's.
    let subject = Subject::new("autoscaling/v1", "horizontalpodautoscalers", scaler());
    let minimal = subject.created(&Value::Null);
    assert_eq!(minimal["spec"]["targetCPUUtilizationPercentage"], 80);
    subject.refuses(
        &json!({"spec": {"maxReplicas": -1}}),
        &[
            "spec.maxReplicas: Invalid value: -1: must be greater than or equal to 1",
            "spec.maxReplicas: Invalid value: -1: must be greater than or equal to `minReplicas`",
        ],
    );
    assert_eq!(subject.cells(&Value::Null)[1], "cpu: <unknown>/80%");
}
