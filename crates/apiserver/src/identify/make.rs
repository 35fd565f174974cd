//! Puts together who is believed: from flags and files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use gantry_base::{Clock, Error, Result, Tasks};

use super::bearer::{ForOwn, TokenAuthenticator, Tokens, Verdict};
use super::bootstrap_tokens::BootstrapTokens;
use super::config::Configuration;
use super::oidc::Oidc;
use super::request_header::RequestHeaders;
use super::token_file::TokenFile;
use super::webhook::Webhook;
use super::{
    Anonymous, Authenticator, Authorities, Certificates, Chain, Discovery, Issuer, ServiceAccountTokens,
    TokenKey,
};
use crate::callout::{Callout, Config};
use crate::limits::RELOAD_INTERVAL;
use crate::lookup::Lookup;
use crate::pki::Pki;

/// What flags say of those who ask. The names are upstream's.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--service-account-issuer`: the first signs, all are believed; none: the default.
    pub issuers: Vec<String>,
    /// `--service-account-jwks-uri`; none: that of [`Options::server_url`].
    pub jwks_uri: Option<String>,
    /// Where clients reach this server: `https://192.0.2.1:6443`.
    pub server_url: String,
    /// `--api-audiences`; none: the issuers.
    pub api_audiences: Vec<String>,
    /// `--service-account-key-file`: further public keys that are believed.
    pub key_files: Vec<PathBuf>,
    /// `--service-account-max-token-expiration`
    pub max_token_life: Option<Duration>,
    /// `--anonymous-auth`
    pub anonymous: Option<bool>,
    /// `--client-ca-file`: besides our own authority.
    pub client_ca_file: Option<PathBuf>,
    /// `--authentication-config`
    pub config_file: Option<PathBuf>,
    /// `--token-auth-file`
    pub token_file: Option<PathBuf>,
    /// `--authentication-token-webhook-config-file`
    pub webhook_file: Option<PathBuf>,
    /// `--authentication-token-webhook-version`; none: `v1`.
    pub webhook_version: Option<String>,
    /// `--authentication-token-webhook-cache-ttl`; none: two minutes.
    pub webhook_life: Option<Duration>,
    /// Front proxies; none: our own aggregation layer's certificate only.
    pub request_header: Option<RequestHeader>,
}

/// What flags say of front proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// `--requestheader-client-ca-file`; none: our own front proxy's authority.
    pub ca_file: Option<PathBuf>,
    /// `--requestheader-allowed-names`; empty: any.
    pub allowed_names: Vec<String>,
    /// `--requestheader-username-headers`
    pub username_headers: Vec<String>,
    /// `--requestheader-uid-headers`
    pub uid_headers: Vec<String>,
    /// `--requestheader-group-headers`
    pub group_headers: Vec<String>,
    /// `--requestheader-extra-headers-prefix`
    pub extra_header_prefixes: Vec<String>,
}

impl RequestHeader {
    /// What our own front proxy does.
    pub fn usual() -> Self {
        let one = |text: &str| vec![text.to_owned()];
        Self {
            ca_file: None,
            allowed_names: one("front-proxy-client"),
            username_headers: one("X-Remote-User"),
            uid_headers: one("X-Remote-Uid"),
            group_headers: one("X-Remote-Group"),
            extra_header_prefixes: one("X-Remote-Extra-"),
        }
    }
}

/// Who is believed, put together.
pub struct Made {
    /// Asks all.
    pub authenticator: Arc<dyn Authenticator>,
    /// Asks those who know tokens: for TokenReviews.
    pub tokens: Arc<Tokens>,
    /// Issues tokens of service accounts.
    pub issuer: Arc<Issuer>,
    /// How others verify them.
    pub discovery: Option<Discovery>,
    /// Who vouches for clients.
    pub clients: Arc<Authorities>,
    /// Who vouches for front proxies.
    pub proxies: Arc<Authorities>,
}

/// What it is made of.
pub(crate) struct Deps<'a> {
    pub(crate) pki: &'a Pki,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: &'a Tasks,
    pub(crate) lookup: Lookup,
    pub(crate) callout: &'a Callout,
    /// The issuer, if the options name none.
    pub(crate) issuer: &'a str,
}

