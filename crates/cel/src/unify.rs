//! Whether one type can stand for another, finding out free types on the way. The rules are cel-go's.

use crate::types::Type;

/// What is known of the free types so far.
#[derive(Debug, Default)]
pub struct Known {
    found: Vec<Option<Type>>,
    /// What to restore if an attempt fails.
    trail: Vec<(usize, Option<Type>)>,
}

impl Known {
    /// A new free type.
    pub fn fresh(&mut self) -> Type {
        self.found.push(None);
        Type::Free(self.found.len() - 1)
    }

    fn find(&self, ty: &Type) -> Option<&Type> {
        match ty {
            Type::Free(number) => self.found.get(*number)?.as_ref(),
            _ => None,
        }
    }

    fn set(&mut self, number: usize, ty: Type) {
        let old = self.found[number].replace(ty);
        self.trail.push((number, old));
    }

    /// Whether `from` can stand for `to`; if not, nothing is found out.
    pub fn assign(&mut self, from: &Type, to: &Type) -> bool {
        self.attempt(|known| known.assignable(from, to))
    }

    /// The same for several at once.
    pub fn assign_all(&mut self, from: &[Type], to: &[Type]) -> bool {
        self.attempt(|known| known.all_assignable(from, to))
    }

    fn attempt(&mut self, try_it: impl FnOnce(&mut Self) -> bool) -> bool {
        self.trail.clear();
        let fits = try_it(self);
        if !fits {
            while let Some((number, old)) = self.trail.pop() {
                self.found[number] = old;
            }
        }
        fits
    }

    fn all_assignable(&mut self, from: &[Type], to: &[Type]) -> bool {
        from.len() == to.len() && from.iter().zip(to).all(|(f, t)| self.assignable(f, t))
    }

    fn assignable(&mut self, from: &Type, to: &Type) -> bool {
        if let Type::Free(number) = to {
            let (valid, bound) = self.substitutes(from, *number);
            if valid || bound {
                return valid;
            }
        }
        if let Type::Free(number) = from {
            return self.substitutes(to, *number).0;
        }
        if from.is_dyn_or_error() || to.is_dyn_or_error() {
            return true;
        }
        match (from, to) {
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null | Type::Opaque(..) | Type::Object(_) | Type::Duration | Type::Timestamp
            ),
            (Type::Kind(_), Type::Kind(_)) => true,
            (Type::List(a), Type::List(b)) => self.assignable(a, b),
            (Type::Map(k, v), Type::Map(l, w)) => self.assignable(k, l) && self.assignable(v, w),
            (Type::Opaque(a, p), Type::Opaque(b, q)) => a == b && self.all_assignable(p, q),
            _ => from.same(to),
        }
    }

    /// Whether a type can be what the free type stands for, and whether that stood for something already.
    fn substitutes(&mut self, ty: &Type, free: usize) -> (bool, bool) {
        if matches!(ty, Type::Free(number) if *number == free) {
            return (true, true);
        }
        if let Some(bound) = self.found[free].clone() {
            if ty.same(&bound) {
                return (true, true);
            }
            if !self.assignable(ty, &bound) {
                return (false, true);
            }
            let general = more_general(ty, &bound).clone();
            if self.absent(free, &general) {
                self.set(free, general);
            }
            return (true, true);
        }
        if self.absent(free, ty) {
            self.set(free, ty.clone());
            return (true, false);
        }
        (false, false)
    }

    /// Whether the free type occurs nowhere within.
    fn absent(&self, free: usize, within: &Type) -> bool {
        match within {
            Type::Free(number) if *number == free => false,
            Type::Free(_) => self.find(within).is_none_or(|bound| self.absent(free, bound)),
            Type::List(of) => self.absent(free, of),
            Type::Map(k, v) => self.absent(free, k) && self.absent(free, v),
            Type::Opaque(_, params) => params.iter().all(|p| self.absent(free, p)),
            Type::Kind(Some(of)) => self.absent(free, of),
            _ => true,
        }
    }

    /// The type with what is known put in; what is not known stays free, or becomes `dyn`.
    pub fn resolve(&self, ty: &Type, free_is_dyn: bool) -> Type {
        if let Some(bound) = self.find(ty) {
            return self.resolve(bound, free_is_dyn);
        }
        let inner = |ty: &Type| std::sync::Arc::new(self.resolve(ty, free_is_dyn));
        match ty {
            Type::Free(_) | Type::Param(_) if free_is_dyn => Type::Dyn,
            Type::List(of) => Type::List(inner(of)),
            Type::Map(k, v) => Type::Map(inner(k), inner(v)),
            Type::Opaque(name, params) => {
                Type::Opaque(name, params.iter().map(|p| self.resolve(p, free_is_dyn)).collect())
            }
            Type::Kind(Some(of)) => Type::Kind(Some(inner(of))),
            other => other.clone(),
        }
    }
}

/// The more general of two types that unify.
pub fn more_general<'t>(a: &'t Type, b: &'t Type) -> &'t Type {
    if is_as_general(a, b) { a } else { b }
}

fn is_as_general(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Free(_) | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Free(_) | Type::Param(_)) => false,
        (Type::Opaque(n, p), Type::Opaque(m, q)) => {
            n == m && p.len() == q.len() && p.iter().zip(q).all(|(a, b)| is_as_general(a, b))
        }
        (Type::List(a), Type::List(b)) => is_as_general(a, b),
        (Type::Map(k, v), Type::Map(l, w)) => is_as_general(k, l) && is_as_general(v, w),
        (Type::Kind(_), Type::Kind(_)) => true,
        _ => a.same(b),
    }
}
