//! Finds the type of every expression and the signatures that each call may mean, in cel-go's ways and words.

use crate::ast::{Expr, Fold, Kind, Literal, operators};
use crate::declare::Overload;
use crate::env::Env;
use crate::parse::Parsed;
use crate::source::Issues;
use crate::types::Type;
use crate::unify::{Known, more_general};

/// A tree whose types are known. Names with dots are single variables in it, and functions with a namespace have no target.
pub struct Checked {
    /// The tree.
    pub root: Expr,
    /// The type of each expression, by its number.
    pub types: Vec<Type>,
    /// What each call may mean, by its number.
    pub overloads: Vec<Vec<&'static Overload>>,
    /// The variables that are referred to.
    pub variables: Vec<String>,
}

/// Checks a tree.
///
/// # Errors
/// What does not fit.
pub fn check(source: &str, parsed: Parsed, env: &Env) -> Result<Checked, Issues> {
    let Parsed { mut root, count } = parsed;
    let mut checker = Checker {
        env,
        issues: Issues::new(source),
        known: Known::default(),
        types: vec![Type::Error; count],
        overloads: std::iter::repeat_with(Vec::new).take(count).collect(),
        locals: Vec::new(),
        variables: Vec::new(),
    };
    checker.check(&mut root);
    let Checker { issues, known, types, overloads, variables, .. } = checker;
    if !issues.is_empty() {
        return Err(issues);
    }
    let types = types.iter().map(|ty| known.resolve(ty, true)).collect();
    Ok(Checked { root, types, overloads, variables })
}

struct Checker<'a> {
    env: &'a Env,
    issues: Issues,
    known: Known,
    types: Vec<Type>,
    overloads: Vec<Vec<&'static Overload>>,
    locals: Vec<(String, Type)>,
    variables: Vec<String>,
}

