//! A compiled expression: names resolved, constants folded, patterns compiled.

use std::collections::HashSet;
use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Expr, Fold, Kind, Literal, operators};
use crate::check::{self, Checked};
use crate::cost::{self, Rule};
use crate::env::Env;
use crate::estimate::{self, Cost};
use crate::library::{self, Allowance};
use crate::node::{Access, Call, Index, Loop, Node};
use crate::parse;
use crate::source::Issues;
use crate::types::Type;
use crate::value::{Entries, Key, Map, Value};

/// An expression that can be evaluated, by many at once.
#[derive(Debug)]
pub struct Program {
    pub(crate) root: Node,
    output: Type,
    variables: Vec<String>,
    cost: Cost,
}

impl Program {
    /// Compiles a source.
    ///
    /// # Errors
    /// What is wrong with it; prints as upstream's compiler does.
    pub fn compile(source: &str, env: &Env) -> Result<Self, Issues> {
        let parsed = parse::parse(source)?;
        let checked = check::check(source, parsed, env)?;
        let issues = Issues::new(source);
        let mut lowering = Lowering { checked: &checked, env, locals: Vec::new(), issues };
        let root = lowering.node(&checked.root);
        lowering.literals();
        if !lowering.issues.is_empty() {
            return Err(lowering.issues);
        }
        let output = checked.types[checked.root.id].clone();
        let cost = estimate::cost(&checked, env);
        Ok(Self { root, output, variables: checked.variables, cost })
    }

    /// The type of what it gives.
    pub fn output(&self) -> &Type {
        &self.output
    }

    /// Whether it refers to a variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.variables.iter().any(|name| name == variable)
    }

    /// The variables that it refers to.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// What it may cost at least and at most, by the sizes that its environment names.
    pub fn estimate(&self) -> Cost {
        self.cost
    }
}

struct Lowering<'a> {
    checked: &'a Checked,
    env: &'a Env,
    /// The names of the variables in their places on the stack.
    locals: Vec<String>,
    issues: Issues,
}

