//! Policies and bindings as they are evaluated.

use std::sync::Arc;

use gantry_api::ObjectKey;
use gantry_api::admissionregistration::{
    MatchCondition, MatchResources, MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, ParamKind,
    ParamRef, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, Variable as VariableSpec,
};
use gantry_api::meta::MetaExt;
use gantry_cel::Type;
use gantry_client::Projection;
use gantry_kinds::rules::cel::Site;

use crate::admission::expressions::{Expression, Variable, variables};
use crate::admission::matching::Selection;

/// What policies of both sorts have.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) name: String,
    /// `failurePolicy: Ignore`
    pub(super) fails_open: bool,
    pub(super) param_kind: Option<ParamKind>,
    pub(super) selection: Option<Selection>,
    pub(super) conditions: Vec<Expression>,
    pub(super) variables: Vec<Variable>,
}

impl Policy {
    fn new(
        name: &str,
        failure: Option<&str>,
        param_kind: Option<&ParamKind>,
        constraints: Option<&MatchResources>,
        conditions: Option<&[MatchCondition]>,
        definitions: Option<&[VariableSpec]>,
    ) -> (Self, Vec<(String, Type)>) {
        let has_params = param_kind.is_some();
        let definitions = definitions.unwrap_or_default().iter();
        let definitions = definitions.map(|v| (v.name.as_str(), v.expression.as_str()));
        let (variables, types) = variables(definitions, has_params);
        let conditions = conditions.unwrap_or_default().iter();
        let policy = Self {
            name: name.to_owned(),
            fails_open: failure == Some("Ignore"),
            param_kind: param_kind.cloned(),
            selection: constraints.map(|constraints| Selection::of(constraints, false)),
            conditions: conditions
                .map(|c| Expression::new(Site::MatchCondition, &c.expression, has_params, &types))
                .collect(),
            variables,
        };
        (policy, types)
    }
}

/// What bindings of both sorts have.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) policy: String,
    pub(super) selection: Option<Selection>,
    pub(super) param: Option<ParamRef>,
}

/// What a policy says of one request.
#[derive(Debug)]
pub(super) struct Validation {
    pub(super) rule: Expression,
    pub(super) message: String,
    pub(super) message_expression: Option<Expression>,
    pub(super) reason: String,
}

/// What a policy does to one request.
#[derive(Debug)]
pub(super) enum Change {
    /// `ApplyConfiguration`
    Apply(Expression),
    /// `JSONPatch`
    Patch(Expression),
}

impl Change {
    /// The expression.
    pub(super) fn expression(&self) -> &Expression {
        match self {
            Self::Apply(expression) | Self::Patch(expression) => expression,
        }
    }
}

/// A projection of one kind of object into what `$body` makes of it.
macro_rules! projected {
    ($(#[$doc:meta])* $name:ident of $object:ident as $as:ty { $($field:ident: $ty:ty),* } |$from:ident| $body:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name {
            key: ObjectKey,
            revision: u64,
            common: $as,
            $(pub(super) $field: $ty),*
        }

        impl AsRef<$as> for $name {
            fn as_ref(&self) -> &$as {
                &self.common
            }
        }

        impl Projection for $name {
            type Object = $object;

            fn project($from: Arc<$object>) -> Arc<Self> {
                let (common, $($field),*) = $body;
                let revision = MetaExt::revision(&*$from);
                Arc::new(Self { key: $from.key(), revision, common, $($field),* })
            }

            fn object_key(&self) -> ObjectKey {
                self.key.clone()
            }

            fn object_revision(&self) -> u64 {
                self.revision
            }
        }
    };
}

