//! Container logs in CRI's format: `<RFC 3339 time> <stdout|stderr> <P|F> <text>`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// One line of a log file: a whole line of output, or (partial) a piece of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The time as it stands there.
    pub time: &'a str,
    /// Whether it went to standard error.
    pub stderr: bool,
    /// Whether the line of output goes on in the next one.
    pub partial: bool,
    /// The output.
    pub text: &'a [u8],
}

/// Reads one line (without its newline); `None` if it is none.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stderr = match parts.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let tags = parts.next()?;
    let partial = tags.split(|b| *b == b':').next() == Some(b"P");
    Some(Line { time, stderr, partial, text: parts.next().unwrap_or_default() })
}

/// How much of a file's end is looked at for its last lines at once.
const BLOCK: u64 = 64 * 1024;

/// Where the last `lines` whole lines of output begin in the file.
///
/// # Errors
/// The file system's.
pub fn tail_offset(file: &mut File, lines: usize) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(length);
    }
    let mut newlines = 0;
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        let mut block = Vec::new();
        file.by_ref().take(end - start).read_to_end(&mut block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            if *byte != b'\n' || start + index as u64 + 1 == length {
                continue;
            }
            newlines += 1;
            if newlines == lines {
                return Ok(start + index as u64 + 1);
            }
        }
        end = start;
    }
    Ok(0)
}

/// The output in the last `lines` lines of a log, at most `limit` bytes of it.
///
/// # Errors
/// The file system's.
pub fn last_lines(path: &Path, lines: usize, limit: usize) -> io::Result<String> {
    let mut file = File::open(path)?;
    let offset = tail_offset(&mut file, lines)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut out = Vec::new();
    for line in bytes.split(|b| *b == b'\n').filter_map(parse) {
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
    }
    let from = out.len().saturating_sub(limit);
    Ok(String::from_utf8_lossy(&out[from..]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_are_parsed() {
        let line = parse(b"2026-01-02T03:04:05.000000006Z stderr P half a").expect("a line");
        assert!(line.stderr && line.partial);
        assert_eq!((line.time, line.text), ("2026-01-02T03:04:05.000000006Z", &b"half a"[..]));
        assert_eq!(parse(b"2026-01-02T03:04:05Z stdout F ").map(|l| l.text), Some(&b""[..]));
        assert!(parse(b"garbage").is_none());
    }

    #[test]
    fn the_end_of_a_log_is_found() {
        let mut file = tempfile::tempfile().expect("a file");
        for n in 0..10_000 {
            writeln!(file, "2026-01-02T03:04:05Z stdout F line {n}").expect("written");
        }
        let offset = tail_offset(&mut file, 2).expect("found");
        file.seek(SeekFrom::Start(offset)).expect("there");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("read");
        assert!(text.starts_with("2026-01-02T03:04:05Z stdout F line 9998\n"));
        assert_eq!(tail_offset(&mut file, 20_000).expect("all"), 0);
    }
}
