//! A version of a custom resource as a kind, and its objects.

use std::any::Any;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use gantry_api::apiextensions::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionVersion,
    CustomResourceSubresourceScale,
};
use gantry_api::field::{Error, Path};
use gantry_api::metav1::ObjectMeta;
use gantry_api::schema::{Node, Structural, unknown_fields};
use gantry_api::time::{human_duration, since};
use gantry_api::{DecodeError, Encoded, Resource};
use gantry_kinds::erased::OwnedColumn;
use gantry_kinds::kind::{FieldPaths, SPEC_AND_METADATA, STATUS};
use gantry_kinds::{AnyKind, AnyObject, Decoded, Errors, NameRule, Scale, Verbs};
use serde_json::{Map, Value, json};

use super::json_path::JsonPath;
use super::lazy::Schema;
use super::{finalizers, replicas};
use crate::structural::CustomSchema;

/// An object of a custom resource: metadata, and a tree of the rest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dynamic {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    rest: Map<String, Value>,
}

impl AnyObject for Dynamic {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn encode(&self) -> Vec<u8> {
        let text = |value: &str| Value::from(value).to_string();
        let metadata =
            serde_json::to_string(&self.metadata).unwrap_or_else(|e| panic!("metadata is always JSON: {e}"));
        let mut out = format!(
            r#"{{"apiVersion":{},"kind":{},"metadata":{metadata}"#,
            text(&self.api_version),
            text(&self.kind)
        );
        for (key, value) in &self.rest {
            out.push(',');
            out.push_str(&text(key));
            out.push(':');
            out.push_str(&value.to_string());
        }
        out.push('}');
        out.into_bytes()
    }

    fn to_value(&self) -> Value {
        let mut map = self.rest.clone();
        map.insert("apiVersion".into(), self.api_version.as_str().into());
        map.insert("kind".into(), self.kind.as_str().into());
        map.insert("metadata".into(), json!(self.metadata));
        Value::Object(map)
    }

    fn clone_box(&self) -> Box<dyn AnyObject> {
        Box::new(self.clone())
    }

    fn same_as(&self, other: &dyn AnyObject) -> bool {
        other.as_any().downcast_ref::<Self>() == Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn take_over(&mut self, other: Box<dyn AnyObject>) {
        let other: Box<dyn Any> = other;
        *self = *other.downcast().unwrap_or_else(|_| panic!("a custom resource became a built-in kind"));
    }

    fn into_encoded(self: Box<Self>, bytes: Bytes, revision: u64) -> Arc<Encoded> {
        Arc::new(Encoded::new(bytes, revision))
    }
}

/// A served version of a custom resource.
pub(crate) struct CustomKind {
    resource: Resource,
    singular: String,
    short: Vec<String>,
    categories: Vec<String>,
    schema: Schema,
    verbs: Verbs,
    scale: Option<ScalePaths>,
    columns: Vec<(OwnedColumn, JsonPath)>,
    /// The paths of all versions in one order, so that the watch cache can index any of them; and whether this version
    /// has it.
    selectable: Vec<(String, JsonPath, bool)>,
}

impl CustomKind {
    /// Whether an object says that it is of another kind; then nothing else is said of it.
    fn is_other(&self, object: &dyn AnyObject, errors: &mut Errors) -> bool {
        let kind = &dynamic(object).kind;
        let is_other = *kind != *self.resource.kind;
        if is_other {
            let why = format!("must be {}", self.resource.kind);
            *errors = vec![Error::invalid(&Path::new("kind"), kind.as_str(), why)];
        }
        is_other
    }

    /// Adds what is wrong with an object to what is wrong with its metadata, in upstream's order.
    fn judge(&self, object: &dyn AnyObject, old: Option<&dyn AnyObject>, errors: &mut Errors) {
        if self.is_other(object, errors) {
            return;
        }
        let (tree, old) = (dynamic(object).to_value(), old.map(|old| dynamic(old).to_value()));
        let (tree, old, schema) = (&tree, old.as_ref(), self.parsed());
        errors.extend(schema.validate_values(tree, old));
        let numbers = self.scale.iter().flat_map(|paths| [&paths.replicas, &paths.current]);
        errors.extend(numbers.filter_map(|path| replicas::error(path, tree)));
        errors.extend(schema.validate_embedded(tree, old));
        schema.validate_rules(tree, old, errors);
    }
}

struct ScalePaths {
    replicas: JsonPath,
    current: JsonPath,
    selector: Option<JsonPath>,
}

impl CustomKind {
    /// The kind of one version of a definition, all of which can be read.
    ///
    /// # Errors
    /// The schema or a path in it cannot be read.
    pub(crate) fn new(
        crd: &CustomResourceDefinition,
        version: &CustomResourceDefinitionVersion,
    ) -> Result<Self, String> {
        Self::with(crd, version, Schema::parsed(version)?)
    }

