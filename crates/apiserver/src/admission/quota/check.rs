//! Whether a write fits the quotas of its namespace, and what they hold afterwards. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use gantry_api::Quantity;
use gantry_api::core::{Pod, ResourceQuota, ResourceQuotaSpec};
use gantry_api::meta::MetaExt;
use gantry_kinds::quota::{Measure, Measured, Scope, constraints, selectors};
use gantry_kinds::resources::{Amounts, amounts};

use super::{Config, Limited};

/// A write that asks to be charged.
pub(super) struct Ask {
    pub(super) measure: Measure,
    pub(super) new: Measured,
    /// What is there already: for updates.
    pub(super) old: Option<Measured>,
    /// The pod, if it is one.
    pub(super) pod: Option<Pod>,
    pub(super) group: String,
    pub(super) plural: String,
    pub(super) dry_run: bool,
}

/// A quota while writes are charged to it.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) object: Arc<ResourceQuota>,
    pub(super) hard: Amounts,
    pub(super) used: Amounts,
}

impl Running {
    pub(super) fn new(object: Arc<ResourceQuota>) -> Self {
        let status = object.status.as_ref();
        let hard = amounts(status.and_then(|s| s.hard.as_ref()));
        let used = amounts(status.and_then(|s| s.used.as_ref()));
        Self { object, hard, used }
    }

    fn spec(&self) -> Cow<'_, ResourceQuotaSpec> {
        self.object.spec.as_ref().map_or_else(|| Cow::Owned(ResourceQuotaSpec::default()), Cow::Borrowed)
    }

    fn name(&self) -> &str {
        self.object.name()
    }

    /// The limits that concern what is measured so.
    fn tracked(&self, measure: &Measure) -> Vec<&str> {
        self.hard.keys().map(|name| &**name).filter(|name| measure.tracks(name)).collect()
    }

    fn is_about(&self, ask: &Ask, measured: &Measured) -> Result<bool, String> {
        let in_scope = ask.measure.is_in_scope(&self.spec(), &measured.facts)?;
        Ok(in_scope && !self.tracked(&ask.measure).is_empty())
    }
}

/// What the quotas that the write concerns hold once it is charged, by their place; nothing if it costs nothing.
///
/// # Errors
/// Why the write is refused.
pub(super) fn check(
    quotas: &[Running],
    ask: &Ask,
    config: &Config,
    now: SystemTime,
) -> Result<Vec<(usize, Amounts)>, String> {
    let concerned = concerned(quotas, ask)?;
    let usage = ask.new.usage_at(now);
    let negative: Vec<&str> = usage.iter().filter(|(_, q)| q.sign() < 0).map(|(name, _)| &**name).collect();
    if !negative.is_empty() {
        return Err(format!("quota usage is negative for resource(s): {}", negative.join(",")));
    }
    let change = ask.old.as_ref().map(|old| (old, increase(&usage, &old.usage_at(now))));
    let mut charges = BTreeMap::new();
    for place in &concerned {
        let amount = match &change {
            // What was outside of the quota before is charged in full.
            Some((old, increase)) if quotas[*place].is_about(ask, old)? => increase,
            _ => &*usage,
        };
        let amount = nonzero(amount);
        if !amount.is_empty() {
            charges.insert(*place, amount);
        }
    }
    let free = match concerned.is_empty() {
        true => nonzero(change.as_ref().map_or(&usage, |(_, increase)| increase)).is_empty(),
        false => charges.is_empty(),
    };
    if free {
        return Ok(Vec::new());
    }
    check_coverage(quotas, &concerned, ask, &usage, config)?;
    charges.into_iter().map(|(place, charge)| Ok((place, charged(&quotas[place], &charge)?))).collect()
}

/// The quotas that a write concerns, by their place.
fn concerned(quotas: &[Running], ask: &Ask) -> Result<Vec<usize>, String> {
    let mut places = Vec::new();
    for (place, quota) in quotas.iter().enumerate() {
        if !quota.is_about(ask, &ask.new)? {
            continue;
        }
        let tracked = quota.tracked(&ask.measure);
        if let Some(pod) = &ask.pod {
            constraints(tracked.iter().copied(), pod)
                .map_err(|why| format!("failed quota: {}: {why}", quota.name()))?;
        }
        if tracked.iter().any(|name| !quota.used.contains_key(*name)) {
            return Err(format!(
                "status unknown for quota: {}, resources: {}",
                quota.name(),
                tracked.join(",")
            ));
        }
        places.push(place);
    }
    Ok(places)
}

