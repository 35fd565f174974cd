//! Judges an object by its schema, in upstream's words.

use std::collections::{HashMap, HashSet};

use gantry_api::field::{Error, Path};
use gantry_api::schema::{Additional, ListType, Structural, StructuralType};
use regex::Regex;
use serde_json::{Map, Value};

use super::formats;
use crate::apply::equal;

/// What is wrong with an object; places that are as they were in `old` are not judged.
pub fn object(
    object: &Value,
    old: Option<&Value>,
    schema: &Structural,
    patterns: &HashMap<String, Regex>,
) -> Vec<Error> {
    let mut judge = Judge { patterns, found: Vec::new() };
    judge.place(object, old, schema, "");
    judge.found
}

/// What is wrong with embedded objects, and what occurs twice in sets and maps; a list that had repetitions in `old` may
/// keep them.
pub fn embedded_and_lists(object: &Value, old: Option<&Value>, schema: &Structural) -> Vec<Error> {
    let mut found = Vec::new();
    embedded(object, schema, &Path::root(), true, &mut found);
    found.extend(new_repetitions(object, old, schema));
    found
}

/// What occurs twice in sets and maps, if nothing did in `old`.
pub fn new_repetitions(object: &Value, old: Option<&Value>, schema: &Structural) -> Vec<Error> {
    let mut found = Vec::new();
    if !old.is_some_and(|old| has_repetitions(old, schema)) {
        lists(object, schema, &Path::root(), &mut found);
    }
    found
}

/// What is wrong with a value whose place is `path`: a default.
pub fn below(
    value: &Value,
    schema: &Structural,
    patterns: &HashMap<String, Regex>,
    path: &Path,
) -> Vec<Error> {
    let mut found = part(value, None, schema, patterns, path);
    lists(value, schema, path, &mut found);
    embedded(value, schema, path, schema.embedded_resource, &mut found);
    found
}

/// What is wrong with a value whose place is `path`, and which was `old`; sets and maps aside.
pub fn part(
    value: &Value,
    old: Option<&Value>,
    schema: &Structural,
    patterns: &HashMap<String, Regex>,
    path: &Path,
) -> Vec<Error> {
    let mut judge = Judge { patterns, found: Vec::new() };
    // Upstream's texts name the place in the value, and only the error's path the place of the value.
    judge.place(value, old, schema, "");
    for error in &mut judge.found {
        error.path = match error.path.as_str() {
            "" => path.clone(),
            own if own.starts_with('[') => Path::new(&format!("{}{own}", path.as_str())),
            own => Path::new(&format!("{}.{own}", path.as_str())),
        };
    }
    judge.found
}

struct Judge<'a> {
    patterns: &'a HashMap<String, Regex>,
    found: Vec<Error>,
}

