//! What an expression may cost at least and at most, found without running it: upstream decides by this which rules a
//! definition may have, so the figures must be its own.

mod calls;

use std::collections::HashMap;

use crate::ast::{ACCUMULATOR, Expr, Fold, Kind, Literal};
use crate::check::Checked;
use crate::cost;
use crate::env::Env;
use crate::types::Type;

/// A cost or a size, between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// At least.
    pub min: u64,
    /// At most; `u64::MAX` if there is no bound.
    pub max: u64,
}

impl Cost {
    const ZERO: Self = Self::fixed(0);
    const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    const fn fixed(value: u64) -> Self {
        Self { min: value, max: value }
    }

    fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    fn scaled(self, factor: f64) -> Self {
        // Casting to an integer saturates.
        let scale = |value: u64| (value as f64 * factor).ceil() as u64;
        Self { min: scale(self.min), max: scale(self.max) }
    }

    fn or(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// The sizes of the keys and values of a list or map.
#[derive(Clone, Copy)]
struct EntrySize {
    is_list: bool,
    key: Cost,
    value: Cost,
}

#[derive(Clone, Default)]
struct Local {
    path: Vec<String>,
    size: Option<Cost>,
    entry: Option<EntrySize>,
}

/// Estimates the cost of an expression.
pub fn cost(checked: &Checked, env: &Env) -> Cost {
    let mut estimator = Estimator {
        checked,
        env,
        paths: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        locals: Vec::new(),
    };
    estimator.cost(&checked.root)
}

struct Estimator<'a> {
    checked: &'a Checked,
    env: &'a Env,
    paths: HashMap<usize, Vec<String>>,
    sizes: HashMap<usize, Cost>,
    entries: HashMap<usize, EntrySize>,
    locals: Vec<(String, Local)>,
}

impl<'a> Estimator<'a> {
    fn type_of(&self, expr: &Expr) -> &'a Type {
        &self.checked.types[expr.id]
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|(n, _)| n == name).map(|(_, local)| local)
    }

    fn cost(&mut self, expr: &Expr) -> Cost {
        match &expr.kind {
            Kind::Literal(_) => Cost::ZERO,
            Kind::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![name.clone()], |l| l.path.clone());
                self.paths.insert(expr.id, path);
                Cost::fixed(cost::SELECT)
            }
            Kind::Select { operand, test: true, .. } => self.cost(operand),
            Kind::Select { operand, field, .. } => {
                let mut sum = self.cost(operand);
                if matches!(self.type_of(operand), Type::Map(..) | Type::Object(_) | Type::Param(_)) {
                    sum = sum.plus(Cost::fixed(cost::SELECT));
                }
                let mut path = self.path(operand);
                path.push(field.clone());
                self.paths.insert(expr.id, path);
                sum
            }
            Kind::Call { target, function, args } => self.call(expr, target.as_deref(), function, args),
            Kind::List(items) => {
                let mut sum = Cost::fixed(cost::LIST);
                let mut size = (!items.is_empty()).then_some(Cost { min: u64::MAX, max: 0 });
                for item in items {
                    sum = sum.plus(self.cost(&item.value));
                    size = Some(size.unwrap_or(Cost::ZERO).or(self.size_or_unknown(&item.value)));
                }
                let value = size.unwrap_or(Cost::ZERO);
                self.entries.insert(expr.id, EntrySize { is_list: true, key: Cost::fixed(1), value });
                sum
            }
            Kind::Map(entries) => {
                let mut sum = Cost::fixed(cost::MAP);
                let start = if entries.is_empty() { Cost::ZERO } else { Cost { min: u64::MAX, max: 0 } };
                let (mut key, mut value) = (start, start);
                for entry in entries {
                    sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                    key = key.or(self.size_or_unknown(&entry.key));
                    value = value.or(self.size_or_unknown(&entry.value));
                }
                self.entries.insert(expr.id, EntrySize { is_list: false, key, value });
                sum
            }
            Kind::Struct(_, fields) => {
                let own = Cost::fixed(cost::STRUCT);
                fields.iter().fold(own, |sum, field| sum.plus(self.cost(&field.value)))
            }
            Kind::Fold(fold) if fold.is_bind() => self.bind(expr, fold),
            Kind::Fold(fold) => self.fold(expr, fold),
        }
    }

    fn bind(&mut self, expr: &Expr, fold: &Fold) -> Cost {
        let sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        self.push(&fold.accu, &fold.init);
        let sum = sum.plus(self.cost(&fold.result));
        self.copy_sizes(expr, &fold.result);
        self.locals.pop();
        sum
    }

    fn push(&mut self, name: &str, value: &Expr) {
        let local = Local { path: self.path(value), size: self.size(value), entry: self.entry_size(value) };
        self.locals.push((name.to_owned(), local));
    }

    /// Puts an iteration variable on the stack, which stands for a part of the range.
    fn push_part(&mut self, name: &str, range: &Expr, keys: bool) {
        let entry = self.entry_size(range);
        let is_list = entry.map_or(matches!(self.type_of(range), Type::List(_)), |e| e.is_list);
        let mut path = self.path(range);
        path.push(
            match (keys, is_list) {
                (true, true) => "@indices",
                (true, false) => "@keys",
                (false, true) => "@items",
                (false, false) => "@values",
            }
            .to_owned(),
        );
        let size = entry.map(|e| if keys { e.key } else { e.value });
        self.locals.push((name.to_owned(), Local { path, size, entry: None }));
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold) -> Cost {
        let mut sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        self.push(&fold.accu, &fold.init);
        match &fold.var2 {
            Some(var2) => {
                self.push_part(&fold.var, &fold.range, true);
                self.push_part(var2, &fold.range, false);
            }
            None => {
                let entry = self.entry_size(&fold.range);
                let is_list = entry.map_or(matches!(self.type_of(&fold.range), Type::List(_)), |e| e.is_list);
                self.push_part(&fold.var, &fold.range, !is_list);
            }
        }
        let condition = self.cost(&fold.condition);
        let step = self.cost(&fold.step);
        self.locals.truncate(self.locals.len() - 1 - usize::from(fold.var2.is_some()));
        sum = sum.plus(self.cost(&fold.result));
        self.locals.pop();
        let count = self.size_or_unknown(&fold.range);
        sum = sum.plus(count.times(step.plus(condition)));
        match fold.init.kind {
            Kind::Literal(_) => {
                let size = self.size(&fold.init);
                self.set_size(expr, size);
            }
            Kind::List(_) | Kind::Map(_) => {
                self.set_size(expr, Some(count));
                if let Some(entry) = self.entry_size(&fold.step) {
                    self.entries.insert(expr.id, entry);
                }
            }
            _ => {}
        }
        sum
    }

    fn path(&self, expr: &Expr) -> Vec<String> {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    fn set_size(&mut self, expr: &Expr, size: Option<Cost>) {
        if let Some(size) = size {
            self.sizes.insert(expr.id, size);
        }
    }

    fn copy_sizes(&mut self, to: &Expr, from: &Expr) {
        let size = self.size(from);
        self.set_size(to, size);
        if let Some(entry) = self.entry_size(from) {
            self.entries.insert(to.id, entry);
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Cost {
        self.size(expr).unwrap_or(Cost::UNKNOWN)
    }

    fn size(&mut self, expr: &Expr) -> Option<Cost> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        if let Some(size) = literal_size(expr) {
            return Some(Cost::fixed(size));
        }
        if let Some(size) = self.declared(&self.path(expr)) {
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if self.type_of(expr).is_scalar() {
            return Some(Cost::fixed(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }

    /// The size that the data at a path has at most.
    fn declared(&self, path: &[String]) -> Option<Cost> {
        // The first step is the variable, whichever it is.
        let (_, rest) = path.split_first()?;
        let mut data = self.env.data()?;
        for step in rest {
            data = data.step(step)?;
        }
        Some(Cost { min: 0, max: data.max_elements })
    }

    fn entry_size(&self, expr: &Expr) -> Option<EntrySize> {
        if let Some(entry) = self.entries.get(&expr.id) {
            return Some(*entry);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.entry,
            _ => None,
        }
    }

    /// The path of an expression, unless it is that of something that a loop collects.
    fn known_path(&self, expr: &Expr) -> Vec<String> {
        let path = self.path(expr);
        if path.first().is_some_and(|p| p == ACCUMULATOR) { Vec::new() } else { path }
    }
}

fn literal_size(expr: &Expr) -> Option<u64> {
    Some(match &expr.kind {
        Kind::Literal(Literal::String(text)) => text.chars().count() as u64,
        Kind::Literal(Literal::Bytes(bytes)) => bytes.len() as u64,
        Kind::Literal(_) => 1,
        Kind::List(items) => items.len() as u64,
        Kind::Map(entries) => entries.len() as u64,
        _ => return None,
    })
}