/// Reads the files that `options` name.
///
/// # Errors
/// A file that cannot be read or is not valid; names it.
pub(crate) fn make(options: &Options, deps: &Deps<'_>) -> Result<Made> {
    let clock = || Arc::clone(&deps.clock);
    let issuers = match options.issuers.as_slice() {
        [] => vec![deps.issuer.to_owned()],
        issuers => issuers.to_vec(),
    };
    let own = match options.api_audiences.as_slice() {
        [] => issuers.clone(),
        audiences => audiences.to_vec(),
    };
    let key = token_key(options, deps.pki)?;
    let discovery = {
        let here = format!("{}/openid/v1/jwks", options.server_url.trim_end_matches('/'));
        Discovery::new(&issuers[0], options.jwks_uri.as_ref().unwrap_or(&here), &key)
    };
    let accounts =
        ServiceAccountTokens::new(key.clone(), issuers.clone(), own.clone(), clock(), deps.lookup.clone());
    super::tracking::start(deps.lookup.clone(), clock(), deps.tasks);
    let configuration = match &options.config_file {
        Some(path) => Configuration::read(path, &issuers)?,
        None => Configuration::default(),
    };
    let anonymous = anonymous(options, &configuration)?;
    let mut links: Vec<Arc<dyn TokenAuthenticator>> = Vec::new();
    if let Some(path) = &options.token_file {
        links.push(Arc::new(ForOwn { inner: TokenFile::read(path)?, own: own.clone() }));
    }
    links.push(Arc::new(accounts));
    let bootstrap = BootstrapTokens { lookup: deps.lookup.clone(), clock: clock() };
    links.push(Arc::new(ForOwn { inner: bootstrap, own: own.clone() }));
    if let Some(path) = &options.config_file {
        let oidc = Issuers::start(path.clone(), configuration, issuers.clone(), own.clone(), deps)?;
        links.push(oidc);
    }
    if let Some(path) = &options.webhook_file {
        links.push(Arc::new(webhook(path, options, own.clone(), deps)?));
    }
    let tokens = Arc::new(Tokens::new(links, own.clone()));
    let issuer =
        Issuer::new(key, &issuers[0], own, clock(), deps.lookup.clone()).at_most(options.max_token_life)?;
    let (clients, proxies) = authorities(options, deps)?;
    let proxy = RequestHeaders {
        authorities: Arc::clone(&proxies),
        options: options.request_header.clone().unwrap_or_else(RequestHeader::usual),
    };
    let certificates = Certificates::new(Arc::clone(&clients), clock());
    let chain: Vec<Arc<dyn Authenticator>> =
        vec![Arc::new(proxy), Arc::new(certificates), Arc::clone(&tokens) as _];
    Ok(Made {
        authenticator: Arc::new(Chain::new(chain, anonymous)),
        tokens,
        issuer: Arc::new(issuer),
        discovery,
        clients,
        proxies,
    })
}

fn token_key(options: &Options, pki: &Pki) -> Result<TokenKey> {
    let mut pems = Vec::new();
    for path in &options.key_files {
        let doing = || format!("--service-account-key-file {}", path.display());
        pems.push(std::fs::read_to_string(path).map_err(|e| Error::from(e).while_doing(doing()))?);
    }
    TokenKey::from_pkcs8(&pki.token_key)?.with_others(&pems)
}

fn anonymous(options: &Options, configuration: &Configuration) -> Result<Anonymous> {
    match (options.anonymous, configuration.anonymous()) {
        (Some(_), Some(_)) => Err(Error::invalid(
            "--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file",
        )),
        (None, Some(anonymous)) => Ok(anonymous),
        (enabled, None) => Ok(Anonymous { enabled: enabled.unwrap_or(true), paths: Vec::new() }),
    }
}

