//! What holds for every source.

use gantry_cel::{Env, Program, Type, escape, limits, unescape, untyped};
use proptest::prelude::*;

fn fragments() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "x",
        "x.a",
        "1",
        "2u",
        "-1.5",
        "'s'",
        "b'b'",
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        ".",
        "?",
        ":",
        ",",
        "&&",
        "||",
        "!",
        "==",
        "<",
        "in",
        "+",
        "-",
        "*",
        "/",
        "%",
        ".map(i, ",
        ".all(i, ",
        "has(",
        ".?a",
        "[?0]",
        "true",
        "null",
        "size(",
        ".format(",
        "matches(",
        "'(a'",
        "duration('1h')",
        "\\",
        "\"",
        "'''",
        "r'",
        "é",
        "\n",
        "//",
    ]);
    prop::collection::vec(words, 0..24).prop_map(|words| words.join(" "))
}

fn compile_and_run(source: &str) {
    let env = Env::new().variable("x", Type::Dyn);
    match Program::compile(source, &env) {
        Err(issues) => assert!(issues.to_string().starts_with("ERROR: <input>:")),
        Ok(program) => {
            let json = serde_json::json!({"a": [1, "b", {"c": null}]});
            let done = program.eval(&[("x", untyped(&json))], limits::PER_CALL);
            assert!(done.cost <= limits::PER_CALL * 20 || done.result.is_err());
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_compiler_panic(source in "\\PC*") {
        compile_and_run(&source);
    }

    #[test]
    fn no_mix_of_tokens_does_either(source in fragments()) {
        compile_and_run(&source);
    }

    #[test]
    fn escapes_are_undone(name in "[a-zA-Z_./-][a-zA-Z0-9_./-]{0,12}") {
        if let Some(escaped) = escape(&name) {
            prop_assert!(escaped.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
            if !name.contains("__") && !name.contains("_.") && !name.ends_with('_') && !name.contains("_-") && !name.contains("_/") && !name.contains("._") && !name.contains("-_") && !name.contains("/_") {
                prop_assert_eq!(unescape(&escaped), Some(name));
            }
        }
    }

    #[test]
    fn sums_agree_with_the_machine(a in any::<i64>(), b in any::<i64>()) {
        let program = Program::compile("a + b == c", &Env::new().variable("a", Type::Int).variable("b", Type::Int)
            .variable("c", Type::Int)).expect("it compiles");
        let values = [("a", gantry_cel::Value::Int(a)), ("b", gantry_cel::Value::Int(b)),
            ("c", gantry_cel::Value::Int(a.wrapping_add(b)))];
        let done = program.eval(&values, limits::PER_CALL).result;
        match a.checked_add(b) {
            Some(_) => prop_assert_eq!(done.expect("no overflow").as_bool(), Some(true)),
            None => prop_assert_eq!(done.expect_err("overflow").to_string(), "integer overflow"),
        }
    }
}
