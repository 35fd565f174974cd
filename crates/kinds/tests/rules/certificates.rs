//! certificates.k8s.io.

use serde_json::{Value, json};

use crate::Subject;

/// A request for `CN=jane, O=dev`, made by openssl.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIWU1IOENBUUF3SFRFTk1Bc0dBMVVFQXd3RWFtRnVaVEVNTUFvR0ExVUVDZ3dEWkdWMk1Ga3dFd1lIS29aSQp6ajBDQVFZSUtvWkl6ajBEQVFjRFFnQUVJbFJ3di9XWXhyUXgzNWlZazc5QWlYVzVIb2kzM3czOWhlUWFqVmp6CnN3bVlGenJFKzFyOWVPWE9IMWhEbnU1aitCUXBaWVVuY0pleU1sL3hsYVprWUtBQU1Bb0dDQ3FHU000OUJBTUMKQTBrQU1FWUNJUUNDTGFQdXJBZHZUcmNqeG54SVBDb01jSnlqRVhQRjdGMnRRYmJ6MzBQc0hRSWhBTFJUdVBCTgoybW44c2VvN3o1QktpVWhSN3JSdGZrcng5RFBhOElJTURTK3kKLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";
/// Some certificate.
const CERTIFICATE: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJkVENDQVJ1Z0F3SUJBZ0lVRzgvVS9kYTNwMmdldFB4UEZjSjVXWUU1dWFJd0NnWUlLb1pJemowRUF3SXcKRHpFTk1Bc0dBMVVFQXd3RWFtRnVaVEFnRncweU5qRXhNakV4TVRJME5UTmFHQTh5TVRJMk1UQXlPREV4TWpRMQpNMW93RHpFTk1Bc0dBMVVFQXd3RWFtRnVaVEJaTUJNR0J5cUdTTTQ5QWdFR0NDcUdTTTQ5QXdFSEEwSUFCSUVpCldVcmxuZjAzWTdlOHpxVXZSQlRIblY0Rk43WFdHN3B3RVZremNRb0wzZ244T3VwVzJlbHlyT3VEeXgvUUptdUEKV3VzdjNaQ0o1b3BUOTdZc2dHK2pVekJSTUIwR0ExVWREZ1FXQkJRYzFJOEFDZUlpb2lma0NkTWkvSGFkNzdPaAorREFmQmdOVkhTTUVHREFXZ0JRYzFJOEFDZUlpb2lma0NkTWkvSGFkNzdPaCtEQVBCZ05WSFJNQkFmOEVCVEFECkFRSC9NQW9HQ0NxR1NNNDlCQU1DQTBnQU1FVUNJQVZ2a21vM1d6N2p4L3JJNzVNYXpxNXlwNHNZWXRRUnVRYjEKai81bGUranZBaUVBaGZ0MkloUjhnSHdWcDFYb29xNFZxaEg3MWQ3bWVSYVpIWk9PeWxTNTRxMD0KLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=";

fn minimal() -> Value {
    json!({"spec": {"request": REQUEST, "signerName": "example.com/signer", "usages": ["client auth"]}})
}

fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status, "reason": "r"})
}

#[test]
fn requests() {
    let subject = Subject::new("certificates.k8s.io/v1", "certificatesigningrequests", minimal());
    subject.defaults_to(&[("/status", json!({}))]);
    subject.refuses(
        &json!({"spec": {"request": "eA==", "usages": ["fly", "any", "any"], "signerName": "kubernetes.io/legacy-unknown", "expirationSeconds": 599}}),
        &[
            r#"spec.request: Invalid value: "eA==": PEM block type must be CERTIFICATE REQUEST"#,
            r#"spec.usages[0]: Unsupported value: "fly": supported values: "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment", "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel", "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime", "server auth", "signing", "timestamping""#,
            r#"spec.usages[2]: Duplicate value: "any""#,
            r#"spec.signerName: Invalid value: "kubernetes.io/legacy-unknown": the legacy signerName is not allowed via this API version"#,
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)",
        ],
    );
    subject.refuses(
        &json!({"spec": {"signerName": "a"}}),
        &[r#"spec.signerName: Invalid value: "a": must be a fully qualified domain and path of the form 'example.com/signer-name'"#],
    );
    subject.refuses(
        &json!({"spec": {"signerName": "a/b"}}),
        &[r#"spec.signerName: Invalid value: "a": should be a domain with at least two segments separated by dots"#],
    );
    // The spec and the status stay whatever an ordinary update says.
    let (updated, errors) = subject.updated(&Value::Null, &json!({"spec": {"signerName": "x.y/z"}}));
    assert_eq!((&updated["spec"]["signerName"], errors.len()), (&json!("example.com/signer"), 0));
    assert_eq!(
        subject.cells(&json!({"spec": {"expirationSeconds": 7200}, "status": {"certificate": CERTIFICATE, "conditions": [condition("Approved", "True")]}})),
        ["3h", "example.com/signer", "", "120m", "Approved,Issued"]
    );
}

#[test]
fn parts_of_requests() {
    let subject = Subject::new("certificates.k8s.io/v1", "certificatesigningrequests", minimal());
    let conditions = |list: Value| json!({"status": {"conditions": list}});
    let (approved, errors) = subject.part_updated(
        "approval",
        &json!({"spec": {"usages": null}, "status": {"certificate": CERTIFICATE, "conditions": [condition("Approved", "True")]}}),
    );
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(approved["spec"]["usages"], json!(["client auth"]));
    assert_eq!(approved["status"]["certificate"], Value::Null);
    let refused = |part: &str, list: Value| subject.part_updated(part, &conditions(list)).1;
    assert_eq!(
        refused("approval", json!([condition("Approved", "False"), condition("Denied", "True")])),
        [
            r#"status.conditions[0].status: Unsupported value: "False": supported values: "True""#,
            r#"status.conditions: Invalid value: "Denied": Approved and Denied conditions are mutually exclusive"#,
        ]
    );
    assert_eq!(
        refused("status", json!([condition("Approved", "True")])),
        [r#"status.conditions: Forbidden: updates may not add a condition of type "Approved""#]
    );
    assert_eq!(refused("status", json!([condition("Failed", "True")])), Vec::<String>::new());
    let issued = subject.part_updated("status", &json!({"status": {"certificate": CERTIFICATE}}));
    assert_eq!((&issued.0["status"]["certificate"], issued.1.len()), (&json!(CERTIFICATE), 0));
    let garbage = subject.part_updated("status", &json!({"status": {"certificate": "eA=="}}));
    assert_eq!(
        garbage.1,
        [
            r#"status.certificate: Invalid value: "<certificate data>": must contain at least one CERTIFICATE PEM block"#
        ]
    );
}