fn charged(quota: &Running, charge: &Amounts) -> Result<Amounts, String> {
    let mut used = quota.used.clone();
    let mut exceeded = Vec::new();
    let requested: Amounts =
        charge.iter().filter(|(k, _)| quota.hard.contains_key(*k)).map(|(k, v)| (k.clone(), *v)).collect();
    gantry_kinds::resources::add(&mut used, &requested);
    for name in requested.keys() {
        if used.get(name) > quota.hard.get(name) {
            exceeded.push(name);
        }
    }
    if exceeded.is_empty() {
        return Ok(used);
    }
    let list = |amounts: &Amounts| {
        let shown = exceeded.iter().filter_map(|name| amounts.get(*name).map(|q| format!("{name}={q}")));
        shown.collect::<Vec<_>>().join(",")
    };
    Err(format!(
        "exceeded quota: {}, requested: {}, used: {}, limited: {}",
        quota.name(),
        list(&requested),
        list(&quota.used),
        list(&quota.hard)
    ))
}

/// What may be had only where a quota covers it must be covered.
fn check_coverage(
    quotas: &[Running],
    concerned: &[usize],
    ask: &Ask,
    usage: &Amounts,
    config: &Config,
) -> Result<(), String> {
    if config.limited_resources.is_empty() {
        return Ok(());
    }
    let own = |l: &&Limited| l.api_group == ask.group && l.resource == ask.plural;
    let parts = config.limited_resources.iter().filter(own).flat_map(|l| &l.match_contains);
    let parts: Vec<&String> = parts.collect();
    let consumed = usage.iter().filter(|(_, q)| q.sign() > 0).map(|(name, _)| &**name);
    let limited: BTreeSet<&str> =
        consumed.filter(|name| parts.iter().any(|p| name.contains(p.as_str()))).collect();
    let covered: BTreeSet<&str> =
        concerned.iter().flat_map(|place| quotas[*place].tracked(&ask.measure)).collect();
    let bare: Vec<&str> = limited.difference(&covered).copied().collect();
    if !bare.is_empty() {
        return Err(format!("insufficient quota to consume: {}", bare.join(",")));
    }
    check_scopes(quotas, ask, config)
}

fn check_scopes(quotas: &[Running], ask: &Ask, config: &Config) -> Result<(), String> {
    let matching = |scopes: Vec<Scope>| -> Result<Vec<Scope>, String> {
        let mut found = Vec::new();
        for scope in scopes {
            if ask.measure.matches(&scope, &ask.new.facts)? {
                found.push(scope);
            }
        }
        Ok(found)
    };
    let mut covering = BTreeSet::new();
    for quota in quotas {
        covering.extend(matching(selectors(&quota.spec()))?.into_iter().map(|s| s.scope_name));
    }
    let limited = config.limited_resources.iter().flat_map(|l| l.match_scopes.clone()).collect();
    let bare: Vec<String> = matching(limited)?
        .into_iter()
        .filter(|scope| !covering.contains(&scope.scope_name))
        .map(|s| format!("{{{} {} [{}]}}", s.scope_name, s.operator, s.values.unwrap_or_default().join(" ")))
        .collect();
    match bare.is_empty() {
        true => Ok(()),
        false => Err(format!("insufficient quota to match these scopes: [{}]", bare.join(" "))),
    }
}

/// By how much `new` exceeds `old`; never negative, so that a shrinking object gives nothing back here.
fn increase(new: &Amounts, old: &Amounts) -> Amounts {
    let more = |(name, amount): (&Cow<'static, str>, &Quantity)| {
        let before = old.get(name).copied().unwrap_or(Quantity::ZERO);
        (name.clone(), amount.minus(before).max(Quantity::ZERO))
    };
    new.iter().map(more).collect()
}

fn nonzero(list: &Amounts) -> Amounts {
    list.iter().filter(|(_, q)| !q.is_zero()).map(|(name, q)| (name.clone(), *q)).collect()
}
