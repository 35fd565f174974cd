//! The server: what it is made of, how it starts.

use std::sync::Arc;

use gantry_base::Clock;
use gantry_client::Transport;
use gantry_kinds::AnyKind;
use gantry_store::Store;

use crate::admission::AdmissionPlugin;
use crate::authorize::Authorizer;
use crate::connect::Connector;
use crate::identify::Authenticator;
use crate::virtual_resource::{TokenIssuer, VirtualResource};

/// What every server is given.
pub struct Options {
    /// Where objects are kept.
    pub store: Arc<dyn Store>,
    /// The built-in kinds: `gantry_kinds::builtin()`.
    pub kinds: Vec<Arc<dyn AnyKind>>,
    /// Reads the time.
    pub clock: Arc<dyn Clock>,
}

/// The parts that decide, made by the closure given to [`ApiServer::start`].
pub struct Parts {
    /// Who is asking?
    pub authenticator: Arc<dyn Authenticator>,
    /// May they?
    pub authorizer: Arc<dyn Authorizer>,
    /// What changes or refuses writes, in order.
    pub admission: Vec<Arc<dyn AdmissionPlugin>>,
    /// Where `exec`, `log` and `proxy` go.
    pub connector: Arc<dyn Connector>,
    /// Issues service account tokens, if this server can.
    pub tokens: Option<Arc<dyn TokenIssuer>>,
    /// Reviews.
    pub virtuals: Vec<Arc<dyn VirtualResource>>,
}

/// Makes the [`Parts`]. It gets a transport that acts as the API server itself ([`crate::identify::User::apiserver`]);
/// requests on it wait until the server has started, so informers may be started on it at once but must not be
/// waited for inside the closure.
pub type MakeParts = Box<dyn FnOnce(Arc<dyn Transport>) -> Parts + Send>;
