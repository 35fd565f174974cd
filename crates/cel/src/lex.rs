//! Cuts a source into tokens.

use crate::source::Issues;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// Operators and punctuation.
    Symbol(&'static str),
    /// `in`
    In,
    /// `true`
    True,
    /// `false`
    False,
    /// `null`
    Null,
    /// Digits, or `0x` and hexadecimal digits.
    Int,
    /// The same with a `u`.
    Uint,
    /// With a point or an exponent.
    Double,
    /// Quoted, perhaps raw.
    String,
    /// Quoted, with a `b`.
    Bytes,
    /// A name.
    Ident,
    /// A name between back-quotes.
    Quoted,
    /// The end.
    End,
}

/// A token and where it lies, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Lexeme {
    /// What.
    pub token: Token,
    /// From.
    pub start: usize,
    /// Up to.
    pub end: usize,
}

const SYMBOLS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":",
    "+", "*", "/", "%",
];

/// The tokens of a source, the last of which is the end; what is no token is reported and left out.
pub fn tokens(source: &str, issues: &mut Issues) -> Vec<Lexeme> {
    let mut lexer = Lexer { source, at: 0 };
    let mut found = Vec::with_capacity(source.len() / 3 + 1);
    while let Some(start) = lexer.skip_blank() {
        match lexer.next() {
            Ok(token) => found.push(Lexeme { token, start, end: lexer.at }),
            Err(bad) => {
                let text: String = source[start..bad].escape_default().collect();
                let text = text.replace("\\'", "'").replace("\\\"", "\"").replace("\\\\", "\\");
                issues.report(start, format!("Syntax error: token recognition error at: '{text}'"));
                lexer.at = bad;
            }
        }
    }
    found.push(Lexeme { token: Token::End, start: source.len(), end: source.len() });
    found
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.source.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Where the next token starts.
    fn skip_blank(&mut self) -> Option<usize> {
        loop {
            let blank = |c: char| matches!(c, '\t' | ' ' | '\r' | '\n' | '\u{c}');
            self.at = self.source.len() - self.rest().trim_start_matches(blank).len();
            if !self.rest().starts_with("//") {
                break;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
        (self.at < self.source.len()).then_some(self.at)
    }

    /// Reads one token; if there is none, the error says where the unreadable text ends.
    fn next(&mut self) -> Result<Token, usize> {
        let first = self.peek(0);
        match first {
            b'0'..=b'9' => Ok(self.number()),
            b'.' if self.peek(1).is_ascii_digit() => Ok(self.number()),
            b'"' | b'\'' => self.string(Token::String, false),
            b'r' | b'R' if is_quote(self.peek(1)) => {
                self.at += 1;
                self.string(Token::String, true)
            }
            b'b' | b'B' if is_quote(self.peek(1)) => {
                self.at += 1;
                self.string(Token::Bytes, false)
            }
            b'b' | b'B' if matches!(self.peek(1), b'r' | b'R') && is_quote(self.peek(2)) => {
                self.at += 2;
                self.string(Token::Bytes, true)
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => Ok(self.word()),
            b'`' => self.quoted(),
            _ => self.symbol(),
        }
    }

    fn symbol(&mut self) -> Result<Token, usize> {
        if let Some(symbol) = SYMBOLS.iter().find(|s| self.rest().starts_with(**s)) {
            self.at += symbol.len();
            return Ok(Token::Symbol(symbol));
        }
        let mut chars = self.rest().chars();
        let first = chars.next().map_or(1, char::len_utf8);
        // The first half of a two-character operator takes its neighbour with it.
        let half = matches!(self.peek(0), b'=' | b'&' | b'|');
        let second = if half { chars.next().map_or(0, char::len_utf8) } else { 0 };
        Err(self.at + first + second)
    }

    fn digits(&mut self, is_digit: fn(&u8) -> bool) -> usize {
        let start = self.at;
        while is_digit(&self.peek(0)) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Token {
        let mut double = false;
        if self.peek(0) == b'0' && self.peek(1) == b'x' && self.peek(2).is_ascii_hexdigit() {
            self.at += 2;
            self.digits(u8::is_ascii_hexdigit);
        } else {
            self.digits(u8::is_ascii_digit);
            if self.peek(0) == b'.' && self.peek(1).is_ascii_digit() {
                self.at += 1;
                self.digits(u8::is_ascii_digit);
                double = true;
            }
            let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
            if matches!(self.peek(0), b'e' | b'E') && self.peek(1 + sign).is_ascii_digit() {
                self.at += 1 + sign;
                self.digits(u8::is_ascii_digit);
                double = true;
            }
        }
        if double {
            return Token::Double;
        }
        if matches!(self.peek(0), b'u' | b'U') {
            self.at += 1;
            return Token::Uint;
        }
        Token::Int
    }

    fn word(&mut self) -> Token {
        let start = self.at;
        while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == b'_' {
            self.at += 1;
        }
        match &self.source[start..self.at] {
            "in" => Token::In,
            "true" => Token::True,
            "false" => Token::False,
            "null" => Token::Null,
            _ => Token::Ident,
        }
    }

    fn quoted(&mut self) -> Result<Token, usize> {
        let body = self.rest()[1..].find(|c: char| !(c.is_ascii_alphanumeric() || "_.-/ ".contains(c)));
        match body {
            Some(length) if length > 0 && self.peek(1 + length) == b'`' => {
                self.at += length + 2;
                Ok(Token::Quoted)
            }
            Some(length) => Err(self.at + 1 + length + self.char_len(1 + length)),
            None => Err(self.source.len()),
        }
    }

    fn char_len(&self, ahead: usize) -> usize {
        self.source.get(self.at + ahead..).and_then(|s| s.chars().next()).map_or(0, char::len_utf8)
    }

    fn string(&mut self, token: Token, raw: bool) -> Result<Token, usize> {
        let quote = self.peek(0);
        let triple = self.peek(1) == quote && self.peek(2) == quote;
        let width = if triple { 3 } else { 1 };
        self.at += width;
        loop {
            let byte = self.peek(0);
            if self.at >= self.source.len() {
                return Err(self.source.len());
            }
            let closes = byte == quote && (!triple || self.peek(1) == quote && self.peek(2) == quote);
            if closes {
                self.at += width;
                return Ok(token);
            }
            if !triple && matches!(byte, b'\n' | b'\r') {
                return Err(self.at + 1);
            }
            if byte == b'\\' && !raw {
                self.at += escape_length(&self.source.as_bytes()[self.at..])
                    .ok_or_else(|| self.at + 1 + self.char_len(1))?;
            } else {
                self.at += self.char_len(0);
            }
        }
    }
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'')
}

/// The length of the escape sequence at the start, if it is one.
fn escape_length(text: &[u8]) -> Option<usize> {
    let hex = |count: usize| {
        let digits = text.get(2..2 + count)?;
        digits.iter().all(u8::is_ascii_hexdigit).then_some(2 + count)
    };
    match text.get(1)? {
        b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`' => Some(2),
        b'x' | b'X' => hex(2),
        b'u' => hex(4),
        b'U' => hex(8),
        b'0'..=b'3' => {
            let octal = text.get(2..4)?;
            octal.iter().all(|b| (b'0'..=b'7').contains(b)).then_some(4)
        }
        _ => None,
    }
}

/// The text of a string or bytes token; in bytes, `\x` and octal escapes are bytes, else code points.
///
/// # Errors
/// An escape that names no code point, in upstream's words.
pub fn unquote(token: &str, is_bytes: bool) -> Result<Vec<u8>, String> {
    let mut text = token;
    if is_bytes {
        text = &text[1..];
    }
    let raw = text.starts_with(['r', 'R']);
    if raw {
        text = &text[1..];
    }
    let width =
        if text.len() >= 6 && (text.starts_with("\"\"\"") || text.starts_with("'''")) { 3 } else { 1 };
    let text = &text[width..text.len() - width];
    if raw || !text.contains('\\') {
        return Ok(text.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first != '\\' {
            out.extend_from_slice(&rest.as_bytes()[..first.len_utf8()]);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let length = escape_length(rest.as_bytes()).ok_or("unable to unescape string")?;
        unescape(&rest[..length], is_bytes, &mut out)?;
        rest = &rest[length..];
    }
    Ok(out)
}

fn unescape(sequence: &str, is_bytes: bool, out: &mut Vec<u8>) -> Result<(), String> {
    let letter = sequence.as_bytes()[1];
    let simple = match letter {
        b'a' => Some(7),
        b'b' => Some(8),
        b'f' => Some(12),
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        b'v' => Some(11),
        b'"' | b'\'' | b'\\' | b'?' | b'`' => Some(letter),
        _ => None,
    };
    if let Some(byte) = simple {
        out.push(byte);
        return Ok(());
    }
    let (digits, radix) = if letter.is_ascii_digit() { (&sequence[1..], 8) } else { (&sequence[2..], 16) };
    let code = u32::from_str_radix(digits, radix).map_err(|_| "unable to unescape string")?;
    if matches!(letter, b'u' | b'U') && is_bytes {
        return Err("unable to unescape string".to_owned());
    }
    if is_bytes {
        out.push(u8::try_from(code).map_err(|_| "unable to unescape string")?);
        return Ok(());
    }
    let c = char::from_u32(code).ok_or("unable to unescape string")?;
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(())
}
