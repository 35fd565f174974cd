//! networking.k8s.io.

use serde_json::{Value, json};

use crate::Subject;

const GROUP: &str = "networking.k8s.io/v1";

fn rules(path: Value) -> Value {
    json!({"spec": {"rules": [{"host": "a.example.com", "http": {"paths": [path]}}]}})
}

#[test]
fn ingresses() {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let subject = Subject::new(GROUP, "ingresses", json!({"spec": {"defaultBackend": backend}}));
    subject.defaults_to(&[("/metadata/generation", json!(1)), ("/status", json!({"loadBalancer": {}}))]);
    subject.refuses(
        &json!({"spec": {"defaultBackend": null}}),
        &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
    );
    subject.refuses(
        &rules(json!({"pathType": "Prefix", "path": "a//b/..", "backend": {}})),
        &[
            r#"spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": must be an absolute path"#,
            r#"spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": must not contain '//'"#,
            r#"spec.rules[0].http.paths[0].path: Invalid value: "a//b/..": cannot end with '/..'"#,
            r#"spec.rules[0].http.paths[0].backend: Invalid value: "": resource or service backend is required"#,
        ],
    );
    subject.refuses(
        &rules(json!({"pathType": "Odd", "backend": {"service": {"name": "", "port": {"name": "a", "number": 1}}}})),
        &[
            r#"spec.rules[0].http.paths[0].pathType: Unsupported value: "Odd": supported values: "Exact", "ImplementationSpecific", "Prefix""#,
            "spec.rules[0].http.paths[0].backend.service.name: Required value",
            r#"spec.rules[0].http.paths[0].backend: Invalid value: "": cannot set both port name & port number"#,
        ],
    );
    let errors = subject.errors(&json!({
        "metadata": {"annotations": {"kubernetes.io/ingress.class": "a"}},
        "spec": {"ingressClassName": "b", "rules": [{"host": "1.2.3.4"}, {"host": "a.*"}], "tls": [{"hosts": ["A"], "secretName": "B"}]},
    }));
    assert_eq!(errors.len(), 5, "{errors:#?}");
    assert_eq!(
        errors[0],
        r#"spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address"#
    );
    assert!(errors[1].contains("a wildcard DNS-1123 subdomain must start with '*.'"));
    assert_eq!(
        errors[4],
        r#"annotations.kubernetes.io/ingress.class: Invalid value: "a": must match `ingressClassName` when both are specified"#
    );
    let (_, errors) = subject.part_updated(
        "status",
        &json!({"status": {"loadBalancer": {"ingress": [{"ip": "x"}, {"hostname": "10.0.0.1"}]}}}),
    );
    assert_eq!(
        errors,
        [
            r#"status.loadBalancer.ingress[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
            r#"status.loadBalancer.ingress[1].hostname: Invalid value: "10.0.0.1": must be a DNS name, not an IP address"#,
        ]
    );
    let shown = json!({
        "spec": {"ingressClassName": "c", "tls": [{}], "rules": [{"host": "a.b"}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1"}]}},
    });
    assert_eq!(subject.cells(&shown), ["c", "a.b", "10.0.0.1,10.0...", "80, 443", "3h"]);
}

#[test]
fn ingress_classes() {
    let subject = Subject::new(GROUP, "ingressclasses", json!({"spec": {"controller": "example.com/c"}}));
    let parameters = |p: Value| json!({"spec": {"parameters": p}});
    let created = subject.created(&parameters(json!({"kind": "K", "name": "n"})));
    assert_eq!(created["spec"]["parameters"]["scope"], "Cluster");
    subject.refuses(
        &json!({"spec": {"controller": "c"}}),
        &[r#"spec.controller: Invalid value: "c": must be a domain-prefixed path (such as "acme.io/foo")"#],
    );
    subject.refuses(
        &parameters(json!({"kind": "", "name": "a/b", "scope": "Cluster", "namespace": "n"})),
        &[
            "spec.parameters.kind: Required value",
            r#"spec.parameters.name: Invalid value: "a/b": may not contain '/'"#,
            "spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'",
        ],
    );
    subject.refuses_update(
        &Value::Null,
        &json!({"spec": {"controller": "example.com/d"}}),
        &[r#"spec.controller: Invalid value: "example.com/d": field is immutable"#],
    );
    assert_eq!(
        subject.cells(&parameters(json!({"apiGroup": "g.io", "kind": "K", "name": "n"}))),
        ["example.com/c", "K.g.io/n", "3h"]
    );
}

#[test]
fn network_policies() {
    let subject = Subject::new(GROUP, "networkpolicies", json!({"spec": {}}));
    subject.defaults_to(&[("/spec/policyTypes", json!(["Ingress"])), ("/spec/podSelector", json!({}))]);
    let egress = subject.created(&json!({"spec": {"egress": [{"ports": [{"port": 53}]}]}}));
    assert_eq!(egress["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(egress["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
    subject.refuses(
        &json!({"spec": {"policyTypes": ["Sideways"], "ingress": [{
            "ports": [{"protocol": "ICMP", "port": 5, "endPort": 3}, {"port": "http", "endPort": 1}, {"endPort": 1}],
            "from": [{}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16", "10.1.0.0/8"]}, "podSelector": {}}],
        }]}}),
        &[
            r#"spec.ingress[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP""#,
            "spec.ingress[0].ports[0].endPort: Invalid value: 5: must be greater than or equal to `port`",
            "spec.ingress[0].ports[1].endPort: Invalid value: 1: may not be specified when `port` is non-numeric",
            "spec.ingress[0].ports[2].endPort: Invalid value: 1: may not be specified when `port` is not specified",
            "spec.ingress[0].from[0]: Required value: must specify a peer",
            r#"spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`"#,
            r#"spec.ingress[0].from[1].ipBlock.except[1]: Invalid value: "10.1.0.0/8": must not have bits set beyond the prefix length"#,
            r#"spec.ingress[0].from[1].ipBlock.except[1]: Invalid value: "10.1.0.0/8": must be a strict subset of `cidr`"#,
            "spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer",
            r#"spec.policyTypes[0]: Unsupported value: "Sideways": supported values: "Ingress", "Egress""#,
        ],
    );
    let (updated, _) = subject.updated(&Value::Null, &json!({"spec": {"policyTypes": ["Egress"]}}));
    assert_eq!(updated["metadata"]["generation"], 2);
    assert_eq!(subject.cells(&json!({"spec": {"podSelector": {"matchLabels": {"a": "b"}}}})), ["a=b", "3h"]);
}

#[test]
fn ip_addresses() {
    let parent = json!({"resource": "services", "namespace": "n", "name": "s"});
    let minimal = json!({"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": parent}});
    let subject = Subject::new(GROUP, "ipaddresses", minimal);
    subject.created(&Value::Null);
    subject.refuses(
        &json!({"metadata": {"name": "a"}, "spec": {"parentRef": null}}),
        &[
            r#"metadata.name: Invalid value: "a": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
            "spec.parentRef: Required value",
        ],
    );
    subject.refuses(
        &json!({"metadata": {"name": "2001:DB8::1"}, "spec": {"parentRef": {"resource": ""}}}),
        &[
            r#"metadata.name: Invalid value: "2001:DB8::1": must be in canonical form ("2001:db8::1")"#,
            "spec.parentRef.resource: Required value",
        ],
    );
    subject.refuses_update(
        &Value::Null,
        &json!({"spec": {"parentRef": {"name": "t"}}}),
        &[r#"spec.parentRef: Invalid value: {"Group":"","Resource":"services","Namespace":"n","Name":"t"}: field is immutable"#],
    );
    assert_eq!(subject.cells(&Value::Null), ["services/n/s", "3h"]);
}

#[test]
fn service_cidrs() {
    let subject = Subject::new(GROUP, "servicecidrs", json!({"spec": {"cidrs": ["10.0.0.0/16"]}}));
    subject.defaults_to(&[("/status", json!({}))]);
    let cidrs = |list: Value| json!({"spec": {"cidrs": list}});
    subject.refuses(&cidrs(json!([])), &["spec.cidrs: Required value: at least one CIDR required"]);
    subject.refuses(
        &cidrs(json!(["10.0.0.1/16", "10.1.0.0/16"])),
        &[
            r#"spec.cidrs[0]: Invalid value: "10.0.0.1/16": must not have bits set beyond the prefix length"#,
            r#"spec.cidrs: Invalid value: ["10.0.0.1/16","10.1.0.0/16"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"#,
        ],
    );
    subject.refuses_update(&Value::Null, &cidrs(json!(["10.0.0.0/16", "fd00::/112"])), &[]);
    subject.refuses_update(
        &Value::Null,
        &cidrs(json!(["10.1.0.0/16"])),
        &[r#"spec.cidrs[0]: Invalid value: "10.1.0.0/16": field is immutable"#],
    );
    let (status, _) =
        subject.part_updated("status", &json!({"metadata": {"labels": {"a": "b"}}, "spec": {"cidrs": []}}));
    assert_eq!(
        (&status["spec"]["cidrs"][0], &status["metadata"]["labels"]),
        (&json!("10.0.0.0/16"), &Value::Null)
    );
    assert_eq!(subject.cells(&Value::Null), ["10.0.0.0/16", "3h"]);
}
