//! Links that come back through the proxy: `Location` headers and the URLs in pages, as upstream's proxy transport
//! rewrites them.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{DeflateDecoder, GzDecoder};
use flate2::write::{DeflateEncoder, GzEncoder};

use crate::limits::MAX_PAGE_BYTES;

/// The attributes of each element that hold URLs.
const ATTRIBUTES: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// Elements whose content is no markup.
const RAW: [&str; 4] = ["script", "style", "textarea", "title"];

/// How much larger than [`MAX_PAGE_BYTES`] a page may be once its links are rewritten.
const MAX_GROWTH: usize = 2;

/// Turns URLs of the server behind into URLs of the proxy.
pub(crate) struct Rewriter {
    /// The path of the proxy, without a slash at its end.
    pub(crate) prefix: String,
    /// Host and port of the server behind.
    pub(crate) target: String,
    /// The host that the client asked for.
    pub(crate) host: String,
}

impl Rewriter {
    /// The URL as the client has to ask for it.
    pub(crate) fn url(&self, text: &str) -> String {
        let unchanged = || text.to_owned();
        let (rest, fragment) = text.split_once('#').map_or((text, None), |(r, f)| (r, Some(f)));
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(r, q)| (r, Some(q)));
        let (scheme, rest) = match rest.split_once(':') {
            Some((scheme, after)) if is_scheme(scheme) => (scheme, after),
            _ => ("", rest),
        };
        let (host, path) = match rest.strip_prefix("//") {
            None => ("", rest),
            Some(after) => after.find('/').map_or((after, ""), |at| after.split_at(at)),
        };
        let foreign = !host.is_empty() && host != self.target && host != self.host;
        if foreign || !path.starts_with('/') {
            return unchanged();
        }
        let mut out = String::new();
        if !host.is_empty() && host == self.host {
            if !scheme.is_empty() {
                out.push_str(&format!("{scheme}:"));
            }
            out.push_str(&format!("//{host}"));
        }
        if path.starts_with(&self.prefix) {
            out.push_str(path);
        } else {
            out.push_str(&clean(&format!("{}{path}", self.prefix)));
            if path.ends_with('/') && !out.ends_with('/') {
                out.push('/');
            }
        }
        if let Some(query) = query {
            out.push_str(&format!("?{query}"));
        }
        if let Some(fragment) = fragment {
            out.push_str(&format!("#{fragment}"));
        }
        out
    }

    /// A page with its links rewritten; `None` in an encoding that is not known here.
    pub(crate) fn page(&self, encoding: &str, page: &[u8]) -> std::io::Result<Option<Bytes>> {
        let plain = match encoding {
            "" => return Ok(Some(Bytes::from(self.html(page)?))),
            "gzip" => unpack(GzDecoder::new(page))?,
            "deflate" => unpack(DeflateDecoder::new(page))?,
            _ => return Ok(None),
        };
        let html = self.html(&plain)?;
        let packed = if encoding == "gzip" {
            let mut writer = GzEncoder::new(Vec::new(), Compression::default());
            writer.write_all(&html)?;
            writer.finish()?
        } else {
            let mut writer = DeflateEncoder::new(Vec::new(), Compression::best());
            writer.write_all(&html)?;
            writer.finish()?
        };
        Ok(Some(Bytes::from(packed)))
    }

    fn html(&self, page: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(page.len() + 256);
        let mut at = 0;
        while at < page.len() {
            // Every link grows by the proxy's prefix, and a page may be nothing but links.
            if out.len() > MAX_GROWTH * MAX_PAGE_BYTES {
                return Err(too_large());
            }
            let Some(open) = page[at..].iter().position(|b| *b == b'<').map(|i| at + i) else { break };
            out.extend_from_slice(&page[at..open]);
            at = open;
            if page[at..].starts_with(b"<!--") {
                let end = find(&page[at..], b"-->").map_or(page.len(), |i| at + i + 3);
                out.extend_from_slice(&page[at..end]);
                at = end;
                continue;
            }
            if !page.get(at + 1).is_some_and(u8::is_ascii_alphabetic) {
                out.push(b'<');
                at += 1;
                continue;
            }
            let end = tag_end(page, at);
            let name = tag_name(&page[at + 1..end]);
            self.tag(&page[at..end], &name, &mut out);
            at = end;
            if RAW.contains(&name.as_str()) {
                let close = format!("</{name}");
                let end = find(&page[at..], close.as_bytes()).map_or(page.len(), |i| at + i);
                out.extend_from_slice(&page[at..end]);
                at = end;
            }
        }
        out.extend_from_slice(&page[at..]);
        Ok(out)
    }

    /// One start tag, from its `<` to its `>`.
    fn tag(&self, tag: &[u8], name: &str, out: &mut Vec<u8>) {
        let Some((_, attributes)) = ATTRIBUTES.iter().find(|(element, _)| *element == name) else {
            out.extend_from_slice(tag);
            return;
        };
        let mut copied = 0;
        for (key, value) in values(tag, 1 + name.len()) {
            if !attributes.contains(&key.as_str()) {
                continue;
            }
            let Ok(text) = std::str::from_utf8(&tag[value.clone()]) else { continue };
            out.extend_from_slice(&tag[copied..value.start]);
            let rewritten = self.url(&text.replace("&amp;", "&")).replace('&', "&amp;");
            out.extend_from_slice(rewritten.as_bytes());
            copied = value.end;
        }
        out.extend_from_slice(&tag[copied..]);
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// The path without `.`, `..` and empty parts.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Where `wanted` stands, in capital or small letters.
fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window.eq_ignore_ascii_case(wanted))
}

