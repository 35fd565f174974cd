//! storage.k8s.io.

use serde_json::{Value, json};

use crate::Subject;

const GROUP: &str = "storage.k8s.io/v1";

#[test]
fn csi_drivers() {
    let subject = Subject::new(GROUP, "csidrivers", json!({"spec": {}}));
    subject.defaults_to(&[(
        "/spec",
        json!({
            "attachRequired": true, "podInfoOnMount": false, "storageCapacity": false, "requiresRepublish": false,
            "fsGroupPolicy": "ReadWriteOnceWithFSType", "volumeLifecycleModes": ["Persistent"], "seLinuxMount": false,
        }),
    )]);
    subject.refuses(
        &json!({"spec": {
            "fsGroupPolicy": "Some", "volumeLifecycleModes": ["Odd"], "nodeAllocatableUpdatePeriodSeconds": 9,
            "tokenRequests": [{"audience": "a", "expirationSeconds": 1}, {"audience": "a"}],
        }}),
        &[
            r#"spec.fsGroupPolicy: Unsupported value: "Some": supported values: "File", "None", "ReadWriteOnceWithFSType""#,
            "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
            r#"spec.tokenRequests[1].audience: Duplicate value: "a""#,
            r#"spec.volumeLifecycleModes: Unsupported value: "Odd": supported values: "Persistent", "Ephemeral""#,
            "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
        ],
    );
    subject.refuses_update(
        &Value::Null,
        &json!({"spec": {"attachRequired": false}}),
        &["spec.attachedRequired: Invalid value: false: field is immutable"],
    );
    assert_eq!(
        subject.cells(&Value::Null),
        ["true", "false", "false", "<unset>", "false", "Persistent", "3h"]
    );
}

#[test]
fn csi_nodes() {
    let driver = json!({"name": "d.example.com", "nodeID": "n"});
    let subject = Subject::new(GROUP, "csinodes", json!({"spec": {"drivers": [driver]}}));
    subject.created(&Value::Null);
    subject.refuses(
        &json!({"spec": {"drivers": [driver, {"name": "d.example.com", "nodeID": "", "allocatable": {"count": -1}, "topologyKeys": ["a", "a"]}, {"name": "", "nodeID": "x"}]}}),
        &[
            "spec.drivers[1].nodeID: Required value",
            "spec.drivers[1].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
            r#"spec.drivers[1].name: Duplicate value: "d.example.com""#,
            r#"spec.drivers[1]: Duplicate value: "a""#,
            "spec.drivers[2].name: Required value",
        ],
    );
    subject.refuses_update(
        &Value::Null,
        &json!({"spec": {"drivers": [{"name": "d.example.com", "nodeID": "m", "allocatable": {"count": 3}}]}}),
        &[r#"spec.drivers: Invalid value: {"Name":"d.example.com","NodeID":"m","TopologyKeys":null,"Allocatable":null}: field is immutable"#],
    );
    assert_eq!(subject.cells(&Value::Null), ["1", "3h"]);
}

#[test]
fn csi_storage_capacities() {
    let subject = Subject::new(GROUP, "csistoragecapacities", json!({"storageClassName": "fast"}));
    subject.refuses(
        &json!({"capacity": "-1", "nodeTopology": {"matchLabels": {"a": "b c"}}}),
        &[
            "nodeTopology.matchLabels: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            r#"capacity: Invalid value: "-1": must be greater than or equal to 0"#,
        ],
    );
    subject.refuses_update(
        &Value::Null,
        &json!({"storageClassName": "slow"}),
        &[r#"storageClassName: Invalid value: "slow": field is immutable"#],
    );
    // Upstream has columns for them, but its storage does not use them.
    assert_eq!(subject.cells(&json!({"capacity": "1Gi"})), ["1970-01-01T00:00:00Z"]);
}

#[test]
fn volume_attachments() {
    let minimal = json!({"spec": {"attacher": "d.example.com", "nodeName": "n", "source": {"persistentVolumeName": "pv"}}});
    let subject = Subject::new(GROUP, "volumeattachments", minimal);
    subject.defaults_to(&[("/status", json!({"attached": false}))]);
    subject.refuses(
        &json!({"spec": {"attacher": "", "source": {"persistentVolumeName": null}}}),
        &[
            "spec.attacher: Required value",
            "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        ],
    );
    let errors = subject.updated(&Value::Null, &json!({"spec": {"nodeName": "m"}})).1;
    assert!(
        errors.len() == 1
            && errors[0].starts_with("spec: Invalid value:")
            && errors[0].ends_with("field is immutable")
    );
    let (status, errors) = subject.part_updated(
        "status",
        &json!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "m"}, "status": {"attached": true, "attachError": {"errorCode": -1}}}),
    );
    assert_eq!((&status["spec"]["nodeName"], &status["metadata"]["labels"]), (&json!("n"), &Value::Null));
    assert_eq!(
        errors,
        ["status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive"]
    );
    assert_eq!(subject.cells(&Value::Null), ["d.example.com", "pv", "n", "false", "3h"]);
}

#[test]
fn volume_attributes_classes() {
    let subject =
        Subject::new(GROUP, "volumeattributesclasses", json!({"driverName": "d", "parameters": {"a": "b"}}));
    subject.refuses(
        &json!({"driverName": null, "parameters": null}),
        &[
            "driverName: Required value",
            "parameters: Required value: must contain at least one key/value pair",
        ],
    );
    subject.refuses_update(
        &Value::Null,
        &json!({"driverName": "e", "parameters": {"a": "c"}}),
        &[
            "driverName: Forbidden: updates to driverName are forbidden.",
            "parameters: Forbidden: updates to parameters are forbidden.",
        ],
    );
    assert_eq!(subject.cells(&Value::Null), ["d", "3h"]);
}
