//! What looks like a call and is a loop, a presence test or a named value. The expansions are upstream's, since costs are
//! counted on them.

use crate::ast::{ACCUMULATOR, Expr, Fold, Item, Kind, Literal, operators};
use crate::limits;
use crate::parse::Build;

/// A call of a function that may be a macro.
pub fn global(build: &mut Build, at: usize, name: &str, mut args: Vec<Expr>) -> Option<Expr> {
    if name != "has" || args.len() != 1 {
        return Some(build.call(at, name, args));
    }
    let arg = args.pop()?;
    match arg.kind {
        Kind::Select { operand, field, .. } => {
            Some(build.expr(at, Kind::Select { operand, field, test: true }))
        }
        _ => refuse(build, arg.at, "invalid argument to has() macro"),
    }
}

/// A call of a member that may be a macro.
pub fn member(build: &mut Build, at: usize, target: Expr, name: &str, args: Vec<Expr>) -> Option<Expr> {
    let mut loops = Loops { build, at };
    match (name, args.len()) {
        ("all" | "exists" | "exists_one" | "existsOne", 2 | 3) => loops.quantifier(name, target, args),
        ("map", 2 | 3) | ("filter", 2) => loops.transform(name, target, args),
        ("transformList" | "transformMap", 3 | 4) | ("transformMapEntry", 3 | 4) => {
            loops.transform_two(name, target, args)
        }
        ("optMap" | "optFlatMap", 2) => loops.optional(name, target, args),
        ("sortBy", 2) => loops.sort_by(target, args),
        _ => Some(build.member(at, target, name, args)),
    }
}

fn refuse<T>(build: &mut Build, at: usize, message: impl Into<String>) -> Option<T> {
    build.issues.report(at, message);
    None
}

struct Loops<'a> {
    build: &'a mut Build,
    at: usize,
}

