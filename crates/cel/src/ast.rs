//! The tree of an expression after parsing, macros expanded.

/// The name of the variable in which built-in macros collect; no source can spell it.
pub const ACCUMULATOR: &str = "@result";

/// An expression.
#[derive(Clone, Debug)]
pub struct Expr {
    /// Its number, unique in the tree: the index of what the checker finds out about it.
    pub id: usize,
    /// Byte offset of its operator, or of its start.
    pub at: usize,
    /// Levels below and including it.
    pub depth: u32,
    /// What it is.
    pub kind: Kind,
}

/// What an expression is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A constant.
    Literal(Literal),
    /// A variable, or a type.
    Ident(String),
    /// `operand.field`, or `has(operand.field)`.
    Select {
        /// The object or map.
        operand: Box<Expr>,
        /// The field.
        field: String,
        /// Whether only presence is asked for.
        test: bool,
    },
    /// A function or operator.
    Call {
        /// What it is called on.
        target: Option<Box<Expr>>,
        /// Its name.
        function: String,
        /// The rest.
        args: Vec<Expr>,
    },
    /// `[a, ?b]`
    List(Vec<Item>),
    /// `{k: v}`
    Map(Vec<Entry>),
    /// `Name{field: value}`
    Struct(String, Vec<Field>),
    /// What macros become.
    Fold(Box<Fold>),
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `null`
    Null,
    /// `true`
    Bool(bool),
    /// `1`
    Int(i64),
    /// `1u`
    Uint(u64),
    /// `1.0`
    Double(f64),
    /// `'a'`
    String(String),
    /// `b'a'`
    Bytes(Vec<u8>),
}

/// An element of a list.
#[derive(Clone, Debug)]
pub struct Item {
    /// The element.
    pub value: Expr,
    /// Whether it is left out if it is an empty optional.
    pub optional: bool,
}

/// An entry of a map.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: Expr,
    /// The value.
    pub value: Expr,
    /// Whether it is left out if it is an empty optional.
    pub optional: bool,
}

/// A field of a struct.
#[derive(Clone, Debug)]
pub struct Field {
    /// Byte offset of its colon.
    pub at: usize,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Expr,
    /// Whether it is left out if it is an empty optional.
    pub optional: bool,
}

/// A loop over a list or map.
#[derive(Clone, Debug)]
pub struct Fold {
    /// What is looped over.
    pub range: Expr,
    /// The variable of the element, or of the index or key if there are two.
    pub var: String,
    /// The variable of the element or value if there are two.
    pub var2: Option<String>,
    /// The variable that collects.
    pub accu: String,
    /// What it starts with.
    pub init: Expr,
    /// Goes on while this is true.
    pub condition: Expr,
    /// What the collecting variable becomes with each element.
    pub step: Expr,
    /// What comes out.
    pub result: Expr,
}

impl Fold {
    /// Whether it loops over nothing and only names a value.
    pub fn is_bind(&self) -> bool {
        matches!(&self.range.kind, Kind::List(items) if items.is_empty())
            && matches!(self.condition.kind, Kind::Literal(Literal::Bool(false)))
            && self.accu != ACCUMULATOR
    }
}

impl Expr {
    /// The dotted name that a chain of selects on a variable spells.
    pub fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.clone()),
            Kind::Select { operand, field, test: false } => {
                Some(format!("{}.{field}", operand.qualified_name()?))
            }
            _ => None,
        }
    }

    /// Calls `visit` on every expression of the tree, parents first.
    pub fn walk(&self, visit: &mut dyn FnMut(&Expr)) {
        visit(self);
        match &self.kind {
            Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } => operand.walk(visit),
            Kind::Call { target, args, .. } => {
                target.iter().for_each(|t| t.walk(visit));
                args.iter().for_each(|a| a.walk(visit));
            }
            Kind::List(items) => items.iter().for_each(|i| i.value.walk(visit)),
            Kind::Map(entries) => entries.iter().for_each(|e| {
                e.key.walk(visit);
                e.value.walk(visit);
            }),
            Kind::Struct(_, fields) => fields.iter().for_each(|f| f.value.walk(visit)),
            Kind::Fold(fold) => {
                for e in [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result] {
                    e.walk(visit);
                }
            }
        }
    }
}

/// The names under which operators are declared.
pub mod operators {
    /// `a && b`
    pub const AND: &str = "_&&_";
    /// `a || b`
    pub const OR: &str = "_||_";
    /// `!a`
    pub const NOT: &str = "!_";
    /// `-a`
    pub const NEGATE: &str = "-_";
    /// `a == b`
    pub const EQUALS: &str = "_==_";
    /// `a + b`
    pub const ADD: &str = "_+_";
    /// `a[b]`
    pub const INDEX: &str = "_[_]";
    /// `a[?b]`
    pub const OPTIONAL_INDEX: &str = "_[?_]";
    /// `a.?b`
    pub const OPTIONAL_SELECT: &str = "_?._";
    /// In loops: goes on unless the argument is false.
    pub const NOT_STRICTLY_FALSE: &str = "@not_strictly_false";
    /// In loops: adds entries to a map.
    pub const MAP_INSERT: &str = "cel.@mapInsert";
}
