//! Connections to one place, for hyper's pool.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;

use super::Place;
use crate::reach::{Connection, DialError, Reach, Target, Tls, join};

/// Makes connections to one place.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) place: Place,
    pub(super) reach: Reach,
    /// The URL's host and port.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<Tls>,
}

impl Dialer {
    pub(super) async fn dial(&self) -> Result<Connection, DialError> {
        let target = match &self.place {
            Place::Url(_) => Target::outside(join(&self.host, self.port)),
            Place::Service { namespace, name, port, .. } => {
                self.reach.service(namespace, name, *port).await?
            }
        };
        self.reach.dial(&target, self.tls.as_ref()).await
    }
}

type Dialing = Pin<Box<dyn Future<Output = Result<TokioIo<Connection>, DialError>> + Send>>;

impl tower::Service<http::Uri> for Dialer {
    type Response = TokioIo<Connection>;
    type Error = DialError;
    type Future = Dialing;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Dialing {
        let dialer = self.clone();
        Box::pin(async move { dialer.dial().await.map(TokioIo::new) })
    }
}