/// The path that an error names; validators join names with dots from the root.
fn at(path: &str) -> Path {
    let path = path.trim_start_matches('.');
    if path.is_empty() { Path::root() } else { Path::new(path) }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

impl Judge<'_> {
    fn invalid(&mut self, path: &str, value: impl Into<Value>, rule: &str) {
        self.found.push(Error::invalid(&at(path), value, format!("{path} in body {rule}")));
    }

    /// A finding that names its place in the text only.
    fn composite(&mut self, text: String) {
        self.found.push(Error::invalid(&Path::root(), "", text));
    }

    fn place(&mut self, value: &Value, old: Option<&Value>, schema: &Structural, path: &str) {
        if old.is_some_and(|old| equal(value, old)) {
            return;
        }
        self.types(value, schema, path);
        if !value.is_null() {
            self.junctors(value, schema, path);
        }
        match value {
            Value::String(text) => self.string(text, schema, path),
            Value::Number(number) => self.number(number, value, schema, path),
            Value::Array(list) => self.list(list, old, schema, path),
            _ => {}
        }
        let allowed = &schema.validation.enumeration;
        if !allowed.is_empty() && !value.is_null() && !allowed.iter().any(|a| equal(a, value)) {
            let texts: Vec<String> =
                allowed.iter().map(|a| a.as_str().map_or_else(|| a.to_string(), str::to_owned)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            self.found.push(Error::not_supported(&at(path), value.clone(), &texts));
        }
        if let Value::Object(map) = value {
            self.object(map, old, schema, path);
        }
    }

    fn types(&mut self, value: &Value, schema: &Structural, path: &str) {
        let wanted = match schema.ty {
            StructuralType::Unset if schema.int_or_string => "integer,string",
            ty => ty.as_str(),
        };
        let (found, fits) = match value {
            Value::Null => ("null", schema.nullable),
            Value::Bool(_) => ("boolean", wanted == "boolean"),
            Value::String(_) => ("string", wanted == "string" || schema.int_or_string),
            Value::Array(_) => ("array", wanted == "array"),
            Value::Object(_) => ("object", wanted == "object"),
            Value::Number(n) => {
                let whole = n.is_i64() || n.is_u64() || n.as_f64().is_some_and(|f| f.fract() == 0.0);
                let name = if n.is_f64() { "number" } else { "integer" };
                (name, wanted == "number" || whole && (wanted == "integer" || schema.int_or_string))
            }
        };
        if !wanted.is_empty() && !fits {
            let text = format!("{path} in body must be of type {wanted}: \"{found}\"");
            self.found.push(Error::type_invalid(&at(path), found, text));
        }
    }

    fn string(&mut self, text: &str, schema: &Structural, path: &str) {
        let rules = &schema.validation;
        let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        // Of length and pattern the first that does not fit is told.
        if let Some(max) = rules.max_length.filter(|max| length > *max) {
            self.found.push(Error::too_long(&at(path), usize::try_from(max).unwrap_or(0)));
        } else if let Some(min) = rules.min_length.filter(|min| length < *min) {
            self.invalid(path, text, &format!("should be at least {min} chars long"));
        } else if let Some(pattern) = &rules.pattern
            // A pattern that does not compile was refused with the definition.
            && self.patterns.get(pattern).is_some_and(|compiled| !compiled.is_match(text))
        {
            self.invalid(path, text, &format!("should match '{pattern}'"));
        }
        if let Some(format) = rules.format.as_deref().filter(|f| !formats::accepts(f, text)) {
            let what = format!("{path} in body must be of type {format}: {}", Value::from(text));
            self.found.push(Error::type_invalid(&at(path), text, what));
        }
    }

    fn number(&mut self, number: &serde_json::Number, value: &Value, schema: &Structural, path: &str) {
        let rules = &schema.validation;
        let Some(float) = number.as_f64() else { return };
        self.range(number, "Checked", schema, path);
        if let Some(step) = rules.multiple_of.filter(|step| *step > 0.0) {
            let factor = float / step;
            if factor.fract().abs() > f64::EPSILON {
                self.invalid(path, value.clone(), &format!("should be a multiple of {step}"));
            }
        }
        if let Some(min) = rules.minimum {
            if rules.exclusive_minimum && float <= min {
                self.invalid(path, value.clone(), &format!("should be greater than {min}"));
            } else if !rules.exclusive_minimum && float < min {
                self.invalid(path, value.clone(), &format!("should be greater than or equal to {min}"));
            }
        }
        if let Some(max) = rules.maximum {
            if rules.exclusive_maximum && float >= max {
                self.invalid(path, value.clone(), &format!("should be less than {max}"));
            } else if !rules.exclusive_maximum && float > max {
                self.invalid(path, value.clone(), &format!("should be less than or equal to {max}"));
            }
        }
    }

    /// Whether a number can be one of the schema's type and format; `what` it is, if not.
    fn range(&mut self, number: &serde_json::Number, what: &str, schema: &Structural, path: &str) {
        if schema.ty != StructuralType::Integer {
            return;
        }
        let format = schema.validation.format.as_deref().unwrap_or_default();
        let fits = whole(number).is_some_and(|n| match format {
            "int32" => i32::try_from(n).is_ok(),
            "uint32" => u32::try_from(n).is_ok(),
            "uint64" => u64::try_from(n).is_ok(),
            _ => i64::try_from(n).is_ok(),
        });
        if !fits {
            let format = match format {
                "" => "(default format)".to_owned(),
                format => format!("with format {format}"),
            };
            self.composite(format!("{what} value must be of type integer {format} in {path}"));
        }
    }

    fn list(&mut self, list: &[Value], old: Option<&Value>, schema: &Structural, path: &str) {
        let rules = &schema.validation;
        if let Some(items) = &schema.items {
            let known = correlated(old, schema);
            for (i, value) in list.iter().enumerate() {
                let old = known.get(&key_of(value, &schema.list_map_keys).to_string()).copied();
                self.place(value, old, items, &format!("{path}[{i}]"));
            }
        }
        let size = i64::try_from(list.len()).unwrap_or(i64::MAX);
        if let Some(min) = rules.min_items.filter(|min| size < *min) {
            self.invalid(path, size, &format!("should have at least {min} items"));
        }
        if let Some(max) = rules.max_items.filter(|max| size > *max) {
            self.found.push(Error::too_many(&at(path), list.len(), usize::try_from(max).unwrap_or(0)));
        }
        if rules.unique_items {
            let mut seen = HashSet::with_capacity(list.len());
            if !list.iter().all(|v| seen.insert(v.to_string())) {
                self.invalid(path, "", "shouldn't contain duplicates");
            }
        }
    }

    fn object(&mut self, map: &Map<String, Value>, old: Option<&Value>, schema: &Structural, path: &str) {
        let rules = &schema.validation;
        let size = i64::try_from(map.len()).unwrap_or(i64::MAX);
        if let Some(min) = rules.min_properties.filter(|min| size < *min) {
            self.invalid(path, size, &format!("should have at least {min} properties"));
        }
        if let Some(max) = rules.max_properties.filter(|max| size > *max) {
            self.found.push(Error::too_many(&at(path), map.len(), usize::try_from(max).unwrap_or(0)));
        }
        for (name, value) in map {
            let inner = match (schema.properties.get(name), &schema.additional) {
                (Some(property), _) => property,
                (None, Some(Additional::Schema(inner))) => inner,
                (None, Some(Additional::Allowed(false))) => {
                    let text = format!("{path}.{name} in body is a forbidden property");
                    self.found.push(Error::invalid(&at(path), name.as_str(), text));
                    continue;
                }
                _ => continue,
            };
            let old = old.and_then(|old| old.get(name));
            self.place(value, old, inner, &join(path, name));
        }
        for name in rules.required.iter().filter(|name| !map.contains_key(*name)) {
            self.found.push(Error::required(&at(&join(path, name)), ""));
        }
    }

    /// What a nested schema finds.
    fn nested(&self, value: &Value, schema: &Structural, path: &str) -> Vec<Error> {
        let mut judge = Judge { patterns: self.patterns, found: Vec::new() };
        judge.place(value, None, schema, path);
        judge.found
    }

    fn junctors(&mut self, value: &Value, schema: &Structural, path: &str) {
        let rules = &schema.validation;
        if !rules.any_of.is_empty() {
            let results: Vec<_> = rules.any_of.iter().map(|s| self.nested(value, s, path)).collect();
            if !results.iter().any(Vec::is_empty) {
                self.composite(format!("\"{path}\" must validate at least one schema (anyOf)"));
                self.keep_best(results);
            }
        }
        if !rules.one_of.is_empty() {
            let results: Vec<_> = rules.one_of.iter().map(|s| self.nested(value, s, path)).collect();
            let valid = results.iter().filter(|r| r.is_empty()).count();
            if valid != 1 {
                let why = match valid {
                    0 => "Found none valid".to_owned(),
                    many => format!("Found {many} valid alternatives"),
                };
                self.composite(format!("\"{path}\" must validate one and only one schema (oneOf). {why}"));
                if valid == 0 {
                    self.keep_best(results);
                }
            }
        }
        if !rules.all_of.is_empty() {
            let results: Vec<_> = rules.all_of.iter().map(|s| self.nested(value, s, path)).collect();
            let valid = results.iter().filter(|r| r.is_empty()).count();
            let all = results.len();
            results.into_iter().for_each(|r| self.found.extend(r));
            if valid != all {
                let why = if valid == 0 { ". None validated" } else { "" };
                self.composite(format!("\"{path}\" must validate all the schemas (allOf){why}"));
            }
        }
        if rules.not.as_ref().is_some_and(|not| self.nested(value, not, path).is_empty()) {
            self.composite(format!("\"{path}\" must not validate the schema (not)"));
        }
    }

    /// The findings of the alternative that came closest.
    fn keep_best(&mut self, results: Vec<Vec<Error>>) {
        self.found.extend(results.into_iter().min_by_key(Vec::len).unwrap_or_default());
    }
}

/// A number without a fraction.
fn whole(number: &serde_json::Number) -> Option<i128> {
    /// Beyond this no type holds it.
    const MOST: f64 = 1e30;
    let float = || number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < MOST).map(|f| f as i128);
    number.as_i128().or_else(float)
}

