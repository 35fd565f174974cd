//! Expressions: parsed, checked, estimated, and evaluated within a cost.

use gantry_cel::{Env, Program, Type, limits, to_json, unescape, untyped};
use serde_json::json;

use crate::input;

/// The cost that an evaluation may have here: a call's, over a hundred, so that the engine gets on.
const LIMIT: u64 = limits::PER_CALL / 100;

/// A source, or a source and the value of its variable `x`.
pub fn run(data: &[u8]) {
    let Some([source, x]) = input::parts(data) else { return };
    unescape(source);
    let env = Env::new()
        .variable("x", Type::Dyn)
        .variable("s", Type::String)
        .variable("i", Type::Int)
        .variable("l", Type::List(std::sync::Arc::new(Type::Int)));
    let program = match Program::compile(source, &env) {
        Ok(program) => program,
        Err(issues) => {
            // What constants come to is found out beforehand, and told without a place, as upstream does.
            let text = issues.to_string();
            assert!(text.starts_with("ERROR: <input>:") || !text.contains("ERROR"), "{issues}");
            return;
        }
    };
    let estimate = program.estimate();
    assert!(estimate.min <= estimate.max, "{estimate:?}");
    let (x, s, i, l) = (
        input::json(x).unwrap_or_else(|| json!({"a": [1, "b", {"c": null}]})),
        json!("text"),
        json!(7),
        json!([1, 2, 3]),
    );
    let variables = [("x", untyped(&x)), ("s", untyped(&s)), ("i", untyped(&i)), ("l", untyped(&l))];
    let done = program.eval(&variables, LIMIT);
    let again = program.eval(&variables, LIMIT);
    assert_eq!(done.cost, again.cost, "an evaluation costs what it costs");
    match (done.result, again.result) {
        (Ok(one), Ok(two)) => assert_eq!(to_json(&one).ok(), to_json(&two).ok()),
        (Err(one), Err(two)) => assert_eq!(one.to_string(), two.to_string()),
        _ => panic!("an evaluation gives what it gives"),
    }
}
