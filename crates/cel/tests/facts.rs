//! Expressions and what upstream's server (Kubernetes 1.36, cel-go) makes of them: value or error, what it costs, and
//! between which bounds the cost was estimated. One JSON object a line of `facts.jsonl`:
//!
//! - `source`: the expression, with `x` dynamic and `authorizer`;
//! - `result`, or `error` of evaluating, or `compile`, the compiler's whole complaint;
//! - `cost`, `min` and `max`.

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_cel::{
    Authorizer, Env, EvalError, List, Map, Outcome, Program, Question, Target, Type, Value, authorizer,
    authorizer_type, limits, to_json, untyped,
};
use serde_json::{Value as Json, json};

const FACTS: &str = include_str!("facts.jsonl");

/// Denies the name `denied`, fails for `failed`, allows the rest.
struct Judge;

impl Authorizer for Judge {
    fn check(&self, question: &Question<'_>) -> gantry_cel::Result<Outcome> {
        let name = match &question.target {
            Target::Resource(resource) => resource.name.as_str(),
            Target::Path(_) => "",
        };
        Ok(match name {
            "denied" => Outcome { allowed: false, reason: "no way".to_owned(), error: None },
            "failed" => Outcome { allowed: false, reason: String::new(), error: Some("broken".to_owned()) },
            _ => Outcome { allowed: true, reason: "fine".to_owned(), error: None },
        })
    }
}

fn data() -> Json {
    json!({
        "a": 1, "b": 2.5, "s": "text", "list": [1, 2, 3], "map": {"k": "v"}, "null": null, "t": true,
        "nested": {"y": [{"z": 1}, {"z": 2}]},
    })
}

fn show(value: &Value<'_>) -> String {
    match value {
        Value::Uint(n) => format!("{n}u"),
        Value::Double(d) => format!("d{d}"),
        Value::Bytes(bytes) => format!("b{}", Json::from(String::from_utf8_lossy(bytes))),
        Value::Type(ty) => ty.name().to_owned(),
        Value::Optional(None) => "none".to_owned(),
        Value::Optional(Some(inner)) => format!("some({})", show(inner)),
        Value::Timestamp(_) | Value::Duration(_) => {
            to_json(value).map_or_else(|why| why, |json| json.as_str().unwrap_or_default().to_owned())
        }
        Value::List(list) => {
            let items: Vec<String> =
                List::iter(list).map(|i| i.map_or_else(|e| e.to_string(), |v| show(&v))).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let entry = |key: &Value<'_>| {
                let value = Map::get(map, key).ok().flatten();
                format!("{}: {}", show(key), value.as_ref().map_or_else(String::new, show))
            };
            let entries: BTreeSet<String> = map.keys().iter().map(entry).collect();
            format!("{{{}}}", entries.into_iter().collect::<Vec<_>>().join(", "))
        }
        Value::Opaque(other) => other.type_name().to_owned(),
        other => to_json(other).map_or_else(|_| other.type_name().to_owned(), |json| json.to_string()),
    }
}

fn found(source: &str) -> Json {
    let env = Env::new().variable("x", Type::Dyn).variable("authorizer", authorizer_type()).json_patch();
    let program = match Program::compile(source, &env) {
        Ok(program) => program,
        Err(issues) => return json!({"source": source, "compile": issues.complaint()}),
    };
    let data = data();
    let judge: Arc<dyn Authorizer> = Arc::new(Judge);
    let variables = [("x", untyped(&data)), ("authorizer", authorizer(judge))];
    let done = program.eval(&variables, limits::PER_CALL);
    let estimate = program.estimate();
    let mut found = json!({"source": source, "cost": done.cost, "min": estimate.min, "max": estimate.max});
    match done.result {
        Ok(value) => found["result"] = show(&value).into(),
        Err(why) => found["error"] = EvalError::to_string(&why).into(),
    }
    found
}

#[test]
fn expressions_mean_and_cost_what_they_do_upstream() {
    let facts: Vec<Json> = FACTS
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
        .collect();
    assert!(facts.len() > 400, "the table is whole");
    let wrong: Vec<String> = facts
        .iter()
        .filter_map(|fact| {
            let found = found(fact["source"].as_str().unwrap_or_default());
            (found != *fact).then(|| format!("expected {fact}\nfound    {found}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} expressions:\n{}", wrong.len(), facts.len(), wrong.join("\n"));
}
