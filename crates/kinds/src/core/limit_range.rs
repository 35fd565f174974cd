//! LimitRange: how much single pods, containers and claims of a namespace may ask for, and what they get if they do
//! not say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use gantry_api::core::{LimitRange, LimitRangeItem};
use gantry_api::field::{Error, Path};
use gantry_api::quantity::{Quantity, WireQuantity};

use serde_json::Value;

use crate::common::{check, resource_names};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{self, Column};

type Amounts = Option<BTreeMap<String, WireQuantity>>;

/// The kind.
pub struct LimitRangeKind;

impl Kind for LimitRangeKind {
    type Object = LimitRange;
    const NAMES: Names =
        Names { singular: "limitrange", short: &["limits"], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const CREATE_ON_UPDATE: bool = true;

    fn defaults(range: &mut LimitRange) {
        for item in range.spec.iter_mut().flat_map(|s| s.limits.iter_mut()).filter(|i| i.type_ == "Container")
        {
            let fill = |into: &mut Amounts, from: &Amounts| {
                for (name, amount) in from.iter().flatten() {
                    into.get_or_insert_default().entry(name.clone()).or_insert_with(|| amount.clone());
                }
            };
            fill(&mut item.default, &item.max);
            fill(&mut item.default_request, &item.default);
            fill(&mut item.default_request, &item.min);
        }
    }

    fn validate(range: &LimitRange) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec").child("limits");
        let mut seen = BTreeSet::new();
        for (i, item) in range.spec.iter().flat_map(|s| &s.limits).enumerate() {
            let at = path.index(i);
            validate_type(&item.type_, &at.child("type"), &mut errors);
            if !seen.insert(&item.type_) {
                errors.push(Error::duplicate(&at.child("type"), item.type_.as_str()));
            }
            validate_item(item, &at, &mut errors);
        }
        errors
    }

    fn columns() -> &'static [Column] {
        table::CREATED_AT
    }

    fn cells(range: &LimitRange, _now: SystemTime) -> Vec<Value> {
        vec![table::created_at(&range.metadata)]
    }
}

fn validate_type(name: &str, path: &Path, errors: &mut Errors) {
    let before = errors.len();
    check::qualified_name(path, name, errors);
    if errors.len() == before
        && !name.contains('/')
        && !matches!(name, "Pod" | "Container" | "PersistentVolumeClaim")
    {
        errors.push(Error::invalid(path, name, "must be a standard limit type or fully qualified"));
    }
}

/// The readable amounts of a list whose names are checked on the way.
fn read(
    amounts: &Amounts,
    item: &LimitRangeItem,
    path: &Path,
    errors: &mut Errors,
) -> BTreeMap<String, Quantity> {
    let mut read = BTreeMap::new();
    for (name, wire) in amounts.iter().flatten() {
        let at = path.key(name);
        match item.type_.as_str() {
            "Pod" | "Container" => resource_names::validate_container(name, &at, errors),
            _ => resource_names::validate(name, &at, errors),
        }
        match Quantity::from_wire(wire) {
            Ok(amount) => {
                read.insert(name.clone(), amount);
            }
            Err(why) => errors.push(Error::invalid(&at, wire.0.as_str(), why.to_string())),
        }
    }
    read
}

fn validate_item(item: &LimitRangeItem, path: &Path, errors: &mut Errors) {
    let max = read(&item.max, item, &path.child("max"), errors);
    let min = read(&item.min, item, &path.child("min"), errors);
    let (mut default, mut request) = (BTreeMap::new(), BTreeMap::new());
    if item.type_ == "Pod" {
        let why = "may not be specified when `type` is 'Pod'";
        for (field, amounts) in [("default", &item.default), ("defaultRequest", &item.default_request)] {
            if amounts.as_ref().is_some_and(|a| !a.is_empty()) {
                errors.push(Error::forbidden(&path.child(field), why));
            }
        }
    } else {
        default = read(&item.default, item, &path.child("default"), errors);
        request = read(&item.default_request, item, &path.child("defaultRequest"), errors);
    }
    if item.type_ == "PersistentVolumeClaim" && !max.contains_key("storage") && !min.contains_key("storage") {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(Error::required(&path.child("limits"), why));
    }
    let ratio = read(&item.max_limit_request_ratio, item, &path.child("maxLimitRequestRatio"), errors);
    let lists = [&max, &min, &default, &request, &ratio];
    let resources: BTreeSet<&String> = lists.iter().flat_map(|list| list.keys()).collect();
    for name in resources {
        let of = |list: &BTreeMap<String, Quantity>| list.get(name).copied();
        let amounts = Amount {
            name,
            min: of(&min),
            max: of(&max),
            default: of(&default),
            request: of(&request),
            ratio: of(&ratio),
        };
        amounts.validate(path, errors);
    }
}

/// What an item says of one resource.
struct Amount<'a> {
    name: &'a str,
    min: Option<Quantity>,
    max: Option<Quantity>,
    default: Option<Quantity>,
    request: Option<Quantity>,
    ratio: Option<Quantity>,
}

impl Amount<'_> {
    fn validate(&self, path: &Path, errors: &mut Errors) {
        let mut wrong = |field: &str, value: Quantity, why: String| {
            errors.push(Error::invalid(&path.child(field).key(self.name), value.to_string(), why));
        };
        let above = |low: Option<Quantity>, high: Option<Quantity>| low.zip(high).filter(|(l, h)| l > h);
        if let Some((min, max)) = above(self.min, self.max) {
            wrong("min", min, format!("min value {min} is greater than max value {max}"));
        }
        if let Some((min, request)) = above(self.min, self.request) {
            let why = format!("min value {min} is greater than default request value {request}");
            wrong("defaultRequest", request, why);
        }
        if let Some((request, max)) = above(self.request, self.max) {
            let why = format!("default request value {request} is greater than max value {max}");
            wrong("defaultRequest", request, why);
        }
        if let Some((request, default)) = above(self.request, self.default) {
            let why =
                format!("default request value {request} is greater than default limit value {default}");
            wrong("defaultRequest", request, why);
        }
        if let Some((min, default)) = above(self.min, self.default) {
            wrong("default", min, format!("min value {min} is greater than default value {default}"));
        }
        if let Some((default, max)) = above(self.default, self.max) {
            wrong("default", max, format!("default value {default} is greater than max value {max}"));
        }
        if let Some(ratio) = self.ratio {
            if ratio < Quantity::from_units(1) {
                wrong("maxLimitRequestRatio", ratio, format!("ratio {ratio} is less than 1"));
            }
            if let Some((min, max)) = self.min.zip(self.max) {
                let limit = max.as_f64() / min.as_f64();
                if ratio.as_f64() > limit {
                    let why = format!("ratio {ratio} is greater than max/min = {limit:.6}");
                    wrong("maxLimitRequestRatio", ratio, why);
                }
            }
        }
        if !resource_names::is_overcommittable(self.name)
            && let Some((default, request)) = self.default.zip(self.request).filter(|(d, r)| d != r)
        {
            let name = self.name;
            let why =
                format!("default value {default} must equal to defaultRequest value {request} in {name}");
            wrong("defaultRequest", request, why);
        }
    }
}
