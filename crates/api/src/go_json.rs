//! What is wrong with a JSON text, in the words of upstream's reader (Go's `encoding/json`): clients and people read them.

/// Nesting beyond which [`shallow_syntax_error`] says nothing.
const MAX_DEPTH: usize = 128;

/// Why `bytes` is no JSON text; `None` if it is one.
pub fn syntax_error(bytes: &[u8]) -> Option<String> {
    Scan { bytes, at: 0, open: Vec::new(), deepest: usize::MAX }.text().err().flatten()
}

/// Why `bytes` could not be read: what is wrong with the text, or else what the reader itself said.
pub fn unreadable(bytes: &[u8], error: &serde_json::Error) -> String {
    syntax_error(bytes).unwrap_or_else(|| error.to_string())
}

/// As [`syntax_error`], but `None` as well for a text that is nested deeper than our readers go: they have words of their own.
pub fn shallow_syntax_error(bytes: &[u8]) -> Option<String> {
    Scan { bytes, at: 0, open: Vec::new(), deepest: MAX_DEPTH }.text().err().flatten()
}

/// What Go says of the type of a JSON text, by how it begins: `array`, `string`, …
pub fn json_type(json: &[u8]) -> &'static str {
    match json.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'[') => "array",
        Some(b'{') => "object",
        Some(b'"') => "string",
        Some(b't' | b'f') => "bool",
        _ => "number",
    }
}

/// A number as Go writes it: without a fraction that is none, and with an exponent if it is very small or very large.
pub fn number(value: f64) -> String {
    const SMALLEST: f64 = 1e-6;
    const LARGEST: f64 = 1e21;
    let size = value.abs();
    if size == 0.0 || (SMALLEST..LARGEST).contains(&size) {
        return value.to_string();
    }
    match format!("{value:e}").split_once('e') {
        // Go shows the sign of an exponent.
        Some((digits, power)) if !power.starts_with('-') => format!("{digits}e+{power}"),
        Some((digits, power)) => format!("{digits}e{power}"),
        None => value.to_string(),
    }
}

/// A character as Go prints it in errors; bytes are taken for characters.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => "'\\\\'".to_owned(),
        0x07 => "'\\a'".to_owned(),
        0x08 => "'\\b'".to_owned(),
        0x0b => "'\\v'".to_owned(),
        0x0c => "'\\f'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        b'\t' => "'\\t'".to_owned(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..0xa0 | 0xad => format!("'\\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The closing brackets that are due.
    open: Vec<u8>,
    /// So many brackets may be open where a value begins.
    deepest: usize,
}

