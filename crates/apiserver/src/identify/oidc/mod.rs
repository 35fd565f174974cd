//! OpenID Connect: tokens of issuers that an AuthenticationConfiguration names (KEP-3331).

mod claims;
mod distributed;
mod expressions;
mod remote;
mod verify;

pub(super) use claims::Mapped;
pub(super) use expressions::Expressions;

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::field::Path;
use gantry_base::{Clock, Error, Result, Tasks};
use serde_json::Value;

use super::User;
use super::bearer::AnyAudience;
use super::config::Jwt;
use crate::callout::Callout;
use distributed::Resolver;
use verify::{Verifier, untrusted_issuer};

/// Knows the tokens of one issuer.
pub(super) struct Oidc {
    config: Jwt,
    expressions: Expressions,
    verifier: Verifier,
    /// Where groups come from a claim.
    resolver: Option<Resolver>,
}

impl Oidc {
    /// Begins to look for the issuer's keys.
    ///
    /// # Errors
    /// The authority's certificate cannot be used.
    pub(super) fn start(
        config: Jwt,
        callout: &Callout,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Self> {
        let verifier = Verifier::start(&config.issuer, callout, Arc::clone(&clock), tasks)?;
        let mut faults = Vec::new();
        let expressions = Expressions::compile(&config, &Path::new("jwt"), &mut faults);
        if let Some(fault) = faults.first() {
            return Err(Error::invalid(fault.to_string()));
        }
        let groups = config.claim_mappings.groups.claim.clone();
        let resolver = (!groups.is_empty())
            .then(|| Resolver::new(groups, config.issuer.clone(), callout.clone(), clock, tasks.clone()));
        Ok(Self { config, expressions, verifier, resolver })
    }
}

#[async_trait]
impl AnyAudience for Oidc {
    async fn whose(&self, token: &str) -> Result<Option<User>, String> {
        if untrusted_issuer(token).as_deref() != Some(self.config.issuer.url.as_str()) {
            return Ok(None);
        }
        let claims = self.verifier.claims(token).await;
        let mut claims = claims.map_err(|why| format!("oidc: verify token: {why}"))?;
        if let Some(resolver) = &self.resolver {
            let expanded = resolver.expand(&mut claims).await;
            expanded.map_err(|why| format!("oidc: could not expand distributed claims: {why}"))?;
        }
        let claims = Value::Object(claims);
        let mapped = Mapped { config: &self.config, expressions: &self.expressions, claims: &claims };
        mapped.user().map(Some)
    }
}
