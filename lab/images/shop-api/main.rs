//! The shop's API: items and how many of each were ordered, kept in Redis.
//!
//! `DB_ADDRESS` (`db:6379`) and `DB_PASSWORD` say where and how, `PORT` (8080) where we listen, `ITEMS`
//! (`crane,rope`) what there is. `GET /items`, `POST /orders/<item>`, `GET /healthz` (this process) and
//! `GET /ready` (the database too). It speaks Redis' protocol itself.

#[path = "../common/http.rs"]
#[allow(dead_code, reason = "each program uses its own part")]
mod http;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http::{Request, Response, hostname};

const TIMEOUT: Duration = Duration::from_secs(3);

/// The longest reply that is read.
const MAX_REPLY: usize = 1024 * 1024;

fn main() -> io::Result<()> {
    let port = variable("PORT", "8080");
    http::serve(&format!("0.0.0.0:{port}"), answer)
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn items() -> Vec<String> {
    variable("ITEMS", "crane,rope").split(',').map(|item| item.trim().to_owned()).collect()
}

fn answer(request: Request) -> Response {
    let result = match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/healthz") => return Response::text(200, "ok"),
        ("GET", "/ready") => {
            Database::connect().and_then(|mut db| db.call(&["PING"])).map(|_| Response::text(200, "ok"))
        }
        ("GET", "/items") => list(),
        ("POST", path) => match path.strip_prefix("/orders/") {
            Some(item) if items().iter().any(|known| known == item) => order(item),
            _ => return Response::json(404, r#"{"error":"no such item"}"#),
        },
        _ => return Response::json(404, r#"{"error":"no such path"}"#),
    };
    result.unwrap_or_else(|error| {
        eprintln!("database: {error}");
        Response::json(
            503,
            format!(r#"{{"error":"the database does not answer: {}"}}"#, http::escape(&error.to_string())),
        )
    })
}

fn list() -> io::Result<Response> {
    let mut db = Database::connect()?;
    let mut rows = Vec::new();
    for item in items() {
        let ordered = db.call(&["GET", &format!("orders:{item}")])?.unwrap_or_else(|| "0".to_owned());
        rows.push(format!(r#"{{"item":"{item}","ordered":{ordered}}}"#));
    }
    Ok(Response::json(200, format!(r#"{{"items":[{}],"servedBy":"{}"}}"#, rows.join(","), hostname())))
}

fn order(item: &str) -> io::Result<Response> {
    let ordered = Database::connect()?.call(&["INCR", &format!("orders:{item}")])?.unwrap_or_default();
    println!("ordered: {item} ({ordered})");
    Ok(Response::json(201, format!(r#"{{"item":"{item}","ordered":{ordered},"servedBy":"{}"}}"#, hostname())))
}

/// A connection to Redis.
struct Database {
    reader: BufReader<TcpStream>,
}

impl Database {
    fn connect() -> io::Result<Self> {
        let stream = http::connect(&variable("DB_ADDRESS", "db:6379"), TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut database = Self { reader: BufReader::new(stream) };
        let password = variable("DB_PASSWORD", "");
        if !password.is_empty() {
            database.call(&["AUTH", &password])?;
        }
        Ok(database)
    }

    /// Sends a command and reads a reply that is a string, a number, or nothing.
    fn call(&mut self, words: &[&str]) -> io::Result<Option<String>> {
        let mut out = format!("*{}\r\n", words.len());
        for word in words {
            out.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.reader.get_mut().write_all(out.as_bytes())?;
        let mut line = String::new();
        self.reader.by_ref().take(MAX_REPLY as u64).read_line(&mut line)?;
        let line = line.trim_end();
        let Some((kind, rest)) = line.split_at_checked(1) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        match kind {
            "+" | ":" => Ok(Some(rest.to_owned())),
            "$" => self.bulk(rest.parse().map_err(io::Error::other)?),
            "-" => Err(io::Error::other(rest.to_owned())),
            _ => Err(io::Error::other(format!("a reply that nobody asked for: {line}"))),
        }
    }

    fn bulk(&mut self, length: i64) -> io::Result<Option<String>> {
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        if length > MAX_REPLY {
            return Err(io::Error::other("the reply is too long"));
        }
        let mut bytes = vec![0; length + 2];
        self.reader.read_exact(&mut bytes)?;
        bytes.truncate(length);
        String::from_utf8(bytes).map(Some).map_err(io::Error::other)
    }
}