/// The elements that a list had, by their keys; of lists without keys nobody knows which belong together.
fn correlated<'a>(old: Option<&'a Value>, schema: &Structural) -> HashMap<String, &'a Value> {
    let old = old.and_then(Value::as_array).filter(|_| schema.list_type == Some(ListType::Map));
    let keyed = old.into_iter().flatten().map(|v| (key_of(v, &schema.list_map_keys).to_string(), v));
    keyed.collect()
}

fn has_repetitions(value: &Value, schema: &Structural) -> bool {
    let mut found = Vec::new();
    lists(value, schema, &Path::root(), &mut found);
    !found.is_empty()
}

/// Elements of sets and maps that occur twice.
fn lists(value: &Value, schema: &Structural, path: &Path, found: &mut Vec<Error>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match (schema.properties.get(name), &schema.additional) {
                    (Some(property), _) => lists(value, property, &path.child(name), found),
                    (None, Some(Additional::Schema(inner))) => lists(value, inner, &path.key(name), found),
                    _ => {}
                }
            }
        }
        Value::Array(list) => {
            match schema.list_type {
                Some(ListType::Set) => repeated(list.iter().cloned(), path, found),
                Some(ListType::Map) => {
                    let stray = list.iter().position(|v| !v.is_object() && !v.is_null());
                    match stray {
                        Some(i) => {
                            let why = "must be an object for an array of list-type map";
                            found.push(Error::invalid(&path.index(i), list[i].clone(), why));
                        }
                        None => repeated(list.iter().map(|v| key_of(v, &schema.list_map_keys)), path, found),
                    }
                }
                _ => {}
            }
            if let Some(items) = &schema.items {
                for (i, value) in list.iter().enumerate() {
                    lists(value, items, &path.index(i), found);
                }
            }
        }
        _ => {}
    }
}

