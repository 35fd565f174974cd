//! FlowSchema: which requests share a priority level, and how their flows are told apart.

use std::collections::BTreeSet;
use std::time::SystemTime;

use gantry_api::field::{Error, Path};
use gantry_api::flowcontrol::{FlowSchema, FlowSchemaStatus};
use gantry_api::names;
use serde_json::{Value, json};

use super::{mandatory, rules};
use crate::common::{check, status};
use crate::kind::{
    Errors, FieldPaths, Kind, NameRule, Names, SPEC_AND_METADATA, STATUS, Verbs, bump_generation,
};
use crate::table::{AGE, Column, age};

const DEFAULT_PRECEDENCE: i32 = 1_000;
const MAX_PRECEDENCE: i32 = 10_000;

/// The kind.
pub struct FlowSchemaKind;

impl Kind for FlowSchemaKind {
    type Object = FlowSchema;
    const NAMES: Names =
        Names { singular: "flowschema", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };

    fn reset_fields(subresource: &str) -> FieldPaths {
        if subresource == "status" { SPEC_AND_METADATA } else { STATUS }
    }

    fn defaults(schema: &mut FlowSchema) {
        let spec = schema.spec.get_or_insert_default();
        if spec.matching_precedence.unwrap_or(0) == 0 {
            spec.matching_precedence = Some(DEFAULT_PRECEDENCE);
        }
    }

    fn prepare_create(schema: &mut FlowSchema) {
        schema.status = Some(FlowSchemaStatus::default());
        schema.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut FlowSchema, old: &FlowSchema) {
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn prepare_status_update(new: &mut FlowSchema, old: &FlowSchema) {
        new.spec.clone_from(&old.spec);
        status::keep_metadata(&mut new.metadata, &old.metadata);
    }

    fn validate(schema: &FlowSchema) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let spec = schema.spec.clone().unwrap_or_default();
        let name = schema.metadata.name.as_deref().unwrap_or("");
        let (at, precedence) = (path.child("matchingPrecedence"), spec.matching_precedence.unwrap_or(0));
        if precedence <= 0 {
            errors.push(Error::invalid(&at, precedence, "must be a positive value"));
        }
        if precedence > MAX_PRECEDENCE {
            errors.push(Error::invalid(
                &at,
                precedence,
                format!("must not be greater than {MAX_PRECEDENCE}"),
            ));
        }
        if precedence == 1 && name != mandatory::EXEMPT {
            let why = "only the schema named 'exempt' may have matchingPrecedence 1";
            errors.push(Error::invalid(&at, precedence, why));
        }
        if let Some(method) = &spec.distinguisher_method
            && !["ByNamespace", "ByUser"].contains(&method.type_.as_str())
        {
            let at = path.child("distinguisherMethod").child("type");
            errors.push(Error::not_supported(&at, json!({"Type": method.type_}), &["ByNamespace", "ByUser"]));
        }
        let at = path.child("priorityLevelConfiguration").child("name");
        match spec.priority_level_configuration.name.as_str() {
            "" => errors.push(Error::required(&at, "must reference a priority level")),
            level => check::name(&at, level, names::dns1123_subdomain(level), &mut errors),
        }
        for (i, rule) in spec.rules.iter().flatten().enumerate() {
            rules::validate(rule, &path.child("rules").index(i), &mut errors);
        }
        if mandatory::flow_schema(name).is_some_and(|fixed| fixed != spec) {
            let why = format!("spec of '{name}' must equal the fixed value");
            errors.push(Error::invalid(&path, json!(spec), why));
        }
        errors
    }

    fn validate_status_update(new: &FlowSchema, _old: &FlowSchema) -> Errors {
        let conditions = new.status.iter().flat_map(|s| s.conditions.iter().flatten());
        validate_condition_types(conditions.map(|c| c.type_.as_deref().unwrap_or("")))
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "PriorityLevel",
                "string",
                "`name` is the name of the priority level configuration being referenced Required.",
            ),
            Column::new(
                "MatchingPrecedence",
                "string",
                "`matchingPrecedence` is used to choose among the FlowSchemas that match a given request. The chosen FlowSchema is among those with the numerically lowest (which we take to be logically highest) MatchingPrecedence.  Each MatchingPrecedence value must be ranged in [1,10000]. Note that if the precedence is not specified, it will be set to 1000 as default.",
            ),
            Column::new(
                "DistinguisherMethod",
                "string",
                "`distinguisherMethod` defines how to compute the flow distinguisher for requests that match this schema. `nil` specifies that the distinguisher is disabled and thus will always be the empty string.",
            ),
            AGE,
            Column::new(
                "MissingPL",
                "string",
                "references a broken or non-existent PriorityLevelConfiguration",
            ),
        ];
        COLUMNS
    }

    fn cells(schema: &FlowSchema, now: SystemTime) -> Vec<Value> {
        let spec = schema.spec.clone().unwrap_or_default();
        let mut conditions = schema.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let dangling = conditions.find(|c| c.type_.as_deref() == Some("Dangling"));
        vec![
            spec.priority_level_configuration.name.into(),
            spec.matching_precedence.unwrap_or(0).into(),
            spec.distinguisher_method.map_or_else(|| "<none>".to_owned(), |m| m.type_).into(),
            age(&schema.metadata, now),
            dangling.map_or_else(|| "?".to_owned(), |c| c.status.clone().unwrap_or_default()).into(),
        ]
    }
}

/// Conditions need types, each its own.
pub(super) fn validate_condition_types<'a>(types: impl Iterator<Item = &'a str>) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("status").child("conditions");
    let mut seen = BTreeSet::new();
    for (i, kind) in types.enumerate() {
        let at = path.index(i).child("type");
        if !seen.insert(kind) {
            errors.push(Error::duplicate(&at, kind));
        }
        if kind.is_empty() {
            errors.push(Error::required(&at, ""));
        }
    }
    errors
}
