//! The clauses of a format string (`'%s is %.2f'`): how they are read, what each takes, and the check of a call whose
//! pattern and arguments are literals, which upstream makes when it compiles.

use crate::ast::{Expr, Kind};
use crate::limits;
use crate::types::Type;

/// What a clause makes of its argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `%s`
    Text,
    /// `%d`
    Decimal,
    /// `%f`
    Fixed,
    /// `%e`
    Scientific,
    /// `%b`
    Binary,
    /// `%x`
    Hex,
    /// `%X`
    UpperHex,
    /// `%o`
    Octal,
}

/// A clause.
#[derive(Clone, Copy, Debug)]
pub struct Clause {
    /// What it makes.
    pub verb: Verb,
    /// The number after the point, if there is one.
    pub precision: Option<usize>,
}

/// A part of a format string.
pub enum Part<'t, T> {
    /// Text that stays.
    Text(&'t str),
    /// A clause and its argument.
    Clause(Clause, T),
}

/// Reads a format string for `count` arguments. `argument` gives the argument of a position.
///
/// # Errors
/// A clause that is none, and what `argument` and `put` complain of.
pub fn read<'t, T, E: From<String>>(
    pattern: &'t str,
    count: usize,
    mut argument: impl FnMut(usize) -> Result<T, E>,
    mut put: impl FnMut(Part<'t, T>) -> Result<(), E>,
) -> Result<usize, E> {
    let (mut rest, mut next) = (pattern, 0);
    while let Some(at) = rest.find('%') {
        put(Part::Text(&rest[..at]))?;
        rest = &rest[at + 1..];
        if rest.starts_with('%') {
            put(Part::Text(&rest[..1]))?;
            rest = &rest[1..];
            continue;
        }
        let argument = argument(next)?;
        if rest.is_empty() {
            return Err("unexpected end of string".to_owned().into());
        }
        if next >= count {
            return Err(format!("index {next} out of range").into());
        }
        let (clause, after) =
            clause(rest).map_err(|why| format!("could not parse formatting clause: {why}"))?;
        put(Part::Clause(clause, argument))?;
        (rest, next) = (after, next + 1);
    }
    put(Part::Text(rest))?;
    Ok(next)
}

/// The clause at the start, and what follows it.
fn clause(text: &str) -> Result<(Clause, &str), String> {
    let (precision, text) = match text.strip_prefix('.') {
        None => (None, text),
        Some(text) => {
            let during = |why: &str| format!("error while parsing precision: {why}");
            let end = text
                .find(|c: char| !c.is_ascii_digit())
                .ok_or_else(|| during("could not find end of precision specifier"))?;
            let digits = &text[..end];
            let why = if digits.is_empty() { "invalid syntax" } else { "value out of range" };
            let precision = digits.parse().ok().filter(|p| *p <= limits::PRECISION).ok_or_else(|| {
                during(&format!(
                    "error while converting precision to integer: strconv.Atoi: parsing \"{digits}\": {why}"
                ))
            })?;
            (Some(precision), &text[end..])
        }
    };
    let letter = text.chars().next().unwrap_or_default();
    let verb = match letter {
        's' => Verb::Text,
        'd' => Verb::Decimal,
        'f' => Verb::Fixed,
        'e' => Verb::Scientific,
        'b' => Verb::Binary,
        'x' => Verb::Hex,
        'X' => Verb::UpperHex,
        'o' => Verb::Octal,
        other => return Err(format!("unrecognized formatting clause \"{other}\"")),
    };
    Ok((Clause { verb, precision }, &text[letter.len_utf8()..]))
}

impl Verb {
    /// What is said of an argument of a type that the clause does not take.
    pub fn refusal(self, type_name: &str) -> String {
        let rule = match self {
            Self::Text => {
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, \
                 durations, and timestamps"
            }
            Self::Decimal => "decimal clause can only be used on integers",
            Self::Fixed => "fixed-point clause can only be used on doubles",
            Self::Scientific => "scientific clause can only be used on doubles",
            Self::Binary => "only integers and bools can be formatted as binary",
            Self::Hex | Self::UpperHex => "only integers, byte buffers, and strings can be formatted as hex",
            Self::Octal => "octal clause can only be used on integers",
        };
        format!("{rule}, was given {type_name}")
    }

    fn takes(self, ty: &Type) -> bool {
        match ty {
            Type::Dyn => true,
            Type::Int | Type::Uint => !matches!(self, Self::Fixed | Self::Scientific),
            Type::Double => matches!(self, Self::Text | Self::Fixed | Self::Scientific),
            // Text such as `NaN` stands for a number.
            Type::String => !matches!(self, Self::Decimal | Self::Binary | Self::Octal),
            Type::Bytes => matches!(self, Self::Text | Self::Hex | Self::UpperHex),
            Type::Bool => matches!(self, Self::Text | Self::Binary),
            Type::List(_) | Type::Map(..) | Type::Timestamp | Type::Duration | Type::Kind(_) | Type::Null => {
                self == Self::Text
            }
            _ => false,
        }
    }
}

/// What is wrong with a call.
#[derive(Debug)]
pub struct Complaint {
    /// Where: an argument, else the call.
    pub at: Option<usize>,
    /// What.
    pub message: String,
}

impl From<String> for Complaint {
    fn from(message: String) -> Self {
        Self { at: None, message }
    }
}

/// Checks a call of `format` with a literal pattern and a literal list.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(pattern: &str, items: &[crate::ast::Item], types: &[Type]) -> Result<(), Complaint> {
    let used = read::<_, Complaint>(
        pattern,
        items.len(),
        |index| Ok(items.get(index)),
        |part| match part {
            Part::Clause(clause, Some(item)) => fits(clause.verb, &item.value, types),
            _ => Ok(()),
        },
    )?;
    if items.len() > used {
        let message =
            format!("too many arguments supplied to string.format (expected {used}, got {})", items.len());
        return Err(message.into());
    }
    Ok(())
}

fn fits(verb: Verb, expr: &Expr, types: &[Type]) -> Result<(), Complaint> {
    let ty = &types[expr.id];
    if !verb.takes(ty) {
        let message = format!("error during formatting: {}", verb.refusal(ty.name()));
        return Err(Complaint { at: Some(expr.at), message });
    }
    match &expr.kind {
        Kind::List(items) if verb == Verb::Text => {
            items.iter().try_for_each(|item| fits(verb, &item.value, types))
        }
        Kind::Map(entries) if verb == Verb::Text => entries
            .iter()
            .try_for_each(|e| fits(verb, &e.key, types).and_then(|()| fits(verb, &e.value, types))),
        _ => Ok(()),
    }
}
