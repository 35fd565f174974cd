//! Evaluates programs.
//!
//! Values borrow from the program and from the data. Every step adds to the cost; whoever exceeds the limit is stopped,
//! and nothing in the expression can absorb that.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::access::{self, select};
use crate::compare;
use crate::cost;
use crate::error::{EvalError, Result};
use crate::library::{self, Allowance, convert::shown};
use crate::node::{Access, Call, Index, Loop, Node};
use crate::program::Program;
use crate::value::{Entries, Key, List, Map, Text, Value};

/// The variables of one evaluation.
pub trait Variables<'a> {
    /// The value of a variable; `None` if there is none of the name.
    ///
    /// # Errors
    /// The value is computed, and that fails.
    fn get(&self, name: &str) -> Option<Result<Value<'a>>>;
}

impl<'a, const N: usize> Variables<'a> for [(&str, Value<'a>); N] {
    fn get(&self, name: &str) -> Option<Result<Value<'a>>> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| Ok(value.clone()))
    }
}

/// What came out of an evaluation.
#[derive(Debug)]
pub struct Evaluated<'a> {
    /// The value.
    pub result: Result<Value<'a>>,
    /// What it cost.
    pub cost: u64,
}

impl Program {
    /// Evaluates with variables, up to a cost.
    pub fn eval<'a>(&'a self, variables: &dyn Variables<'a>, limit: u64) -> Evaluated<'a> {
        let mut machine =
            Machine { variables, locals: Vec::new(), cost: 0, limit, allowance: Allowance::default() };
        let result = machine.run(&self.root);
        Evaluated { result, cost: machine.cost }
    }
}

struct Machine<'a, 'v> {
    variables: &'v dyn Variables<'a>,
    /// A collecting variable may hold an error, which later elements may make irrelevant.
    locals: Vec<Result<Value<'a>>>,
    cost: u64,
    limit: u64,
    allowance: Allowance,
}

type Args<'a> = SmallVec<[Value<'a>; 3]>;

