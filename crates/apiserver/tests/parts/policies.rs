//! Policies in CEL, through the API.

use gantry_apiserver::admission::AdmissionOptions;
use gantry_apiserver::testing::{Answered, http};
use serde_json::{Value, json};

use crate::Cluster;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

struct Lab {
    cluster: Cluster,
}

/// What is only about config maps whose name begins so, or about deployments.
fn constraints(resource: &str) -> Value {
    let group = if resource.starts_with("deployments") { "apps" } else { "" };
    json!({"resourceRules": [{"apiGroups": [group], "apiVersions": ["v1"], "resources": [resource],
        "operations": ["CREATE", "UPDATE"]}]})
}

impl Lab {
    async fn new() -> Self {
        let lab = Self { cluster: Cluster::admitting(AdmissionOptions::default()).await };
        let namespace = json!({"metadata": {"name": "default", "labels": {"team": "a"}}});
        let answer = lab.send("POST", "/api/v1/namespaces", &namespace).await;
        if answer.code == 409 {
            let patch = json!({"metadata": {"labels": {"team": "a"}}}).to_string();
            let headers = [("content-type", "application/merge-patch+json")];
            http(&lab.cluster.server, "PATCH", "/api/v1/namespaces/default", &headers, patch).await;
        }
        lab
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Answered {
        http(&self.cluster.server, method, path, &[], body.to_string()).await
    }

    async fn create(&self, path: &str, body: &Value) -> Value {
        let answer = self.send("POST", path, body).await;
        assert_eq!(answer.code, 201, "{}", answer.json());
        answer.json()
    }

    /// Creates a validating policy and its binding, and waits until they count.
    async fn policy(&self, name: &str, spec: Value, binding: Value) {
        let mut spec = spec;
        let rules = spec["validations"].as_array_mut().expect("a policy has validations");
        // A marker tells whether the policy is known.
        let mark = format!("object.metadata.name != 'mark-{name}'");
        rules.push(json!({"expression": mark, "message": "marked"}));
        let policy = json!({"metadata": {"name": name}, "spec": spec});
        self.create(&format!("{GROUP}/validatingadmissionpolicies"), &policy).await;
        let mut bound = json!({"policyName": name, "validationActions": ["Deny"]});
        if let (Value::Object(bound), Value::Object(more)) = (&mut bound, binding) {
            bound.extend(more);
        }
        let binding = json!({"metadata": {"name": format!("{name}-binding")}, "spec": bound});
        self.create(&format!("{GROUP}/validatingadmissionpolicybindings"), &binding).await;
    }

    /// Waits until an answer to a dry run is what is waited for: policies come to the plugins by another task.
    async fn until(&self, path: &str, body: &Value, done: impl Fn(&Answered) -> bool) -> Answered {
        loop {
            let answer = self.send("POST", &format!("{path}?dryRun=All"), body).await;
            if done(&answer) {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn known(&self, name: &str, path: &str, body: &Value) {
        let mut body = body.clone();
        body["metadata"]["name"] = json!(format!("mark-{name}"));
        let text = |answer: &Answered| answer.json()["message"].as_str().unwrap_or_default().to_owned();
        self.until(path, &body, |answer| {
            answer.code != 201 && text(answer).contains("denied request: marked")
        })
        .await;
    }

    async fn end(self) {
        self.cluster.end().await;
    }
}

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn deployment(name: &str, replicas: i32) -> Value {
    let labels = json!({"app": name});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[track_caller]
fn refused(answer: &Answered, code: u16, reason: &str, message: &str) {
    let status = answer.json();
    assert_eq!(status["message"], message);
    assert_eq!((answer.code, status["reason"].as_str()), (code, Some(reason)));
}

#[tokio::test]
async fn policies_refuse_in_upstreams_words() {
    let lab = Lab::new().await;
    let spec = json!({"matchConstraints": constraints("deployments"), "validations": [
        {"expression": "object.spec.replicas > 1", "messageExpression": "'wants replicas > 1, got ' + string(object.spec.replicas)"},
        {"expression": "namespaceObject.metadata.labels.team == 'a'"},
        {"expression": "request.operation == 'CREATE' && oldObject == null && request.userInfo.username != ''", "reason": "Forbidden"}
    ]});
    lab.policy("p", spec, json!({})).await;
    lab.known("p", DEPLOYMENTS, &deployment("x", 2)).await;
    let answer = lab.send("POST", DEPLOYMENTS, &deployment("d", 1)).await;
    refused(
        &answer,
        422,
        "Invalid",
        "deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p-binding' denied request: wants replicas > 1, got 1",
    );
    let created = lab.create(DEPLOYMENTS, &deployment("d", 2)).await;
    let mut changed = created.clone();
    changed["spec"]["replicas"] = json!(3);
    let answer = lab.send("PUT", &format!("{DEPLOYMENTS}/d"), &changed).await;
    refused(
        &answer,
        403,
        "Forbidden",
        "deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p-binding' denied request: failed expression: request.operation == 'CREATE' && oldObject == null && request.userInfo.username != ''",
    );
    lab.create(MAPS, &map("other", json!({}))).await;
    lab.end().await;
}

#[tokio::test]
async fn variables_conditions_and_errors() {
    let lab = Lab::new().await;
    let spec = json!({
    "matchConstraints": constraints("configmaps"),
    "matchConditions": [{"name": "named", "expression": "!object.metadata.name.startsWith('kube-')"}],
    "variables": [
        {"name": "count", "expression": "has(object.data) ? object.data.size() : 0"},
        {"name": "odd", "expression": "variables.count % 2 == 1"},
        {"name": "broken", "expression": "object.data.missing == 'x'"}
    ],
    "validations": [
        {"expression": "variables.count < 3", "message": "too many"},
        {"expression": "!variables.odd || variables.odd"},
        {"expression": "object.metadata.name != 'error' || variables.broken"},
        {"expression": "object.metadata.name != 'ask' || authorizer.group('').resource('pods').namespace('default').check('create').allowed()"}
    ]});
    lab.policy("v", spec, json!({})).await;
    lab.known("v", MAPS, &map("x", json!({}))).await;
    let prefix = |name: &str| {
        format!(
            "configmaps \"{name}\" is forbidden: ValidatingAdmissionPolicy 'v' with binding 'v-binding' denied request: "
        )
    };
    let three = json!({"a": "1", "b": "2", "c": "3"});
    let answer = lab.send("POST", MAPS, &map("many", three.clone())).await;
    refused(&answer, 422, "Invalid", &(prefix("many") + "too many"));
    lab.create(MAPS, &map("kube-many", three)).await;
    lab.create(MAPS, &map("odd", json!({"a": "1"}))).await;
    lab.create(MAPS, &map("ask", json!({"a": "1"}))).await;
    let answer = lab.send("POST", MAPS, &map("error", json!({"a": "1"}))).await;
    let why = "expression 'object.metadata.name != 'error' || variables.broken' resulted in error: composited variable \"broken\" fails to evaluate: no such key: missing";
    refused(&answer, 422, "Invalid", &(prefix("error") + why));
    lab.end().await;
}

#[tokio::test]
async fn parameters_by_name_and_selector() {
    let lab = Lab::new().await;
    let mut limit = map("limit", json!({"max": "2"}));
    limit["metadata"]["labels"] = json!({"limits": "yes"});
    lab.create(MAPS, &limit).await;
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "matchConstraints": constraints("deployments"),
        "validations": [{"expression": "object.spec.replicas <= int(params.data.max)"}]});
    let named =
        json!({"paramRef": {"name": "limit", "namespace": "default", "parameterNotFoundAction": "Deny"}});
    lab.policy("named", spec.clone(), named).await;
    lab.known("named", DEPLOYMENTS, &deployment("x", 1)).await;
    let why = "deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'named' with binding 'named-binding' denied request: ";
    let answer = lab.send("POST", DEPLOYMENTS, &deployment("d", 3)).await;
    refused(
        &answer,
        422,
        "Invalid",
        &format!("{why}failed expression: object.spec.replicas <= int(params.data.max)"),
    );
    lab.create(DEPLOYMENTS, &deployment("d", 2)).await;
    lab.send("DELETE", &format!("{MAPS}/limit"), &json!({})).await;
    let answer = lab.send("POST", DEPLOYMENTS, &deployment("d", 1)).await;
    let missing =
        "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    refused(&answer, 422, "Invalid", &format!("{why}{missing}"));
    lab.create(MAPS, &limit).await;
    let selected = json!({"paramRef": {"selector": {"matchLabels": {"limits": "yes"}}, "parameterNotFoundAction": "Allow"}});
    lab.policy("selected", spec, selected).await;
    let denied = lab.until(DEPLOYMENTS, &deployment("e", 3), |a| a.code == 422).await;
    assert_eq!(denied.code, 422);
    lab.end().await;
}

#[tokio::test]
async fn bindings_may_warn_and_policies_may_fail_open() {
    let lab = Lab::new().await;
    let spec = json!({"failurePolicy": "Ignore", "matchConstraints": constraints("configmaps"), "validations": [
        {"expression": "object.data.a == '1'", "message": "a is not 1"}]});
    let policy = json!({"metadata": {"name": "w"}, "spec": spec});
    lab.create(&format!("{GROUP}/validatingadmissionpolicies"), &policy).await;
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "w", "validationActions": ["Warn", "Audit"],
        "matchResources": {"namespaceSelector": {"matchLabels": {"team": "a"}}}}});
    lab.create(&format!("{GROUP}/validatingadmissionpolicybindings"), &binding).await;
    let bad = map("bad", json!({"a": "2"}));
    let answer = lab.until(MAPS, &bad, |a| a.headers.contains_key("warning")).await;
    assert_eq!(answer.code, 201);
    assert_eq!(
        answer.headers["warning"],
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'w' with binding 'b': a is not 1\""
    );
    // No such key: an error, which the policy forgives.
    let answer = lab.send("POST", MAPS, &map("error", json!({}))).await;
    assert_eq!(answer.code, 201);
    assert!(!answer.headers.contains_key("warning"));
    lab.end().await;
}