impl Checker<'_> {
    fn check(&mut self, expr: &mut Expr) -> Type {
        let ty = self.find(expr);
        self.types[expr.id] = ty.clone();
        ty
    }

    fn find(&mut self, expr: &mut Expr) -> Type {
        let at = expr.at;
        match &mut expr.kind {
            Kind::Literal(literal) => literal_type(literal),
            Kind::Ident(name) => match self.lookup(name) {
                Some((found, ty)) => {
                    *name = found;
                    ty
                }
                None => {
                    let message = format!("undeclared reference to '{name}' (in container '')");
                    self.issues.report(at, message);
                    Type::Error
                }
            },
            Kind::Select { .. } => self.select(expr),
            Kind::Call { .. } => self.call(expr),
            Kind::List(items) => {
                let mut element = None;
                for item in items {
                    let ty = self.check(&mut item.value);
                    let ty = if item.optional { self.unwrapped(&item.value, ty) } else { ty };
                    element = Some(self.join(element, ty));
                }
                Type::list(element.unwrap_or_else(|| self.known.fresh()))
            }
            Kind::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for entry in entries {
                    let ty = self.check(&mut entry.key);
                    keys = Some(self.join(keys, ty));
                    let ty = self.check(&mut entry.value);
                    let ty = if entry.optional { self.unwrapped(&entry.value, ty) } else { ty };
                    values = Some(self.join(values, ty));
                }
                let key = keys.unwrap_or_else(|| self.known.fresh());
                let value = values.unwrap_or_else(|| self.known.fresh());
                Type::Map(key.into(), value.into())
            }
            Kind::Struct(..) => self.structure(expr),
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    /// The variable or type that a name means, with its full name.
    fn lookup(&mut self, name: &str) -> Option<(String, Type)> {
        let (name, local) = match name.strip_prefix('.') {
            Some(name) => (name, false),
            None => (name, true),
        };
        if let Some((_, ty)) = self.locals.iter().rev().find(|(n, _)| local && n == name) {
            return Some((name.to_owned(), ty.clone()));
        }
        if let Some(ty) = self.env.find_variable(name) {
            if !self.variables.iter().any(|v| v == name) {
                self.variables.push(name.to_owned());
            }
            return Some((name.to_owned(), ty.clone()));
        }
        let of = self.env.find_type(name)?;
        Some((name.to_owned(), Type::Kind(Some(of.into()))))
    }

    fn select(&mut self, expr: &mut Expr) -> Type {
        if let Some(name) = expr.qualified_name()
            && let Some((name, ty)) = self.lookup(&name)
        {
            expr.kind = Kind::Ident(name);
            return ty;
        }
        let at = expr.at;
        let Kind::Select { operand, field, test } = &mut expr.kind else { return Type::Error };
        let found = self.field(at, operand, field, false);
        if *test { Type::Bool } else { self.known.resolve(&found, false) }
    }

    fn field(&mut self, at: usize, operand: &mut Expr, field: &str, optional: bool) -> Type {
        let ty = self.check(operand);
        let ty = self.known.resolve(&ty, false);
        let (target, is_optional) = match ty.unwrap_optional() {
            Some(inner) => (inner.clone(), true),
            None => (ty, false),
        };
        let found = match &target {
            Type::Map(_, value) => value.as_ref().clone(),
            Type::Object(object) => object.field(field).unwrap_or_else(|| {
                self.issues.report(at, format!("undefined field '{field}'"));
                Type::Error
            }),
            Type::Free(_) => {
                self.known.assign(&Type::Dyn, &target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    let message = format!("type '{other}' does not support field selection");
                    self.issues.report(at, message);
                }
                Type::Dyn
            }
        };
        if is_optional || optional { Type::optional(found) } else { found }
    }

    fn call(&mut self, expr: &mut Expr) -> Type {
        let (id, at) = (expr.id, expr.at);
        let Kind::Call { target, function, args } = &mut expr.kind else { return Type::Error };
        if function == operators::OPTIONAL_SELECT {
            let [operand, field] = args.as_mut_slice() else { return Type::Error };
            self.types[field.id] = Type::String;
            let Kind::Literal(Literal::String(name)) = &field.kind else { return Type::Error };
            let found = self.field(at, operand, name, true);
            return self.known.resolve(&found, false);
        }
        let mut types: Vec<Type> = args.iter_mut().map(|arg| self.check(arg)).collect();
        if let Some(prefix) = target.as_ref().and_then(|t| t.qualified_name()) {
            let full = format!("{prefix}.{function}");
            if self.env.overloads(full.trim_start_matches('.')).is_some() {
                *function = full.trim_start_matches('.').to_owned();
                *target = None;
            }
        }
        let is_member = target.is_some();
        if let Some(target) = target {
            types.insert(0, self.check(target));
        }
        let name = function.trim_start_matches('.').to_owned();
        let Some(overloads) = self.env.overloads(&name) else {
            self.issues.report(at, format!("undeclared reference to '{name}' (in container '')"));
            return Type::Error;
        };
        if matches!(name.as_str(), operators::AND | operators::OR) {
            return self.logical(id, overloads, args, &types);
        }
        *function = name;
        let function = function.clone();
        self.resolve(id, at, &function, overloads, &types, is_member)
    }

    fn logical(&mut self, id: usize, overloads: &'static [Overload], args: &[Expr], types: &[Type]) -> Type {
        let mut fits = true;
        for (arg, ty) in args.iter().zip(types) {
            if !self.known.assign(ty, &Type::Bool) {
                self.mismatch(arg.at, &Type::Bool, ty);
                fits = false;
            }
        }
        self.overloads[id] = overloads.iter().collect();
        if fits { Type::Bool } else { Type::Error }
    }

    fn resolve(
        &mut self,
        id: usize,
        at: usize,
        function: &str,
        overloads: &'static [Overload],
        types: &[Type],
        is_member: bool,
    ) -> Type {
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|o| o.member == is_member) {
            let (params, gives) = self.instantiate(overload);
            if !self.known.assign_all(types, &params) {
                continue;
            }
            self.overloads[id].push(overload);
            let gives = self.known.resolve(&gives, false);
            result = Some(match result {
                None => gives,
                Some(first) if first.is_dyn() || gives.same(&first) => first,
                Some(_) => Type::Dyn,
            });
        }
        result.unwrap_or_else(|| {
            let shown: Vec<String> = types.iter().map(|t| self.known.resolve(t, true).to_string()).collect();
            let (receiver, rest) = if is_member { shown.split_at(1) } else { shown.split_at(0) };
            let receiver = receiver.first().map_or_else(String::new, |r| format!("{r}."));
            let signature = format!("{receiver}({})", rest.join(", "));
            let message = format!("found no matching overload for '{function}' applied to '{signature}'");
            self.issues.report(at, message);
            Type::Error
        })
    }

    /// The signature with a new free type for each letter.
    fn instantiate(&mut self, overload: &Overload) -> (Vec<Type>, Type) {
        let mut letters: Vec<(char, Type)> = Vec::new();
        let params = overload.params.iter().map(|p| self.put_in(p, &mut letters)).collect();
        (params, self.put_in(&overload.result, &mut letters))
    }

    fn put_in(&mut self, ty: &Type, letters: &mut Vec<(char, Type)>) -> Type {
        match ty {
            Type::Param(letter) => {
                if let Some((_, ty)) = letters.iter().find(|(l, _)| l == letter) {
                    return ty.clone();
                }
                let free = self.known.fresh();
                letters.push((*letter, free.clone()));
                free
            }
            Type::List(of) => Type::list(self.put_in(of, letters)),
            Type::Map(k, v) => Type::Map(self.put_in(k, letters).into(), self.put_in(v, letters).into()),
            Type::Opaque(name, params) => {
                Type::Opaque(name, params.iter().map(|p| self.put_in(p, letters)).collect())
            }
            Type::Kind(Some(of)) => Type::Kind(Some(self.put_in(of, letters).into())),
            other => other.clone(),
        }
    }

    fn mismatch(&mut self, at: usize, expected: &Type, found: &Type) {
        let (expected, found) = (self.known.resolve(expected, false), self.known.resolve(found, false));
        self.issues.report(at, format!("expected type '{expected}' but found '{found}'"));
    }

    /// What an optional element holds.
    fn unwrapped(&mut self, expr: &Expr, ty: Type) -> Type {
        let ty = self.known.resolve(&ty, false);
        if let Some(inner) = ty.unwrap_optional() {
            return inner.clone();
        }
        if !ty.is_dyn() {
            self.mismatch(expr.at, &Type::optional(ty.clone()), &ty);
        }
        ty
    }

    /// The common type of the elements so far and one more.
    fn join(&mut self, before: Option<Type>, ty: Type) -> Type {
        let Some(before) = before else { return ty };
        if self.known.assign(&before, &ty) {
            return more_general(&before, &ty).clone();
        }
        // Whether elements may be of several types is for [`crate::program`] to say, once all types are known.
        Type::Dyn
    }

    fn structure(&mut self, expr: &mut Expr) -> Type {
        let at = expr.at;
        let Kind::Struct(name, fields) = &mut expr.kind else { return Type::Error };
        let Some(ty) = self.env.find_type(name.trim_start_matches('.')) else {
            self.issues.report(at, format!("undeclared reference to '{name}' (in container '')"));
            return Type::Error;
        };
        let Type::Object(object) = &ty else {
            self.issues.report(at, format!("'{ty}' is not a message type"));
            return Type::Error;
        };
        *name = object.name().to_owned();
        for field in fields {
            let value = self.check(&mut field.value);
            let value = if field.optional { self.unwrapped(&field.value, value) } else { value };
            let Some(expected) = object.field(&field.name) else {
                self.issues.report(field.at, format!("undefined field '{}'", field.name));
                continue;
            };
            if !self.known.assign(&expected, &value) {
                let value = self.known.resolve(&value, false);
                let message = format!(
                    "expected type of field '{}' is '{expected}' but provided type is '{value}'",
                    field.name
                );
                self.issues.report(field.at, message);
            }
        }
        ty
    }

    fn fold(&mut self, fold: &mut Fold) -> Type {
        let range = self.check(&mut fold.range);
        let accu = self.check(&mut fold.init);
        let range = self.known.resolve(&range, false);
        let two = fold.var2.is_some();
        let (first, second) = match &range {
            Type::List(of) if two => (Type::Int, of.as_ref().clone()),
            Type::List(of) => (of.as_ref().clone(), Type::Error),
            Type::Map(key, value) => (key.as_ref().clone(), value.as_ref().clone()),
            Type::Dyn | Type::Error | Type::Free(_) => {
                self.known.assign(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.issues.report(fold.range.at, message);
                (Type::Error, Type::Error)
            }
        };
        let outside = self.locals.len();
        self.locals.push((fold.accu.clone(), accu.clone()));
        self.locals.push((fold.var.clone(), first));
        if let Some(var2) = &fold.var2 {
            self.locals.push((var2.clone(), second));
        }
        let condition = self.check(&mut fold.condition);
        self.demand(&fold.condition, &Type::Bool, &condition);
        let step = self.check(&mut fold.step);
        self.demand(&fold.step, &accu, &step);
        self.locals.truncate(outside + 1);
        let result = self.check(&mut fold.result);
        self.locals.truncate(outside);
        self.known.resolve(&result, false)
    }

    fn demand(&mut self, expr: &Expr, expected: &Type, found: &Type) {
        if !self.known.assign(expected, found) {
            self.mismatch(expr.at, expected, found);
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
