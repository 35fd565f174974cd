//! What a definition may say, schemas aside: `apis/apiextensions/validation` upstream.
//!
//! Upstream keeps what all versions have in common at the top of the spec; its paths show that.

use std::collections::BTreeSet;

use gantry_api::admissionregistration::ServiceReference;
use gantry_api::apiextensions::{
    CustomResourceColumnDefinition, CustomResourceConversion, CustomResourceDefinition,
    CustomResourceDefinitionNames, CustomResourceDefinitionVersion, CustomResourceSubresources,
    JSONSchemaProps, JSONSchemaPropsOrArray, SelectableField, WebhookClientConfig,
};
use gantry_api::field::{Error, Path};
use gantry_api::{conditions, names};
use serde_json::{Value, json};

use super::approval::{self, Approval};
use crate::admissionregistration::webhooks;
use crate::common::check;
use crate::common::check::immutable;
use crate::kind::Errors;

/// The most selectable fields of a version.
const MAX_SELECTABLE: usize = 8;
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
/// The longest warning of a deprecated version.
const MAX_WARNING: usize = 256;

/// What is wrong with a definition, which may replace another.
pub fn definition(crd: &CustomResourceDefinition, old: Option<&CustomResourceDefinition>) -> Errors {
    let mut errors = Errors::new();
    let spec = &crd.spec;
    let expected = format!("{}.{}", spec.names.plural, spec.group);
    let name = crd.metadata.name.as_deref().unwrap_or("");
    if name != expected && !name.is_empty() && old.is_none() {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(Error::invalid(&Path::new("metadata").child("name"), name, why));
    }
    let path = Path::new("spec");
    group(&spec.group, &path.child("group"), &mut errors);
    match spec.scope.as_str() {
        "" => errors.push(Error::required(&path.child("scope"), "")),
        scope => check::supported(&path.child("scope"), scope, &["Cluster", "Namespaced"], &mut errors),
    }
    versions(crd, old, &path, &mut errors);
    required_names(&spec.names, &path.child("names"), &mut errors);
    wellformed_names(&spec.names, &path.child("names"), &mut errors);
    if let Some(spec) = &spec.conversion {
        conversion(spec, &path.child("conversion"), &mut errors);
    }
    errors.extend(status(crd));
    stored_versions(crd, &mut errors);
    approved(crd, old, &mut errors);
    let preserves = |crd: &CustomResourceDefinition| crd.spec.preserve_unknown_fields == Some(true);
    let has_defaults = |version: &CustomResourceDefinitionVersion| {
        let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
        schema.is_some_and(says_default)
    };
    if preserves(crd) && spec.versions.iter().any(has_defaults) {
        let why = "must be false in order to use defaults in the schema";
        errors.push(Error::invalid(&path.child("preserveUnknownFields"), true, why));
    }
    if preserves(crd) && !old.is_some_and(preserves) {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(Error::invalid(&path.child("preserveUnknownFields"), true, why));
    }
    errors
}

/// What of a definition may not change.
pub fn change(new: &CustomResourceDefinition, old: &CustomResourceDefinition) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let names = path.child("names");
    if conditions::is_true(old.status.as_ref().and_then(|s| s.conditions.as_ref()), "Established") {
        immutable(&path.child("scope"), &new.spec.scope, &old.spec.scope, &mut errors);
        immutable(&names.child("kind"), &new.spec.names.kind, &old.spec.names.kind, &mut errors);
    }
    immutable(&path.child("group"), &new.spec.group, &old.spec.group, &mut errors);
    immutable(&names.child("plural"), &new.spec.names.plural, &old.spec.names.plural, &mut errors);
    errors
}

/// What is wrong with the status.
pub fn status(crd: &CustomResourceDefinition) -> Errors {
    let mut errors = Errors::new();
    if let Some(accepted) = crd.status.as_ref().and_then(|s| s.accepted_names.as_ref()) {
        wellformed_names(accepted, &Path::new("status").child("acceptedNames"), &mut errors);
    }
    errors
}

