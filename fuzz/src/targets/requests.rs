//! Requests: their lines, headers, tokens, and whole ones through the pipeline.

use std::sync::{Mutex, PoisonError};

use gantry_apiserver::server::ApiServer;
use gantry_apiserver::testing::{self, inputs};
use gantry_base::Tasks;
use http::{HeaderName, HeaderValue, Method, Uri};
use http_body_util::BodyExt;

use crate::input;

/// Requests that one server answers before the next one takes over, so that what they make does not pile up.
const REQUESTS: usize = 5_000;

struct Server {
    server: ApiServer,
    tasks: Tasks,
    left: usize,
}

/// A whole request as it stands in HTTP/1.1: a line, headers, an empty line, a body.
pub fn request(data: &[u8]) {
    static SERVER: Mutex<Option<Server>> = Mutex::new(None);
    let Some((method, uri, headers, body)) = read(data) else { return };
    let mut place = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    input::wait(async {
        if place.as_ref().is_none_or(|server| server.left == 0) {
            if let Some(old) = place.take() {
                old.tasks.shut_down(std::time::Duration::from_secs(5)).await;
            }
            let tasks = Tasks::new();
            let (server, _) = testing::in_memory(&tasks).await;
            *place = Some(Server { server, tasks, left: REQUESTS });
        }
        let Some(server) = place.as_mut() else { return };
        server.left -= 1;
        let pairs: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let response = testing::respond(&server.server, &method, &uri, &pairs, body.to_vec()).await;
        let status = response.status().as_u16();
        // Upstream answers 500 to patches and configurations that do not fit a type.
        assert!(status < 500 || status == 503 || method == "PATCH", "{status}");
        // A watch has no end: what is there at once is enough.
        let mut body = response.into_body();
        let read = async { while let Some(Ok(_)) = body.frame().await {} };
        tokio::select! {
            biased;
            () = read => {}
            () = tokio::task::yield_now() => {}
        }
    });
}

type Read<'a> = (String, String, Vec<(String, String)>, &'a [u8]);

fn read(data: &[u8]) -> Option<Read<'_>> {
    let end = data.windows(2).position(|w| w == b"\n\n");
    let (head, body) = end.map_or((data, &[][..]), |at| (&data[..at], &data[at + 2..]));
    let mut lines = std::str::from_utf8(head).ok()?.lines();
    let (method, uri) = lines.next()?.split_once(' ')?;
    Method::from_bytes(method.as_bytes()).ok()?;
    uri.parse::<Uri>().ok().filter(|uri| uri.path().starts_with('/'))?;
    let header = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        HeaderName::from_bytes(name.as_bytes()).ok()?;
        HeaderValue::from_str(value).ok()?;
        Some((name.to_owned(), value.to_owned()))
    };
    let headers = lines.filter_map(header).collect();
    Some((method.to_owned(), uri.to_owned(), headers, body))
}

/// Method, path, query and user agent of a request.
pub fn line(data: &[u8]) {
    let Some([line, agent]) = input::parts(data) else { return };
    let Some((method, url)) = line.split_once(' ') else { return };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let one = inputs::request_line(&method, path, query, agent);
    let two = inputs::request_line(&method, path, query, agent);
    assert_eq!(one, two);
}

/// What a client takes.
pub fn accept(data: &[u8]) {
    let Some([accept, query]) = input::parts(data) else { return };
    for (custom, watch) in [(false, false), (true, false), (false, true), (true, true)] {
        inputs::negotiated(accept, query, custom, watch);
    }
}

/// Tokens lead nowhere but into their collection, and those that are made are understood.
pub fn continue_token(data: &[u8]) {
    const PREFIX: &str = "/registry/pods/default/";
    let Some(text) = input::text(data) else { return };
    if let Ok((key, revision)) = inputs::continue_token(text, PREFIX) {
        let below = key.strip_prefix(PREFIX).expect("a token leads into its collection");
        assert!(!below.split('/').any(|part| matches!(part, "." | "..")), "{key}");
        assert_ne!(revision, 0);
    }
    if !text.is_empty()
        && !text.split('/').any(|part| matches!(part, "" | "." | ".."))
        && !text.contains('\0')
    {
        let key = format!("{PREFIX}{text}");
        let token = inputs::make_continue_token(PREFIX, &key, 7);
        assert_eq!(inputs::continue_token(&token, PREFIX).ok(), Some((key, 7)), "{token}");
    }
}

/// Pages of servers behind a proxy; the first byte says how they are compressed.
pub fn proxied_page(data: &[u8]) {
    let Some((first, page)) = data.split_first() else { return };
    match first % 4 {
        0 => drop(inputs::proxied_page("gzip", page)),
        1 => drop(inputs::proxied_page("deflate", page)),
        _ => {
            let once = inputs::proxied_page("", page).expect("nothing is unpacked").expect("a page");
            // Links grow by the proxy's prefix, the rest stays.
            assert!(once.len() <= page.len() * 64 + 64, "{} bytes became {}", page.len(), once.len());
        }
    }
}
