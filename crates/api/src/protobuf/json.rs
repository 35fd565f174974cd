//! Walks over JSON text that somebody else has already found to be well-formed: no tree, no copy but of text with
//! escapes in it. Whatever does not look like JSON after all is an error, never a panic.

use std::borrow::Cow;

use super::wire::Unreadable;

/// A position in JSON text.
#[derive(Clone, Copy)]
pub(super) struct Json<'a> {
    text: &'a [u8],
    at: usize,
}

const END: Unreadable = Unreadable("unexpected end of JSON input");
const WRONG: Unreadable = Unreadable("a JSON value of another type than the field's");

impl<'a> Json<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// The first byte of what comes next.
    pub(super) fn peek(&mut self) -> Result<u8, Unreadable> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(byte) => return Ok(*byte),
                None => return Err(END),
            }
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Unreadable> {
        if self.peek()? != byte {
            return Err(WRONG);
        }
        self.at += 1;
        Ok(())
    }

    /// Passes over `null`, if that comes next.
    pub(super) fn null(&mut self) -> Result<bool, Unreadable> {
        if self.peek()? != b'n' {
            return Ok(false);
        }
        self.word(b"null")?;
        Ok(true)
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Unreadable> {
        if !self.text[self.at..].starts_with(word) {
            return Err(WRONG);
        }
        self.at += word.len();
        Ok(())
    }

    /// Enters an object (`{`) or a list (`[`).
    pub(super) fn enter(&mut self, open: u8) -> Result<Inside, Unreadable> {
        self.expect(open)?;
        Ok(Inside { first: true, close: if open == b'{' { b'}' } else { b']' } })
    }

    /// Whether there is another element; past its comma.
    pub(super) fn more(&mut self, inside: &mut Inside) -> Result<bool, Unreadable> {
        let next = self.peek()?;
        if next == inside.close {
            self.at += 1;
            return Ok(false);
        }
        if !inside.first {
            self.expect(b',')?;
        }
        inside.first = false;
        Ok(true)
    }

    /// The name of the next member; past its colon.
    pub(super) fn key(&mut self) -> Result<Cow<'a, [u8]>, Unreadable> {
        let key = self.string()?;
        self.expect(b':')?;
        Ok(key)
    }

    /// Text, without its quotes and escapes.
    pub(super) fn string(&mut self) -> Result<Cow<'a, [u8]>, Unreadable> {
        self.expect(b'"')?;
        let from = self.at;
        self.at += plain(&self.text[from..]);
        match self.text.get(self.at).ok_or(END)? {
            b'"' => {
                self.at += 1;
                Ok(Cow::Borrowed(&self.text[from..self.at - 1]))
            }
            _ => self.escaped(from).map(Cow::Owned),
        }
    }

    fn escaped(&mut self, from: usize) -> Result<Vec<u8>, Unreadable> {
        let mut out = self.text[from..self.at].to_vec();
        loop {
            let run = plain(&self.text[self.at..]);
            out.extend_from_slice(&self.text[self.at..self.at + run]);
            self.at += run + 1;
            if *self.text.get(self.at - 1).ok_or(END)? == b'"' {
                return Ok(out);
            }
            let escape = *self.text.get(self.at).ok_or(END)?;
            self.at += 1;
            out.push(match escape {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'u' => {
                    let mut buffer = [0; 4];
                    out.extend_from_slice(self.unicode()?.encode_utf8(&mut buffer).as_bytes());
                    continue;
                }
                other => other,
            });
        }
    }

    /// The character of `\uXXXX`, or of two such if the first is half of a pair.
    fn unicode(&mut self) -> Result<char, Unreadable> {
        let first = self.hex()?;
        if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with(b"\\u") {
            self.at += 2;
            let second = self.hex()?;
            let pair = 0x10000 + ((first - 0xd800) << 10) + (second.wrapping_sub(0xdc00) & 0x3ff);
            return Ok(char::from_u32(pair).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex(&mut self) -> Result<u32, Unreadable> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(END)?;
        self.at += 4;
        digits.iter().try_fold(0, |value, digit| {
            char::from(*digit).to_digit(16).map(|d| value << 4 | d).ok_or(Unreadable("invalid escape"))
        })
    }

    /// A number as it is written.
    pub(super) fn number(&mut self) -> Result<&'a str, Unreadable> {
        self.peek()?;
        let rest = &self.text[self.at..];
        let length = rest
            .iter()
            .position(|b| !matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .unwrap_or(rest.len());
        self.at += length;
        if length == 0 {
            return Err(WRONG);
        }
        std::str::from_utf8(&rest[..length]).map_err(|_| WRONG)
    }

    pub(super) fn integer(&mut self) -> Result<i64, Unreadable> {
        let text = self.number()?;
        text.parse().map_err(|_| Unreadable("a number that is no integer of 64 bits"))
    }

    pub(super) fn double(&mut self) -> Result<f64, Unreadable> {
        self.number()?.parse().map_err(|_| WRONG)
    }

    pub(super) fn bool(&mut self) -> Result<bool, Unreadable> {
        if self.peek()? == b't' {
            self.word(b"true").map(|()| true)
        } else {
            self.word(b"false").map(|()| false)
        }
    }

    /// The text of a whole value, whatever it is.
    pub(super) fn raw(&mut self) -> Result<&'a [u8], Unreadable> {
        self.peek()?;
        let from = self.at;
        self.skip()?;
        Ok(&self.text[from..self.at])
    }

    /// Passes over a value.
    pub(super) fn skip(&mut self) -> Result<(), Unreadable> {
        match self.peek()? {
            b'"' => self.skip_string(),
            b'{' | b'[' => self.skip_nested(),
            _ => {
                let rest = &self.text[self.at..];
                let length =
                    rest.iter().position(|b| matches!(b, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t'));
                self.at += length.unwrap_or(rest.len());
                Ok(())
            }
        }
    }

    fn skip_nested(&mut self) -> Result<(), Unreadable> {
        let mut depth = 0usize;
        loop {
            match self.text.get(self.at).ok_or(END)? {
                b'"' => {
                    self.skip_string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn skip_string(&mut self) -> Result<(), Unreadable> {
        self.at += 1;
        loop {
            self.at += plain(&self.text[self.at..]);
            match self.text.get(self.at).ok_or(END)? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => self.at = (self.at + 2).min(self.text.len()),
            }
        }
    }
}

/// Where in an object or list the walk is.
pub(super) struct Inside {
    first: bool,
    close: u8,
}

/// How many bytes there are before a quote or a backslash. Eight at a time: most of the work on an object is this.
fn plain(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // The lowest high bit of the result is at the first byte that equals the pattern's.
    let equal = |word: u64, pattern: u64| {
        let difference = word ^ pattern;
        difference.wrapping_sub(ONES) & !difference & HIGHS
    };
    let mut at = 0;
    while let Some(chunk) = text.get(at..at + 8).and_then(|c| c.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let found = equal(word, ONES * u64::from(b'"')) | equal(word, ONES * u64::from(b'\\'));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = &text[at..];
    at + rest.iter().position(|b| matches!(b, b'"' | b'\\')).unwrap_or(rest.len())
}
