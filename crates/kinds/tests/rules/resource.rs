//! resource.k8s.io.

use serde_json::{Value, json};

use crate::Subject;

const GROUP: &str = "resource.k8s.io/v1";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

fn claim_spec() -> Value {
    json!({"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}}]}})
}

#[test]
fn device_classes() {
    let subject = Subject::new(GROUP, "deviceclasses", json!({"spec": {}}));
    subject.defaults_to(&[("/metadata/generation", json!(1))]);
    subject.refuses(
        &json!({"spec": {
            "selectors": [{}, {"cel": {"expression": "x".repeat(10241)}}],
            "config": [{}, {"opaque": {"driver": "d", "parameters": 1}}],
            "extendedResourceName": "cpu",
        }}),
        &[
            "spec.selectors[0].cel: Required value",
            "spec.selectors[1].cel.expression: Too long: may not be more than 10240 bytes",
            "spec.config[0].opaque: Required value",
            r#"spec.config[1].opaque.parameters: Invalid value: "<value omitted>": must be a valid JSON object"#,
            r#"spec.extendedResourceName: Invalid value: "cpu": must be a valid extended resource name"#,
        ],
    );
    let (updated, errors) =
        subject.updated(&Value::Null, &json!({"spec": {"extendedResourceName": "example.com/gpu"}}));
    assert_eq!((&updated["metadata"]["generation"], errors.len()), (&json!(2), 0));
    assert_eq!(subject.cells(&Value::Null), ["3h"]);
}

#[test]
fn resource_claims() {
    let subject = Subject::new(GROUP, "resourceclaims", json!({"spec": claim_spec()}));
    subject.defaults_to(&[(
        "/spec/devices/requests/0/exactly",
        json!({"deviceClassName": "gpu.example.com", "allocationMode": "ExactCount", "count": 1}),
    )]);
    subject.refuses(
        &json!({"spec": {"devices": {
            "requests": [
                {"name": "a_b", "exactly": {"deviceClassName": "", "allocationMode": "All", "count": 2}},
                {"name": "b"},
                {"name": "b", "firstAvailable": [{"name": "c", "deviceClassName": "x", "allocationMode": "Some"}]},
            ],
            "constraints": [
                {"requests": ["b/c", "b/d", "b/c/d"], "matchAttribute": "model"},
            ],
        }}}),
        &[
            &format!(r#"spec.devices.requests[0].name: Invalid value: "a_b": {LABEL}"#),
            "spec.devices.requests[0].exactly.deviceClassName: Required value",
            "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
            "spec.devices.requests[1]: Required value: exactly one of `exactly` or `firstAvailable` is required",
            r#"spec.devices.requests[2].firstAvailable[0].allocationMode: Unsupported value: "Some": supported values: "All", "ExactCount""#,
            r#"spec.devices.requests[2]: Duplicate value: "b""#,
            r#"spec.devices.constraints[0].requests[1]: Invalid value: "b/d": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"#,
            r#"spec.devices.constraints[0].requests[2]: Invalid value: "b/c/d": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"#,
            r#"spec.devices.constraints[0].matchAttribute: Invalid value: "model": a fully qualified name must be a domain and a name separated by a slash"#,
        ],
    );
    let errors = subject.updated(&Value::Null, &json!({"spec": {"devices": {"requests": []}}})).1;
    assert!(errors.len() == 1 && errors[0].ends_with("field is immutable"), "{errors:?}");
    assert_eq!(subject.cells(&Value::Null), ["pending", "3h"]);
}

#[test]
fn resource_claims_status() {
    let subject = Subject::new(GROUP, "resourceclaims", json!({"spec": claim_spec()}));
    let device = json!({"driver": "d.example.com", "pool": "p", "device": "one"});
    let mut result = device.clone();
    result["request"] = "gpu".into();
    let allocation = json!({"devices": {"results": [result]}});
    let consumer = json!({"resource": "pods", "name": "p", "uid": "1"});
    let good = json!({"status": {"allocation": allocation, "reservedFor": [consumer], "devices": [device]}});
    let (claim, errors) = subject.part_updated("status", &good);
    assert_eq!(errors, Vec::<String>::new());
    let mut stored = device.clone();
    stored["conditions"] = Value::Null;
    assert_eq!(claim["status"]["devices"], json!([stored]));
    assert_eq!(subject.cells(&good), ["allocated,reserved", "3h"]);
    let mut other = result.clone();
    other["request"] = "cpu".into();
    other["pool"] = "".into();
    let errors = subject
        .part_updated(
            "status",
            &json!({"status": {
                "allocation": {"devices": {"results": [other]}},
                "reservedFor": [consumer, {"resource": "", "name": "q", "uid": "1"}],
                "devices": [{"driver": "d.example.com", "pool": "p", "device": "one"}],
            }}),
        )
        .1;
    assert_eq!(
        errors,
        [
            "status.reservedFor[1].resource: Required value",
            r#"status.reservedFor[1]: Duplicate value: "1""#,
            r#"status.devices[0]: Invalid value: "d.example.com/p/one": must be an allocated device in the claim"#,
            r#"status.allocation.devices.results[0].request: Invalid value: "cpu": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"#,
            "status.allocation.devices.results[0].pool: Required value",
        ]
    );
    let errors = subject.part_updated("status", &json!({"status": {"reservedFor": [consumer]}})).1;
    assert_eq!(errors, ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]);
}

#[test]
fn resource_claim_templates() {
    let subject = Subject::new(GROUP, "resourceclaimtemplates", json!({"spec": {"spec": claim_spec()}}));
    subject.defaults_to(&[("/spec/spec/devices/requests/0/exactly/count", json!(1))]);
    subject.refuses(
        &json!({"spec": {"metadata": {"labels": {"a": "b"}}, "spec": {"devices": {"requests": [{"name": "a"}]}}}}),
        &["spec.spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"],
    );
    let errors = subject.updated(&Value::Null, &json!({"spec": {"metadata": {"labels": {"a": "b"}}}})).1;
    assert!(errors.len() == 1 && errors[0].ends_with("field is immutable"), "{errors:?}");
    assert_eq!(subject.cells(&Value::Null), ["3h"]);
}

#[test]
fn resource_slices() {
    let minimal = json!({"spec": {
        "driver": "d.example.com", "nodeName": "n", "pool": {"name": "n", "generation": 0, "resourceSliceCount": 1},
    }});
    let subject = Subject::new(GROUP, "resourceslices", minimal);
    subject.defaults_to(&[("/metadata/generation", json!(1))]);
    subject.refuses(
        &json!({"spec": {
            "pool": {"name": "", "generation": -1, "resourceSliceCount": 0}, "nodeName": null,
            "devices": [
                {"name": "a", "attributes": {"x": {}, "y": {"int": 1, "bool": true}, "v": {"version": "1"}}},
                {"name": "a", "taints": [{"key": "k", "effect": "Odd"}], "nodeName": "n"},
            ],
        }}),
        &[
            "spec.pool.name: Required value",
            "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
            "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
            "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
            r#"spec.devices[0].attributes[v].version: Invalid value: "1": must be a string compatible with semver.org spec 2.0.0"#,
            r#"spec.devices[0].attributes[x]: Invalid value: "": exactly one value must be specified"#,
            r#"spec.devices[0].attributes[y]: Invalid value: {"bool":true,"int":1}: exactly one value must be specified"#,
            r#"spec.devices[1].taints[0].effect: Unsupported value: "Odd": supported values: "NoExecute", "NoSchedule", "None""#,
            "spec.devices[1]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
            r#"spec.devices[1]: Duplicate value: "a""#,
        ],
    );
    subject.refuses_update(
        &Value::Null,
        &json!({"spec": {"driver": "e.example.com", "nodeName": "m"}}),
        &[
            r#"spec.driver: Invalid value: "e.example.com": field is immutable"#,
            r#"spec.nodeName: Invalid value: "m": field is immutable"#,
        ],
    );
    assert_eq!(subject.cells(&Value::Null), ["n", "d.example.com", "n", "3h"]);
}
