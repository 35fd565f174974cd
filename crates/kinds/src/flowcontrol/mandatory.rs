//! The flow schemas and priority levels that every server has, and whose specs nobody can change.
//!
//! As `apiserver/pkg/apis/flowcontrol/bootstrap`.

use gantry_api::flowcontrol::{
    ExemptPriorityLevelConfiguration, FlowDistinguisherMethod, FlowSchemaSpec, GroupSubject, LimitResponse,
    LimitedPriorityLevelConfiguration, NonResourcePolicyRule, PolicyRulesWithSubjects,
    PriorityLevelConfigurationReference, PriorityLevelConfigurationSpec, ResourcePolicyRule, Subject,
};

/// The level, and the schema, of requests that never wait.
pub const EXEMPT: &str = "exempt";
/// The level, and the schema, of what nothing else matches.
pub const CATCH_ALL: &str = "catch-all";

/// The spec of a mandatory flow schema; `None` for other names.
pub fn flow_schema(name: &str) -> Option<FlowSchemaSpec> {
    let (precedence, by_user, groups): (_, _, &[&str]) = match name {
        EXEMPT => (1, false, &["system:masters"]),
        CATCH_ALL => (10_000, true, &["system:unauthenticated", "system:authenticated"]),
        _ => return None,
    };
    let all = || vec!["*".to_owned()];
    let resources = ResourcePolicyRule {
        api_groups: all(),
        cluster_scope: Some(true),
        namespaces: Some(all()),
        resources: all(),
        verbs: all(),
    };
    let group = |name: &&str| Subject {
        kind: "Group".into(),
        group: Some(GroupSubject { name: (*name).to_owned() }),
        ..Subject::default()
    };
    Some(FlowSchemaSpec {
        distinguisher_method: by_user.then(|| FlowDistinguisherMethod { type_: "ByUser".into() }),
        matching_precedence: Some(precedence),
        priority_level_configuration: PriorityLevelConfigurationReference { name: name.to_owned() },
        rules: Some(vec![PolicyRulesWithSubjects {
            non_resource_rules: Some(vec![NonResourcePolicyRule { non_resource_urls: all(), verbs: all() }]),
            resource_rules: Some(vec![resources]),
            subjects: groups.iter().map(group).collect(),
        }]),
    })
}

/// The spec of a mandatory priority level; `None` for other names.
pub fn priority_level(name: &str) -> Option<PriorityLevelConfigurationSpec> {
    match name {
        EXEMPT => Some(PriorityLevelConfigurationSpec {
            type_: "Exempt".into(),
            exempt: Some(ExemptPriorityLevelConfiguration {
                lendable_percent: Some(0),
                nominal_concurrency_shares: Some(0),
            }),
            limited: None,
        }),
        CATCH_ALL => Some(PriorityLevelConfigurationSpec {
            type_: "Limited".into(),
            exempt: None,
            limited: Some(LimitedPriorityLevelConfiguration {
                borrowing_limit_percent: None,
                lendable_percent: Some(0),
                limit_response: Some(LimitResponse { queuing: None, type_: "Reject".into() }),
                nominal_concurrency_shares: Some(5),
            }),
        }),
        _ => None,
    }
}
