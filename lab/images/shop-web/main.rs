//! The shop's front end: a page, and `/api/…` passed on to the API.
//!
//! `API_ADDRESS` (`api:80`) says where the API is, `PORT` (8080) where we listen, `SHOP_TITLE` what it is called.

#[path = "../common/http.rs"]
#[allow(dead_code, reason = "each program uses its own part")]
mod http;

use std::io;
use std::time::Duration;

use http::{Request, Response, escape, hostname};

const TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> io::Result<()> {
    let port = variable("PORT", "8080");
    http::serve(&format!("0.0.0.0:{port}"), answer)
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn answer(request: Request) -> Response {
    match (request.method.as_str(), request.path.as_str()) {
        (_, "/healthz") => Response::text(200, "ok"),
        ("GET", "/") => page(),
        (_, path) if path.starts_with("/api/") => pass_on(&request),
        _ => Response::text(404, "no such page"),
    }
}

fn api(method: &str, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    http::fetch(method, &variable("API_ADDRESS", "api:80"), path, body, TIMEOUT)
}

fn pass_on(request: &Request) -> Response {
    let path = request.path.strip_prefix("/api").unwrap_or("/");
    match api(&request.method, path, &request.body) {
        Ok((status, body)) => Response { status, kind: "application/json", body },
        Err(error) => Response::text(502, format!("the API does not answer: {error}")),
    }
}

fn page() -> Response {
    let state = match api("GET", "/items", b"") {
        Ok((200, body)) => String::from_utf8_lossy(&body).into_owned(),
        Ok((status, body)) => format!("the API answers {status}: {}", String::from_utf8_lossy(&body)),
        Err(error) => format!("the API does not answer: {error}"),
    };
    let title = escape(&variable("SHOP_TITLE", "The Gantry shop"));
    Response::html(format!(
        "<!doctype html><title>{title}</title><h1>{title}</h1>\
         <p>This page came from <code>{web}</code>.</p>\
         <pre id=items>{state}</pre>\
         <button onclick=\"order('crane')\">Buy a crane</button> \
         <button onclick=\"order('rope')\">Buy a rope</button>\
         <script>async function order(item) {{ await fetch('/api/orders/' + item, {{method: 'POST'}}); \
         location.reload() }}</script>",
        web = escape(&hostname()),
        state = escape(&state),
    ))
}
