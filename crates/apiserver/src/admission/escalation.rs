//! Nobody gives away permissions that they do not have, unless they may `escalate` roles or `bind` them.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::field::quote;
use gantry_api::rbac::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef};
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_kinds::AnyObject;

use super::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::authorize::{Attributes, Authorizer, Rbac, rules};
use crate::identify::MASTERS;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The plugin.
pub(super) struct Escalation {
    rbac: Arc<Rbac>,
    /// Who may `escalate` and `bind` is everybody's business, not only that of RBAC.
    authorizer: Arc<dyn Authorizer>,
}

impl Escalation {
    pub(super) fn new(rbac: Arc<Rbac>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { rbac, authorizer }
    }

    async fn check_role(&self, request: &AdmissionRequest<'_>, wanted: &[PolicyRule]) -> Result<()> {
        let resource = &request.resource.plural;
        if self.may(request, "escalate", resource, request.name).await {
            return Ok(());
        }
        self.confirm(request, wanted)
    }

    async fn check_binding(&self, request: &AdmissionRequest<'_>, role: &RoleRef) -> Result<()> {
        let resource = if role.kind == "Role" { "roles" } else { "clusterroles" };
        if self.may(request, "bind", resource, &role.name).await {
            return Ok(());
        }
        let wanted = self.rbac.rules_of(role, request.namespace).map_err(|_| {
            // As upstream: a lookup on behalf of a request fails in the name of what is asked for.
            ApiError::not_found(request.resource, &role.name)
        })?;
        self.confirm(request, &wanted)
    }

    async fn may(&self, request: &AdmissionRequest<'_>, verb: &str, resource: &str, name: &str) -> bool {
        let attributes = Attributes {
            version: "*",
            namespace: request.namespace,
            name,
            ..Attributes::on_resource(request.user, verb, GROUP, resource)
        };
        self.authorizer.authorize(&attributes).await.is_allowed()
    }

    fn confirm(&self, request: &AdmissionRequest<'_>, wanted: &[PolicyRule]) -> Result<()> {
        let (owned, unknown) = self.rbac.rules_of_user(request.user, request.namespace);
        let missing = rules::uncovered(&owned, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let user = request.user;
        let mut why = format!(
            "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            quote(&user.name),
            rules::go_list(&user.groups),
            rules::describe(&missing)
        );
        if !unknown.is_empty() {
            why.push_str(&format!("; resolution errors: [{}]", unknown.join(", ")));
        }
        Err(ApiError::forbidden(request.resource, request.name, why))
    }
}

#[async_trait]
impl AdmissionPlugin for Escalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && resource.group == GROUP
            && subresource.is_empty()
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(object) = object else { return Ok(()) };
        if request.user.is_in(MASTERS) {
            return Ok(());
        }
        if let Some(role) = object.downcast::<Role>() {
            let unchanged = old.and_then(|o| o.downcast::<Role>()).is_some_and(|o| o.rules == role.rules);
            let wanted = role.rules.as_deref().unwrap_or_default();
            return if unchanged { Ok(()) } else { self.check_role(request, wanted).await };
        }
        if let Some(role) = object.downcast::<ClusterRole>() {
            let old = old.and_then(|o| o.downcast::<ClusterRole>());
            if old.is_some_and(|o| o.rules == role.rules && o.aggregation_rule == role.aggregation_rule) {
                return Ok(());
            }
            self.check_role(request, role.rules.as_deref().unwrap_or_default()).await?;
            return self.check_aggregation(request, role).await;
        }
        if let Some(binding) = object.downcast::<RoleBinding>() {
            let old = old.and_then(|o| o.downcast::<RoleBinding>());
            let unchanged =
                old.is_some_and(|o| o.role_ref == binding.role_ref && o.subjects == binding.subjects);
            return if unchanged { Ok(()) } else { self.check_binding(request, &binding.role_ref).await };
        }
        if let Some(binding) = object.downcast::<ClusterRoleBinding>() {
            let old = old.and_then(|o| o.downcast::<ClusterRoleBinding>());
            let unchanged =
                old.is_some_and(|o| o.role_ref == binding.role_ref && o.subjects == binding.subjects);
            return if unchanged { Ok(()) } else { self.check_binding(request, &binding.role_ref).await };
        }
        Ok(())
    }
}

impl Escalation {
    /// An aggregated role may come to allow anything: it takes somebody who may do everything.
    async fn check_aggregation(&self, request: &AdmissionRequest<'_>, role: &ClusterRole) -> Result<()> {
        if role.aggregation_rule.is_none()
            || self.may(request, "escalate", "clusterroles", request.name).await
        {
            return Ok(());
        }
        let all = || Some(vec!["*".to_owned()]);
        let everything = [
            PolicyRule {
                verbs: vec!["*".into()],
                api_groups: all(),
                resources: all(),
                ..PolicyRule::default()
            },
            PolicyRule { verbs: vec!["*".into()], non_resource_urls: all(), ..PolicyRule::default() },
        ];
        let (owned, _) = self.rbac.rules_of_user(request.user, request.namespace);
        if rules::uncovered(&owned, &everything).is_empty() {
            return Ok(());
        }
        let why = "must have cluster-admin privileges to use the aggregationRule";
        Err(ApiError::forbidden(request.resource, request.name, why))
    }
}
