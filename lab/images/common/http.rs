//! A small HTTP/1.1 server and client on the standard library, for the programs of the test images.
//!
//! One thread a connection, bodies by `Content-Length` or until the end, keep-alive. Enough for probes, a demo
//! and tests; nothing else should use it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// The largest body and the largest header that are read.
const MAX_BODY: usize = 1024 * 1024;
const MAX_HEAD: u64 = 64 * 1024;

/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(60);

pub struct Request {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub peer: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

pub struct Response {
    pub status: u16,
    pub kind: &'static str,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: body.into().into_bytes() }
    }

    pub fn html(body: impl Into<String>) -> Self {
        Self { status: 200, kind: "text/html; charset=utf-8", body: body.into().into_bytes() }
    }

    pub fn json(status: u16, body: impl Into<String>) -> Self {
        Self { status, kind: "application/json", body: body.into().into_bytes() }
    }
}

/// Answers requests on `address` for ever.
pub fn serve(address: &str, handler: impl Fn(Request) -> Response + Send + Sync + 'static) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    end_on_sigterm();
    println!("listening on http://{}", listener.local_addr()?);
    let handler = Arc::new(handler);
    for stream in listener.incoming() {
        let handler = Arc::clone(&handler);
        let Ok(stream) = stream else { continue };
        std::thread::spawn(move || {
            if let Err(error) = converse(stream, &*handler) {
                eprintln!("connection: {error}");
            }
        });
    }
    Ok(())
}

/// Process 1 of a container has to ask for its end: the kernel shields it from signals without a handler.
pub fn end_on_sigterm() {
    const SIGTERM: i32 = 15;
    unsafe extern "C" {
        fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
        fn _exit(code: i32) -> !;
    }
    extern "C" fn end(_: i32) {
        // SAFETY: _exit may be called from a signal handler.
        unsafe { _exit(0) }
    }
    // SAFETY: the handler only calls what a handler may call.
    unsafe { signal(SIGTERM, end) };
}

fn converse(stream: TcpStream, handler: &dyn Fn(Request) -> Response) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?.to_string();
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader, &peer)? {
        let keep = request.header("connection").is_none_or(|c| !c.eq_ignore_ascii_case("close"));
        let head_only = request.method == "HEAD";
        let response = handler(request);
        let connection = if keep { "keep-alive" } else { "close" };
        let mut out = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            response.status,
            reason(response.status),
            response.kind,
            response.body.len()
        )
        .into_bytes();
        if !head_only {
            out.extend(&response.body);
        }
        writer.write_all(&out)?;
        if !keep {
            break;
        }
    }
    Ok(())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        302 => "Found",
        400 => "Bad Request",
        404 => "Not Found",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

/// The next request; `None` when the other side is done.
fn read_request(reader: &mut BufReader<TcpStream>, peer: &str) -> io::Result<Option<Request>> {
    let Some((first, headers)) = read_head(reader)? else { return Ok(None) };
    let mut parts = first.split(' ');
    let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or("/"));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.map(|(name, value)| (decode(name), decode(value))).collect(),
        headers,
        body: Vec::new(),
        peer: peer.to_owned(),
    };
    let length = request.header("content-length").and_then(|l| l.parse::<usize>().ok()).unwrap_or(0);
    if length > MAX_BODY {
        return Err(io::Error::other("the body is too large"));
    }
    request.body = vec![0; length];
    reader.read_exact(&mut request.body)?;
    Ok(Some(request))
}

type Head = (String, Vec<(String, String)>);

fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut limited = reader.take(MAX_HEAD);
    let mut line = String::new();
    if limited.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let first = line.trim_end().to_owned();
    let mut headers = Vec::new();
    loop {
        line.clear();
        if limited.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
            None => return Ok(Some((first, headers))),
        }
    }
}

/// Undoes percent encoding.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Text as it may stand in HTML or in a JSON string.
pub fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\\' => out.push_str("&#92;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Sends one request to `host:port` and returns the status and the body.
pub fn fetch(
    method: &str,
    address: &str,
    path: &str,
    body: &[u8],
    timeout: Duration,
) -> io::Result<(u16, Vec<u8>)> {
    let stream = connect(address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    let mut writer = stream.try_clone()?;
    let length = body.len();
    write!(
        writer,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    writer.write_all(body)?;
    let mut reader = BufReader::new(stream);
    let (first, headers) = read_head(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = first.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no HTTP: {first}")))?;
    let length = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, value)| value.parse::<u64>().ok()).unwrap_or(MAX_BODY as u64);
    let mut body = Vec::new();
    reader.take(length.min(MAX_BODY as u64)).read_to_end(&mut body)?;
    Ok((status, body))
}

/// Connects to the first address of `host:port` that answers.
pub fn connect(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    use std::net::ToSocketAddrs;
    let mut last = io::Error::other(format!("{address} has no address"));
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The name of this machine, which in a pod is the pod's.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