#[tokio::test]
async fn expressions_that_do_not_compile_are_refused() {
    let lab = Lab::new().await;
    let policy = |validation: Value| json!({"metadata": {"name": "bad"}, "spec": {"matchConstraints": constraints("configmaps"), "validations": [validation]}});
    let cases = [
        (
            json!({"expression": "object.x >"}),
            "spec.validations[0].expression: Invalid value: \"object.x >\": compilation failed: ERROR: <input>:1:11: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | object.x >\n | ..........^",
        ),
        (
            json!({"expression": "1 + 1"}),
            "spec.validations[0].expression: Invalid value: \"1 + 1\": must evaluate to bool but got int",
        ),
        (
            json!({"expression": "params == null"}),
            "spec.validations[0].expression: Invalid value: \"params == null\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params == null\n | ^",
        ),
        (
            json!({"expression": "true", "messageExpression": "authorizer.path('/x').check('get').reason()"}),
            "spec.validations[0].messageExpression: Invalid value: \"authorizer.path('/x').check('get').reason()\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'authorizer' (in container '')\n | authorizer.path('/x').check('get').reason()\n | ^",
        ),
    ];
    for (validation, expected) in cases {
        let answer =
            lab.send("POST", &format!("{GROUP}/validatingadmissionpolicies"), &policy(validation)).await;
        let message =
            format!("ValidatingAdmissionPolicy.admissionregistration.k8s.io \"bad\" is invalid: {expected}");
        refused(&answer, 422, "Invalid", &message);
    }
    lab.end().await;
}

