//! What the objects say, digested: flow schemas in their order, each with its level.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::flowcontrol::{
    FlowSchema, PolicyRulesWithSubjects, PriorityLevelConfiguration, PriorityLevelConfigurationSpec,
};
use gantry_api::meta::MetaExt;
use gantry_api::metav1::ObjectMeta;
use gantry_base::{Clock, Tasks};
use gantry_kinds::rules::mandatory_flow_control::{self as mandatory, CATCH_ALL, EXEMPT};
use http::header::HeaderValue;

use super::borrow::{self, Bounds};
use super::level::{Level, Queuing, Shape};
use super::matching::matches;
use super::metrics::{self, OfFlow};
use crate::identify::User;
use crate::route::RequestInfo;

/// All schemas and levels.
pub(super) struct Plan {
    /// In the order in which they are tried.
    schemas: Vec<Arc<Schema>>,
    /// For what none of them matches.
    rest: Arc<Schema>,
    levels: BTreeMap<String, (Arc<Level>, HeaderValue)>,
}

/// A flow schema.
pub(super) struct Schema {
    pub(super) name: String,
    pub(super) uid: HeaderValue,
    precedence: i32,
    distinguisher: Distinguisher,
    rules: Vec<PolicyRulesWithSubjects>,
    pub(super) level: Arc<Level>,
    pub(super) level_uid: HeaderValue,
    pub(super) metrics: Arc<OfFlow>,
}

#[derive(Clone, Copy)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

impl Plan {
    /// From the objects. Levels of `before` go on under their names; what is mandatory and missing is supplied.
    pub(super) fn new(
        schemas: &[Arc<FlowSchema>],
        levels: &[Arc<PriorityLevelConfiguration>],
        seats: usize,
        before: Option<&Self>,
        (clock, tasks): (&Arc<dyn Clock>, &Tasks),
    ) -> Self {
        let mut specs: BTreeMap<&str, (PriorityLevelConfigurationSpec, HeaderValue)> = levels
            .iter()
            .map(|level| (level.name(), (level.spec.clone().unwrap_or_default(), uid(level.uid()))))
            .collect();
        for name in [EXEMPT, CATCH_ALL] {
            let spec = || (mandatory::priority_level(name).unwrap_or_default(), uid(""));
            specs.entry(name).or_insert_with(spec);
        }
        let all_shares: usize = specs.values().map(|(spec, _)| shares(spec)).sum();
        let levels = specs.into_iter().map(|(name, (spec, uid))| {
            let known = before.and_then(|plan| plan.levels.get(name)).map(|(level, _)| Arc::clone(level));
            let is_new = known.is_none();
            let level = known.unwrap_or_else(|| Arc::new(Level::new(name, Arc::clone(clock), tasks.clone())));
            level.reshape(shape(&spec), bounds(&spec, seats, all_shares), is_new);
            (name.to_owned(), (level, uid))
        });
        let levels: BTreeMap<_, _> = levels.collect();
        let mut sorted: Vec<Arc<Schema>> =
            schemas.iter().filter_map(|schema| Schema::new(schema, &levels)).map(Arc::new).collect();
        for name in [EXEMPT, CATCH_ALL] {
            if !sorted.iter().any(|schema| schema.name == name) {
                sorted.extend(supplied(name, &levels).map(Arc::new));
            }
        }
        sorted.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        let rest = sorted.iter().find(|schema| schema.name == CATCH_ALL).map(Arc::clone);
        let rest = rest.expect("the mandatory schema is in the list");
        let plan = Self { schemas: sorted, rest, levels };
        plan.adjust();
        plan
    }

    pub(super) fn levels(&self) -> impl Iterator<Item = &Arc<Level>> {
        self.levels.values().map(|(level, _)| level)
    }

    /// Deals the seats anew.
    pub(super) fn adjust(&self) {
        let parties: Vec<_> = self.levels().map(|level| level.party()).collect();
        let (dealt, fair) = borrow::adjust(&parties);
        metrics::fair(fair);
        for (level, dealt) in self.levels().zip(&dealt) {
            level.have(dealt);
        }
    }

    pub(super) fn classify(&self, user: &User, info: &RequestInfo) -> &Arc<Schema> {
        self.schemas.iter().find(|schema| schema.matches(user, info)).unwrap_or(&self.rest)
    }

    pub(super) fn has_level(&self, name: &str) -> bool {
        self.levels.contains_key(name)
    }
}

impl Schema {
    /// `None` for one whose level does not exist.
    fn new(object: &FlowSchema, levels: &BTreeMap<String, (Arc<Level>, HeaderValue)>) -> Option<Self> {
        let spec = object.spec.clone().unwrap_or_default();
        let (level, level_uid) = levels.get(&spec.priority_level_configuration.name)?;
        Some(Self {
            name: object.name().to_owned(),
            uid: uid(object.uid()),
            precedence: spec.matching_precedence.unwrap_or(0),
            distinguisher: match spec.distinguisher_method.as_ref().map(|method| method.type_.as_str()) {
                Some("ByUser") => Distinguisher::User,
                Some("ByNamespace") => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            rules: spec.rules.unwrap_or_default(),
            level: Arc::clone(level),
            level_uid: level_uid.clone(),
            metrics: OfFlow::new(&level.name, object.name()),
        })
    }

    fn matches(&self, user: &User, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rules| matches(rules, user, info))
    }

    /// What tells the flows of this schema apart.
    pub(super) fn distinguish<'a>(&self, user: &'a User, info: &'a RequestInfo) -> &'a str {
        match self.distinguisher {
            Distinguisher::None => "",
            Distinguisher::User => &user.name,
            Distinguisher::Namespace => &info.namespace,
        }
    }
}

/// A mandatory schema of which there is no object.
fn supplied(name: &str, levels: &BTreeMap<String, (Arc<Level>, HeaderValue)>) -> Option<Schema> {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    Schema::new(&FlowSchema { metadata, spec: mandatory::flow_schema(name), status: None }, levels)
}

fn uid(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

fn shares(spec: &PriorityLevelConfigurationSpec) -> usize {
    let limited = spec.limited.as_ref().and_then(|l| l.nominal_concurrency_shares);
    let exempt = spec.exempt.as_ref().and_then(|e| e.nominal_concurrency_shares);
    count(limited.or(exempt))
}

fn bounds(spec: &PriorityLevelConfigurationSpec, seats: usize, all_shares: usize) -> Bounds {
    let limited = spec.limited.as_ref();
    let lendable = limited.and_then(|l| l.lendable_percent);
    let lendable = lendable.or(spec.exempt.as_ref().and_then(|e| e.lendable_percent));
    let borrowing = limited.and_then(|l| l.borrowing_limit_percent);
    Bounds::new(seats, shares(spec), all_shares, lendable, borrowing)
}

fn shape(spec: &PriorityLevelConfigurationSpec) -> Shape {
    if spec.type_ == "Exempt" {
        return Shape::Exempt;
    }
    let response = spec.limited.as_ref().and_then(|l| l.limit_response.as_ref());
    let queuing = response.and_then(|r| r.queuing.as_ref()).map(|q| Queuing {
        queues: q.queues.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        hand: q.hand_size.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        length: count(q.queue_length_limit),
    });
    Shape::Limited { queuing }
}

fn count(number: Option<i32>) -> usize {
    number.and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
}
