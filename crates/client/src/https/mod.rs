//! The API over the network: HTTP/2 where the server speaks it, one pooled connection for everything.
//!
//! [`HttpsTransport`] is a [`Transport`](crate::Transport); what is no verb on an object (tables, logs, discovery,
//! upgraded connections) goes through its own methods.

mod config;
mod dial;
mod metrics;
mod request;
mod transport;
mod watch;

pub use config::{Basic, HttpsConfig, Identity, REQUEST_TIMEOUT, Token, unverified};
pub use dial::Io;
pub use metrics::register_metrics;
pub use request::{ByteStream, MAX_BODY, Reply, Request, UNREACHABLE};
pub use transport::query;
pub use watch::{FrameStream, MAX_FRAME, WatchFrame};

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use gantry_base::error::Context;
use gantry_base::{Class, Result, Tasks};
use http::Uri;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioIo, TokioTimer};

use dial::Dialer;

type Dial = std::pin::Pin<Box<dyn Future<Output = std::io::Result<TokioIo<Io>>> + Send>>;

/// Hands each connection of the pool to a dialer.
#[derive(Clone)]
struct Connector(Dialer);

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Io>;
    type Error = std::io::Error;
    type Future = Dial;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Dial {
        Box::pin(self.0.clone().dial_pooled())
    }
}

/// Runs the pool's connections in our group of tasks.
#[derive(Clone)]
struct Executor(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        self.0.spawn("https connection", future);
    }
}

struct Inner {
    config: Arc<HttpsConfig>,
    /// The URL without a slash at its end.
    base: String,
    client: Client<Connector, Full<Bytes>>,
    /// Connections of their own, HTTP/1.1, to be upgraded.
    upgrades: Dialer,
}

/// Requests to an API server over HTTPS on behalf of one user. Cheap to clone.
#[derive(Clone)]
pub struct HttpsTransport {
    inner: Arc<ArcSwap<Inner>>,
    tasks: Tasks,
}

impl HttpsTransport {
    /// Requests as `config` says; connections are made when they are needed and live in `tasks`.
    ///
    /// # Errors
    /// The URL, a certificate or a key cannot be read.
    pub fn new(config: HttpsConfig, tasks: &Tasks) -> Result<Self> {
        metrics::register_metrics();
        let inner = Arc::new(ArcSwap::from_pointee(Inner::new(config, tasks)?));
        Ok(Self { inner, tasks: tasks.clone() })
    }

    /// From now on as this `config` says, on new connections. What is under way goes on as it began.
    ///
    /// # Errors
    /// As of [`HttpsTransport::new`]; all stays as it is.
    pub fn use_config(&self, config: HttpsConfig) -> Result<()> {
        self.inner.store(Arc::new(Inner::new(config, &self.tasks)?));
        Ok(())
    }

    fn now(&self) -> Arc<Inner> {
        self.inner.load_full()
    }

    /// What it acts by.
    pub fn config(&self) -> Arc<HttpsConfig> {
        Arc::clone(&self.inner.load().config)
    }

    /// The group in which its connections live.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }
}

impl Inner {
    fn new(config: HttpsConfig, tasks: &Tasks) -> Result<Self> {
        let base = config.server.trim_end_matches('/').to_owned();
        let server: Uri = base.parse().context(Class::Invalid, format!("read the server URL {base:?}"))?;
        let name = config.tls_server_name.as_deref();
        let pooled = Dialer::new(&server, config.tls(&["h2", "http/1.1"])?, name)?;
        let upgrades = Dialer::new(&server, config.tls(&["http/1.1"])?, name)?;
        let client = Client::builder(Executor(tasks.clone()))
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(4)
            .http2_keep_alive_interval(std::time::Duration::from_secs(15))
            .http2_keep_alive_timeout(std::time::Duration::from_secs(15))
            .http2_max_frame_size(256 << 10)
            .http2_initial_stream_window_size(4 << 20)
            .http2_initial_connection_window_size(8 << 20)
            .build(Connector(pooled));
        Ok(Self { config: Arc::new(config), base, client, upgrades })
    }

    /// Whom it asks: host and port.
    fn host(&self) -> &str {
        let rest = self.base.split_once("://").map_or(self.base.as_str(), |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }
}
