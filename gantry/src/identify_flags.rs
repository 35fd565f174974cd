//! The flags that say who is believed and who decides what they may do; their names are upstream's.

use std::path::PathBuf;
use std::time::Duration;

use gantry_apiserver::identify::{Options, RequestHeader};
use serde::{Deserialize, Serialize};

/// Those that are lists.
pub const LISTS: [&str; 9] = [
    "service-account-issuer",
    "api-audiences",
    "service-account-key-file",
    "requestheader-allowed-names",
    "requestheader-username-headers",
    "requestheader-uid-headers",
    "requestheader-group-headers",
    "requestheader-extra-headers-prefix",
    "authorization-mode",
];

/// One source of them; what it does not say comes from the next.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct IdentifyFlags {
    /// Issuers of service account tokens: the first signs, all are believed.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub service_account_issuer: Option<Vec<String>>,
    /// Where the issuer's discovery document says that its keys are [default: this server].
    #[arg(long, value_name = "URL")]
    pub service_account_jwks_uri: Option<String>,
    /// What tokens must be meant for [default: the issuers].
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub api_audiences: Option<Vec<String>>,
    /// Further public keys that service account tokens may be signed by, PEM.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    pub service_account_key_file: Option<Vec<PathBuf>>,
    /// The longest life of a service account token, for example `24h`.
    #[arg(long, value_name = "DURATION")]
    pub service_account_max_token_expiration: Option<Span>,
    /// Whether requests without credentials are those of system:anonymous [default: true].
    #[arg(long, value_name = "BOOL")]
    pub anonymous_auth: Option<bool>,
    /// Further authorities of client certificates, PEM.
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// The certificate that the server shows, PEM, in place of our own; read anew when it changes.
    #[arg(long, value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_private_key_file: Option<PathBuf>,
    /// An AuthenticationConfiguration (apiserver.config.k8s.io): OIDC issuers, anonymous requests.
    #[arg(long, value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,
    /// Tokens: lines of `token,user,uid,"group1,group2"`.
    #[arg(long, value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,
    /// A kubeconfig of a server that knows tokens.
    #[arg(long, value_name = "FILE")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// The version of its API: v1 or v1beta1 [default: v1].
    #[arg(long, value_name = "VERSION")]
    pub authentication_token_webhook_version: Option<String>,
    /// How long its answers hold [default: 2m].
    #[arg(long, value_name = "DURATION")]
    pub authentication_token_webhook_cache_ttl: Option<Span>,
    /// The authorities of front proxies, PEM [default: our own].
    #[arg(long, value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// The names in the certificates of front proxies; empty for any.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub requestheader_allowed_names: Option<Vec<String>>,
    /// Headers with the user's name.
    #[arg(long, value_name = "HEADER", value_delimiter = ',')]
    pub requestheader_username_headers: Option<Vec<String>>,
    /// Headers with the user's UID.
    #[arg(long, value_name = "HEADER", value_delimiter = ',')]
    pub requestheader_uid_headers: Option<Vec<String>>,
    /// Headers with the user's groups.
    #[arg(long, value_name = "HEADER", value_delimiter = ',')]
    pub requestheader_group_headers: Option<Vec<String>>,
    /// Prefixes of headers with more about the user.
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    pub requestheader_extra_headers_prefix: Option<Vec<String>>,
    /// Who decides what users may do: ABAC, AlwaysAllow, AlwaysDeny, Node, RBAC, Webhook [default: Node,RBAC].
    #[arg(long, value_name = "MODE", value_delimiter = ',')]
    pub authorization_mode: Option<Vec<String>>,
    /// An AuthorizationConfiguration (apiserver.config.k8s.io) that says it in place of the other flags.
    #[arg(long, value_name = "FILE")]
    pub authorization_config: Option<PathBuf>,
    /// Policies for the mode ABAC, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub authorization_policy_file: Option<PathBuf>,
    /// A kubeconfig of a server that decides.
    #[arg(long, value_name = "FILE")]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// The version of its API: v1 or v1beta1 [default: v1].
    #[arg(long, value_name = "VERSION")]
    pub authorization_webhook_version: Option<String>,
    /// How long its yes holds [default: 5m].
    #[arg(long, value_name = "DURATION")]
    pub authorization_webhook_cache_authorized_ttl: Option<Span>,
    /// How long its no holds [default: 30s].
    #[arg(long, value_name = "DURATION")]
    pub authorization_webhook_cache_unauthorized_ttl: Option<Span>,
}