/// Whether a schema declares a default anywhere.
fn says_default(schema: &JSONSchemaProps) -> bool {
    fn any(value: &Value) -> bool {
        match value {
            Value::Object(map) => map.contains_key("default") || map.values().any(any),
            Value::Array(list) => list.iter().any(any),
            _ => false,
        }
    }
    serde_json::to_value(schema).is_ok_and(|schema| any(&schema))
}

fn group(group: &str, path: &Path, errors: &mut Errors) {
    if group.is_empty() {
        errors.push(Error::required(path, ""));
    } else if let Err(why) = names::dns1123_subdomain(group) {
        errors.push(Error::invalid(path, group, why));
    } else if !group.contains('.') {
        errors.push(Error::invalid(path, group, "should be a domain with at least one dot"));
    }
}

/// Where a part of the versions is: at the top if all have the same, else in each.
fn places<'a, T: PartialEq>(
    crd: &'a CustomResourceDefinition,
    part: fn(&'a CustomResourceDefinitionVersion) -> Option<&'a T>,
    top: &Path,
    inside: &str,
) -> Vec<(Path, &'a T, usize)> {
    let versions = &crd.spec.versions;
    let Some(first) = versions.first() else { return Vec::new() };
    if versions.iter().all(|v| part(v) == part(first)) {
        return part(first).map(|p| (top.clone(), p, 0)).into_iter().collect();
    }
    let list = Path::new("spec").child("versions");
    let each = versions.iter().enumerate();
    each.filter_map(|(i, v)| part(v).map(|p| (list.index(i).child(inside), p, i))).collect()
}

fn versions(
    crd: &CustomResourceDefinition,
    old: Option<&CustomResourceDefinition>,
    path: &Path,
    errors: &mut Errors,
) {
    let list = path.child("versions");
    let versions = &crd.spec.versions;
    let schema = |v: &CustomResourceDefinitionVersion| {
        v.schema.as_ref().is_some_and(|s| s.open_api_v3_schema.is_some())
    };
    let required = old.is_none_or(|old| old.spec.versions.iter().all(schema));
    for (i, version) in versions.iter().enumerate() {
        if !schema(version) && required {
            errors.push(Error::required(&list.index(i).child("schema").child("openAPIV3Schema"), ""));
        } else if !schema(version) && version.served {
            let why = "because otherwise all fields are pruned";
            errors.push(Error::required(&list.index(i).child("schema").child("openAPIV3Schema"), why));
        }
    }
    let mut seen = BTreeSet::new();
    let mut unique = true;
    for (i, version) in versions.iter().enumerate() {
        unique &= seen.insert(&version.name);
        check::name(&list.index(i).child("name"), &version.name, names::dns1035_label(&version.name), errors);
        deprecation(version, &list.index(i).child("deprecationWarning"), errors);
    }
    // The first version stands at the top of the spec as well.
    if let Some(first) = versions.first() {
        check::name(&path.child("version"), &first.name, names::dns1035_label(&first.name), errors);
    }
    let shown = || shown_versions(versions);
    if !unique {
        errors.push(Error::invalid(&list, shown(), "must contain unique version names"));
    }
    if versions.iter().filter(|v| v.storage).count() != 1 {
        errors.push(Error::invalid(
            &list,
            shown(),
            "must have exactly one version marked as storage version",
        ));
    }
    for (at, part, _) in places(crd, |v| v.subresources.as_ref(), &path.child("subresources"), "subresources")
    {
        subresources(part, &at, errors);
    }
    let columns = "additionalPrinterColumns";
    for (at, part, _) in places(crd, |v| v.additional_printer_columns.as_ref(), &path.child(columns), columns)
    {
        part.iter().enumerate().for_each(|(i, column)| printer_column(column, &at.index(i), errors));
    }
    let fields = "selectableFields";
    for (at, part, i) in places(crd, |v| v.selectable_fields.as_ref(), &path.child(fields), fields) {
        let version = &versions[i];
        let before = old.and_then(|old| old.spec.versions.iter().find(|v| v.name == version.name));
        let unchanged = before.is_some_and(|v| v.selectable_fields == version.selectable_fields);
        selectable(part, version, unchanged, &at, errors);
    }
}