fn too_large() -> std::io::Error {
    std::io::Error::other(format!("a page of more than {MAX_PAGE_BYTES} bytes"))
}

/// Everything that comes out of a decompressor, up to [`MAX_PAGE_BYTES`].
fn unpack(packed: impl Read) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    packed.take(MAX_PAGE_BYTES as u64 + 1).read_to_end(&mut plain)?;
    if plain.len() > MAX_PAGE_BYTES {
        return Err(too_large());
    }
    Ok(plain)
}

/// Behind the `>` of a tag; quotes may hold others.
fn tag_end(page: &[u8], from: usize) -> usize {
    let mut quote = None;
    for (i, byte) in page.iter().enumerate().skip(from) {
        match (quote, byte) {
            (None, b'>') => return i + 1,
            (None, b'"' | b'\'') => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
    }
    page.len()
}

fn tag_name(inside: &[u8]) -> String {
    let end = inside.iter().position(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b'>'));
    String::from_utf8_lossy(&inside[..end.unwrap_or(inside.len())]).to_ascii_lowercase()
}

/// The attributes of a tag: names, and where their values are.
fn values(tag: &[u8], from: usize) -> Vec<(String, std::ops::Range<usize>)> {
    let mut found = Vec::new();
    let mut at = from;
    let skip = |at: &mut usize, what: fn(u8) -> bool| {
        while tag.get(*at).is_some_and(|b| what(*b)) {
            *at += 1;
        }
    };
    while at < tag.len() {
        skip(&mut at, |b| b.is_ascii_whitespace() || b == b'/');
        let start = at;
        skip(&mut at, |b| !b.is_ascii_whitespace() && !matches!(b, b'=' | b'>' | b'/'));
        let name = String::from_utf8_lossy(&tag[start..at]).to_ascii_lowercase();
        skip(&mut at, |b| b.is_ascii_whitespace());
        if tag.get(at) != Some(&b'=') {
            if start == at {
                at += 1;
            }
            continue;
        }
        at += 1;
        skip(&mut at, |b| b.is_ascii_whitespace());
        let value = match tag.get(at) {
            Some(quote @ (b'"' | b'\'')) => {
                let from = at + 1;
                let len = tag[from..].iter().position(|b| b == quote).unwrap_or(tag.len() - from);
                at = (from + len + 1).min(tag.len());
                from..from + len
            }
            _ => {
                let from = at;
                skip(&mut at, |b| !b.is_ascii_whitespace() && b != b'>');
                from..at
            }
        };
        found.push((name, value));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewriter() -> Rewriter {
        Rewriter {
            prefix: "/api/v1/namespaces/n/pods/p:80/proxy".into(),
            target: "10.1.0.1:80".into(),
            host: "server:6443".into(),
        }
    }

    #[test]
    fn links_lead_back_through_the_proxy() {
        let p = "/api/v1/namespaces/n/pods/p:80/proxy";
        let table = [
            ("/x", format!("{p}/x")),
            ("/x/", format!("{p}/x/")),
            ("/", format!("{p}/")),
            ("x", "x".to_owned()),
            ("http://10.1.0.1:80/a/../b?c=d#e", format!("{p}/b?c=d#e")),
            ("https://server:6443/x", format!("https://server:6443{p}/x")),
            ("https://example.org/x", "https://example.org/x".to_owned()),
            (&format!("{p}/y"), format!("{p}/y")),
            ("mailto:a@b", "mailto:a@b".to_owned()),
            ("#top", "#top".to_owned()),
        ];
        for (text, expected) in table {
            assert_eq!(rewriter().url(text), expected, "{text}");
        }
    }

    #[test]
    fn pages_keep_everything_but_their_links() {
        let page = "<!DOCTYPE html><!-- <a href=\"/no\"> --><A class='x>y' HREF='/a?b&amp;c'>t</a><img src=/i alt=x><p href=\"/p\"><script src=\"/s\">if (a<b) \"<a href='/no'>\"</script>5 < 6<br";
        let p = "/api/v1/namespaces/n/pods/p:80/proxy";
        let expected = page
            .replace("'/a?b&amp;c'", &format!("'{p}/a?b&amp;c'"))
            .replace("src=/i ", &format!("src={p}/i "))
            .replace("\"/s\"", &format!("\"{p}/s\""));
        let plain = rewriter().page("", page.as_bytes()).expect("a page").expect("known");
        assert_eq!(String::from_utf8_lossy(&plain), expected);
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(page.as_bytes()).expect("packed");
        let packed = packed.finish().expect("packed");
        let again = rewriter().page("gzip", &packed).expect("a page").expect("known");
        let mut plain = String::new();
        GzDecoder::new(&again[..]).read_to_string(&mut plain).expect("gzip");
        assert_eq!(plain, expected);
        assert_eq!(rewriter().page("br", page.as_bytes()).expect("no fault"), None);
    }
}