    /// The same of a definition that is stored as `source`; its schema is read when somebody needs it.
    ///
    /// # Errors
    /// A path in it cannot be read.
    pub(super) fn stored(
        crd: &CustomResourceDefinition,
        version: &CustomResourceDefinitionVersion,
        source: &Arc<Encoded>,
    ) -> Result<Self, String> {
        Self::with(crd, version, Schema::stored(Arc::clone(source), &version.name))
    }

    fn parsed(&self) -> &CustomSchema {
        self.schema.get()
    }

    fn with(
        crd: &CustomResourceDefinition,
        version: &CustomResourceDefinitionVersion,
        schema: Schema,
    ) -> Result<Self, String> {
        let names = &crd.spec.names;
        let sub = version.subresources.as_ref();
        let scale = sub.and_then(|s| s.scale.as_ref()).map(scale_paths).transpose()?;
        let columns = version.additional_printer_columns.as_deref().unwrap_or_default();
        let columns: Vec<_> = if columns.is_empty() {
            vec![age_column()]
        } else {
            columns.iter().map(column).collect::<Result<_, _>>()?
        };
        let mut selectable: Vec<(String, JsonPath, bool)> = Vec::new();
        for field in crd.spec.versions.iter().flat_map(|v| v.selectable_fields.iter().flatten()) {
            let name = field.json_path.trim_start_matches('.').to_owned();
            if !selectable.iter().any(|(known, ..)| *known == name) {
                let mut own = version.selectable_fields.iter().flatten();
                let own = own.any(|f| f.json_path == field.json_path);
                selectable.push((name, JsonPath::parse(&field.json_path)?, own));
            }
        }
        Ok(Self {
            resource: Resource {
                group: crd.spec.group.clone().into(),
                version: version.name.clone().into(),
                kind: names.kind.clone().into(),
                plural: names.plural.clone().into(),
                namespaced: crd.spec.scope == "Namespaced",
            },
            singular: names.singular.clone().unwrap_or_default(),
            short: names.short_names.clone().unwrap_or_default(),
            categories: names.categories.clone().unwrap_or_default(),
            schema,
            verbs: Verbs {
                status: sub.is_some_and(|s| s.status.is_some()),
                scale: scale.is_some(),
                connect: &[],
            },
            scale,
            columns,
            selectable,
        })
    }

    fn object(&self, mut tree: Value) -> Result<Dynamic, DecodeError> {
        self.parsed().prune(&mut tree);
        let Value::Object(mut map) = tree else {
            return Err(DecodeError::new(
                "json: cannot unmarshal value into Go value of type map[string]interface {}",
            ));
        };
        map.remove("apiVersion");
        // Whether it is the right one, validation says.
        let kind = match map.remove("kind") {
            Some(Value::String(kind)) if !kind.is_empty() => kind,
            _ => self.resource.kind.to_string(),
        };
        let metadata = match map.remove("metadata") {
            None | Some(Value::Null) => ObjectMeta::default(),
            Some(metadata) => serde_json::from_value(metadata)?,
        };
        Ok(Dynamic { api_version: self.resource.api_version(), kind, metadata, rest: map })
    }
}

fn scale_paths(scale: &CustomResourceSubresourceScale) -> Result<ScalePaths, String> {
    Ok(ScalePaths {
        replicas: JsonPath::parse(&scale.spec_replicas_path)?,
        current: JsonPath::parse(&scale.status_replicas_path)?,
        selector: scale
            .label_selector_path
            .as_deref()
            .filter(|p| !p.is_empty())
            .map(JsonPath::parse)
            .transpose()?,
    })
}

fn age_column() -> (OwnedColumn, JsonPath) {
    let age = OwnedColumn::from(&gantry_kinds::table::AGE);
    let path = JsonPath::parse(".metadata.creationTimestamp").unwrap_or_default();
    (OwnedColumn { kind: "date".into(), ..age }, path)
}

fn column(definition: &CustomResourceColumnDefinition) -> Result<(OwnedColumn, JsonPath), String> {
    let column = OwnedColumn {
        name: definition.name.clone(),
        kind: definition.type_.clone(),
        format: definition.format.clone().unwrap_or_default(),
        priority: definition.priority.unwrap_or(0),
        description: definition.description.clone().filter(|d| !d.is_empty()).unwrap_or_else(|| {
            format!("Custom resource definition column (in JSONPath format): {}", definition.json_path)
        }),
    };
    Ok((column, JsonPath::parse(&definition.json_path)?))
}

fn dynamic(object: &dyn AnyObject) -> &Dynamic {
    let found = object.as_any().downcast_ref();
    found.unwrap_or_else(|| panic!("an object of a built-in kind was given to a custom one"))
}

fn dynamic_mut(object: &mut dyn AnyObject) -> &mut Dynamic {
    let found = object.as_any_mut().downcast_mut();
    found.unwrap_or_else(|| panic!("an object of a built-in kind was given to a custom one"))
}

impl AnyKind for CustomKind {
    fn resource(&self) -> &Resource {
        &self.resource
    }

