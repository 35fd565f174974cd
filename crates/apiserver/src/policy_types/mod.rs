//! Tells authors of validating policies what in their expressions does not fit the kinds that the policies match: warnings in
//! `status.typeChecking`, never a refusal.
//!
//! Upstream's controller `validatingadmissionpolicy-status`; it runs here because the server has the schemas.

mod types;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::admissionregistration::{
    ExpressionWarning, NamedRuleWithOperations, TypeChecking, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicySpec,
};
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_base::Tasks;
use gantry_cel::Type;
use gantry_client::{Api, Transport};
use gantry_kinds::AnyKind;
use gantry_kinds::rules::cel;

use crate::cache::{Cursor, Selection};
use crate::core::Core;
use crate::identify::User;
use crate::loopback::{Later, Loopback};
use crate::resources::Entry;

const NAME: &str = "validatingadmissionpolicy-status";
/// How soon policies are looked at again of which one could not be written.
const AGAIN: Duration = Duration::from_secs(1);
/// Of how many kinds a rule's expressions are checked.
const MAX_TYPES: usize = 10;

/// Checks the policies that there are, and follows them until `tasks` end.
///
/// # Errors
/// A watch cache cannot be loaded.
pub(crate) fn start(core: &Arc<Core>, later: &Later, tasks: &Tasks) -> gantry_base::Result<()> {
    let plural = "validatingadmissionpolicies";
    let Some(policies) = core.table.load().entry("admissionregistration.k8s.io", plural).cloned() else {
        return Ok(());
    };
    let (_, cursor) = policies.cache.snapshot_and_watch(Selection::default())?;
    let transport: Arc<dyn Transport> =
        Arc::new(Loopback { server: later.clone(), user: User::apiserver(), agent: NAME });
    let controller = Controller { core: Arc::clone(core), policies, api: Api::new(transport, NAME) };
    tasks.spawn(NAME, async move { controller.run(cursor).await });
    Ok(())
}

struct Controller {
    core: Arc<Core>,
    policies: Arc<Entry>,
    api: Api<ValidatingAdmissionPolicy>,
}

impl Controller {
    async fn run(self, mut cursor: Cursor) {
        loop {
            let settled = self.all().await;
            let next = async { cursor.next().await.map(drop) };
            let outcome =
                if settled { Some(next.await) } else { tokio::time::timeout(AGAIN, next).await.ok() };
            if let Some(Err(error)) = outcome {
                tracing::warn!(%error, "the watch of policies begins anew");
                match self.policies.cache.snapshot_and_watch(Selection::default()) {
                    Ok((_, fresh)) => cursor = fresh,
                    Err(error) => {
                        tracing::error!(%error, "policies cannot be watched");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        }
    }

    /// Whether nothing is left to do until a policy changes.
    async fn all(&self) -> bool {
        let known = self.policies.cache.last_known();
        let mut settled = true;
        for policy in known.iter().filter_map(|e| e.encoded.typed().ok()) {
            match self.one(&policy).await {
                Ok(()) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::debug!(name = policy.name(), %error, "the types of a policy are not written");
                    settled = false;
                }
            }
        }
        settled
    }

    async fn one(&self, policy: &ValidatingAdmissionPolicy) -> Result<()> {
        let generation = policy.metadata.generation.unwrap_or(0);
        let seen = policy.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
        if generation <= seen {
            return Ok(());
        }
        let warnings = policy.spec.as_ref().map(|spec| self.warnings(spec)).unwrap_or_default();
        let mut checked = policy.clone();
        let status = checked.status.get_or_insert_default();
        status.observed_generation = Some(generation);
        let warnings = Some(warnings).filter(|w| !w.is_empty());
        status.type_checking = Some(TypeChecking { expression_warnings: warnings });
        self.api.update_status(&checked).await.map(drop)
    }

    fn warnings(&self, spec: &ValidatingAdmissionPolicySpec) -> Vec<ExpressionWarning> {
        let checks = self.checks(spec);
        let mut warnings = Vec::new();
        let mut look = |expression: &str, field: String| {
            let warning = checks.complaints(expression);
            if !warning.is_empty() {
                warnings.push(ExpressionWarning { field_ref: field, warning });
            }
        };
        for (i, validation) in spec.validations.iter().flatten().enumerate() {
            look(&validation.expression, format!("spec.validations[{i}].expression"));
            if let Some(message) = validation.message_expression.as_deref().filter(|m| !m.is_empty()) {
                look(message, format!("spec.validations[{i}].messageExpression"));
            }
        }
        warnings
    }

    fn checks<'a>(&self, spec: &'a ValidatingAdmissionPolicySpec) -> Checks<'a> {
        let kinds: Vec<Arc<dyn AnyKind>> = {
            let table = self.core.table.load();
            let versions = table.entries().flat_map(|entry| entry.versions.iter());
            versions.map(|version| Arc::clone(&version.kind)).collect()
        };
        let rules = spec.match_constraints.iter().flat_map(|m| m.resource_rules.iter().flatten());
        let mut matched = BTreeSet::new();
        for rule in rules {
            let of_rule = kinds.iter().enumerate().filter(|(_, kind)| names(rule, &***kind));
            matched.extend(of_rule.take(MAX_TYPES).map(|(i, kind)| {
                let resource = kind.resource();
                (resource.group.to_string(), resource.version.to_string(), resource.kind.to_string(), i)
            }));
        }
        let params = spec.param_kind.as_ref().map(|param| {
            let api_version = param.api_version.as_deref().unwrap_or_default();
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let name = param.kind.as_deref().unwrap_or_default();
            let is = |kind: &&Arc<dyn AnyKind>| {
                let resource = kind.resource();
                resource.group == group && resource.version == version && resource.kind == name
            };
            kinds.iter().find(is).and_then(|kind| types::of_kind(&**kind)).unwrap_or(Type::Dyn)
        });
        let typed = matched.into_iter().filter_map(|(group, version, kind, i)| {
            Some((format!("{group}/{version}, Kind={kind}"), types::of_kind(&*kinds[i])?))
        });
        let variables = spec.variables.iter().flatten().map(|v| (v.name.as_str(), v.expression.as_str()));
        Checks { kinds: typed.collect(), params, variables: variables.collect() }
    }
}

/// Whether a rule names the kind's resource: wildcards and subresources name none.
fn names(rule: &NamedRuleWithOperations, kind: &dyn AnyKind) -> bool {
    let resource = kind.resource();
    let has = |list: &Option<Vec<String>>, name: &str| list.iter().flatten().any(|n| n == name);
    has(&rule.api_groups, &resource.group)
        && has(&rule.api_versions, &resource.version)
        && has(&rule.resources, &resource.plural)
}

/// What expressions are checked against.
struct Checks<'a> {
    /// The matched kinds as upstream prints them, in their order, with their types.
    kinds: Vec<(String, Type)>,
    params: Option<Type>,
    variables: Vec<(&'a str, &'a str)>,
}

impl Checks<'_> {
    /// What is wrong with an expression, for each of the kinds; empty if nothing is.
    fn complaints(&self, expression: &str) -> String {
        let params = self.params.clone().unwrap_or(Type::Dyn);
        let complaints = self.kinds.iter().filter_map(|(kind, ty)| {
            let types = [ty.clone(), ty.clone(), params.clone()];
            let checked = cel::check_types(expression, self.params.is_some(), &self.variables, &types);
            checked.err().map(|why| format!("{kind}: {why}\n"))
        });
        complaints.collect::<Vec<_>>().join("\n")
    }
}
