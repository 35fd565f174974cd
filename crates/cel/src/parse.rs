//! Turns a source into a tree: CEL's grammar with optional syntax, operators by precedence.

use crate::ast::{Entry, Expr, Field, Item, Kind, Literal, operators};
use crate::lex::{self, Lexeme, Token};
use crate::limits;
use crate::macros;
use crate::source::Issues;

/// Words that name no variable.
pub const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "null",
    "return",
    "true",
    "var",
    "void",
    "while",
];

const STARTS: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, \
                      STRING, BYTES, IDENTIFIER}";

/// A parsed source.
pub struct Parsed {
    /// The tree.
    pub root: Expr,
    /// How many expressions it has: ids are below this.
    pub count: usize,
}

/// Parses a source.
///
/// # Errors
/// What is wrong with it.
pub fn parse(source: &str) -> Result<Parsed, Issues> {
    let mut issues = Issues::new(source);
    let size = source.chars().count();
    if size > limits::SOURCE_CHARS {
        issues.report_whole(format!(
            "expression code point size exceeds limit: size: {size}, limit {}",
            limits::SOURCE_CHARS
        ));
        return Err(issues);
    }
    let tokens = lex::tokens(source, &mut issues);
    let mut parser = Parser { source, tokens, next: 0, nesting: 0, build: Build { ids: 0, issues } };
    let root = parser.whole();
    let Build { ids, mut issues } = parser.build;
    if issues.is_empty() && root.as_ref().is_some_and(|r| r.depth > limits::TREE_DEPTH) {
        issues.report_whole("max recursion depth exceeded");
    }
    match root {
        Some(root) if issues.is_empty() => Ok(Parsed { root, count: ids }),
        _ => Err(issues),
    }
}

/// Makes expressions, with numbers.
pub struct Build {
    ids: usize,
    pub(crate) issues: Issues,
}

impl Build {
    /// A number that no expression has.
    pub fn fresh(&mut self) -> usize {
        self.ids += 1;
        self.ids - 1
    }

    /// An expression of a kind at a place.
    pub fn expr(&mut self, at: usize, kind: Kind) -> Expr {
        let id = self.fresh();
        let mut depth = 0;
        let mut below = |e: &Expr| depth = depth.max(e.depth);
        match &kind {
            Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } => below(operand),
            Kind::Call { target, args, .. } => {
                target.iter().for_each(|t| below(t));
                args.iter().for_each(below);
            }
            Kind::List(items) => items.iter().for_each(|i| below(&i.value)),
            Kind::Map(entries) => entries.iter().for_each(|e| {
                below(&e.key);
                below(&e.value);
            }),
            Kind::Struct(_, fields) => fields.iter().for_each(|f| below(&f.value)),
            Kind::Fold(f) => {
                [&f.range, &f.init, &f.condition, &f.step, &f.result].into_iter().for_each(below)
            }
        }
        Expr { id, at, depth: depth + 1, kind }
    }

    /// A function call.
    pub fn call(&mut self, at: usize, function: &str, args: Vec<Expr>) -> Expr {
        self.expr(at, Kind::Call { target: None, function: function.to_owned(), args })
    }

    /// A member call.
    pub fn member(&mut self, at: usize, target: Expr, function: &str, args: Vec<Expr>) -> Expr {
        self.expr(at, Kind::Call { target: Some(Box::new(target)), function: function.to_owned(), args })
    }

    /// A variable.
    pub fn ident(&mut self, at: usize, name: &str) -> Expr {
        self.expr(at, Kind::Ident(name.to_owned()))
    }

    /// A constant.
    pub fn literal(&mut self, at: usize, literal: Literal) -> Expr {
        self.expr(at, Kind::Literal(literal))
    }
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Lexeme>,
    next: usize,
    nesting: u32,
    build: Build,
}

/// Binary operators with their precedence, the strongest last.
fn binary(token: Token) -> Option<(u8, &'static str)> {
    Some(match token {
        Token::Symbol("||") => (1, operators::OR),
        Token::Symbol("&&") => (2, operators::AND),
        Token::Symbol("<") => (3, "_<_"),
        Token::Symbol("<=") => (3, "_<=_"),
        Token::Symbol(">=") => (3, "_>=_"),
        Token::Symbol(">") => (3, "_>_"),
        Token::Symbol("==") => (3, operators::EQUALS),
        Token::Symbol("!=") => (3, "_!=_"),
        Token::In => (3, "@in"),
        Token::Symbol("+") => (4, operators::ADD),
        Token::Symbol("-") => (4, "_-_"),
        Token::Symbol("*") => (5, "_*_"),
        Token::Symbol("/") => (5, "_/_"),
        Token::Symbol("%") => (5, "_%_"),
        _ => return None,
    })
}