impl Lowering<'_> {
    fn boxed(&mut self, expr: &Expr) -> Box<Node> {
        Box::new(self.node(expr))
    }

    fn node(&mut self, expr: &Expr) -> Node {
        match &expr.kind {
            Kind::Literal(literal) => Node::Const(constant(literal), 0),
            Kind::Ident(name) => self.ident(expr.id, name),
            Kind::Select { operand, field, test } => {
                let access = if *test { Access::Test } else { Access::Value };
                if let Some(member) = self.member(operand, field, access) {
                    return member;
                }
                let operand = self.boxed(operand);
                let (field, start) = (field.as_str().into(), operand.start());
                if *test { Node::Test(operand, field, start) } else { Node::Select(operand, field, start) }
            }
            Kind::Call { target, function, args } => self.call(expr.id, target.as_deref(), function, args),
            Kind::List(items) => {
                let items: Vec<(Node, bool)> =
                    items.iter().map(|item| (self.node(&item.value), item.optional)).collect();
                fold_list(items)
            }
            Kind::Map(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|entry| (self.node(&entry.key), self.node(&entry.value), entry.optional))
                    .collect();
                fold_map(entries)
            }
            Kind::Struct(name, fields) => {
                let fields = fields.iter().map(|f| (f.name.as_str().into(), self.node(&f.value), f.optional));
                Node::Struct(name.as_str().into(), fields.collect())
            }
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    fn member(&self, operand: &Expr, field: &str, access: Access) -> Option<Node> {
        let Kind::Ident(name) = &operand.kind else { return None };
        let computed = self.slot(name).is_none() && self.env.is_computed(name);
        computed.then(|| Node::Member(format!("{name}.{field}").into(), access, cost::SELECT))
    }

    fn slot(&self, name: &str) -> Option<usize> {
        self.locals.iter().rposition(|local| local == name)
    }

    fn ident(&mut self, id: usize, name: &str) -> Node {
        if let Some(slot) = self.slot(name) {
            return Node::Local(slot, cost::SELECT);
        }
        match &self.checked.types[id] {
            // A variable may hold a type, too; names of types are no variables.
            Type::Kind(Some(of)) if !self.checked.variables.iter().any(|v| v == name) => {
                Node::Const(Value::Type(of.as_ref().clone()), 0)
            }
            _ => Node::Global(name.into(), cost::SELECT),
        }
    }

    fn call(&mut self, id: usize, target: Option<&Expr>, function: &str, args: &[Expr]) -> Node {
        match (function, target, args) {
            (operators::AND, None, [a, b]) => return Node::And(self.boxed(a), self.boxed(b)),
            (operators::OR, None, [a, b]) => return Node::Or(self.boxed(a), self.boxed(b)),
            ("_?_:_", None, [a, b, c]) => {
                let branches = [self.node(b).into_part(), self.node(c).into_part()];
                let [yes, no] = branches;
                return Node::Conditional(Box::new([self.node(a), yes, no]));
            }
            (operators::NOT_STRICTLY_FALSE, None, [a]) => return Node::NotStrictlyFalse(self.boxed(a)),
            (operators::OPTIONAL_SELECT, None, [a, Expr { kind: Kind::Literal(Literal::String(f)), .. }]) => {
                let member = self.member(a, f, Access::Optional);
                return member.unwrap_or_else(|| {
                    let operand = self.boxed(a);
                    let start = operand.start();
                    Node::OptionalSelect(operand, f.as_str().into(), start)
                });
            }
            (operators::INDEX | operators::OPTIONAL_INDEX, None, [operand, key]) => {
                let (operand, key) = (self.node(operand), self.node(key).into_part());
                let (start, optional) = (operand.start(), function == operators::OPTIONAL_INDEX);
                return Node::Index(Box::new(Index { operand, key, optional, start }));
            }
            ("or", Some(a), [b]) => return Node::OptionalOr(self.boxed(a), self.boxed(b)),
            ("orValue", Some(a), [b]) => return Node::OptionalOrValue(self.boxed(a), self.boxed(b)),
            (
                operators::ADD,
                None,
                [Expr { kind: Kind::Ident(name), .. }, Expr { kind: Kind::List(items), .. }],
            ) if name == ACCUMULATOR => {
                if let (Some(slot), [item]) = (self.slot(ACCUMULATOR), items.as_slice()) {
                    return Node::Append(slot, self.boxed(&item.value));
                }
            }
            (operators::MAP_INSERT, None, [Expr { kind: Kind::Ident(name), .. }, entry @ ..])
                if name == ACCUMULATOR =>
            {
                if let Some(slot) = self.slot(ACCUMULATOR) {
                    return Node::Insert(slot, entry.iter().map(|e| self.node(e)).collect());
                }
            }
            _ => {}
        }
        let nodes: Vec<Node> = target.into_iter().chain(args).map(|arg| self.node(arg)).collect();
        let pattern_at = args.last().map_or(0, |arg| arg.at);
        let certain = self.checked.overloads[id].len() == 1;
        self.plain_call(function, nodes, pattern_at, certain)
    }

    /// A call; `certain` if the types decide which signature of the function is called.
    fn plain_call(&mut self, name: &str, args: Vec<Node>, pattern_at: usize, certain: bool) -> Node {
        let Some(function) = library::find(name) else {
            // The table of signatures and the libraries name the same functions; a test compares them.
            self.issues.report(pattern_at, format!("undeclared reference to '{name}' (in container '')"));
            return Node::Const(Value::Null, 0);
        };
        let mut rule = cost::rule(name);
        if !certain && rule.is_of_signature() {
            rule = Rule::One;
        }
        if let ("@in", true, [_, Node::Const(Value::List(list), 0)]) = (name, certain, args.as_slice()) {
            if list.is_empty() {
                return Node::Const(Value::Bool(false), 0);
            }
            // Upstream looks constants up in a set, free of cost.
            let primitive = |item: &Value<'_>| {
                !matches!(
                    item,
                    Value::List(_) | Value::Map(_) | Value::Bytes(_) | Value::Opaque(_) | Value::Optional(_)
                )
            };
            if list.iter().all(|item| item.as_ref().is_ok_and(primitive)) {
                rule = Rule::Fixed(0);
            }
        }
        if FOLDED.contains(&name)
            && let [Node::Const(arg, 0)] = args.as_slice()
        {
            let free = CONVERSIONS.contains(&name);
            match function(std::slice::from_ref(arg), &mut Allowance::default()) {
                Ok(value) => {
                    let cost = if free { 0 } else { cost::call(rule, std::slice::from_ref(arg), &value) };
                    return Node::Const(value, cost);
                }
                // Upstream folds constants when it makes the program.
                Err(why) if free => self.issues.instantiation(&why.to_string()),
                Err(_) => {}
            }
        }
        let mut pattern = None;
        if matches!(name, "matches" | "find" | "findAll")
            && let Some(Node::Const(Value::String(text), _)) = args.get(1)
        {
            match library::regex::compile(text.as_str()) {
                Ok(compiled) => pattern = Some((name.into(), compiled)),
                Err(_) if name == "matches" => self.issues.report(pattern_at, "invalid matches argument"),
                Err(why) => self.issues.instantiation(&format!("error parsing regexp: {why}")),
            }
        }
        Node::Call(Box::new(Call { function, pattern, rule, args }))
    }

    fn fold(&mut self, fold: &Fold) -> Node {
        if fold.is_bind() {
            let value = self.boxed(&fold.init);
            self.locals.push(fold.accu.clone());
            let result = self.boxed(&fold.result);
            self.locals.pop();
            return Node::Bind(value, result);
        }
        let range = self.node(&fold.range);
        let init = self.node(&fold.init);
        self.locals.push(fold.accu.clone());
        self.locals.push(fold.var.clone());
        self.locals.extend(fold.var2.clone());
        let condition = self.node(&fold.condition);
        let step = self.node(&fold.step);
        let two = fold.var2.is_some();
        self.locals.truncate(self.locals.len() - 1 - usize::from(two));
        let result = self.node(&fold.result);
        self.locals.pop();
        Node::Fold(Box::new(Loop { range, two, init, condition, step, result }))
    }

    /// Constants that can be nothing but wrong when they are reached.
    fn literals(&mut self) {
        let types = &self.checked.types;
        let issues = &mut self.issues;
        // What is formatted may be of any types.
        let mut exempt = HashSet::new();
        self.checked.root.walk(&mut |expr| match &expr.kind {
            Kind::Call { target, function, args } if function == "format" => {
                if let (Some(Expr { kind: Kind::Literal(Literal::String(pattern)), .. }), [list]) =
                    (target.as_deref(), args.as_slice())
                    && let Kind::List(items) = &list.kind
                    && let Err(why) = crate::clauses::check(pattern, items, types)
                {
                    issues.report(why.at.unwrap_or(expr.at), why.message);
                }
                expr.walk(&mut |inner| {
                    exempt.insert(inner.id);
                });
            }
            Kind::Call { target: None, function, args }
                if matches!(function.as_str(), "duration" | "timestamp") =>
            {
                let [Expr { kind: Kind::Literal(literal), at, .. }] = args.as_slice() else { return };
                let works = library::find(function)
                    .is_some_and(|f| f(&[constant(literal)], &mut Allowance::default()).is_ok());
                if !works {
                    issues.report(*at, format!("invalid {function} argument"));
                }
            }
            Kind::List(items) if !exempt.contains(&expr.id) => {
                alike(items.iter().map(|i| (&i.value, i.optional)), types, issues);
            }
            Kind::Map(entries) if !exempt.contains(&expr.id) => {
                alike(entries.iter().map(|e| (&e.key, false)), types, issues);
                alike(entries.iter().map(|e| (&e.value, e.optional)), types, issues);
            }
            _ => {}
        });
    }
}

