//! apiregistration.k8s.io.

use serde_json::json;

use crate::Subject;

#[test]
fn api_services() {
    let local = json!({
        "metadata": {"name": "v1.apps"},
        "spec": {"group": "apps", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1},
    });
    let subject = Subject::new("apiregistration.k8s.io/v1", "apiservices", local);
    subject.defaults_to(&[
        ("/status/conditions/0/type", json!("Available")),
        ("/status/conditions/0/reason", json!("Local")),
    ]);
    let remote = json!({"spec": {"service": {"name": "a", "namespace": "b"}}});
    let created = subject.created(&remote);
    assert_eq!(created["spec"]["service"]["port"], 443);
    assert_eq!(created["status"], json!({}));
    subject.refuses(
        &json!({"metadata": {"name": "v1.app"}}),
        &[r#"metadata.name: Invalid value: "v1.app": must be `spec.version+"."+spec.group`: "v1.apps""#],
    );
    subject.refuses(
        &json!({"spec": {"groupPriorityMinimum": 0, "versionPriority": 1001, "insecureSkipTLSVerify": true}}),
        &[
            "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
            "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
            "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
        ],
    );
    subject.refuses(
        &json!({"spec": {"service": {"port": 70000}}}),
        &[
            "spec.service.namespace: Required value",
            "spec.service.name: Required value",
            "spec.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive",
        ],
    );
    let (status, errors) = subject.part_updated(
        "status",
        &json!({"spec": {"version": "v2"}, "status": {"conditions": [{"type": "Available", "status": "Maybe"}]}}),
    );
    assert_eq!(status["spec"]["version"], "v1");
    assert_eq!(
        errors,
        [
            r#"status.conditions[0].status: Unsupported value: "Maybe": supported values: "True", "False", "Unknown""#
        ]
    );
    assert_eq!(subject.cells(&remote), ["b/a", "Unknown", "3h"]);
}