/// The precedence of `||`.
const LOGICAL_OR: u8 = 1;
/// The precedence of `<` and its like; `&&` and `||` are weaker.
const RELATION: u8 = 3;

/// Parsing functions give `None` once the error is reported: there is one syntax error per source.
impl Parser<'_> {
    fn peek(&self) -> Lexeme {
        self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn at(&self) -> usize {
        self.peek().start
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek().token, Token::Symbol(found) if found == symbol)
    }

    fn accept(&mut self, symbol: &str) -> bool {
        let found = self.is(symbol);
        self.next += usize::from(found);
        found
    }

    fn text(&self, lexeme: Lexeme) -> &str {
        match lexeme.token {
            Token::End => "<EOF>",
            _ => &self.source[lexeme.start..lexeme.end],
        }
    }

    fn syntax<T>(&mut self, message: String) -> Option<T> {
        let at = self.at();
        // Where a token is unreadable, what follows is seldom worth a word; the first fault of the parser is.
        self.build.issues.report(at, format!("Syntax error: {message}"));
        None
    }

    fn expect(&mut self, symbol: &str) -> Option<usize> {
        let at = self.at();
        if self.accept(symbol) {
            return Some(at);
        }
        let found = self.text(self.peek()).to_owned();
        if self.peek().token == Token::End {
            return self.syntax(format!("missing '{symbol}' at '{found}'"));
        }
        self.syntax(format!("mismatched input '{found}' expecting '{symbol}'"))
    }

    fn whole(&mut self) -> Option<Expr> {
        let root = self.expr()?;
        if self.peek().token == Token::End {
            return Some(root);
        }
        let found = self.text(self.peek()).to_owned();
        let last = self.tokens.get(self.next + 1).is_some_and(|t| t.token == Token::End);
        let what = if last { "extraneous" } else { "mismatched" };
        self.syntax(format!("{what} input '{found}' expecting <EOF>"))
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.nesting >= limits::NESTING {
            let message = format!("expression recursion limit exceeded: {}", limits::NESTING);
            self.build.issues.report_whole(message);
            return None;
        }
        self.nesting += 1;
        let parsed = parse(self);
        self.nesting -= 1;
        parsed
    }

    fn expr(&mut self) -> Option<Expr> {
        self.nested(Self::conditional)
    }

    fn conditional(&mut self) -> Option<Expr> {
        let condition = self.operation(LOGICAL_OR)?;
        let at = self.at();
        if !self.accept("?") {
            return Some(condition);
        }
        let yes = self.operation(LOGICAL_OR)?;
        self.expect(":")?;
        let no = self.expr()?;
        Some(self.build.call(at, "_?_:_", vec![condition, yes, no]))
    }

    /// Operators of at least a precedence, all of which associate to the left.
    fn operation(&mut self, least: u8) -> Option<Expr> {
        let mut left = self.unary()?;
        while let Some((precedence, name)) = binary(self.peek().token).filter(|(p, _)| *p >= least) {
            if precedence < RELATION {
                left = self.logical(left, precedence, name)?;
                continue;
            }
            let at = self.at();
            self.next += 1;
            let right = self.operation(precedence + 1)?;
            left = self.build.call(at, name, vec![left, right]);
            self.bound(&left)?;
        }
        Some(left)
    }

    /// A chain of the same logical operator, as a balanced tree.
    fn logical(&mut self, first: Expr, precedence: u8, name: &'static str) -> Option<Expr> {
        let (mut terms, mut places) = (vec![first], Vec::new());
        while binary(self.peek().token).is_some_and(|(_, n)| n == name) {
            places.push(self.at());
            self.next += 1;
            terms.push(self.operation(precedence + 1)?);
        }
        let mut terms: Vec<Option<Expr>> = terms.into_iter().map(Some).collect();
        self.balance(name, &mut terms, &places)
    }

    fn balance(&mut self, name: &str, terms: &mut [Option<Expr>], places: &[usize]) -> Option<Expr> {
        if places.is_empty() {
            return terms[0].take();
        }
        let middle = places.len() / 2;
        let (before, after) = terms.split_at_mut(middle + 1);
        let left = self.balance(name, before, &places[..middle])?;
        let right = self.balance(name, after, &places[middle + 1..])?;
        Some(self.build.call(places[middle], name, vec![left, right]))
    }

    /// Chains to the left nest without recursion here, but not in what walks the tree.
    fn bound(&mut self, expr: &Expr) -> Option<()> {
        if expr.depth > limits::TREE_DEPTH {
            self.build.issues.report_whole("max recursion depth exceeded");
            return None;
        }
        Some(())
    }

    fn unary(&mut self) -> Option<Expr> {
        let at = self.at();
        for (symbol, name) in [("!", operators::NOT), ("-", operators::NEGATE)] {
            let mut count = 0;
            // The sign of a number belongs to it.
            let is_number = |p: &Self| {
                symbol == "-"
                    && matches!(p.tokens.get(p.next + 1).map(|t| t.token), Some(Token::Int | Token::Double))
            };
            while self.is(symbol) && !is_number(self) {
                self.next += 1;
                count += 1;
            }
            if count > 0 {
                let operand = self.chain()?;
                let negated = count % 2 == 1;
                return Some(if negated { self.build.call(at, name, vec![operand]) } else { operand });
            }
        }
        self.chain()
    }

    /// A primary expression and what is selected from it.
    fn chain(&mut self) -> Option<Expr> {
        let mut expr = self.primary()?;
        loop {
            let at = self.at();
            if self.accept("[") {
                let optional = self.accept("?");
                let index = self.expr()?;
                self.expect("]")?;
                let name = if optional { operators::OPTIONAL_INDEX } else { operators::INDEX };
                expr = self.build.call(at, name, vec![expr, index]);
            } else if self.accept(".") {
                expr = self.select(expr, at)?;
            } else {
                return Some(expr);
            }
            self.bound(&expr)?;
        }
    }

    fn select(&mut self, operand: Expr, at: usize) -> Option<Expr> {
        let optional = self.accept("?");
        let name_at = self.at();
        let lexeme = self.peek();
        let name = match lexeme.token {
            Token::Ident => self.text(lexeme).to_owned(),
            Token::Quoted => {
                let message = "unsupported syntax: '`'";
                self.build.issues.report(name_at, message);
                return None;
            }
            Token::True | Token::False | Token::Null => {
                let found = self.text(lexeme).to_owned();
                return self.syntax(format!("mismatched input '{found}' expecting IDENTIFIER"));
            }
            _ => {
                let found = self.text(lexeme).to_owned();
                return self.syntax(format!("no viable alternative at input '.{found}'"));
            }
        };
        self.next += 1;
        if optional {
            let field = self.build.literal(name_at, Literal::String(name));
            return Some(self.build.call(at, operators::OPTIONAL_SELECT, vec![operand, field]));
        }
        let open = self.at();
        if self.accept("(") {
            let args = self.arguments()?;
            return macros::member(&mut self.build, open, operand, &name, args);
        }
        Some(self.build.expr(at, Kind::Select { operand: Box::new(operand), field: name, test: false }))
    }

    /// The arguments up to and including the closing parenthesis.
    fn arguments(&mut self) -> Option<Vec<Expr>> {
        let mut args = Vec::new();
        if self.accept(")") {
            return Some(args);
        }
        loop {
            args.push(self.expr()?);
            if !self.accept(",") {
                self.expect(")")?;
                return Some(args);
            }
        }
    }

    fn primary(&mut self) -> Option<Expr> {
        let lexeme = self.peek();
        let at = lexeme.start;
        match lexeme.token {
            Token::Symbol("(") => {
                self.next += 1;
                let inner = self.expr()?;
                self.expect(")")?;
                Some(inner)
            }
            Token::Symbol("[") => {
                self.next += 1;
                self.list(at)
            }
            Token::Symbol("{") => {
                self.next += 1;
                self.map(at)
            }
            Token::Symbol(".") | Token::Ident => self.name(at),
            _ => self.constant(lexeme),
        }
    }

    fn list(&mut self, at: usize) -> Option<Expr> {
        let mut items = Vec::new();
        while !self.accept("]") {
            let optional = self.accept("?");
            items.push(Item { value: self.expr()?, optional });
            if !self.accept(",") {
                self.expect("]")?;
                break;
            }
        }
        Some(self.build.expr(at, Kind::List(items)))
    }

    fn map(&mut self, at: usize) -> Option<Expr> {
        let mut entries = Vec::new();
        while !self.accept("}") {
            let optional = self.accept("?");
            let key = self.expr()?;
            self.expect(":")?;
            entries.push(Entry { key, value: self.expr()?, optional });
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        Some(self.build.expr(at, Kind::Map(entries)))
    }

    /// A variable, a call of a function, or a struct.
    fn name(&mut self, at: usize) -> Option<Expr> {
        let dot = if self.accept(".") { "." } else { "" };
        let lexeme = self.peek();
        if lexeme.token != Token::Ident {
            let found = self.text(lexeme).to_owned();
            return self.syntax(format!("no viable alternative at input '.{found}'"));
        }
        if let Some(name) = self.struct_name() {
            return self.fields(&format!("{dot}{name}"));
        }
        self.next += 1;
        let name = self.text(lexeme).to_owned();
        if RESERVED.contains(&name.as_str()) {
            self.build.issues.report(at, format!("reserved identifier: {name}"));
            return None;
        }
        let name = format!("{dot}{name}");
        let open = self.at();
        if self.accept("(") {
            let args = self.arguments()?;
            return macros::global(&mut self.build, open, &name, args);
        }
        Some(self.build.ident(lexeme.start, &name))
    }

    /// The dotted name before a brace, if this is the start of a struct.
    fn struct_name(&mut self) -> Option<String> {
        let mut ahead = self.next;
        let mut name = String::new();
        loop {
            let ident = self.tokens.get(ahead).filter(|t| t.token == Token::Ident)?;
            name.push_str(&self.source[ident.start..ident.end]);
            match self.tokens.get(ahead + 1)?.token {
                Token::Symbol(".") => name.push('.'),
                Token::Symbol("{") => {
                    self.next = ahead + 1;
                    return Some(name);
                }
                _ => return None,
            }
            ahead += 2;
        }
    }

    fn fields(&mut self, name: &str) -> Option<Expr> {
        let at = self.expect("{")?;
        let mut fields = Vec::new();
        while !self.accept("}") {
            let optional = self.accept("?");
            let lexeme = self.peek();
            let found = self.text(lexeme).to_owned();
            if lexeme.token != Token::Ident {
                return self.syntax(format!(
                    "mismatched input '{found}' expecting {{'}}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}}"
                ));
            }
            self.next += 1;
            let colon = self.expect(":")?;
            fields.push(Field { at: colon, name: found, value: self.expr()?, optional });
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        Some(self.build.expr(at, Kind::Struct(name.to_owned(), fields)))
    }

    fn constant(&mut self, lexeme: Lexeme) -> Option<Expr> {
        let at = lexeme.start;
        let negative = lexeme.token == Token::Symbol("-");
        let number = if negative { self.tokens[self.next + 1] } else { lexeme };
        let text = &self.source[number.start..number.end];
        let sign = if negative { "-" } else { "" };
        let literal = match number.token {
            Token::Int => integer(sign, text).map(Literal::Int).ok_or("invalid int literal".to_owned()),
            Token::Double => {
                let value = format!("{sign}{text}").parse().ok().filter(|v: &f64| v.is_finite());
                value.map(Literal::Double).ok_or("invalid double literal".to_owned())
            }
            Token::Uint => unsigned(text).map(Literal::Uint).ok_or("invalid uint literal".to_owned()),
            Token::String => lex::unquote(text, false)
                .and_then(|b| String::from_utf8(b).map_err(|_| "unable to unescape string".to_owned()))
                .map(Literal::String),
            Token::Bytes => lex::unquote(text, true).map(Literal::Bytes),
            Token::True => Ok(Literal::Bool(true)),
            Token::False => Ok(Literal::Bool(false)),
            Token::Null => Ok(Literal::Null),
            _ => {
                let found = self.text(lexeme).to_owned();
                return self.syntax(format!("mismatched input '{found}' expecting {STARTS}"));
            }
        };
        self.next += 1 + usize::from(negative);
        match literal {
            Ok(literal) => Some(self.build.literal(at, literal)),
            Err(message) => {
                self.build.issues.report(at, message);
                None
            }
        }
    }
}

fn integer(sign: &str, text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(&format!("{sign}{hex}"), 16).ok(),
        None => format!("{sign}{text}").parse().ok(),
    }
}

fn unsigned(text: &str) -> Option<u64> {
    let text = &text[..text.len() - 1];
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}