impl Loops<'_> {
    fn call(&mut self, name: &str, args: Vec<Expr>) -> Expr {
        self.build.call(self.at, name, args)
    }

    fn accu(&mut self) -> Expr {
        self.build.ident(self.at, ACCUMULATOR)
    }

    fn literal(&mut self, literal: Literal) -> Expr {
        self.build.literal(self.at, literal)
    }

    fn list(&mut self, values: Vec<Expr>) -> Expr {
        let items = values.into_iter().map(|value| Item { value, optional: false }).collect();
        self.build.expr(self.at, Kind::List(items))
    }

    fn conditional(&mut self, filter: Option<Expr>, step: Expr) -> Expr {
        match filter {
            None => step,
            Some(filter) => {
                let accu = self.accu();
                self.call("_?_:_", vec![filter, step, accu])
            }
        }
    }

    fn variable(&mut self, arg: &Expr, otherwise: &str) -> Option<String> {
        match &arg.kind {
            Kind::Ident(name) if name == "__result__" => {
                refuse(self.build, arg.at, "iteration variable overwrites accumulator variable")
            }
            Kind::Ident(name) => Some(name.clone()),
            _ => refuse(self.build, arg.at, otherwise),
        }
    }

    /// Takes the one or two variables off the arguments.
    fn variables(&mut self, args: &mut Vec<Expr>, two: bool) -> Option<(String, Option<String>)> {
        let simple = "argument must be a simple name";
        let first = args.remove(0);
        let var = self.variable(&first, simple)?;
        if !two {
            return Some((var, None));
        }
        let second = args.remove(0);
        let var2 = self.variable(&second, simple)?;
        if var == var2 {
            return refuse(self.build, second.at, format!("duplicate variable name: {var}"));
        }
        Some((var, Some(var2)))
    }

    fn fold(
        &mut self,
        range: Expr,
        vars: (String, Option<String>),
        init: Expr,
        condition: Expr,
        step: Expr,
        result: Expr,
    ) -> Expr {
        let (var, var2) = vars;
        let accu = ACCUMULATOR.to_owned();
        let fold = Fold { range, var, var2, accu, init, condition, step, result };
        self.build.expr(self.at, Kind::Fold(Box::new(fold)))
    }

    fn quantifier(&mut self, name: &str, target: Expr, mut args: Vec<Expr>) -> Option<Expr> {
        let two = args.len() == 3;
        let vars = self.variables(&mut args, two)?;
        let predicate = args.pop()?;
        let accu = self.accu();
        let (init, condition, step, result) = match name {
            "all" => {
                let init = self.literal(Literal::Bool(true));
                let condition = self.call(operators::NOT_STRICTLY_FALSE, vec![accu]);
                let accu = self.accu();
                let step = self.call(operators::AND, vec![accu, predicate]);
                (init, condition, step, self.accu())
            }
            "exists" => {
                let init = self.literal(Literal::Bool(false));
                let not = self.call(operators::NOT, vec![accu]);
                let condition = self.call(operators::NOT_STRICTLY_FALSE, vec![not]);
                let accu = self.accu();
                let step = self.call(operators::OR, vec![accu, predicate]);
                (init, condition, step, self.accu())
            }
            _ => {
                let init = self.literal(Literal::Int(0));
                let condition = self.literal(Literal::Bool(true));
                let one = self.literal(Literal::Int(1));
                let more = self.call(operators::ADD, vec![accu, one]);
                let step = self.conditional(Some(predicate), more);
                let (accu, one) = (self.accu(), self.literal(Literal::Int(1)));
                (init, condition, step, self.call(operators::EQUALS, vec![accu, one]))
            }
        };
        Some(self.fold(target, vars, init, condition, step, result))
    }

    /// `map` and `filter`: lists built up in the collecting variable.
    fn transform(&mut self, name: &str, target: Expr, mut args: Vec<Expr>) -> Option<Expr> {
        let first = args.remove(0);
        let var = self.variable(&first, "argument is not an identifier")?;
        let mut result = args.pop()?;
        let mut filter = args.pop();
        if name == "filter" {
            filter = Some(std::mem::replace(&mut result, first));
        }
        let element = self.list(vec![result]);
        Some(self.collect(target, (var, None), filter, element))
    }

    fn collect(
        &mut self,
        target: Expr,
        vars: (String, Option<String>),
        filter: Option<Expr>,
        element: Expr,
    ) -> Expr {
        let init = self.list(Vec::new());
        let condition = self.literal(Literal::Bool(true));
        let accu = self.accu();
        let step = self.call(operators::ADD, vec![accu, element]);
        let step = self.conditional(filter, step);
        let result = self.accu();
        self.fold(target, vars, init, condition, step, result)
    }

    fn transform_two(&mut self, name: &str, target: Expr, mut args: Vec<Expr>) -> Option<Expr> {
        let vars = self.variables(&mut args, true)?;
        let result = args.pop()?;
        let filter = args.pop();
        if name == "transformList" {
            let element = self.list(vec![result]);
            return Some(self.collect(target, vars, filter, element));
        }
        let accu = self.accu();
        let step = if name == "transformMap" {
            let key = self.build.ident(self.at, &vars.0);
            self.call(operators::MAP_INSERT, vec![accu, key, result])
        } else {
            self.call(operators::MAP_INSERT, vec![accu, result])
        };
        let step = self.conditional(filter, step);
        let init = self.build.expr(self.at, Kind::Map(Vec::new()));
        let condition = self.literal(Literal::Bool(true));
        let out = self.accu();
        Some(self.fold(target, vars, init, condition, step, out))
    }

    /// Names a value: a loop over nothing.
    fn bind(&mut self, name: &str, value: Expr, result: Expr) -> Expr {
        let fold = Fold {
            range: self.list(Vec::new()),
            var: "#unused".to_owned(),
            var2: None,
            accu: name.to_owned(),
            init: value,
            condition: self.literal(Literal::Bool(false)),
            step: self.build.ident(self.at, name),
            result,
        };
        self.build.expr(self.at, Kind::Fold(Box::new(fold)))
    }

    fn optional(&mut self, name: &str, target: Expr, mut args: Vec<Expr>) -> Option<Expr> {
        let result = args.pop()?;
        let var = args.pop()?;
        let Kind::Ident(var) = var.kind else {
            let message = format!("{name}() variable name must be a simple identifier");
            return refuse(self.build, var.at, message);
        };
        let copy = self.copy(&target)?;
        let test = self.build.member(self.at, target, "hasValue", Vec::new());
        let value = self.build.member(self.at, copy, "value", Vec::new());
        let mut found = self.bind(&var, value, result);
        if name == "optMap" {
            found = self.call("optional.of", vec![found]);
        }
        let none = self.call("optional.none", Vec::new());
        Some(self.call("_?_:_", vec![test, found, none]))
    }

    fn sort_by(&mut self, target: Expr, args: Vec<Expr>) -> Option<Expr> {
        const INPUT: &str = "@__sortBy_input__";
        if !matches!(
            target.kind,
            Kind::List(_) | Kind::Select { .. } | Kind::Ident(_) | Kind::Fold(_) | Kind::Call { .. }
        ) {
            let message =
                "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return refuse(self.build, target.at, message);
        }
        let input = self.build.ident(self.at, INPUT);
        let keys = self.transform("map", input, args)?;
        let input = self.build.ident(self.at, INPUT);
        let sorted = self.build.member(self.at, input, "@sortByAssociatedKeys", vec![keys]);
        Some(self.bind(INPUT, target, sorted))
    }

    /// The same expression with numbers of its own.
    fn copy(&mut self, expr: &Expr) -> Option<Expr> {
        // Chains of such macros double with every link.
        if self.build.fresh() > limits::TREE_SIZE {
            return refuse(self.build, expr.at, "expression size exceeds limit once macros are expanded");
        }
        let mut copy = expr.clone();
        self.renumber(&mut copy);
        Some(copy)
    }

    fn renumber(&mut self, expr: &mut Expr) {
        expr.id = self.build.fresh();
        match &mut expr.kind {
            Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } => self.renumber(operand),
            Kind::Call { target, args, .. } => {
                target.iter_mut().for_each(|t| self.renumber(t));
                args.iter_mut().for_each(|a| self.renumber(a));
            }
            Kind::List(items) => items.iter_mut().for_each(|i| self.renumber(&mut i.value)),
            Kind::Map(entries) => entries.iter_mut().for_each(|e| {
                self.renumber(&mut e.key);
                self.renumber(&mut e.value);
            }),
            Kind::Struct(_, fields) => fields.iter_mut().for_each(|f| self.renumber(&mut f.value)),
            Kind::Fold(f) => {
                for e in [&mut f.range, &mut f.init, &mut f.condition, &mut f.step, &mut f.result] {
                    self.renumber(e);
                }
            }
        }
    }
}
