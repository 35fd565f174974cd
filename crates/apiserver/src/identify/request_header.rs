//! Front proxies: who connects with a certificate of the request-header authority says in headers who is asking.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::ApiError;
use gantry_api::status::Result;
use http::HeaderMap;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificates::common_name;
use super::make::RequestHeader;
use super::{Authenticator, Authorities, Credentials, User};
use crate::route::percent_decode;

/// Knows users by the word of a proxy.
pub(super) struct RequestHeaders {
    pub(super) authorities: Arc<Authorities>,
    pub(super) options: RequestHeader,
}

#[async_trait]
impl Authenticator for RequestHeaders {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<User>> {
        let Some((leaf, others)) = credentials.certificates.split_first() else { return Ok(None) };
        // Most clients are no proxies: the headers are looked at before the certificate is.
        let Some(user) = user(credentials.headers, &self.options) else { return Ok(None) };
        if !self.authorities.vouch(leaf, others) {
            return Err(ApiError::unauthorized());
        }
        let Ok((_, certificate)) = X509Certificate::from_der(leaf) else {
            return Err(ApiError::unauthorized());
        };
        let name = common_name(&certificate).unwrap_or("");
        let allowed = &self.options.allowed_names;
        if !allowed.is_empty() && !allowed.iter().any(|n| n == name) {
            tracing::debug!(name, "x509: subject with this cn is not in the allowed list");
            return Err(ApiError::unauthorized());
        }
        Ok(Some(user))
    }
}

fn user(headers: &HeaderMap, options: &RequestHeader) -> Option<User> {
    let values = |name: &String| {
        let values = headers.get_all(name.as_str()).iter().filter_map(|v| v.to_str().ok());
        values.filter(|v| !v.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let first = |names: &[String]| names.iter().find_map(|name| values(name).into_iter().next());
    let name = first(&options.username_headers)?;
    let groups: Vec<String> = options.group_headers.iter().flat_map(values).collect();
    let mut user = User::new(name, groups.iter().map(String::as_str));
    user.uid = first(&options.uid_headers).unwrap_or_default().into();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for prefix in options.extra_header_prefixes.iter().map(|p| p.to_lowercase()) {
        for (name, value) in headers {
            if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(&prefix), value.to_str()) {
                extra.entry(percent_decode(key).to_lowercase()).or_default().push(value.to_owned());
            }
        }
    }
    user.extra = Arc::new(extra);
    Some(user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{LEAF_LIFE, Leaf, Pki, Usage};
    use gantry_base::{Clock, ManualClock};
    use std::time::Duration;

    #[tokio::test]
    async fn a_proxy_is_believed_and_nobody_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Duration::from_secs(1_800_000_000)));
        let pki = Pki::load_or_create(dir.path(), clock.now()).expect("keys");
        let authorities = Authorities::new(pki.front_proxy().certificate_pem(), None, clock.clone());
        let headers = RequestHeaders {
            authorities: Arc::new(authorities.expect("an authority")),
            options: RequestHeader::usual(),
        };
        let chain = |authority: &crate::pki::Authority, name: &str| {
            let leaf = Leaf {
                common_name: name,
                organizations: &[],
                hosts: &[],
                usage: Usage::Client,
                life: LEAF_LIFE,
            };
            authority.issue(&leaf, clock.now()).expect("a certificate").chain
        };
        let mut said = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "jane"),
            ("x-remote-uid", "7"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-acme.io%2fproject", "p"),
        ] {
            said.append(name, value.parse().expect("a header"));
        }
        let ask = async |chain: &[rustls_pki_types::CertificateDer<'static>], said: &HeaderMap| {
            headers.authenticate(&Credentials { certificates: chain, ..Credentials::of(said) }).await
        };
        let proxy = chain(&pki.front_proxy(), "front-proxy-client");
        let user = ask(&proxy, &said).await.expect("a proxy").expect("a user");
        assert_eq!((&*user.name, &*user.uid, user.is_in("a") && user.is_in("b")), ("jane", "7", true));
        assert_eq!(user.extra["acme.io/project"], ["p"]);
        assert_eq!(ask(&proxy, &HeaderMap::new()).await, Ok(None));
        assert_eq!(ask(&[], &said).await, Ok(None));
        for other in [chain(&pki.front_proxy(), "somebody"), chain(&pki.cluster(), "front-proxy-client")] {
            assert_eq!(ask(&other, &said).await.expect_err("no proxy").code(), 401);
        }
    }
}