async fn mutating(lab: &Lab, name: &str, resource: &str, mutations: Value, more: Value) {
    let mut spec = json!({"matchConstraints": constraints(resource), "mutations": mutations, "reinvocationPolicy": "Never",
        "failurePolicy": "Fail"});
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    let policy = json!({"metadata": {"name": name}, "spec": spec});
    lab.create(&format!("{GROUP}/mutatingadmissionpolicies"), &policy).await;
    let binding = json!({"metadata": {"name": format!("{name}-binding")}, "spec": {"policyName": name}});
    lab.create(&format!("{GROUP}/mutatingadmissionpolicybindings"), &binding).await;
}

#[tokio::test]
async fn apply_configurations_are_merged() {
    let lab = Lab::new().await;
    let mutations = json!([
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{annotations: {'mutated-by': 'policy'}}}"}},
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.spec{replicas: 1337,
            template: Object.spec.template{spec: Object.spec.template.spec{containers: [
                Object.spec.template.spec.containers{name: 'side', image: 'car'}]}}}}"}}
    ]);
    mutating(&lab, "m", "deployments", mutations, json!({})).await;
    let done = lab
        .until(DEPLOYMENTS, &deployment("d", 1), |a| {
            a.json()["metadata"]["annotations"]["mutated-by"] == "policy"
        })
        .await
        .json();
    assert_eq!(done["spec"]["replicas"], 1337);
    let containers = done["spec"]["template"]["spec"]["containers"].as_array().expect("containers");
    let names: Vec<&Value> = containers.iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["c", "side"]);
    lab.end().await;
}

