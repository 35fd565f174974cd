//! All authenticators, one after the other: certificate, token, nobody.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_api::ApiError;
use gantry_api::status::Result;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};

use super::{AUTHENTICATED, Authenticator, Credentials, UNAUTHENTICATED, User};

/// Who may come without credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anonymous {
    /// Whether anybody may.
    pub enabled: bool,
    /// The paths that they may ask for; empty for all.
    pub paths: Vec<String>,
}

impl Anonymous {
    /// Everybody, everywhere.
    pub fn everywhere() -> Self {
        Self { enabled: true, paths: Vec::new() }
    }

    fn admits(&self, path: &str) -> bool {
        self.enabled && (self.paths.is_empty() || self.paths.iter().any(|p| p == path))
    }
}

/// Asks several authenticators.
pub struct Chain {
    links: Vec<Arc<dyn Authenticator>>,
    anonymous: Anonymous,
}

impl Chain {
    /// Asks `links` in order; the first that knows the user says who it is, whatever is wrong with other credentials.
    /// Who shows no credentials at all is `system:anonymous`, if `anonymous` admits that.
    pub fn new(links: Vec<Arc<dyn Authenticator>>, anonymous: Anonymous) -> Self {
        Self { links, anonymous }
    }
}

#[async_trait]
impl Authenticator for Chain {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<User>> {
        let mut refused = None;
        for link in &self.links {
            match link.authenticate(credentials).await {
                Ok(Some(user)) => return Ok(Some(with_authenticated(user))),
                Ok(None) => {}
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        match refused {
            Some(error) => Err(error),
            None if bearer_token(credentials.headers).is_some() => Err(ApiError::unauthorized()),
            None => Ok(self.anonymous.admits(credentials.path).then(User::anonymous)),
        }
    }
}

/// Everybody who is known is in `system:authenticated`.
pub(crate) fn with_authenticated(mut user: User) -> User {
    if !user.is_in(AUTHENTICATED) && !user.is_in(UNAUTHENTICATED) {
        user.groups = user.groups.iter().cloned().chain([AUTHENTICATED.into()]).collect();
    }
    user
}

/// The subprotocol by which browsers send a token with a WebSocket.
const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// The token of `Authorization: Bearer`, or that of a WebSocket's subprotocol.
pub fn bearer_token(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()) {
        let mut parts = value.trim().splitn(3, ' ');
        let (scheme, token) = (parts.next()?, parts.next()?);
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let encoded =
        protocols.flat_map(|v| v.split(',')).find_map(|p| p.trim().strip_prefix(WEBSOCKET_TOKEN))?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok().filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Only(&'static str);

    #[async_trait]
    impl Authenticator for Only {
        async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<User>> {
            let known = bearer_token(credentials.headers).is_some_and(|token| token == self.0);
            Ok(known.then(|| User::new(self.0, [])))
        }
    }

    async fn ask(chain: &Chain, headers: HeaderMap) -> Result<Option<User>> {
        chain.authenticate(&Credentials { path: "/x", ..Credentials::of(&headers) }).await
    }

    #[tokio::test]
    async fn nobody_is_anonymous_but_a_wrong_token_is_refused() {
        let chain = Chain::new(vec![Arc::new(Only("a")), Arc::new(Only("b"))], Anonymous::everywhere());
        assert_eq!(ask(&chain, HeaderMap::new()).await, Ok(Some(User::anonymous())));
        let with = |name: http::HeaderName, text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, text.parse().expect("a header"));
            headers
        };
        let user = ask(&chain, with(AUTHORIZATION, "Bearer b")).await.expect("known").expect("a user");
        assert_eq!(user, User::new("b", [AUTHENTICATED]));
        assert_eq!(ask(&chain, with(AUTHORIZATION, "bearer c")).await.expect_err("refused").code(), 401);
        let protocol = format!("v4.channel.k8s.io, {WEBSOCKET_TOKEN}{}", URL_SAFE_NO_PAD.encode("a"));
        let user =
            ask(&chain, with(SEC_WEBSOCKET_PROTOCOL, &protocol)).await.expect("known").expect("a user");
        assert_eq!(&*user.name, "a");
        let closed = Chain::new(Vec::new(), Anonymous::default());
        assert_eq!(ask(&closed, HeaderMap::new()).await, Ok(None));
        for (path, admitted) in [("/x", true), ("/y", false)] {
            let some = Anonymous { enabled: true, paths: vec![path.to_owned()] };
            let user = ask(&Chain::new(Vec::new(), some), HeaderMap::new()).await.expect("no error");
            assert_eq!(user.is_some(), admitted, "{path}");
        }
    }
}
