//! The steps of an evaluation.

use std::sync::Arc;

use regex::Regex;

use crate::cost::{self, Rule};
use crate::library::Function;
use crate::value::Value;

/// A step of an evaluation.
#[derive(Debug)]
pub enum Node {
    /// A constant, and what it costs.
    Const(Value<'static>, u64),
    /// A variable of a loop, and what reading it costs.
    Local(usize, u64),
    /// A variable of the environment, and what reading it costs.
    Global(Box<str>, u64),
    /// A field of a variable that is computed when it is read: its full name, and how it is asked for.
    Member(Box<str>, Access, u64),
    /// `operand.field`, and what a path that starts here costs.
    Select(Box<Node>, Box<str>, u64),
    /// `has(operand.field)`
    Test(Box<Node>, Box<str>, u64),
    /// `operand.?field`
    OptionalSelect(Box<Node>, Box<str>, u64),
    /// `operand[key]` and `operand[?key]`
    Index(Box<Index>),
    /// `a && b`
    And(Box<Node>, Box<Node>),
    /// `a || b`
    Or(Box<Node>, Box<Node>),
    /// `a ? b : c`
    Conditional(Box<[Node; 3]>),
    /// In loops: true unless the operand is false.
    NotStrictlyFalse(Box<Node>),
    /// `a.or(b)`
    OptionalOr(Box<Node>, Box<Node>),
    /// `a.orValue(b)`
    OptionalOrValue(Box<Node>, Box<Node>),
    /// A call.
    Call(Box<Call>),
    /// `[a, ?b]`
    List(Vec<(Node, bool)>),
    /// `{k: v}`
    Map(Vec<(Node, Node, bool)>),
    /// `Name{field: value}`
    Struct(Arc<str>, Vec<(Box<str>, Node, bool)>),
    /// A loop.
    Fold(Box<Loop>),
    /// Names a value.
    Bind(Box<Node>, Box<Node>),
    /// `accumulator + [element]`, in place.
    Append(usize, Box<Node>),
    /// The collecting map with an entry, or with the entries of a map, in place.
    Insert(usize, Vec<Node>),
}

/// An element or entry.
#[derive(Debug)]
pub struct Index {
    /// Of what.
    pub operand: Node,
    /// Which.
    pub key: Node,
    /// Whether it may be absent.
    pub optional: bool,
    /// What a path that starts here costs.
    pub start: u64,
}

impl Node {
    /// Whether it is a path: a variable and steps from it. Upstream charges for a path once, and for each step.
    fn is_path(&self) -> bool {
        matches!(
            self,
            Self::Local(..)
                | Self::Global(..)
                | Self::Member(..)
                | Self::Select(..)
                | Self::OptionalSelect(..)
                | Self::Index(_)
                | Self::Conditional(_)
        )
    }

    /// The cost of starting a path at this operand.
    pub fn start(&self) -> u64 {
        if self.is_path() { 0 } else { cost::SELECT }
    }

    /// The same where upstream makes the path a part of something else, and charges for its steps only.
    pub fn into_part(mut self) -> Self {
        let mut at = &mut self;
        loop {
            match at {
                Self::Local(_, start) | Self::Global(_, start) | Self::Member(_, _, start) => {
                    *start = 0;
                    break;
                }
                Self::Select(operand, _, start) | Self::OptionalSelect(operand, _, start) => {
                    *start = 0;
                    at = operand;
                }
                Self::Index(index) => {
                    index.start = 0;
                    at = &mut index.operand;
                }
                _ => break,
            }
            if !at.is_path() {
                break;
            }
        }
        self
    }
}

/// How a field is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `operand.field`
    Value,
    /// `has(operand.field)`
    Test,
    /// `operand.?field`
    Optional,
}

/// A call of a function.
#[derive(Debug)]
pub struct Call {
    /// What it does.
    pub function: Function,
    /// Its name and pattern, if that is constant.
    pub pattern: Option<(Box<str>, Regex)>,
    /// What it costs.
    pub rule: Rule,
    /// What it is called with, the receiver first.
    pub args: Vec<Node>,
}

/// A loop.
#[derive(Debug)]
pub struct Loop {
    /// What is looped over.
    pub range: Node,
    /// Whether there are two variables.
    pub two: bool,
    /// What the collecting variable starts with.
    pub init: Node,
    /// Goes on while this is true.
    pub condition: Node,
    /// What the collecting variable becomes.
    pub step: Node,
    /// What comes out.
    pub result: Node,
}
