//! Puts together what a server is made of by default: who is asking, may they, what admission does, where `exec` and
//! `log` go, tokens and reviews.

use std::net::Ipv4Addr;
use std::sync::Arc;

use gantry_base::{Class, Clock, Error, Result, Tasks};
use gantry_client::{InformerSet, Transport};

use crate::admission::{AdmissionOptions, PluginDeps, plugins};
use crate::audit::{self, Auditor};
use crate::authorize::{self, Authorizer, NodeAuthorizer, Rbac};
use crate::callout::Callout;
use crate::connect::Kubelets;
use crate::fairness;
use crate::identify::{self, Authorities, TokenKey};
use crate::lookup::Lookup;
use crate::pki::{Pki, Renewed, Usage, Wanted, presenting_client_config};
use crate::reach::{KubeletClient, Reach};
use crate::reviews;
use crate::server::{FrontProxy, Parts};

/// The issuer of service account tokens, and the audience of those that name none.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// What the parts are made of.
pub struct Deps {
    /// The cluster's keys.
    pub pki: Arc<Pki>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Runs informers and proxied connections.
    pub tasks: Tasks,
    /// Issuer of service account tokens: [`ISSUER`].
    pub issuer: String,
    /// Addresses of services: network and prefix length, for instance `10.43.0.0/16`.
    pub service_cidr: (Ipv4Addr, u8),
    /// Which admission plugins run, and what they are told.
    pub admission: AdmissionOptions,
    /// Who is believed.
    pub identify: identify::Options,
    /// Who decides what they may do.
    pub authorize: authorize::Options,
    /// What is audited, and who is told.
    pub audit: audit::Options,
    /// How many requests are served at one time.
    pub in_flight: fairness::Options,
    /// The node whose agent runs in this process, so that its pods are on our network. Those of other nodes are reached
    /// through their kubelets.
    pub own_node: Option<String>,
}

/// The parts, and what else is known once they are made.
pub struct Made {
    /// For [`crate::server::ApiServer::start`].
    pub parts: Parts,
    /// Roles and bindings; `/readyz` may wait for [`Rbac::has_synced`].
    pub rbac: Arc<Rbac>,
    /// Verifies and signs tokens: for `/openid/v1/jwks` and for the tokens that controllers keep in secrets.
    pub token_key: TokenKey,
    /// Who vouches for clients.
    pub clients: Arc<Authorities>,
    /// Who vouches for front proxies.
    pub proxies: Arc<Authorities>,
}

/// Makes the parts of a server around its loopback transport. Informers start, nothing waits for them.
///
/// # Errors
/// A key cannot be used, or the service network is no network.
pub fn parts(deps: &Deps, transport: Arc<dyn Transport>) -> Result<Made> {
    let informers = InformerSet::new(Arc::clone(&transport), deps.tasks.clone());
    let lookup = Lookup::new(Arc::clone(&transport));
    let token_key = TokenKey::from_pkcs8(&deps.pki.token_key)?;
    let clock = || Arc::clone(&deps.clock);
    let kubelets = Arc::new(kubelet_client(deps, lookup.clone())?);
    let reach = Reach::through(Arc::clone(&kubelets), deps.own_node.clone(), Arc::clone(&transport));
    let callout = Callout::new(reach.clone(), deps.tasks.clone());
    let who = identify::make(
        &deps.identify,
        &identify::Deps {
            pki: &deps.pki,
            clock: clock(),
            tasks: &deps.tasks,
            lookup: lookup.clone(),
            callout: &callout,
            issuer: &deps.issuer,
        },
    )?;
    let rbac = Arc::new(Rbac::new(&informers));
    let node =
        Arc::new(NodeAuthorizer::new(&informers, Arc::clone(&transport), crate::bootstrap::node_rules()));
    let may = authorize::Deps {
        node,
        rbac: Arc::clone(&rbac),
        callout: &callout,
        clock: clock(),
        tasks: &deps.tasks,
    };
    let authorizer: Arc<dyn Authorizer> = authorize::make(&deps.authorize, &may)?;
    who.issuer.ask(Arc::clone(&authorizer));
    let admission = plugins(&PluginDeps {
        transport: Arc::clone(&transport),
        informers: Arc::clone(&informers),
        clock: clock(),
        tasks: deps.tasks.clone(),
        rbac: Arc::clone(&rbac),
        authorizer: Arc::clone(&authorizer),
        service_cidr: deps.service_cidr,
        callout: callout.clone(),
        options: deps.admission.clone(),
    })?;
    let auditor = Auditor::start(&deps.audit, transport, clock(), &deps.tasks)?;
    let parts = Parts {
        authenticator: who.authenticator,
        authorizer: Arc::clone(&authorizer),
        admission,
        connector: Arc::new(Kubelets::new(kubelets, reach, lookup, deps.tasks.clone())),
        callout: Some(callout),
        tokens: Some(who.issuer),
        front_proxy: Some(front_proxy(deps)?),
        virtuals: reviews::all(who.tokens, authorizer, clock()),
        discovery: who.discovery,
        auditor: Some(auditor),
        in_flight: deps.in_flight,
    };
    Ok(Made { parts, rbac, token_key, clients: who.clients, proxies: who.proxies })
}

/// Aggregated servers know us by a certificate of the front proxy's authority.
fn front_proxy(deps: &Deps) -> Result<FrontProxy> {
    let wanted = Wanted {
        common_name: "front-proxy-client".to_owned(),
        organization: String::new(),
        hosts: Vec::new(),
        usage: Usage::Client,
    };
    let identity = Renewed::of_front_proxy(&deps.pki, "front-proxy-client", wanted, deps.clock.now())?;
    identity.follow(Arc::clone(&deps.clock), &deps.tasks, |_| Ok(()));
    Ok(Arc::new(move || {
        let now = identity.identity();
        gantry_client::https::Identity {
            certificate_pem: now.certificate_pem.clone().into_bytes(),
            key_pem: now.key_pem.clone().into_bytes(),
        }
    }))
}

/// Kubelets know us by a certificate of the cluster's authority.
fn kubelet_client(deps: &Deps, lookup: Lookup) -> Result<KubeletClient> {
    let wanted = Wanted {
        common_name: "kube-apiserver-kubelet-client".to_owned(),
        organization: "system:masters".to_owned(),
        hosts: Vec::new(),
        usage: Usage::Client,
    };
    let identity = Renewed::issued(&deps.pki, "apiserver-kubelet-client", wanted, deps.clock.now())?;
    identity.follow(Arc::clone(&deps.clock), &deps.tasks, |_| Ok(()));
    let tls = presenting_client_config(identity, deps.pki.trusted())
        .map_err(|e| Error::new(Class::Bug, "TLS towards kubelets").because(e))?;
    Ok(KubeletClient::new(tls, lookup, Arc::clone(&deps.clock), deps.tasks.clone()))
}