impl<'a> Machine<'a, '_> {
    fn charge(&mut self, cost: u64) -> Result<()> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(EvalError::too_costly()) } else { Ok(()) }
    }

    fn run(&mut self, node: &'a Node) -> Result<Value<'a>> {
        match node {
            Node::Const(value, cost) => {
                self.charge(*cost)?;
                Ok(borrowed(value))
            }
            Node::Local(slot, cost) => {
                self.charge(*cost)?;
                self.locals[*slot].clone()
            }
            Node::Global(name, cost) => {
                self.charge(*cost)?;
                let missing = || EvalError::other(format!("no such attribute(s): {name}"));
                self.variables.get(name).ok_or_else(missing)?
            }
            Node::Member(name, access, start) => self.member(name, *access, *start),
            Node::Select(operand, field, start) => self.select(operand, field, *start),
            Node::Test(operand, field, start) => {
                let operand = self.run(operand)?;
                self.charge(*start)?;
                Ok(Value::Bool(select(&operand, field)?.is_some()))
            }
            Node::OptionalSelect(operand, field, start) => {
                let operand = self.run(operand)?;
                self.charge(*start)?;
                let found = select(&operand, field)?;
                self.step(found)
            }
            Node::Index(index) => self.index(index),
            Node::And(a, b) => self.logical(a, b, false),
            Node::Or(a, b) => self.logical(a, b, true),
            Node::Conditional(parts) => {
                let [condition, yes, no] = parts.as_ref();
                let chosen = self.run(condition)?.as_bool().ok_or_else(EvalError::no_overload)?;
                self.run(if chosen { yes } else { no })
            }
            Node::NotStrictlyFalse(operand) => {
                let result = self.run(operand);
                if result.as_ref().is_err_and(EvalError::is_final) {
                    return result;
                }
                self.charge(1)?;
                Ok(Value::Bool(result.ok().and_then(|v| v.as_bool()) != Some(false)))
            }
            Node::OptionalOr(a, b) => match self.run(a)? {
                found @ Value::Optional(Some(_)) => Ok(found),
                Value::Optional(None) => self.run(b),
                _ => Err(EvalError::no_overload()),
            },
            Node::OptionalOrValue(a, b) => match self.run(a)? {
                Value::Optional(Some(value)) => Ok(value.as_ref().clone()),
                Value::Optional(None) => self.run(b),
                _ => Err(EvalError::no_overload()),
            },
            Node::Call(call) => self.call(call),
            Node::List(items) => self.list(items),
            Node::Map(entries) => self.map(entries),
            Node::Struct(name, fields) => self.structure(name, fields),
            Node::Fold(fold) => self.fold(fold),
            Node::Bind(value, result) => {
                let value = self.run(value);
                if value.as_ref().is_err_and(EvalError::is_final) {
                    return value;
                }
                self.locals.push(value);
                let result = self.run(result);
                self.locals.pop();
                result
            }
            Node::Append(slot, element) => self.append(*slot, element),
            Node::Insert(slot, entry) => self.insert(*slot, entry),
        }
    }

    /// A field that is computed when it is read. One that fails is not absent.
    fn member(&mut self, name: &str, access: Access, start: u64) -> Result<Value<'a>> {
        self.charge(start + if access == Access::Value { cost::SELECT } else { 0 })?;
        let found = self.variables.get(name).transpose()?;
        match access {
            Access::Value => found.ok_or_else(|| EvalError::no_key(&name.rsplit('.').next().unwrap_or(name))),
            Access::Test => Ok(Value::Bool(found.is_some())),
            Access::Optional => self.step(found),
        }
    }

    fn select(&mut self, operand: &'a Node, field: &'a str, start: u64) -> Result<Value<'a>> {
        let operand = self.run(operand)?;
        self.charge(start)?;
        if let Value::Optional(_) = operand {
            let found = select(&operand, field)?;
            return self.step(found);
        }
        self.charge(cost::SELECT)?;
        if let Value::List(_) = operand {
            return Err(EvalError::other("unsupported index type 'string' in list"));
        }
        select(&operand, field)?.ok_or_else(|| EvalError::no_key(&field))
    }

    /// A step that may lead nowhere, which then costs nothing.
    fn step(&mut self, found: Option<Value<'a>>) -> Result<Value<'a>> {
        if found.is_some() {
            self.charge(cost::SELECT)?;
        }
        Ok(Value::Optional(found.map(Arc::new)))
    }

    fn index(&mut self, index: &'a Index) -> Result<Value<'a>> {
        let operand = self.run(&index.operand)?;
        let key = self.run(&index.key)?;
        self.charge(index.start)?;
        if index.optional || matches!(operand, Value::Optional(_)) {
            let found = access::index(&operand, &key)?;
            return self.step(found);
        }
        self.charge(cost::SELECT)?;
        if let Some(found) = access::index(&operand, &key)? {
            return Ok(found);
        }
        Err(match operand {
            Value::List(_) => EvalError::other(format!("index out of bounds: {}", shown(&key))),
            _ => EvalError::no_key(&shown(&key)),
        })
    }

    /// `&&` and `||`: one side may decide even if the other fails.
    fn logical(&mut self, a: &'a Node, b: &'a Node, decisive: bool) -> Result<Value<'a>> {
        let first = self.truth(a)?;
        if matches!(first, Ok(found) if found == decisive) {
            return Ok(Value::Bool(decisive));
        }
        let second = self.truth(b)?;
        if matches!(second, Ok(found) if found == decisive) {
            return Ok(Value::Bool(decisive));
        }
        first.and(second).map(Value::Bool)
    }

    /// The outer error is one that ends everything.
    fn truth(&mut self, node: &'a Node) -> Result<Result<bool>> {
        match self.run(node) {
            Ok(value) => Ok(value.as_bool().ok_or_else(EvalError::no_overload)),
            Err(error) if error.is_final() => Err(error),
            Err(error) => Ok(Err(error)),
        }
    }

    fn call(&mut self, call: &'a Call) -> Result<Value<'a>> {
        let mut args = Args::new();
        let mut failed = None;
        for (i, arg) in call.args.iter().enumerate() {
            match self.run(arg) {
                Ok(value) => args.push(value),
                Err(error) if error.is_final() => return Err(error),
                // One or two arguments are evaluated whatever happens, and the call is paid for.
                Err(error) if call.args.len() <= 2 || i + 1 == call.args.len() => {
                    failed.get_or_insert(error);
                    args.push(Value::Null);
                }
                Err(error) => return Err(error),
            }
        }
        let result = match (failed, &call.pattern) {
            (Some(error), _) => Err(error),
            (None, None) => (call.function)(&args, &mut self.allowance),
            (None, Some((name, pattern))) => {
                crate::library::regex::call(name, &args, pattern, &mut self.allowance)
            }
        };
        // What fails was work, too.
        let cost = match &result {
            Ok(result) => cost::call(call.rule, &args, result),
            Err(_) => cost::call(call.rule, &args, &Value::Null),
        };
        self.charge(cost)?;
        result
    }

    fn list(&mut self, items: &'a [(Node, bool)]) -> Result<Value<'a>> {
        let mut values = Vec::with_capacity(items.len());
        for (item, optional) in items {
            let value = self.run(item)?;
            match value {
                value if !optional => values.push(value),
                Value::Optional(Some(value)) => values.push(value.as_ref().clone()),
                Value::Optional(None) => {}
                other => {
                    return Err(EvalError::other(format!(
                        "cannot initialize optional list element from non-optional value {}",
                        shown(&other)
                    )));
                }
            }
        }
        self.charge(cost::LIST)?;
        Ok(Value::list(values))
    }

    /// The value of an optional entry, if it is to be put in.
    fn entry(&mut self, value: &'a Node, optional: bool, name: &str) -> Result<Option<Value<'a>>> {
        match self.run(value)? {
            value if !optional => Ok(Some(value)),
            Value::Optional(value) => Ok(value.map(|v| v.as_ref().clone())),
            other => Err(EvalError::other(format!(
                "cannot initialize optional entry '{name}' from non-optional value {}",
                shown(&other)
            ))),
        }
    }

    fn map(&mut self, entries: &'a [(Node, Node, bool)]) -> Result<Value<'a>> {
        let mut map = Entries::with_capacity(entries.len());
        for (key, value, optional) in entries {
            let key = self.run(key)?;
            let name = if *optional { shown(&key) } else { String::new() };
            if let Some(value) = self.entry(value, *optional, &name)? {
                let unsupported = || EvalError::other(format!("unsupported key type: {}", key.type_name()));
                map.insert(Key::from_value(&key).ok_or_else(unsupported)?, value);
            }
        }
        self.charge(cost::MAP)?;
        Ok(Value::Map(Map::Values(Arc::new(map))))
    }

    fn structure(&mut self, name: &'a Arc<str>, fields: &'a [(Box<str>, Node, bool)]) -> Result<Value<'a>> {
        let mut map = Entries::with_capacity(fields.len());
        for (field, value, optional) in fields {
            if let Some(value) = self.entry(value, *optional, field)? {
                map.insert(Key::String(Text::Borrowed(field)), value);
            }
        }
        self.charge(cost::STRUCT)?;
        Ok(Value::Map(Map::Struct(Arc::clone(name), Arc::new(map))))
    }

    fn fold(&mut self, fold: &'a Loop) -> Result<Value<'a>> {
        let range = self.run(&fold.range)?;
        let init = self.run(&fold.init)?;
        let base = self.locals.len();
        self.locals.push(Ok(init));
        let result = self.iterate(fold, &range, base).and_then(|()| self.run(&fold.result));
        self.locals.truncate(base);
        result
    }

    fn iterate(&mut self, fold: &'a Loop, range: &Value<'a>, base: usize) -> Result<()> {
        match range {
            Value::List(list) => {
                for i in 0..list.len() {
                    let item = list.get(i).unwrap_or_else(|| Err(EvalError::no_overload()));
                    if fold.two {
                        self.locals.push(Ok(Value::Int(i as i64)));
                    }
                    self.locals.push(item);
                    if !self.iteration(fold, base)? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for key in map.keys() {
                    let value = fold.two.then(|| map.get(&key).map(|v| v.unwrap_or(Value::Null)));
                    self.locals.push(Ok(key));
                    self.locals.extend(value);
                    if !self.iteration(fold, base)? {
                        break;
                    }
                }
            }
            _ => return Err(EvalError::no_overload()),
        }
        Ok(())
    }

    /// One element, whose variables are on the stack; whether to go on.
    fn iteration(&mut self, fold: &'a Loop, base: usize) -> Result<bool> {
        let go_on = self.run(&fold.condition)?.as_bool() == Some(true);
        if go_on {
            let step = self.run(&fold.step);
            if let Err(error) = &step
                && error.is_final()
            {
                return Err(error.clone());
            }
            self.locals[base] = step;
        }
        self.locals.truncate(base + 1);
        Ok(go_on)
    }

    /// What a loop has collected, taken out so that it can be added to in its place.
    fn collected(&mut self, slot: usize) -> Result<Value<'a>> {
        self.charge(cost::SELECT)?;
        self.locals[slot].as_ref().map_err(Clone::clone)?;
        std::mem::replace(&mut self.locals[slot], Ok(Value::Null))
    }

    fn append(&mut self, slot: usize, element: &'a Node) -> Result<Value<'a>> {
        self.locals[slot].as_ref().map_err(Clone::clone)?;
        let element = self.run(element)?;
        self.allowance.take(1)?;
        self.charge(cost::LIST + 1)?;
        let Value::List(List::Values(mut list)) = self.collected(slot)? else {
            return Err(EvalError::no_overload());
        };
        Arc::make_mut(&mut list).push(element);
        Ok(Value::List(List::Values(list)))
    }

    /// Adds a key and value, or all entries of a map.
    fn insert(&mut self, slot: usize, entry: &'a [Node]) -> Result<Value<'a>> {
        self.locals[slot].as_ref().map_err(Clone::clone)?;
        let entry: Args<'a> = entry.iter().map(|node| self.run(node)).collect::<Result<_>>()?;
        self.allowance.take(1)?;
        self.charge(1)?;
        let more = library::entries_of(&entry)?;
        let Value::Map(Map::Values(mut map)) = self.collected(slot)? else {
            return Err(EvalError::no_overload());
        };
        compare::insert_all(Arc::make_mut(&mut map), more)?;
        Ok(Value::Map(Map::Values(map)))
    }
}

/// A constant as a value that borrows from the program.
fn borrowed<'a>(value: &'a Value<'static>) -> Value<'a> {
    match value {
        Value::String(text) => Value::String(Text::Borrowed(text.as_str())),
        other => other.clone(),
    }
}