/// Versions as upstream's internal type shows them: what all of them have in common stands elsewhere.
fn shown_versions(versions: &[CustomResourceDefinitionVersion]) -> Value {
    if versions.is_empty() {
        return Value::Null;
    }
    let own = |shared: bool, value: Value| if shared { Value::Null } else { value };
    let is_shared =
        |same: &dyn Fn(&CustomResourceDefinitionVersion, &CustomResourceDefinitionVersion) -> bool| {
            versions.iter().all(|version| same(version, &versions[0]))
        };
    let schema = is_shared(&|a, b| a.schema == b.schema);
    let subresources = is_shared(&|a, b| a.subresources == b.subresources);
    let columns = is_shared(&|a, b| a.additional_printer_columns == b.additional_printer_columns);
    let fields = is_shared(&|a, b| a.selectable_fields == b.selectable_fields);
    let shown = versions.iter().map(|version| {
        gantry_api::field::ordered(&[
            ("Name", json!(version.name)),
            ("Served", json!(version.served)),
            ("Storage", json!(version.storage)),
            ("Deprecated", json!(version.deprecated.unwrap_or(false))),
            ("DeprecationWarning", json!(version.deprecation_warning)),
            ("Schema", own(schema, json!(version.schema))),
            ("Subresources", own(subresources, json!(version.subresources))),
            ("AdditionalPrinterColumns", own(columns, json!(version.additional_printer_columns))),
            ("SelectableFields", own(fields, json!(version.selectable_fields))),
        ])
    });
    gantry_api::field::ordered_list(shown)
}

fn deprecation(version: &CustomResourceDefinitionVersion, path: &Path, errors: &mut Errors) {
    let Some(warning) = version.deprecation_warning.as_deref() else { return };
    let mut complain = |why: String| errors.push(Error::invalid(path, warning, why));
    if version.deprecated != Some(true) {
        return complain("can only be set for deprecated versions".to_owned());
    }
    if warning.len() > MAX_WARNING {
        complain(format!("must be <= {MAX_WARNING} characters long"));
    }
    if warning.is_empty() {
        complain("must not be an empty string".to_owned());
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        complain(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        ));
    }
}

fn subresources(part: &CustomResourceSubresources, path: &Path, errors: &mut Errors) {
    let Some(scale) = &part.scale else { return };
    for (name, value, prefix) in [
        ("scale.specReplicasPath", &scale.spec_replicas_path, ".spec"),
        ("scale.statusReplicasPath", &scale.status_replicas_path, ".status"),
    ] {
        let at = path.child(name);
        if value.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if !simple_path(value, &at, errors) && !value.starts_with(&format!("{prefix}.")) {
            errors.push(Error::invalid(&at, value.as_str(), format!("should be a json path under {prefix}")));
        }
    }
    if let Some(value) = scale.label_selector_path.as_deref().filter(|p| !p.is_empty()) {
        let at = path.child("scale.labelSelectorPath");
        let inside = value.starts_with(".spec.") || value.starts_with(".status.");
        if !simple_path(value, &at, errors) && !inside {
            errors.push(Error::invalid(&at, value, "should be a json path under either .spec or .status"));
        }
    }
}

/// Whether the path is no simple one.
fn simple_path(value: &str, path: &Path, errors: &mut Errors) -> bool {
    let wrong = !value.starts_with('.');
    if wrong {
        errors.push(Error::invalid(path, value, "must be a simple json path starting with ."));
    }
    wrong
}

