//! The selectors of a question about a collection: how far an authorizer may take them into account (KEP-4601).
//!
//! What cannot be understood is left out: the question becomes a wider one, never a narrower.

use gantry_api::field::{Error, Path};
use gantry_api::k8s_openapi::api::authorization::v1::ResourceAttributes;
use gantry_api::metav1::{FieldSelectorRequirement, LabelSelector as Spec, LabelSelectorRequirement};
use gantry_api::{FieldSelector, LabelSelector};

/// What was understood of them.
#[derive(Default)]
pub(super) struct Selectors {
    pub(super) fields: FieldSelector,
    pub(super) labels: LabelSelector,
    /// What was not, in upstream's words.
    pub(super) errors: Vec<String>,
}

impl Selectors {
    pub(super) fn read(asked: &ResourceAttributes) -> Self {
        let mut selectors = Self::default();
        if let Some(fields) = &asked.field_selector {
            let raw = fields.raw_selector.as_deref().unwrap_or("");
            let (read, failed) = match fields.requirements.as_deref().unwrap_or_default() {
                [] => parsed(FieldSelector::parse(raw)),
                list => field_requirements(list),
            };
            selectors.note("fieldSelector", failed, read.is_everything());
            selectors.fields = read;
        }
        if let Some(labels) = &asked.label_selector {
            let raw = labels.raw_selector.as_deref().unwrap_or("");
            let (read, failed) = match labels.requirements.as_deref().unwrap_or_default() {
                [] => parsed(LabelSelector::parse(raw)),
                list => label_requirements(list),
            };
            selectors.note("labelSelector", failed, read.is_everything());
            selectors.labels = read;
        }
        selectors
    }

    fn note(&mut self, which: &str, failed: bool, nothing_left: bool) {
        if failed {
            let how = if nothing_left { "" } else { "partially " };
            self.errors.push(format!("spec.resourceAttributes.{which} {how}ignored due to parse error"));
        }
    }
}

fn parsed<T: Default, E>(result: Result<T, E>) -> (T, bool) {
    let failed = result.is_err();
    (result.unwrap_or_default(), failed)
}

fn field_requirements(list: &[FieldSelectorRequirement]) -> (FieldSelector, bool) {
    let mut text = Vec::new();
    let mut failed = false;
    for requirement in list {
        let values = requirement.values.as_deref().unwrap_or_default();
        let sign = match requirement.operator.as_str() {
            "In" => "=",
            "NotIn" => "!=",
            _ => "",
        };
        match values {
            [value] if !sign.is_empty() => {
                let value = value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
                text.push(format!("{}{sign}{value}", requirement.key));
            }
            _ => failed = true,
        }
    }
    let (read, unreadable) = parsed(FieldSelector::parse(&text.join(",")));
    (read, failed || unreadable)
}

fn label_requirements(list: &[LabelSelectorRequirement]) -> (LabelSelector, bool) {
    let mut understood = Vec::new();
    let mut failed = false;
    for requirement in list {
        let alone = Spec { match_expressions: Some(vec![requirement.clone()]), match_labels: None };
        match LabelSelector::from_spec(Some(&alone)) {
            Ok(selector) => understood.extend(selector.requirements().iter().cloned()),
            Err(_) => failed = true,
        }
    }
    (LabelSelector::of(understood), failed)
}

/// The complaints about them.
pub(super) fn check(asked: &ResourceAttributes, path: &Path, errors: &mut Vec<Error>) {
    if let Some(selector) = &asked.field_selector {
        let path = path.child("fieldSelector");
        let list = selector.requirements.as_deref().unwrap_or_default();
        either(&path, selector.raw_selector.as_deref(), list.len(), errors);
        for (i, one) in list.iter().enumerate() {
            let path = path.child("requirements").index(i);
            if one.key.is_empty() {
                errors.push(Error::required(&path.child("key"), "must be specified"));
            }
            requirement(&path, &one.operator, one.values.as_deref().unwrap_or_default(), errors);
        }
    }
    if let Some(selector) = &asked.label_selector {
        let path = path.child("labelSelector");
        let list = selector.requirements.as_deref().unwrap_or_default();
        either(&path, selector.raw_selector.as_deref(), list.len(), errors);
        for (i, one) in list.iter().enumerate() {
            let path = path.child("requirements").index(i);
            let values = one.values.as_deref().unwrap_or_default();
            requirement(&path, &one.operator, values, errors);
            for why in gantry_api::names::qualified_name_complaints(&one.key) {
                errors.push(Error::invalid(&path.child("key"), one.key.as_str(), why));
            }
            for (j, value) in values.iter().enumerate() {
                if let Err(why) = gantry_api::names::label_value(value) {
                    errors.push(Error::invalid(&path.child("values").index(j), value.as_str(), why));
                }
            }
        }
    }
}

fn either(path: &Path, raw: Option<&str>, requirements: usize, errors: &mut Vec<Error>) {
    let raw = raw.unwrap_or("");
    if !raw.is_empty() && requirements > 0 {
        let why = "may not specified at the same time as requirements";
        errors.push(Error::invalid(&path.child("rawSelector"), raw, why));
    }
    if raw.is_empty() && requirements == 0 {
        let why = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(Error::required(&path.child("requirements"), why));
    }
}

/// Operators that are not known are let through: clients may be newer than this server.
fn requirement(path: &Path, operator: &str, values: &[String], errors: &mut Vec<Error>) {
    let path = path.child("values");
    match (operator, values.is_empty()) {
        ("In" | "NotIn", true) => {
            errors.push(Error::required(&path, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        ("Exists" | "DoesNotExist", false) => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(Error::forbidden(&path, why));
        }
        _ => {}
    }
}