projected! {
    /// A `ValidatingAdmissionPolicy`.
    Validating of ValidatingAdmissionPolicy as Policy {
        validations: Vec<Validation>, annotations: Vec<(String, Expression)>, sees_namespace: bool
    }
    |object| {
        let spec = object.spec.clone().unwrap_or_default();
        let (policy, types) = Policy::new(
            object.name(),
            spec.failure_policy.as_deref(),
            spec.param_kind.as_ref(),
            spec.match_constraints.as_ref(),
            spec.match_conditions.as_deref(),
            spec.variables.as_deref(),
        );
        let has_params = spec.param_kind.is_some();
        let compile = |site, source: &str| Expression::new(site, source, has_params, &types);
        let validations: Vec<Validation> = spec
            .validations
            .iter()
            .flatten()
            .map(|v| Validation {
                rule: compile(Site::Validation, &v.expression),
                message: v.message.clone().unwrap_or_default(),
                message_expression: v
                    .message_expression
                    .as_deref()
                    .filter(|source| !source.is_empty())
                    .map(|source| compile(Site::MessageExpression, source)),
                reason: v.reason.clone().filter(|r| !r.is_empty()).unwrap_or_else(|| "Invalid".to_owned()),
            })
            .collect();
        let annotations: Vec<(String, Expression)> = spec
            .audit_annotations
            .iter()
            .flatten()
            .map(|a| (a.key.clone(), compile(Site::AuditAnnotation, &a.value_expression)))
            .collect();
        let messages = validations.iter().filter_map(|v| v.message_expression.as_ref());
        let rules = validations.iter().map(|v| &v.rule).chain(messages);
        let others = annotations.iter().map(|(_, e)| e).chain(policy.variables.iter().map(Variable::expression));
        let sees_namespace = rules.chain(others).any(|e| e.uses("namespaceObject"));
        (policy, validations, annotations, sees_namespace)
    }
}

projected! {
    /// A `MutatingAdmissionPolicy`.
    Mutating of MutatingAdmissionPolicy as Policy {
        changes: Vec<Change>, reinvoked: bool, sees_namespace: bool
    }
    |object| {
        let spec = object.spec.clone().unwrap_or_default();
        let (policy, types) = Policy::new(
            object.name(),
            spec.failure_policy.as_deref(),
            spec.param_kind.as_ref(),
            spec.match_constraints.as_ref(),
            spec.match_conditions.as_deref(),
            spec.variables.as_deref(),
        );
        let has_params = spec.param_kind.is_some();
        let compile = |site, source: Option<&str>| {
            Expression::new(site, source.unwrap_or_default(), has_params, &types)
        };
        let changes: Vec<Change> = spec
            .mutations
            .iter()
            .flatten()
            .map(|m| match m.patch_type.as_str() {
                "JSONPatch" => {
                    let source = m.json_patch.as_ref().and_then(|p| p.expression.as_deref());
                    Change::Patch(compile(Site::JsonPatch, source))
                }
                _ => {
                    let source = m.apply_configuration.as_ref().and_then(|a| a.expression.as_deref());
                    Change::Apply(compile(Site::ApplyConfiguration, source))
                }
            })
            .collect();
        let variables = policy.variables.iter().map(Variable::expression);
        let sees_namespace =
            changes.iter().map(Change::expression).chain(variables).any(|e| e.uses("namespaceObject"));
        (policy, changes, spec.reinvocation_policy.as_deref() == Some("IfNeeded"), sees_namespace)
    }
}

projected! {
    /// A `ValidatingAdmissionPolicyBinding`.
    ValidatingBinding of ValidatingAdmissionPolicyBinding as Binding { actions: Vec<String> }
    |object| {
        let spec = object.spec.clone();
        let common = Binding {
            name: object.name().to_owned(),
            policy: spec.policy_name,
            selection: spec.match_resources.as_ref().map(|r| Selection::of(r, true)),
            param: spec.param_ref,
        };
        (common, spec.validation_actions)
    }
}

projected! {
    /// A `MutatingAdmissionPolicyBinding`.
    MutatingBinding of MutatingAdmissionPolicyBinding as Binding {}
    |object| {
        let spec = object.spec.clone().unwrap_or_default();
        (Binding {
            name: object.name().to_owned(),
            policy: spec.policy_name.unwrap_or_default(),
            selection: spec.match_resources.as_ref().map(|r| Selection::of(r, true)),
            param: spec.param_ref,
        },)
    }
}