/// Those who vouch for clients and for proxies. Their files are read anew from time to time.
fn authorities(options: &Options, deps: &Deps<'_>) -> Result<(Arc<Authorities>, Arc<Authorities>)> {
    let clients = deps.pki.cluster();
    let clients =
        Authorities::new(clients.certificate_pem(), options.client_ca_file.clone(), Arc::clone(&deps.clock))
            .map_err(|e| e.while_doing("--client-ca-file"))?;
    let proxy_file = options.request_header.as_ref().and_then(|r| r.ca_file.clone());
    let own = deps.pki.front_proxy();
    let own = if proxy_file.is_some() { "" } else { own.certificate_pem() };
    let proxies = Authorities::new(own, proxy_file, Arc::clone(&deps.clock))
        .map_err(|e| e.while_doing("--requestheader-client-ca-file"))?;
    let (clients, proxies) = (Arc::new(clients), Arc::new(proxies));
    let both = [Arc::clone(&clients), Arc::clone(&proxies)];
    deps.tasks.spawn("client authorities", async move {
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            for authorities in &both {
                if let Err(error) = authorities.reload() {
                    tracing::error!(%error, "the authorities of clients cannot be read anew");
                }
            }
        }
    });
    Ok((clients, proxies))
}

fn webhook(path: &std::path::Path, options: &Options, own: Vec<String>, deps: &Deps<'_>) -> Result<Webhook> {
    let flag = "--authentication-token-webhook";
    let version = options.webhook_version.as_deref().unwrap_or("v1");
    if !["v1", "v1beta1"].contains(&version) {
        return Err(Error::invalid(format!("{flag}-version {version:?}: it is either v1 or v1beta1")));
    }
    let config = Config::from_kubeconfig(path).map_err(|e| e.while_doing(format!("{flag}-config-file")))?;
    let caller = deps.callout.caller(&config).map_err(|e| e.while_doing(format!("{flag}-config-file")))?;
    let life = options.webhook_life.unwrap_or(Duration::from_secs(120));
    Ok(Webhook::new(caller, version, own, life, Arc::clone(&deps.clock)))
}

/// The issuers of the configuration file, which may change.
struct Issuers {
    current: ArcSwap<Vec<ForOwn<Oidc>>>,
    own: Vec<String>,
    callout: Callout,
    clock: Arc<dyn Clock>,
}

impl Issuers {
    fn start(
        path: PathBuf,
        configuration: Configuration,
        issuers: Vec<String>,
        own: Vec<String>,
        deps: &Deps<'_>,
    ) -> Result<Arc<Self>> {
        let this = Arc::new(Self {
            current: ArcSwap::default(),
            own,
            callout: deps.callout.clone(),
            clock: Arc::clone(&deps.clock),
        });
        let mut running = deps.tasks.child();
        this.current.store(Arc::new(this.make(&configuration, &running)?));
        let (following, tasks) = (Arc::clone(&this), deps.tasks.clone());
        deps.tasks.spawn("authentication configuration", async move {
            let mut last = configuration;
            loop {
                tokio::time::sleep(RELOAD_INTERVAL).await;
                let next = tasks.child();
                let read = Configuration::read(&path, &issuers).and_then(|configuration| {
                    if configuration == last {
                        return Ok(None);
                    }
                    Ok(Some((following.make(&configuration, &next)?, configuration)))
                });
                match read {
                    Ok(None) => {}
                    Ok(Some((made, configuration))) => {
                        following.current.store(Arc::new(made));
                        running.shut_down(Duration::ZERO).await;
                        (running, last) = (next, configuration);
                        tracing::info!(path = %path.display(), "the authentication configuration was reloaded");
                    }
                    Err(error) => tracing::error!(%error, "the authentication configuration stays as it is"),
                }
            }
        });
        Ok(this)
    }

    fn make(&self, configuration: &Configuration, tasks: &Tasks) -> Result<Vec<ForOwn<Oidc>>> {
        let start = |jwt: &super::config::Jwt| {
            let inner = Oidc::start(jwt.clone(), &self.callout, Arc::clone(&self.clock), tasks)?;
            Ok(ForOwn { inner, own: self.own.clone() })
        };
        configuration.jwt.iter().map(start).collect()
    }
}

#[async_trait]
impl TokenAuthenticator for Issuers {
    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Verdict>, String> {
        for issuer in self.current.load_full().iter() {
            if let Some(verdict) = issuer.verify(token, audiences).await? {
                return Ok(Some(verdict));
            }
        }
        Ok(None)
    }
}