fn printer_column(column: &CustomResourceColumnDefinition, path: &Path, errors: &mut Errors) {
    if column.name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    let one_of = |list: &[&str]| format!("must be one of {}", list.join(","));
    if column.type_.is_empty() {
        errors.push(Error::required(&path.child("type"), one_of(&COLUMN_TYPES)));
    } else if !COLUMN_TYPES.contains(&column.type_.as_str()) {
        errors.push(Error::invalid(&path.child("type"), column.type_.as_str(), one_of(&COLUMN_TYPES)));
    }
    let format = column.format.as_deref().unwrap_or("");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        errors.push(Error::invalid(&path.child("format"), format, one_of(&COLUMN_FORMATS)));
    }
    if column.json_path.is_empty() {
        errors.push(Error::required(&path.child("JSONPath"), ""));
    } else {
        simple_path(&column.json_path, &path.child("JSONPath"), errors);
    }
}

fn selectable(
    fields: &[SelectableField],
    version: &CustomResourceDefinitionVersion,
    unchanged: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
    if fields.is_empty() {
        return;
    }
    let Some(schema) = schema else {
        let why = "may only be set when validations.schema is included";
        errors.push(Error::invalid(path, "", why));
        return;
    };
    let mut seen = BTreeSet::new();
    for (i, field) in fields.iter().enumerate() {
        let at = path.index(i).child("jsonPath");
        let value = field.json_path.as_str();
        if value.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        let found = match field_schema(value, schema) {
            Ok(found) => found,
            Err(why) => {
                errors.push(Error::invalid(&at, value, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if value.split('.').nth(1) == Some("metadata") {
            errors.push(Error::invalid(&at, value, "must not point to fields in metadata"));
        }
        if !matches!(found.type_.as_deref(), Some("string" | "boolean" | "integer")) {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.push(Error::invalid(&at, value, why));
        }
        if !seen.insert(value) {
            errors.push(Error::duplicate(&at, value));
        }
    }
    if seen.len() > MAX_SELECTABLE && !unchanged {
        errors.push(Error::too_many(path, seen.len(), MAX_SELECTABLE));
    }
}

/// The schema at a path of fields: no lists, no maps.
fn field_schema<'a>(path: &str, schema: &'a JSONSchemaProps) -> Result<&'a JSONSchemaProps, String> {
    let Some(rest) = path.strip_prefix('.') else {
        return Err(format!("expected [ or . but got: {path}"));
    };
    let mut at = schema;
    for name in rest.split('.') {
        let properties = at.properties.as_ref();
        let found = properties.and_then(|p| p.get(name));
        let is_list = matches!(at.items, Some(JSONSchemaPropsOrArray::Schema(_)));
        at = found.filter(|_| !is_list).ok_or("does not refer to a valid field")?;
    }
    Ok(at)
}

fn required_names(part: &CustomResourceDefinitionNames, path: &Path, errors: &mut Errors) {
    for (field, value) in [
        ("plural", Some(part.plural.as_str())),
        ("singular", part.singular.as_deref()),
        ("kind", Some(part.kind.as_str())),
        ("listKind", part.list_kind.as_deref()),
    ] {
        check::required(&path.child(field), value, errors);
    }
}

fn wellformed_names(part: &CustomResourceDefinitionNames, path: &Path, errors: &mut Errors) {
    let (singular, list) = (part.singular.as_deref().unwrap_or(""), part.list_kind.as_deref().unwrap_or(""));
    for (field, value) in [("plural", part.plural.as_str()), ("singular", singular)] {
        if !value.is_empty() {
            check::name(&path.child(field), value, names::dns1035_label(value), errors);
        }
    }
    for (field, value) in [("kind", part.kind.as_str()), ("listKind", list)] {
        if let Err(why) = names::dns1035_label(&value.to_lowercase())
            && !value.is_empty()
        {
            let why = format!("may have mixed case, but should otherwise match: {why}");
            errors.push(Error::invalid(&path.child(field), value, why));
        }
    }
    for (i, name) in part.short_names.iter().flatten().enumerate() {
        check::name(&path.child("shortNames").index(i), name, names::dns1035_label(name), errors);
    }
    if !part.kind.is_empty() && part.kind == list {
        errors.push(Error::invalid(&path.child("listKind"), list, "kind and listKind may not be the same"));
    }
    for (i, name) in part.categories.iter().flatten().enumerate() {
        check::name(&path.child("categories").index(i), name, names::dns1035_label(name), errors);
    }
}

fn conversion(part: &CustomResourceConversion, path: &Path, errors: &mut Errors) {
    let (client, reviews) = (path.child("webhookClientConfig"), path.child("conversionReviewVersions"));
    match part.strategy.as_str() {
        "" => errors.push(Error::required(&path.child("strategy"), "")),
        strategy => check::supported(&path.child("strategy"), strategy, &["None", "Webhook"], errors),
    }
    let webhook = part.webhook.as_ref();
    let config = webhook.and_then(|w| w.client_config.as_ref());
    let versions = webhook.map(|w| w.conversion_review_versions.as_slice()).unwrap_or_default();
    if part.strategy != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        if config.is_some() {
            errors.push(Error::forbidden(&client, why));
        }
        if !versions.is_empty() {
            errors.push(Error::forbidden(&reviews, why));
        }
        return;
    }
    match config {
        None => errors.push(Error::required(&client, "required when strategy is set to Webhook")),
        Some(config) => conversion_client(config, &client, errors),
    }
    review_versions(versions, &reviews, errors);
}

fn conversion_client(config: &WebhookClientConfig, path: &Path, errors: &mut Errors) {
    match (&config.url, &config.service) {
        (Some(url), None) => webhooks::validate_url(url, &path.child("url"), errors),
        (None, Some(service)) => {
            let same = ServiceReference {
                name: service.name.clone(),
                namespace: service.namespace.clone(),
                path: service.path.clone(),
                port: service.port,
            };
            webhooks::validate_service(&same, &path.child("service"), errors);
        }
        _ => errors.push(Error::required(path, "exactly one of url or service is required")),
    }
}

fn review_versions(versions: &[String], path: &Path, errors: &mut Errors) {
    if versions.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, version) in versions.iter().enumerate() {
        if !seen.insert(version) {
            errors.push(Error::invalid(&path.index(i), version.as_str(), "duplicate version"));
            continue;
        }
        check::name(&path.index(i), version, names::dns1035_label(version), errors);
    }
    if !versions.iter().any(|v| REVIEW_VERSIONS.contains(&v.as_str())) {
        let why = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(Error::invalid(path, json!(versions), why));
    }
}