/// What is wrong; `None`: the text is too deep to say.
type Fault = Option<String>;
type Step = Result<(), Fault>;

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn wrong<T>(&self, context: &str) -> Result<T, Fault> {
        Err(Some(match self.peek() {
            None => "unexpected end of JSON input".to_owned(),
            Some(byte) => format!("invalid character {} {context}", quoted(byte)),
        }))
    }

    fn text(&mut self) -> Step {
        loop {
            self.blanks();
            if self.value()? {
                continue;
            }
            if self.closing()? {
                return Ok(());
            }
        }
    }

    /// A value, or what opens one (`true`: its first element comes next).
    fn value(&mut self) -> Result<bool, Fault> {
        if self.open.len() > self.deepest {
            return Err(None);
        }
        match self.peek() {
            Some(b'{') => {
                self.at += 1;
                self.open.push(b'}');
                self.blanks();
                if self.peek() == Some(b'}') {
                    return Ok(false);
                }
                self.key()?;
                return Ok(true);
            }
            Some(b'[') => {
                self.at += 1;
                self.open.push(b']');
                self.blanks();
                return Ok(self.peek() != Some(b']'));
            }
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true")?,
            Some(b'f') => self.word("false")?,
            Some(b'n') => self.word("null")?,
            _ => return self.wrong("looking for beginning of value"),
        }
        Ok(false)
    }

    fn key(&mut self) -> Step {
        self.blanks();
        if self.peek() != Some(b'"') {
            return self.wrong("looking for beginning of object key string");
        }
        self.string()?;
        self.blanks();
        if self.peek() != Some(b':') {
            return self.wrong("after object key");
        }
        self.at += 1;
        Ok(())
    }

    /// What follows a value; whether the text ends.
    fn closing(&mut self) -> Result<bool, Fault> {
        loop {
            self.blanks();
            match (self.open.last(), self.peek()) {
                (None, None) => return Ok(true),
                (None, Some(_)) => return self.wrong("after top-level value"),
                (Some(due), Some(found)) if *due == found => {
                    self.at += 1;
                    self.open.pop();
                }
                (Some(b'}'), Some(b',')) => {
                    self.at += 1;
                    self.key()?;
                    return Ok(false);
                }
                (Some(b']'), Some(b',')) => {
                    self.at += 1;
                    return Ok(false);
                }
                (Some(b'}'), _) => return self.wrong("after object key:value pair"),
                _ => return self.wrong("after array element"),
            }
        }
    }

    fn string(&mut self) -> Step {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => self.at += 1,
                        Some(b'u') => {
                            self.at += 1;
                            for _ in 0..4 {
                                if !self.peek().is_some_and(|b| b.is_ascii_hexdigit()) {
                                    return self.wrong("in \\u hexadecimal character escape");
                                }
                                self.at += 1;
                            }
                        }
                        _ => return self.wrong("in string escape code"),
                    }
                }
                Some(0..0x20) | None => return self.wrong("in string literal"),
                Some(_) => self.at += 1,
            }
        }
    }

    fn digits(&mut self, context: &str) -> Step {
        if !self.peek().is_some_and(|b| b.is_ascii_digit()) {
            return self.wrong(context);
        }
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Step {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn word(&mut self, word: &str) -> Step {
        for letter in word.bytes() {
            if self.peek() != Some(letter) {
                return self.wrong(&format!("in literal {word} (expecting {})", quoted(letter)));
            }
            self.at += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{number, shallow_syntax_error, syntax_error};

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        let rows = [
            (1.0, "1"),
            (-2.5, "-2.5"),
            (0.0, "0"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (0.000_001, "0.000001"),
            (1.5e-7, "1.5e-7"),
        ];
        for (value, expected) in rows {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn faults_are_told_in_gos_words() {
        let cases = [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{\"a\":1", "unexpected end of JSON input"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("{'a':1}", "invalid character '\\'' looking for beginning of object key string"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("{\"a\":01}", "invalid character '1' after object key:value pair"),
            ("{\"a\":1e}", "invalid character '}' in exponent of numeric literal"),
            ("{\"a\":1.}", "invalid character '}' after decimal point in numeric literal"),
            ("{\"a\":-}", "invalid character '}' in numeric literal"),
            ("{\"a\":tru}", "invalid character '}' in literal true (expecting 'e')"),
            ("{\"a\" \"x\"}", "invalid character '\"' after object key"),
            ("{\"a\":\"b\tc\"}", "invalid character '\\t' in string literal"),
            ("{\"a\":\"\\x\"}", "invalid character 'x' in string escape code"),
            ("{\"a\":\"\\u00\"}", "invalid character '\"' in \\u hexadecimal character escape"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
        ];
        for (text, expected) in cases {
            assert_eq!(syntax_error(text.as_bytes()).as_deref(), Some(expected), "{text}");
        }
        for text in ["{}", "[]", " [1, {\"a\": [true, null]}, -0.5e+7, \"\\u00e9\"] ", "5", "[[],{}]"] {
            assert_eq!(syntax_error(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn json_is_refused_in_gos_words() {
        let rows: &[(&str, &str)] = &[
            ("{", "unexpected end of JSON input"),
            ("", "unexpected end of JSON input"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("{a", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1", "invalid character '1' after object key"),
            ("{\"a\":1 2", "invalid character '2' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("trux", "invalid character 'x' in literal true (expecting 'e')"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("\"\n\"", "invalid character '\\n' in string literal"),
            ("'", "invalid character '\\'' looking for beginning of value"),
        ];
        for (json, words) in rows {
            assert_eq!(shallow_syntax_error(json.as_bytes()).as_deref(), Some(*words), "{json}");
        }
        for json in ["{\"a\":[1,-0.5e+3,\"\\u00e4\\n\",null,true,{}]}", "7", " \"x\" "] {
            assert_eq!(shallow_syntax_error(json.as_bytes()), None, "{json}");
        }
        assert_eq!(shallow_syntax_error(&vec![b'['; 1_000_000]), None);
    }
}