fn key_of(element: &Value, keys: &[String]) -> Value {
    keys.iter().filter_map(|key| Some((key.clone(), element.get(key)?.clone()))).collect::<Map<_, _>>().into()
}

/// Reports the second occurrence of each value.
fn repeated(values: impl Iterator<Item = Value>, path: &Path, found: &mut Vec<Error>) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (i, value) in values.enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            found.push(Error::duplicate(&path.index(i), value));
        }
    }
}

/// Objects embedded in others say what they are.
fn embedded(value: &Value, schema: &Structural, path: &Path, is_root: bool, found: &mut Vec<Error>) {
    match value {
        Value::Object(map) => {
            if schema.embedded_resource && !is_root {
                for name in ["apiVersion", "kind"] {
                    match map.get(name) {
                        None => found.push(Error::required(&path.child(name), "")),
                        Some(Value::String(text)) if text.is_empty() => {
                            found.push(Error::invalid(&path.child(name), "", "must not be empty"));
                        }
                        Some(Value::String(_)) => {}
                        Some(other) => {
                            found.push(Error::invalid(&path.child(name), other.clone(), "must be a string"));
                        }
                    }
                }
            }
            for (name, value) in map {
                match (schema.properties.get(name), &schema.additional) {
                    (Some(property), _) => embedded(value, property, &path.child(name), false, found),
                    (None, Some(Additional::Schema(inner))) => {
                        embedded(value, inner, &path.key(name), false, found);
                    }
                    _ => {}
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for (i, value) in list.iter().enumerate() {
                    embedded(value, items, &path.index(i), false, found);
                }
            }
        }
        _ => {}
    }
}
