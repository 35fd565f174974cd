//! Definitions of custom resources, and what upstream's server (Kubernetes 1.36) says of them: one JSON object a line of
//! `definitions.jsonl` (the `spec`, the code of the answer, its message) and of `definition_costs.jsonl` (the schema of
//! `spec` in the object, with rules whose estimated cost is at stake).

use serde_json::{Value, json};

use crate::Lab;

const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All";

fn definition(fact: &Value) -> Value {
    let spec = match fact.get("definition") {
        Some(spec) => spec.clone(),
        None => {
            let schema = json!({"type": "object", "properties": {"spec": fact["schema"]}});
            let version = json!({
                "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
            });
            json!({
                "group": "y.io", "scope": "Namespaced", "versions": [version],
                "names": {"plural": "bars", "singular": "bar", "kind": "Bar", "listKind": "BarList"},
            })
        }
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "bars.y.io"},
        "spec": spec,
    })
}

async fn check(facts: &str) {
    let lab = Lab::new().await;
    let facts: Vec<Value> = facts.lines().map(|line| serde_json::from_str(line).expect("a fact")).collect();
    let mut wrong = Vec::new();
    for fact in &facts {
        let found = lab.send("POST", PATH, &definition(fact)).await;
        let message = if found.code == 201 { json!("") } else { found.json()["message"].clone() };
        if json!(found.code) != fact["code"] || message != fact["message"] {
            wrong.push(format!("expected {fact}\nfound    {} {message}", found.code));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), facts.len(), wrong.join("\n"));
    lab.end().await;
}

#[tokio::test]
async fn definitions_are_checked_as_upstream_checks_them() {
    check(include_str!("definitions.jsonl")).await;
}

#[tokio::test]
async fn rules_that_may_cost_too_much_are_refused() {
    check(include_str!("definition_costs.jsonl")).await;
}
