//! admissionregistration.k8s.io.

use serde_json::{Value, json};

use crate::Subject;

const GROUP: &str = "admissionregistration.k8s.io/v1";

fn rule() -> Value {
    json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]})
}

fn hook() -> Value {
    json!({
        "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": [rule()],
        "clientConfig": {"service": {"name": "hook", "namespace": "default"}},
    })
}

fn hook_with(changes: &Value) -> Value {
    let mut hook = hook();
    crate::merge(&mut hook, changes);
    json!({"webhooks": [hook]})
}

#[test]
fn webhook_configurations() {
    for plural in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
        let subject = Subject::new(GROUP, plural, json!({"webhooks": [hook()]}));
        subject.defaults_to(&[
            ("/metadata/generation", json!(1)),
            ("/webhooks/0/failurePolicy", json!("Fail")),
            ("/webhooks/0/matchPolicy", json!("Equivalent")),
            ("/webhooks/0/timeoutSeconds", json!(10)),
            ("/webhooks/0/namespaceSelector", json!({})),
            ("/webhooks/0/objectSelector", json!({})),
            ("/webhooks/0/rules/0/scope", json!("*")),
            ("/webhooks/0/clientConfig/service/port", json!(443)),
        ]);
        let reinvocation = subject.created(&Value::Null)["webhooks"][0]["reinvocationPolicy"].clone();
        let mutating = plural.starts_with("mutating");
        assert_eq!(reinvocation, if mutating { json!("Never") } else { Value::Null });
        let table: &[(Value, &[&str])] = &[
            (
                json!({"name": "a.b"}),
                &[
                    r#"webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments separated by dots"#,
                ],
            ),
            (
                json!({"sideEffects": "Some", "timeoutSeconds": 31}),
                &[
                    r#"webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun""#,
                    "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
                ],
            ),
            (
                json!({"sideEffects": null, "admissionReviewVersions": ["v2"]}),
                &[
                    "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
                    r#"webhooks[0].admissionReviewVersions: Invalid value: ["v2"]: must include at least one of v1, v1beta1"#,
                ],
            ),
            (
                json!({"clientConfig": {"url": "https://a"}}),
                &["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
            ),
            (
                json!({"clientConfig": {"service": null, "url": "http://u:p@/x?y#z"}}),
                &[
                    r#"webhooks[0].clientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]"#,
                    r#"webhooks[0].clientConfig.url: Invalid value: "": host must be specified; desired format: https://host[/path]"#,
                    r#"webhooks[0].clientConfig.url: Invalid value: "u:p": user information is not permitted in the URL"#,
                    r#"webhooks[0].clientConfig.url: Invalid value: "z": fragments are not permitted in the URL"#,
                    r#"webhooks[0].clientConfig.url: Invalid value: "y": query parameters are not permitted in the URL"#,
                ],
            ),
            (
                json!({"clientConfig": {"service": {"path": "a//b/"}}}),
                &[
                    r#"webhooks[0].clientConfig.service.path: Invalid value: "a//b/": must start with a '/'"#,
                    r#"webhooks[0].clientConfig.service.path: Invalid value: "a//b/": segment[0] may not be empty"#,
                    r#"webhooks[0].clientConfig.service.path: Invalid value: "a//b/": segment[1] may not be empty"#,
                ],
            ),
            (
                json!({"matchConditions": [{"name": "", "expression": " "}, {"name": "a", "expression": "true"}, {"name": "a", "expression": "true"}]}),
                &[
                    "webhooks[0].matchConditions[0].expression: Required value",
                    "webhooks[0].matchConditions[0].name: Required value",
                    r#"webhooks[0].matchConditions[2].name: Duplicate value: "a""#,
                ],
            ),
            (
                json!({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
                &[
                    "webhooks[0].namespaceSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                ],
            ),
            (
                json!({"rules": [{"apiGroups": ["*", "a"], "apiVersions": [""], "operations": ["GET"], "resources": ["*/*", "pods"], "scope": "Some"}]}),
                &[
                    r#"webhooks[0].rules[0].operations[0]: Unsupported value: "GET": supported values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE""#,
                    r#"webhooks[0].rules[0].apiGroups: Invalid value: ["*","a"]: if '*' is present, must not specify other API groups"#,
                    "webhooks[0].rules[0].apiVersions[0]: Required value",
                    r#"webhooks[0].rules[0].resources: Invalid value: ["*/*","pods"]: if '*/*' is present, must not specify other resources"#,
                    r#"webhooks[0].rules[0].scope: Unsupported value: "Some": supported values: "*", "Cluster", "Namespaced""#,
                ],
            ),
        ];
        for (changes, errors) in table {
            subject.refuses(&hook_with(changes), errors);
        }
        subject.refuses(
            &json!({"webhooks": [hook(), hook()]}),
            &[r#"webhooks[1].name: Duplicate value: "a.example.com""#],
        );
        let (updated, errors) = subject.updated(&Value::Null, &hook_with(&json!({"timeoutSeconds": 5})));
        assert_eq!((&updated["metadata"]["generation"], errors.len()), (&json!(2), 0));
        assert_eq!(subject.cells(&Value::Null), ["1", "3h"]);
    }
}

fn policy() -> Value {
    json!({"spec": {
        "matchConstraints": {"resourceRules": [rule()]},
        "validations": [{"expression": "true"}],
    }})
}

#[test]
fn validating_policies() {
    let subject = Subject::new(GROUP, "validatingadmissionpolicies", policy());
    subject.defaults_to(&[
        ("/metadata/generation", json!(1)),
        ("/status", json!({})),
        ("/spec/failurePolicy", json!("Fail")),
        ("/spec/matchConstraints/matchPolicy", json!("Equivalent")),
        ("/spec/matchConstraints/namespaceSelector", json!({})),
        ("/spec/matchConstraints/objectSelector", json!({})),
        ("/spec/matchConstraints/resourceRules/0/scope", json!("*")),
    ]);
    subject.refuses(
        &json!({"spec": {"matchConstraints": null, "validations": null}}),
        &[
            "spec.matchConstraints: Required value",
            "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
            "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
        ],
    );
    subject.refuses(
        &json!({"spec": {"paramKind": {"apiVersion": "a/b/c", "kind": "1"}, "variables": [{"name": "in", "expression": ""}]}}),
        &[
            r#"spec.paramKind.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c"#,
            "spec.paramKind.kind: Invalid value: \"1\": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            r#"spec.variables[0].name: Invalid value: "in": must be a valid CEL identifier"#,
            "spec.variables[0].expression: Required value: expression is not specified",
        ],
    );
    subject.refuses(
        &json!({"spec": {
            "validations": [{"expression": " ", "message": "a\nb", "messageExpression": " ", "reason": "Gone"}],
            "auditAnnotations": [{"key": "k", "valueExpression": ""}, {"key": "k", "valueExpression": "'a'"}],
        }}),
        &[
            "spec.validations[0].expression: Required value: expression is not specified",
            r#"spec.validations[0].messageExpression: Invalid value: " ": must be non-empty if specified"#,
            r#"spec.validations[0].message: Invalid value: "a\nb": must not contain line breaks"#,
            r#"spec.validations[0].reason: Unsupported value: "Gone": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge""#,
            "spec.auditAnnotations[0].valueExpression: Required value: valueExpression is not specified",
            r#"spec.auditAnnotations[1].key: Duplicate value: "k""#,
        ],
    );
    let condition = json!({"type": "a b", "status": "Yes", "reason": "", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let (status, errors) = subject.part_updated(
        "status",
        &json!({"spec": {"validations": null}, "status": {"conditions": [condition]}}),
    );
    assert_eq!(status["spec"]["validations"][0]["expression"], "true");
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert_eq!(
        subject.cells(&json!({"spec": {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}})),
        ["1", "v1/ConfigMap", "3h"]
    );
}

#[test]
fn mutating_policies() {
    let minimal = json!({"spec": {
        "matchConstraints": {"resourceRules": [rule()]},
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: \"remove\", path: \"/data\"}]"}}],
    }});
    let subject = Subject::new(GROUP, "mutatingadmissionpolicies", minimal);
    subject.defaults_to(&[("/spec/failurePolicy", json!("Fail")), ("/metadata/generation", json!(1))]);
    subject.refuses(
        &json!({"spec": {"reinvocationPolicy": null, "mutations": [{"patchType": "JSONPatch", "applyConfiguration": {"expression": "Object{}"}}, {"patchType": "X"}]}}),
        &[
            "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
            r#"spec.mutations[0].applyConfiguration: Invalid value: "{applyConfiguration}": must not be specified when patchType is JSONPatch"#,
            r#"spec.mutations[1].patchType: Unsupported value: "X": supported values: "ApplyConfiguration", "JSONPatch""#,
            "spec.reinvocationPolicy: Required value",
        ],
    );
    let mut deletes = rule();
    deletes["operations"] = json!(["DELETE"]);
    subject.refuses(
        &json!({"spec": {"matchConstraints": {"resourceRules": [deletes]}}}),
        &[r#"spec.matchConstraints.resourceRules.operations: Unsupported value: "DELETE": supported values: "*", "CONNECT", "CREATE", "UPDATE""#],
    );
    assert_eq!(subject.cells(&Value::Null), ["1", "<unset>", "3h"]);
}

#[test]
fn bindings() {
    let minimal = json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}});
    let subject = Subject::new(GROUP, "validatingadmissionpolicybindings", minimal);
    subject.refuses(
        &json!({"spec": {"policyName": null, "validationActions": ["Deny", "Warn", "Deny"], "paramRef": {}}}),
        &[
            "spec.policyName: Required value",
            "spec.paramRef: Required value: one of name or selector must be specified",
            "spec.paramRef.parameterNotFoundAction: Required value",
            r#"spec.validationActions[2]: Duplicate value: "Deny""#,
            r#"spec.validationActions: Invalid value: ["Deny","Warn","Deny"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"#,
        ],
    );
    let subject =
        Subject::new(GROUP, "mutatingadmissionpolicybindings", json!({"spec": {"policyName": "p"}}));
    subject.refuses(
        &json!({"spec": {"paramRef": {"name": "a", "selector": {}, "parameterNotFoundAction": "Ask"}}}),
        &[
            "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
            "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
            r#"spec.paramRef.parameterNotFoundAction: Unsupported value: "Ask": supported values: "Deny", "Allow""#,
        ],
    );
    let by_name = json!({"spec": {"paramRef": {"name": "a", "parameterNotFoundAction": "Deny"}}});
    assert_eq!(subject.cells(&by_name), ["p", "*/a", "3h"]);
    let (updated, _) = subject.updated(&Value::Null, &by_name);
    assert_eq!(updated["metadata"]["generation"], 2);
}
