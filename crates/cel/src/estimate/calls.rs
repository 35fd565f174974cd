//! Calls: the cost of each function by the sizes of its arguments.

use super::{Cost, EntrySize, Estimator};
use crate::ast::{Expr, Kind, Literal, operators};
use crate::cost::{self, CHARACTER, REGEX_CHARACTER};
use crate::types::Type;

/// The cost of a call without its arguments, and the size of what it gives.
struct Estimate {
    cost: Cost,
    size: Option<Cost>,
}

const ONE: Cost = Cost::fixed(1);
/// Bytes of an address.
const ADDRESS: Cost = Cost { min: 4, max: 16 };

impl From<Cost> for Estimate {
    fn from(cost: Cost) -> Self {
        Self { cost, size: None }
    }
}

impl Estimator<'_> {
    pub(super) fn call(&mut self, expr: &Expr, target: Option<&Expr>, name: &str, args: &[Expr]) -> Cost {
        if let ("dyn", [arg]) = (name, args) {
            let sum = ONE.plus(self.cost(arg));
            self.copy_sizes(expr, arg);
            return sum;
        }
        if name == operators::OPTIONAL_SELECT {
            return ONE.plus(self.cost(&args[0]));
        }
        let costs: Vec<Cost> = args.iter().map(|arg| self.cost(arg)).collect();
        let overloads = &self.checked.overloads[expr.id];
        let mut sum = Cost::ZERO;
        if let Some(target) = target {
            sum = self.cost(target);
        }
        let all = costs.iter().fold(Cost::ZERO, |sum, cost| sum.plus(*cost));
        let (mut own, mut size): (Option<Cost>, Option<Cost>) = (None, None);
        for overload in overloads {
            let estimate = match (overload.id, costs.as_slice()) {
                ("logical_and" | "logical_or", [left, right]) => {
                    Cost { min: left.min, max: left.plus(*right).max }.into()
                }
                ("conditional", [condition, yes, no]) => Estimate {
                    cost: condition.plus(yes.or(*no)),
                    size: Some(self.conditional(expr, &args[1], &args[2])),
                },
                _ => {
                    let estimate = self.function(expr, overload.id, name, target, args);
                    Estimate { cost: estimate.cost.plus(all), size: estimate.size }
                }
            };
            own = Some(own.map_or(estimate.cost, |own| own.or(estimate.cost)));
            size = match (size, estimate.size) {
                (Some(a), Some(b)) => Some(a.or(b)),
                (a, b) => a.or(b),
            };
            if matches!(overload.id, "index_list" | "index_map")
                && let Some(of) = args.first()
            {
                size = self.entry_size(of).map(|e| e.value);
                let mut path = self.path(of);
                path.push(if overload.id == "index_list" { "@items" } else { "@values" }.to_owned());
                self.paths.insert(expr.id, path);
            }
            if size.is_none() {
                size = self.size(expr);
            }
        }
        self.set_size(expr, size);
        sum.plus(own.unwrap_or(Cost::ZERO))
    }

    fn conditional(&mut self, expr: &Expr, yes: &Expr, no: &Expr) -> Cost {
        self.union_entries(expr, yes, no);
        self.size_or_unknown(yes).or(self.size_or_unknown(no))
    }

    fn union_entries(&mut self, expr: &Expr, a: &Expr, b: &Expr) {
        if let (Some(a), Some(b)) = (self.entry_size(a), self.entry_size(b)) {
            let entry = EntrySize { key: a.key.or(b.key), value: a.value.or(b.value), ..a };
            self.entries.insert(expr.id, entry);
        }
    }

    /// The size of a list's elements, as far as the data says.
    fn element_size(&self, list: &Expr) -> Cost {
        let mut path = self.known_path(list);
        if path.is_empty() {
            return Cost::UNKNOWN;
        }
        path.push("@items".to_owned());
        self.declared(&path).unwrap_or(Cost::UNKNOWN)
    }

    fn read(&mut self, expr: &Expr, times: f64) -> Cost {
        self.size_or_unknown(expr).scaled(times * CHARACTER)
    }

    /// A text times a pattern.
    fn pattern(&mut self, text: &Expr, pattern: &Expr) -> Cost {
        let text = self.size_or_unknown(text).plus(ONE).scaled(CHARACTER);
        text.times(self.size_or_unknown(pattern).scaled(REGEX_CHARACTER))
    }

    fn function(
        &mut self,
        expr: &Expr,
        id: &str,
        name: &str,
        target: Option<&Expr>,
        args: &[Expr],
    ) -> Estimate {
        match (name, target, args) {
            ("check", ..) => Cost::fixed(cost::CHECK).into(),
            ("fieldSelector" | "labelSelector", _, [selector]) => {
                let size = self.size_or_unknown(selector);
                let requirements = size.scaled(0.5).scaled((cost::LIST + cost::STRUCT) as f64);
                Cost::fixed(cost::LIST).plus(size.scaled(CHARACTER)).plus(requirements).into()
            }
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(target), _) => {
                self.traverse(target).into()
            }
            ("url" | "jsonpatch.escapeKey", _, [text])
            | ("lowerAscii" | "upperAscii" | "trim", Some(text), _) => {
                Estimate { cost: self.read(text, 1.0), size: Some(self.size_or_unknown(text)) }
            }
            ("substring", Some(text), _) => {
                Estimate { cost: self.read(text, 1.0), size: Some(self.size_or_unknown(text)) }
            }
            ("replace", Some(text), [old, new, ..]) => self.replace(text, old, new),
            ("split", Some(text), _) => {
                let limit = args.get(1).and_then(int).and_then(|n| u64::try_from(n).ok());
                let max = limit.unwrap_or(self.size_or_unknown(text).max);
                Estimate { cost: self.read(text, 2.0), size: Some(Cost { min: 0, max }) }
            }
            ("join", Some(list), _) => self.join(list, args.first()),
            ("find" | "findAll", Some(text), [pattern, ..]) => {
                let max = self.size_or_unknown(text).max;
                Estimate { cost: self.pattern(text, pattern), size: Some(Cost { min: 0, max }) }
            }
            ("matches", Some(text), [pattern]) => self.pattern(text, pattern).into(),
            (
                "cidr" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver",
                _,
                [text, ..],
            ) => self.read(text, 1.0).into(),
            ("ip", None, [text]) => self.read(text, 1.0).into(),
            ("ip.isCanonical", _, [text]) => self.read(text, 2.0).into(),
            ("containsIP", _, [other]) => {
                let compared = ADDRESS.plus(ADDRESS).scaled(CHARACTER);
                compared.plus(self.parsed(id == "cidr_contains_ip_string", other)).into()
            }
            ("containsCIDR", _, [other]) => {
                let compared = ADDRESS.plus(ADDRESS).scaled(CHARACTER).plus(ADDRESS.scaled(CHARACTER));
                compared.plus(ONE).plus(self.parsed(id == "cidr_contains_cidr_string", other)).into()
            }
            ("validate", _, [text]) => self.read(text, 1.0).scaled(128.0 * REGEX_CHARACTER).into(),
            _ => self.standard(expr, id, target, args),
        }
    }

    fn standard(&mut self, expr: &Expr, id: &str, target: Option<&Expr>, args: &[Expr]) -> Estimate {
        match (id, target, args) {
            ("string_format", Some(text), _) => self.read(text, 1.0).into(),
            ("string_to_bytes", _, [text]) => {
                let size = self.size_or_unknown(text);
                let size = Cost { min: size.min, max: size.max.saturating_mul(4) };
                Estimate { cost: self.read(text, 1.0), size: Some(size) }
            }
            ("bytes_to_string", _, [bytes]) => {
                let size = self.size_or_unknown(bytes);
                Estimate { cost: self.read(bytes, 1.0), size: Some(Cost { min: size.min / 4, ..size }) }
            }
            ("strings_quote", _, [text]) => {
                let size = self.size_or_unknown(text);
                let size = Cost { min: size.min + 2, max: size.max.saturating_mul(2).saturating_add(2) };
                Estimate { cost: self.read(text, 1.0), size: Some(size) }
            }
            ("starts_with_string" | "ends_with_string", _, [part]) => self.read(part, 1.0).into(),
            ("in_list", _, [_, list]) => self.size_or_unknown(list).into(),
            ("contains_string", Some(text), [part]) => {
                let text = self.read(text, 1.0);
                text.times(self.read(part, 1.0)).into()
            }
            ("add_string" | "add_bytes" | "add_list", _, [a, b]) => {
                self.union_entries(expr, a, b);
                let size = self.size_or_unknown(a).plus(self.size_or_unknown(b));
                let cost = if id == "add_list" { ONE } else { size.scaled(CHARACTER) };
                Estimate { cost, size: Some(size) }
            }
            ("string" | "bytes", _, [a, b]) => self.compared(a, b).into(),
            ("equals", _, [a, b]) => self.equal(a, b).into(),
            ("not_equals", _, [a, b]) => self.compared(a, b).into(),
            _ => self.listed(id, target, args),
        }
    }

    /// Functions on lists.
    fn listed(&mut self, id: &str, target: Option<&Expr>, args: &[Expr]) -> Estimate {
        match (id, target, args) {
            ("list_slice", Some(list), [start, end]) => {
                let size = self.size_or_unknown(list);
                let bound = |e: &Expr, otherwise: u64| {
                    int(e).and_then(|n| u64::try_from(n).ok()).unwrap_or(otherwise)
                };
                allocating(1.0, Cost::fixed(bound(end, size.max).wrapping_sub(bound(start, 0))))
            }
            ("list_flatten" | "list_flatten_int", Some(list), _) => {
                let depth = args.first().map_or(1.0, |d| int(d).map_or(u64::MAX as f64, |d| d as f64));
                allocating(depth, self.size_or_unknown(list))
            }
            ("lists_range", _, [count]) => {
                let count = int(count).and_then(|n| u64::try_from(n).ok()).unwrap_or(u64::MAX);
                allocating(1.0, Cost::fixed(count))
            }
            ("list_reverse", Some(list), _) => allocating(1.0, self.size_or_unknown(list)),
            ("list_distinct", Some(list), _) => {
                let size = self.size_or_unknown(list);
                allocating(2.0, size.times(size))
            }
            ("list_sort", Some(list), _) | ("list_sort_by", _, [list]) => {
                let size = self.size_or_unknown(list);
                let text = matches!(self.type_of(list), Type::List(of) if matches!(**of, Type::String | Type::Bytes));
                allocating(if text { 2.0 + CHARACTER } else { 2.0 }, size.times(size))
            }
            ("list_sets_contains_list" | "list_sets_intersects_list", _, [a, b]) => {
                self.size_or_unknown(a).times(self.size_or_unknown(b)).plus(ONE).into()
            }
            ("list_sets_equivalent_list", _, [a, b]) => {
                self.size_or_unknown(a).times(self.size_or_unknown(b)).scaled(2.0).plus(ONE).into()
            }
            _ => ONE.into(),
        }
    }

    fn parsed(&mut self, is_text: bool, other: &Expr) -> Cost {
        if is_text { self.read(other, 1.0) } else { Cost::ZERO }
    }

    fn traverse(&mut self, target: &Expr) -> Cost {
        let size = self.size_or_unknown(target);
        match self.type_of(target) {
            Type::List(of) => {
                let text = matches!(**of, Type::String | Type::Bytes);
                let element = if text { ONE.plus(self.element_size(target).scaled(CHARACTER)) } else { ONE };
                size.times(element)
            }
            _ => size.scaled(CHARACTER),
        }
    }

    fn join(&mut self, list: &Expr, separator: Option<&Expr>) -> Estimate {
        let count = self.size_or_unknown(list);
        let mut size = count.times(self.element_size(list));
        if let Some(separator) = separator {
            let times = Cost { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
            size = size.plus(self.size_or_unknown(separator).times(times));
        }
        Estimate { cost: size.scaled(CHARACTER), size: Some(size) }
    }

    fn replace(&mut self, text: &Expr, old: &Expr, new: &Expr) -> Estimate {
        let (size, old, new) =
            (self.size_or_unknown(text), self.size_or_unknown(old), self.size_or_unknown(new));
        let each = |size: u64, by: u64| (size as f64 / by as f64).ceil() as u64;
        // At most: the shortest parts become the longest texts.
        let (most, kept_most) = if old.min == 0 {
            (size.max.saturating_add(1), size.max)
        } else if new.max <= old.min {
            (0, size.max)
        } else {
            (each(size.max, old.min), 0)
        };
        let (least, kept_least) = if old.max == 0 {
            (size.min.saturating_add(1), size.min)
        } else if old.max <= new.min {
            (0, size.min)
        } else {
            (each(size.min, old.max), 0)
        };
        let times = Cost { min: least, max: most };
        let result = times.times(new).plus(Cost { min: kept_least, max: kept_most });
        Estimate { cost: self.read(text, 2.0), size: Some(result) }
    }

    fn compared(&mut self, a: &Expr, b: &Expr) -> Cost {
        let max = self.size_or_unknown(a).max.min(self.size_or_unknown(b).max);
        Cost { min: u64::from(max > 0), max }.scaled(CHARACTER)
    }

    fn equal(&mut self, a: &Expr, b: &Expr) -> Cost {
        let (left, right) = (self.type_of(a), self.type_of(b));
        if left.same(right) {
            match left {
                Type::Opaque("net.IP" | "net.CIDR", _) => return ONE,
                Type::Object(object) => match object.name() {
                    "kubernetes.NamedFormat" => return Cost { min: 1, max: 64 }.scaled(CHARACTER),
                    "kubernetes.URL" => {
                        let max = self.size(b).map_or(1, |size| size.max);
                        return Cost { min: 1, max }.scaled(CHARACTER);
                    }
                    "kubernetes.Quantity" | "kubernetes.Semver" => return ONE,
                    name if name.starts_with("kubernetes.authorization.") => return ONE,
                    _ => {}
                },
                _ => {}
            }
        }
        self.compared(a, b)
    }
}

fn int(expr: &Expr) -> Option<i64> {
    match &expr.kind {
        Kind::Literal(Literal::Int(n)) => Some(*n),
        _ => None,
    }
}

fn allocating(factor: f64, size: Cost) -> Estimate {
    Estimate { cost: size.scaled(factor).plus(ONE).plus(Cost::fixed(cost::LIST)), size: Some(size) }
}
