//! The Common Expression Language, as Kubernetes speaks it.
//!
//! An [`Env`] declares variables and types; [`Program::compile`] parses, checks and prepares an expression once;
//! [`Program::eval`] evaluates it in microseconds, over JSON that is borrowed and not converted. Every evaluation has a cost,
//! counted as upstream counts it (KEP-2876), and ends when that exceeds a limit; [`Program::estimate`] bounds it beforehand.
//! Errors of compiling and of evaluating print as upstream's, since clients read them.
//!
//! ```
//! use gantry_cel::{Env, Program, Type, Value, limits, untyped};
//!
//! let env = Env::new().variable("object", Type::Dyn);
//! let program = Program::compile("object.spec.replicas < 10", &env)?;
//! let object = serde_json::json!({"spec": {"replicas": 3}});
//! let done = program.eval(&[("object", untyped(&object))], limits::PER_CALL);
//! assert_eq!(done.result?.as_bool(), Some(true));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod access;
mod ast;
mod check;
mod clauses;
mod compare;
mod cost;
mod data;
mod declare;
mod env;
mod error;
mod escape;
mod estimate;
mod eval;
mod json;
mod lex;
mod library;
pub mod limits;
mod macros;
mod node;
mod parse;
mod program;
mod source;
mod types;
mod unify;
mod value;

pub use data::{Data, DataKind, ListKind};
pub use env::Env;
pub use error::{ErrorKind, EvalError, Result};
pub use escape::{escape, unescape};
pub use estimate::Cost;
pub use eval::{Evaluated, Variables};
pub use json::{to_json, typed, untyped};
pub use library::authorizer::{
    Authorizer, Outcome, Question, ResourceCheck, Target, authorizer, request_resource,
};
pub use library::regex::compile as compile_regex;
pub use parse::RESERVED;
pub use program::Program;
pub use source::{Issue, Issues};
pub use types::{Fields, Object, Type};
pub use value::{Entries, Key, List, Map, Opaque, Text, Value};

/// The type of the variable `authorizer`.
pub fn authorizer_type() -> Type {
    declare::library_type("kubernetes.authorization.Authorizer")
}

/// The type of the variable `authorizer.requestResource`.
pub fn resource_check_type() -> Type {
    declare::library_type("kubernetes.authorization.ResourceCheck")
}

/// The type of quantities.
pub fn quantity_type() -> Type {
    declare::library_type("kubernetes.Quantity")
}