    fn singular(&self) -> &str {
        &self.singular
    }

    fn short_names(&self) -> Vec<String> {
        self.short.clone()
    }

    fn categories(&self) -> Vec<String> {
        self.categories.clone()
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }

    fn verbs(&self) -> Verbs {
        self.verbs
    }

    fn is_lazy(&self) -> bool {
        false
    }

    fn definition(&self) -> Option<String> {
        None
    }

    fn schema(&self) -> Node<'_> {
        self.parsed().node()
    }

    fn structural(&self) -> Option<Arc<Structural>> {
        Some(self.parsed().shared_root())
    }

    fn decode(&self, json: &[u8], strict: bool) -> Result<Decoded, DecodeError> {
        let tree: Value = serde_json::from_slice(json)?;
        let unknown = if strict { unknown_fields(&tree, self.parsed().node()) } else { Vec::new() };
        Ok(Decoded { object: Box::new(self.object(tree)?), unknown })
    }

    fn decode_value(&self, value: Value) -> Result<Box<dyn AnyObject>, DecodeError> {
        Ok(Box::new(self.object(value)?))
    }

    fn defaults(&self, object: &mut dyn AnyObject) {
        let object = dynamic_mut(object);
        let mut tree = Value::Object(std::mem::take(&mut object.rest));
        self.parsed().default(&mut tree);
        if let Value::Object(rest) = tree {
            object.rest = rest;
        }
    }

    fn prepare_create(&self, object: &mut dyn AnyObject) {
        let object = dynamic_mut(object);
        if self.verbs.status {
            object.rest.remove("status");
        }
        object.metadata.generation = Some(1);
    }

    fn prepare_update(&self, new: &mut dyn AnyObject, old: &dyn AnyObject) {
        let (new, old) = (dynamic_mut(new), dynamic(old));
        if self.verbs.status {
            keep(&mut new.rest, &old.rest, "status");
        }
        let generation = old.metadata.generation.unwrap_or(0);
        // The status does not differ here if it is a subresource.
        new.metadata.generation = Some(generation + i64::from(new.rest != old.rest));
    }

    fn prepare_status_update(&self, new: &mut dyn AnyObject, old: &dyn AnyObject) {
        let (new, old) = (dynamic_mut(new), dynamic(old));
        let status = new.rest.remove("status");
        new.rest.clone_from(&old.rest);
        match status {
            Some(status) => new.rest.insert("status".into(), status),
            None => new.rest.remove("status"),
        };
        let managed = new.metadata.managed_fields.take();
        new.metadata = ObjectMeta { managed_fields: managed, ..old.metadata.clone() };
    }

    fn validate(&self, object: &dyn AnyObject) -> Errors {
        let mut errors = Errors::new();
        self.judge(object, None, &mut errors);
        errors
    }

