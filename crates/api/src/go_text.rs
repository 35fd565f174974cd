//! What Go's readers of JSON and times say of a text that they cannot read: clients see these words.

/// Nesting beyond which nothing is said.
const MAX_DEPTH: usize = 128;

/// What Go's JSON reader says of the first syntax error; `None` if there is none (or only far below the surface).
pub fn json_syntax_error(json: &[u8]) -> Option<String> {
    let mut scanner = Scanner { json, at: 0 };
    let found = scanner.value(0).and_then(|()| match scanner.peek() {
        None => Ok(()),
        Some(byte) => Err(invalid(byte, "after top-level value")),
    });
    found.err().flatten()
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

/// `None`: too deep to say.
type Fault = Option<String>;

fn invalid(byte: u8, context: &str) -> Fault {
    let shown = match char::from(byte) {
        '\'' => "\\'".to_owned(),
        '"' => "\"".to_owned(),
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        '\r' => "\\r".to_owned(),
        '\\' => "\\\\".to_owned(),
        c if c.is_control() => format!("\\x{byte:02x}"),
        c => c.to_string(),
    };
    Some(format!("invalid character '{shown}' {context}"))
}

fn early_end() -> Fault {
    Some("unexpected end of JSON input".to_owned())
}

struct Scanner<'a> {
    json: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.json.get(self.at).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.json.get(self.at).copied()
    }

    /// The next byte that is no space.
    fn next(&mut self) -> Result<u8, Fault> {
        let byte = self.peek().ok_or_else(early_end)?;
        self.at += 1;
        Ok(byte)
    }

    /// The next byte, whatever it is.
    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = self.json.get(self.at).copied().ok_or_else(early_end)?;
        self.at += 1;
        Ok(byte)
    }

    fn value(&mut self, depth: usize) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(None);
        }
        match self.next()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.text(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            first @ (b'-' | b'0'..=b'9') => self.number(first),
            other => Err(invalid(other, "looking for beginning of value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), Fault> {
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            match self.next()? {
                b'"' => self.text()?,
                other => return Err(invalid(other, "looking for beginning of object key string")),
            }
            match self.next()? {
                b':' => self.value(depth + 1)?,
                other => return Err(invalid(other, "after object key")),
            }
            match self.next()? {
                b',' => {}
                b'}' => return Ok(()),
                other => return Err(invalid(other, "after object key:value pair")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), Fault> {
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            match self.next()? {
                b',' => {}
                b']' => return Ok(()),
                other => return Err(invalid(other, "after array element")),
            }
        }
    }

    fn text(&mut self) -> Result<(), Fault> {
        loop {
            match self.byte()? {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                byte if byte < 0x20 => return Err(invalid(byte, "in string literal")),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.byte()? {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => Ok(()),
            b'u' => (0..4).try_for_each(|_| match self.byte()? {
                byte if byte.is_ascii_hexdigit() => Ok(()),
                byte => Err(invalid(byte, "in \\u hexadecimal character escape")),
            }),
            byte => Err(invalid(byte, "in string escape code")),
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), Fault> {
        word.bytes().skip(1).try_for_each(|expected| match self.byte()? {
            byte if byte == expected => Ok(()),
            byte => Err(invalid(byte, &format!("in literal {word} (expecting '{}')", char::from(expected)))),
        })
    }

    fn number(&mut self, first: u8) -> Result<(), Fault> {
        let first = match first {
            b'-' => self.digit("in numeric literal")?,
            digit => digit,
        };
        if first != b'0' {
            self.digits();
        }
        if self.json.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if matches!(self.json.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.json.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digit("in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn digit(&mut self, context: &str) -> Result<u8, Fault> {
        match self.byte()? {
            byte if byte.is_ascii_digit() => Ok(byte),
            byte => Err(invalid(byte, context)),
        }
    }

    fn digits(&mut self) {
        while self.json.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }
}

/// What Go says of a text that is no time in RFC 3339 (with `micro`: with microseconds); `None` if it is one.
pub fn time_error(text: &str, micro: bool) -> Option<String> {
    let seconds = if micro { "05.000000" } else { "05" };
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let about = format!("parsing time \"{text}\"");
    let cannot = |rest: &str, element: &str| {
        Some(format!("{about} as \"{layout}\": cannot parse \"{rest}\" as \"{element}\""))
    };
    let mut rest = text;
    let elements = [
        ("2006", 4, "year"),
        ("-", 0, ""),
        ("01", 2, "month"),
        ("-", 0, ""),
        ("02", 2, "day"),
        ("T", 0, ""),
        ("15", 2, "hour"),
        (":", 0, ""),
        ("04", 2, "minute"),
        (":", 0, ""),
        (seconds, 2, "second"),
    ];
    for (element, digits, name) in elements {
        if digits == 0 {
            match rest.strip_prefix(element) {
                Some(after) => rest = after,
                None => return cannot(rest, element),
            }
            continue;
        }
        let number = rest.get(..digits).filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
        let Some(number) = number.and_then(|n| n.parse::<u32>().ok()) else { return cannot(rest, element) };
        rest = &rest[digits..];
        let range = match name {
            "month" => 1..=12,
            "day" => 1..=31,
            "hour" => 0..=23,
            "minute" | "second" => 0..=59,
            _ => 0..=9999,
        };
        if !range.contains(&number) {
            return Some(format!("{about}: {name} out of range"));
        }
    }
    let fraction = rest.strip_prefix('.').map(|f| f.trim_start_matches(|c: char| c.is_ascii_digit()));
    match fraction {
        Some(after) if rest.len() - after.len() > 1 && (!micro || rest.len() - after.len() == 7) => {
            rest = after
        }
        None if !micro => {}
        _ => return cannot(rest, if micro { ".000000" } else { "Z07:00" }),
    }
    let offset = |text: &str| {
        let b = text.as_bytes();
        let is_offset = b.len() >= 6
            && matches!(b[0], b'+' | b'-')
            && b[3] == b':'
            && [1, 2, 4, 5].iter().all(|i| b[*i].is_ascii_digit());
        is_offset.then_some(6)
    };
    let zone = if rest.starts_with('Z') { Some(1) } else { offset(rest) };
    match zone {
        None => cannot(rest, "Z07:00"),
        Some(len) if rest.len() > len => Some(format!("{about}: extra text: \"{}\"", &rest[len..])),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{json_syntax_error, time_error};

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
            assert_eq!(json_syntax_error(json.as_bytes()).as_deref(), Some(*words), "{json}");
        }
        for json in ["{\"a\":[1,-0.5e+3,\"\\u00e4\\n\",null,true,{}]}", "7", " \"x\" "] {
            assert_eq!(json_syntax_error(json.as_bytes()), None, "{json}");
        }
        assert_eq!(json_syntax_error(&vec![b'['; 1_000_000]), None);
    }

    #[test]
    fn times_are_refused_in_gos_words() {
        let as_layout = |text: &str, rest: &str, element: &str| {
            format!(
                "parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{rest}\" as \"{element}\""
            )
        };
        assert_eq!(time_error("x", false), Some(as_layout("x", "x", "2006")));
        assert_eq!(time_error("2026-01-01", false), Some(as_layout("2026-01-01", "", "T")));
        assert_eq!(
            time_error("2026-13-01T00:00:00Z", false).as_deref(),
            Some("parsing time \"2026-13-01T00:00:00Z\": month out of range")
        );
        assert_eq!(time_error("2026-01-01T00:00:00Z", false), None);
        assert_eq!(time_error("2026-01-01T00:00:00.5+01:00", false), None);
        assert_eq!(time_error("2026-01-01T00:00:00.000001Z", true), None);
    }
}