#[tokio::test]
async fn json_patches_see_what_came_before_and_run_again() {
    let lab = Lab::new().await;
    let first = json!([{"patchType": "JSONPatch", "jsonPatch": {"expression":
        "has(object.data.seen) ? [JSONPatch{op: 'add', path: '/data/again', value: 'yes'}] : []"}}]);
    mutating(&lab, "a", "configmaps", first, json!({"reinvocationPolicy": "IfNeeded"})).await;
    let second = json!([{"patchType": "JSONPatch", "jsonPatch": {"expression":
        "[JSONPatch{op: 'test', path: '/data/a', value: '1'}, JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('seen'), value: 'yes'}]"}}]);
    mutating(
        &lab,
        "b",
        "configmaps",
        second,
        json!({"matchConditions": [{"name": "c", "expression": "has(object.data)"}]}),
    )
    .await;
    let done =
        lab.until(MAPS, &map("x", json!({"a": "1"})), |a| a.json()["data"]["again"] == "yes").await.json();
    assert_eq!(done["data"], json!({"a": "1", "seen": "yes", "again": "yes"}));
    // A test that fails leaves the object as it is.
    let done = lab.create(MAPS, &map("y", json!({"a": "2"}))).await;
    assert_eq!(done["data"], json!({"a": "2"}));
    lab.end().await;
}

#[tokio::test]
async fn failing_mutations_refuse_the_request() {
    let lab = Lab::new().await;
    let mutations = json!([{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
        "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'b'}}}}"}}]);
    mutating(&lab, "atomic", "deployments", mutations, json!({})).await;
    let answer = lab.until(DEPLOYMENTS, &deployment("d", 1), |a| a.code != 201).await;
    refused(
        &answer,
        403,
        "Invalid",
        "policy 'atomic' with binding 'atomic-binding' denied request: error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector",
    );
    lab.end().await;
}

#[tokio::test]
async fn types_are_checked_against_the_matched_kinds() {
    let lab = Lab::new().await;
    let text = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "max-retries": {"type": "integer"}, "when": {"type": "string", "format": "date-time"}}}}});
    lab.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &json!({
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {"group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": text}}]}}))
        .await;
    let served = "/apis/stable.example.com/v1/namespaces/default/crontabs";
    while lab.send("GET", served, &Value::Null).await.code != 200 {
        tokio::task::yield_now().await;
    }
    let rule = |group: &str, resource: &str| json!({"apiGroups": [group], "apiVersions": ["v1"], "resources": [resource], "operations": ["*"]});
    let spec = json!({
    "paramKind": {"apiVersion": "stable.example.com/v1", "kind": "CronTab"},
    "matchConstraints": {"resourceRules": [rule("apps", "deployments"), rule("stable.example.com", "crontabs")]},
    "variables": [{"name": "replicas", "expression": "object.spec.replicas"}],
    "validations": [
        {"expression": "params.spec.max__dash__retries < 3 && params.spec.when < timestamp('2030-01-01T00:00:00Z')"},
        {"expression": "object.metadata.name != 'a'", "messageExpression": "string(params.spec.maxRetries)"},
        {"expression": "variables.replicas > '1'"},
    ]});
    let policy = json!({"metadata": {"name": "typed"}, "spec": spec});
    lab.create(&format!("{GROUP}/validatingadmissionpolicies"), &policy).await;
    let status = loop {
        let path = format!("{GROUP}/validatingadmissionpolicies/typed");
        let status = lab.send("GET", &path, &Value::Null).await.json()["status"].clone();
        if status["observedGeneration"] == 1 {
            break status;
        }
        tokio::task::yield_now().await;
    };
    let underlined = |at: usize, text: &str, what: &str| {
        format!("compilation failed: ERROR: <input>:1:{at}: {what}\n | {text}\n | {}^", ".".repeat(at - 1))
    };
    let field = underlined(19, "string(params.spec.maxRetries)", "undefined field 'maxRetries'");
    let overload = "found no matching overload for '_>_' applied to '(int, string)'";
    let overload = underlined(20, "variables.replicas > '1'", overload);
    let kinds = ["apps/v1, Kind=Deployment", "stable.example.com/v1, Kind=CronTab"];
    assert_eq!(
        status["typeChecking"],
        json!({"expressionWarnings": [
            {"fieldRef": "spec.validations[1].messageExpression",
                "warning": format!("{}: {field}\n\n{}: {field}\n", kinds[0], kinds[1])},
            {"fieldRef": "spec.validations[2].expression", "warning": format!("{}: {overload}\n", kinds[0])},
        ]})
    );
    lab.end().await;
}