    fn validate_update(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> Errors {
        let mut errors = Errors::new();
        self.judge(new, Some(old), &mut errors);
        errors
    }

    fn validate_beside(&self, object: &dyn AnyObject, errors: &mut Errors) {
        self.judge(object, None, errors);
    }

    fn validate_replacement_beside(&self, new: &dyn AnyObject, old: &dyn AnyObject, errors: &mut Errors) {
        self.judge(new, Some(old), errors);
    }

    fn validate_status_update(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> Errors {
        let mut errors = Errors::new();
        self.validate_status_beside(new, old, &mut errors);
        errors
    }

    fn validate_status_beside(&self, new: &dyn AnyObject, old: &dyn AnyObject, errors: &mut Errors) {
        if self.is_other(new, errors) {
            return;
        }
        let (tree, old, schema) = (&dynamic(new).to_value(), &dynamic(old).to_value(), self.parsed());
        errors.extend(schema.validate_status(tree, old));
        errors.extend(self.scale.as_ref().and_then(|paths| replicas::error(&paths.current, tree)));
        errors.extend(schema.validate_lists(tree, old));
        schema.validate_rules(tree, Some(old), errors);
    }

    fn update_warnings(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> Vec<String> {
        let mut warnings = finalizers::warnings(new.metadata(), Some(old.metadata()));
        if self.parsed().has_rules() {
            warnings.extend(self.parsed().forgiven(&dynamic(new).to_value(), &dynamic(old).to_value()));
        }
        warnings
    }

    fn warnings(&self, object: &dyn AnyObject) -> Vec<String> {
        finalizers::warnings(object.metadata(), None)
    }

    fn columns(&self) -> Vec<OwnedColumn> {
        self.columns.iter().map(|(column, _)| column.clone()).collect()
    }

    fn cells(&self, object: &dyn AnyObject, now: SystemTime) -> Vec<Value> {
        let tree = dynamic(object).to_value();
        self.columns.iter().map(|(column, path)| cell(&column.kind, path, &tree, now)).collect()
    }

    fn selectable(&self) -> Vec<String> {
        // The fields of other versions keep their places, but cannot be named.
        let own = |(name, _, own): &(String, JsonPath, bool)| if *own { name.clone() } else { String::new() };
        self.selectable.iter().map(own).collect()
    }

    fn selectable_values(&self, object: &dyn AnyObject) -> Vec<String> {
        let tree = dynamic(object).to_value();
        self.selectable.iter().map(|(_, path, _)| path.first(&tree).map(text).unwrap_or_default()).collect()
    }

    fn scale(&self, object: &dyn AnyObject) -> Option<Scale> {
        let paths = self.scale.as_ref()?;
        let tree = dynamic(object).to_value();
        let number = |path: &JsonPath| {
            let found = path.first(&tree).and_then(Value::as_i64).unwrap_or(0);
            i32::try_from(found).unwrap_or(i32::MAX)
        };
        let selector = paths.selector.as_ref().and_then(|path| path.first(&tree)).and_then(Value::as_str);
        Some(Scale {
            replicas: number(&paths.replicas),
            current: number(&paths.current),
            selector: selector.unwrap_or("").to_owned(),
        })
    }

    fn set_replicas(&self, object: &mut dyn AnyObject, replicas: i32) {
        let Some(paths) = &self.scale else { return };
        let object = dynamic_mut(object);
        let mut tree = Value::Object(std::mem::take(&mut object.rest));
        paths.replicas.set(&mut tree, replicas.into());
        if let Value::Object(rest) = tree {
            object.rest = rest;
        }
    }

    fn reset_fields(&self, subresource: &str) -> FieldPaths {
        match subresource {
            "status" => SPEC_AND_METADATA,
            "" if self.verbs.status => STATUS,
            _ => &[],
        }
    }

    fn replicas_path(&self) -> Option<Vec<String>> {
        self.scale.as_ref().map(|paths| paths.replicas.members())
    }

    fn grace_period(&self, _object: &dyn AnyObject, _requested: Option<i64>) -> Option<i64> {
        None
    }

    fn orphans_by_default(&self) -> bool {
        false
    }
}

fn keep(new: &mut Map<String, Value>, old: &Map<String, Value>, key: &str) {
    match old.get(key) {
        Some(value) => drop(new.insert(key.to_owned(), value.clone())),
        None => drop(new.remove(key)),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn cell(kind: &str, path: &JsonPath, tree: &Value, now: SystemTime) -> Value {
    let found = path.find(tree);
    let [first, rest @ ..] = found.as_slice() else { return Value::Null };
    match kind {
        "date" => match first.as_str().and_then(|t| t.parse().ok()) {
            Some(at) => human_duration(since(&gantry_api::metav1::Time(at), now)).into(),
            None => "<invalid>".into(),
        },
        "integer" | "number" if first.is_number() => (*first).clone(),
        "boolean" if first.is_boolean() => (*first).clone(),
        "integer" | "number" | "boolean" => Value::Null,
        _ if rest.is_empty() => text(first).into(),
        _ => found.iter().map(|v| text(v)).collect::<Vec<_>>().join(",").into(),
    }
}
