//! A small HTTP/1.1 server on loopback whose connections can be upgraded, and helpers for clients of it.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use gantry_base::Tasks;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// What the handlers of the tests return.
pub type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// A response with a body that is known.
pub fn full(response: Response<Full<Bytes>>) -> Answer {
    response.map(|body| body.map_err(|never| match never {}).boxed())
}

/// Serves HTTP/1.1 with upgrades on a free port of loopback until `tasks` is shut down.
pub async fn serve<H, F>(tasks: &Tasks, handler: H) -> SocketAddr
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has free ports");
    let address = listener.local_addr().expect("a bound socket has an address");
    let group = tasks.clone();
    tasks.spawn("test server", async move {
        while let Ok((io, _)) = listener.accept().await {
            let handler = handler.clone();
            let service = service_fn(move |request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            group.spawn("test connection", async move {
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service);
                if let Err(error) = connection.with_upgrades().await {
                    eprintln!("a test connection ended with: {error}");
                }
            });
        }
    });
    address
}

/// Connects to a server of [`serve`].
pub async fn dial(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("the test server listens")
}

/// A request for `path` at `address`.
pub fn request(method: &str, address: SocketAddr, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"))
        .body(())
        .expect("a valid request")
}

/// Ends all that a test started.
pub async fn end(tasks: Tasks) {
    assert!(tasks.shut_down(Duration::from_secs(30)).await, "all tasks end when told to");
}

/// Bytes that differ from place to place, so that a mix-up shows.
pub fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8).wrapping_add(seed)).collect()
}
