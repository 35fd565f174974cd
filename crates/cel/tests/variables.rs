//! Variables whose fields are computed when they are read.

use std::cell::RefCell;

use gantry_cel::{Env, EvalError, Program, Result, Type, Value, Variables, limits};

/// `v.one` is 1, `v.bad` fails; notes what is asked for.
#[derive(Default)]
struct Asked(RefCell<Vec<String>>);

impl<'a> Variables<'a> for Asked {
    fn get(&self, name: &str) -> Option<Result<Value<'a>>> {
        self.0.borrow_mut().push(name.to_owned());
        match name {
            "v.one" => Some(Ok(Value::Int(1))),
            "v.bad" => Some(Err(EvalError::other("bad is bad"))),
            _ => None,
        }
    }
}

fn env() -> Env {
    let fields = [("one", Type::Int), ("bad", Type::Int), ("late", Type::Int)];
    Env::new().computed("v", "test.v", fields.map(|(name, ty)| (name.to_owned(), ty)))
}

#[test]
fn fields_are_computed_when_they_are_read() {
    let cases = [
        ("v.one + 1", "2", "v.one", 3),
        ("has(v.one)", "true", "v.one", 1),
        ("has(v.late)", "false", "v.late", 1),
        ("has(v.bad)", "bad is bad", "v.bad", 1),
        ("v.?one.orValue(5)", "1", "v.one", 2),
        ("v.?late.orValue(5)", "5", "v.late", 1),
        ("true || v.bad == 1", "true", "", 0),
    ];
    for (source, expected, asked, cost) in cases {
        let env = env();
        let program = Program::compile(source, &env).unwrap_or_else(|why| panic!("{source}: {why}"));
        let variables = Asked::default();
        let done = program.eval(&variables, limits::PER_CALL);
        let found = done.result.map_or_else(
            |why| why.to_string(),
            |value| match value {
                Value::Int(n) => n.to_string(),
                other => other.as_bool().map_or_else(String::new, |b| b.to_string()),
            },
        );
        let names = variables.0.borrow().join(",");
        assert_eq!((found.as_str(), names.as_str(), done.cost), (expected, asked, cost), "{source}");
    }
    let unknown = Program::compile("has(v.zz)", &env()).expect_err("there is no such field");
    assert!(unknown.to_string().contains("undefined field 'zz'"), "{unknown}");
}