fn stored_versions(crd: &CustomResourceDefinition, errors: &mut Errors) {
    let path = Path::new("status").child("storedVersions");
    let stored = crd.status.as_ref().and_then(|s| s.stored_versions.as_deref()).unwrap_or_default();
    if stored.is_empty() {
        errors.push(Error::invalid(&path, Value::Null, "must have at least one stored version"));
        return;
    }
    for version in crd.spec.versions.iter().filter(|v| v.storage && !stored.contains(&v.name)) {
        let why = format!("must have the storage version {}", version.name);
        errors.push(Error::invalid(&path, json!(stored), why));
    }
    for (i, name) in stored.iter().enumerate() {
        if !crd.spec.versions.iter().any(|v| v.name == *name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.push(Error::invalid(&path.index(i), name.as_str(), why));
        }
    }
}

fn approved(crd: &CustomResourceDefinition, old: Option<&CustomResourceDefinition>, errors: &mut Errors) {
    if !approval::is_protected(&crd.spec.group) {
        return;
    }
    let (state, why) = approval::state(crd.metadata.annotations.as_ref());
    if old.is_some_and(|old| approval::state(old.metadata.annotations.as_ref()).0 == state) {
        return;
    }
    let path = Path::new("metadata").child("annotations").key(approval::ANNOTATION);
    match state {
        Approval::Approved | Approval::Bypassed => {}
        Approval::Missing => errors.push(Error::required(&path, why)),
        Approval::Invalid => {
            let value = crd.metadata.annotations.as_ref().and_then(|a| a.get(approval::ANNOTATION)).cloned();
            errors.push(Error::invalid(&path, value.unwrap_or_default(), why));
        }
    }
}
