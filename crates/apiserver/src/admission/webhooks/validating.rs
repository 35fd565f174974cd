//! `ValidatingAdmissionWebhook`: all webhooks are asked at once, and each may refuse.

use async_trait::async_trait;
use futures::future::join_all;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_client::InformerSet;
use gantry_kinds::AnyObject;

use super::call::{self, Failure};
use super::hooks::{Hook, Validating};
use super::{Deps, Source, conditions, is_exempt};
use crate::admission::matching::{self, Matched, Sight};
use crate::admission::{AdmissionPlugin, AdmissionRequest, Body, Operation};

const NAME: &str = "ValidatingAdmissionWebhook";

/// The plugin.
pub(in crate::admission) struct ValidatingWebhooks {
    source: Source<Validating>,
    deps: Deps,
}

impl ValidatingWebhooks {
    pub(in crate::admission) fn new(informers: &InformerSet, deps: Deps) -> Self {
        Self { source: Source { informer: informers.of() }, deps }
    }

    async fn check(&self, request: &AdmissionRequest<'_>, sight: Sight<'_>) -> Result<()> {
        let configurations = self.source.all(request).await?;
        let mut relevant: Vec<(&Hook, Matched)> = Vec::new();
        for hook in configurations.iter().flat_map(|c| c.as_ref().as_ref()) {
            if let Some(matched) =
                matching::matches(&hook.selection, request, &sight, &self.deps.namespaces).await?
                && conditions::hold(&self.deps, hook, request, &sight, &matched, false).await?
            {
                relevant.push((hook, matched));
            }
        }
        let calls = relevant
            .iter()
            .enumerate()
            .map(|(index, (hook, matched))| self.ask(request, &sight, hook, matched, index));
        // All are heard, also after the first no; the first in order is the one that is told.
        join_all(calls).await.into_iter().collect()
    }

    async fn ask(
        &self,
        request: &AdmissionRequest<'_>,
        sight: &Sight<'_>,
        hook: &Hook,
        matched: &Matched,
        index: usize,
    ) -> Result<()> {
        let objects =
            call::objects(request, sight, matched).await.map_err(|e| ApiError::internal(e.message()))?;
        match call::ask(&self.deps.callout, hook, request, matched, &objects, false).await {
            Ok(_) => Ok(()),
            Err(Failure::Calling(why)) if hook.fails_open => {
                tracing::warn!(webhook = hook.name, why, "a webhook failed and is passed over");
                let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
                request.warnings.annotate(key, hook.name.clone());
                Ok(())
            }
            Err(failure) => Err(failure.into_error(hook)),
        }
    }
}

#[async_trait]
impl AdmissionPlugin for ValidatingWebhooks {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, _operation: Operation, resource: &Resource, _subresource: &str) -> bool {
        !self.source.is_empty() && !is_exempt(resource)
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        self.check(request, Sight::Object { new: object, old }).await
    }

    async fn validate_body(&self, request: &AdmissionRequest<'_>, body: &Body) -> Result<()> {
        self.check(request, Sight::Body(body)).await
    }
}