/// Elements of one literal are of one type, even if some of them are dynamic.
fn alike<'e>(items: impl Iterator<Item = (&'e Expr, bool)>, types: &[Type], issues: &mut Issues) {
    let mut first: Option<&Type> = None;
    for (expr, optional) in items {
        let mut ty = &types[expr.id];
        if optional {
            ty = ty.unwrap_optional().unwrap_or(ty);
        }
        match first {
            None => first = Some(ty),
            Some(first) if !first.same(ty) => {
                issues.report(expr.at, format!("expected type '{first}' but found '{ty}'"));
                return;
            }
            Some(_) => {}
        }
    }
}

/// Conversions of constants, which upstream does while compiling, free of cost.
const CONVERSIONS: [&str; 10] =
    ["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"];

/// Functions of constants that need not be called every time.
const FOLDED: [&str; 15] = [
    "bool",
    "bytes",
    "double",
    "duration",
    "dyn",
    "int",
    "string",
    "timestamp",
    "type",
    "uint",
    "quantity",
    "ip",
    "cidr",
    "url",
    "semver",
];

fn constant(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(b) => Value::Bool(*b),
        Literal::Int(n) => Value::Int(*n),
        Literal::Uint(n) => Value::Uint(*n),
        Literal::Double(d) => Value::Double(*d),
        Literal::String(text) => Value::text(text.as_str()),
        Literal::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
    }
}

fn fold_list(items: Vec<(Node, bool)>) -> Node {
    let constant = |(node, optional): &(Node, bool)| match node {
        Node::Const(value, 0) if !optional => Some(value.clone()),
        _ => None,
    };
    match items.iter().map(constant).collect::<Option<Vec<_>>>() {
        Some(values) => Node::Const(Value::list(values), 0),
        None => Node::List(items),
    }
}

fn fold_map(entries: Vec<(Node, Node, bool)>) -> Node {
    let constant = |(key, value, optional): &(Node, Node, bool)| match (key, value) {
        (Node::Const(key, 0), Node::Const(value, 0)) if !optional => {
            Some((Key::from_value(key)?, value.clone()))
        }
        _ => None,
    };
    match entries.iter().map(constant).collect::<Option<Entries<'static>>>() {
        // Not where a key stands twice.
        Some(found) if found.len() == entries.len() => {
            Node::Const(Value::Map(Map::Values(Arc::new(found))), 0)
        }
        _ => Node::Map(entries),
    }
}
