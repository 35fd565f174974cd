//! Tokens that requests bear: whoever knows one says whose it is.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::ApiError;
use gantry_api::status::Result;

use super::{Authenticator, Credentials, User, bearer_token};

/// A token that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whose it is.
    pub user: User,
    /// For which of the wanted audiences.
    pub audiences: Vec<String>,
    /// What the audit log is told of the token: key and value.
    pub notes: Vec<(&'static str, String)>,
    /// What the client is told of the token.
    pub warnings: Vec<&'static str>,
}

impl Verdict {
    /// There is nothing to be said of the token.
    pub fn new(user: User, audiences: Vec<String>) -> Self {
        Self { user, audiences, notes: Vec::new(), warnings: Vec::new() }
    }
}

/// Knows tokens of one sort.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync + 'static {
    /// Whose token this is, if it is of this sort and good for one of `audiences`.
    ///
    /// # Errors
    /// What is wrong with a token of this sort.
    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Verdict>, String>;
}

/// Knows tokens that are not for an audience: they are for all of the server's own.
#[async_trait]
pub(super) trait AnyAudience: Send + Sync + 'static {
    /// Whose token this is, if it is of this sort.
    async fn whose(&self, token: &str) -> Result<Option<User>, String>;
}

/// Makes one that knows audiences of one that does not.
pub(super) struct ForOwn<T> {
    pub(super) inner: T,
    /// The server's own audiences.
    pub(super) own: Vec<String>,
}

#[async_trait]
impl<T: AnyAudience> TokenAuthenticator for ForOwn<T> {
    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Verdict>, String> {
        let audiences: Vec<String> = self.own.iter().filter(|a| audiences.contains(a)).cloned().collect();
        if audiences.is_empty() {
            return Ok(None);
        }
        Ok(self.inner.whose(token).await?.map(|user| Verdict::new(user, audiences)))
    }
}

/// All that know tokens, in order.
pub struct Tokens {
    links: Vec<Arc<dyn TokenAuthenticator>>,
    own: Vec<String>,
}

impl Tokens {
    /// Asks `links` in order; `own` are the server's own audiences.
    pub fn new(links: Vec<Arc<dyn TokenAuthenticator>>, own: Vec<String>) -> Self {
        Self { links, own }
    }

    /// Whose token this is, and for which of `audiences` (empty: the server's own).
    ///
    /// # Errors
    /// Nobody accepts it; says why.
    pub async fn verify(&self, token: &str, audiences: &[String]) -> Result<Verdict, String> {
        let audiences = if audiences.is_empty() { &self.own } else { audiences };
        let mut errors = Vec::new();
        for link in &self.links {
            match link.verify(token, audiences).await {
                Ok(Some(verdict)) => return Ok(verdict),
                Ok(None) => {}
                Err(why) => errors.push(why),
            }
        }
        Err(match errors.as_slice() {
            [] => "invalid bearer token".to_owned(),
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        })
    }
}

#[async_trait]
impl Authenticator for Tokens {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<User>> {
        let Some(token) = bearer_token(credentials.headers) else { return Ok(None) };
        match self.verify(&token, &[]).await {
            Ok(verdict) => {
                if let Some(warnings) = credentials.warnings {
                    verdict.notes.into_iter().for_each(|(key, value)| warnings.annotate(key, value));
                    verdict.warnings.into_iter().for_each(|text| warnings.add(text));
                }
                Ok(Some(verdict.user))
            }
            Err(why) => {
                tracing::debug!(why, "a token was refused");
                Err(ApiError::unauthorized())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Says(Result<Option<&'static str>, &'static str>);

    #[async_trait]
    impl AnyAudience for Says {
        async fn whose(&self, _token: &str) -> Result<Option<User>, String> {
            self.0.map(|name| name.map(|n| User::new(n, []))).map_err(str::to_owned)
        }
    }

    async fn ask(
        said: &[Result<Option<&'static str>, &'static str>],
        audiences: &[&str],
    ) -> Result<String, String> {
        let own = vec!["a".to_owned(), "b".to_owned()];
        let link = |s: &Result<_, _>| {
            Arc::new(ForOwn { inner: Says(*s), own: own.clone() }) as Arc<dyn TokenAuthenticator>
        };
        let tokens = Tokens::new(said.iter().map(link).collect(), own.clone());
        let audiences: Vec<String> = audiences.iter().map(|a| (*a).to_owned()).collect();
        let verdict = tokens.verify("x", &audiences).await?;
        Ok(format!("{} {}", verdict.user.name, verdict.audiences.join(",")))
    }

    #[tokio::test]
    async fn the_first_who_knows_a_token_answers() {
        assert_eq!(ask(&[Ok(None), Err("bad"), Ok(Some("joe"))], &[]).await, Ok("joe a,b".to_owned()));
        assert_eq!(ask(&[Ok(Some("joe"))], &["b", "c"]).await, Ok("joe b".to_owned()));
        assert_eq!(ask(&[Ok(Some("joe"))], &["c"]).await, Err("invalid bearer token".to_owned()));
        assert_eq!(ask(&[Err("x"), Ok(None)], &[]).await, Err("x".to_owned()));
        assert_eq!(ask(&[Err("x"), Err("y")], &[]).await, Err("[x, y]".to_owned()));
    }
}