/// A duration as Go writes it: `90s`, `2m`, `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let read = gantry_apiserver::authorize::parse_duration(text);
        read.map(Self).ok_or_else(|| format!("{text:?}: write it like 90s, 2m or 1h30m"))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        format!("{}ns", span.0.as_nanos())
    }
}

impl IdentifyFlags {
    /// Each flag from the first layer that says something.
    pub fn merged<'a>(layers: impl Iterator<Item = &'a Self>) -> Self {
        first_said!(
            layers,
            service_account_issuer,
            service_account_jwks_uri,
            api_audiences,
            service_account_key_file,
            service_account_max_token_expiration,
            anonymous_auth,
            client_ca_file,
            tls_cert_file,
            tls_private_key_file,
            authentication_config,
            token_auth_file,
            authentication_token_webhook_config_file,
            authentication_token_webhook_version,
            authentication_token_webhook_cache_ttl,
            requestheader_client_ca_file,
            requestheader_allowed_names,
            requestheader_username_headers,
            requestheader_uid_headers,
            requestheader_group_headers,
            requestheader_extra_headers_prefix,
            authorization_mode,
            authorization_config,
            authorization_policy_file,
            authorization_webhook_config_file,
            authorization_webhook_version,
            authorization_webhook_cache_authorized_ttl,
            authorization_webhook_cache_unauthorized_ttl
        )
    }

    /// What the API server wants to know; `server_url` is where clients reach it.
    pub fn options(&self, server_url: &str) -> Options {
        let life = |span: Option<Span>| span.map(|s| s.0);
        Options {
            issuers: self.service_account_issuer.clone().unwrap_or_default(),
            jwks_uri: self.service_account_jwks_uri.clone(),
            server_url: server_url.to_owned(),
            api_audiences: self.api_audiences.clone().unwrap_or_default(),
            key_files: self.service_account_key_file.clone().unwrap_or_default(),
            max_token_life: life(self.service_account_max_token_expiration),
            anonymous: self.anonymous_auth,
            client_ca_file: self.client_ca_file.clone(),
            config_file: self.authentication_config.clone(),
            token_file: self.token_auth_file.clone(),
            webhook_file: self.authentication_token_webhook_config_file.clone(),
            webhook_version: self.authentication_token_webhook_version.clone(),
            webhook_life: life(self.authentication_token_webhook_cache_ttl),
            request_header: self.request_header(),
        }
    }

    /// Who decides what users may do.
    pub fn authorize(&self) -> gantry_apiserver::authorize::Options {
        let life = |span: Option<Span>| span.map(|s| s.0);
        gantry_apiserver::authorize::Options {
            modes: self.authorization_mode.clone().unwrap_or_default(),
            config_file: self.authorization_config.clone(),
            policy_file: self.authorization_policy_file.clone(),
            webhook_file: self.authorization_webhook_config_file.clone(),
            webhook_version: self.authorization_webhook_version.clone(),
            authorized: life(self.authorization_webhook_cache_authorized_ttl),
            unauthorized: life(self.authorization_webhook_cache_unauthorized_ttl),
        }
    }

    /// Front proxies of the user's, if there are any.
    pub fn request_header(&self) -> Option<RequestHeader> {
        let ca_file = self.requestheader_client_ca_file.clone()?;
        let list = |flag: &Option<Vec<String>>, usual: Vec<String>| flag.clone().unwrap_or(usual);
        let usual = RequestHeader::usual();
        Some(RequestHeader {
            ca_file: Some(ca_file),
            allowed_names: list(&self.requestheader_allowed_names, Vec::new()),
            username_headers: list(&self.requestheader_username_headers, usual.username_headers),
            uid_headers: list(&self.requestheader_uid_headers, usual.uid_headers),
            group_headers: list(&self.requestheader_group_headers, usual.group_headers),
            extra_header_prefixes: list(
                &self.requestheader_extra_headers_prefix,
                usual.extra_header_prefixes,
            ),
        })
    }
}
