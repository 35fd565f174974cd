//! Definitions: the types that a document's operations use, and every type these refer to.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::schema::{self, Descriptions, Field, ListType, Markers, Type, TypeDef};
use serde_json::{Map, Value, json};

use super::custom::{self, Common};
use super::paths::Dialect;
use super::served::{Definition, Served};

/// The definitions of one document, gathered while its paths are written.
pub struct Definitions {
    dialect: Dialect,
    texts: Descriptions,
    done: BTreeMap<String, Value>,
    wanted: Vec<&'static TypeDef>,
    /// The groups and versions that the document is about.
    versions: BTreeSet<(String, String)>,
}

/// What each group and version has a kind of.
const EVERYWHERE: [&str; 2] = ["DeleteOptions", "WatchEvent"];

/// Types whose fields are declared in another order than they are numbered: those that are required.
const DECLARED: [(&str, &[&str]); 3] = [
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.APIResource",
        &["name", "singularName", "namespaced", "kind", "verbs"],
    ),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference", &["apiVersion", "kind", "name", "uid"]),
    ("io.k8s.api.networking.v1.HTTPIngressPath", &["pathType", "backend"]),
];

pub const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

impl Definitions {
    /// None yet.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            texts: Descriptions::load(),
            done: BTreeMap::new(),
            wanted: Vec::new(),
            versions: BTreeSet::new(),
        }
    }

    /// Notes that the document is about resources of this group and version.
    pub fn note(&mut self, group: &str, version: &str) {
        self.versions.insert((group.to_owned(), version.to_owned()));
    }

    /// A reference to a type of the table.
    pub fn reference(&mut self, def: &'static TypeDef) -> Value {
        self.want(def);
        self.dialect.reference(&def.name())
    }

    /// A reference to one of the types every API shares, such as `Status`.
    pub fn meta(&mut self, name: &str) -> Value {
        match schema::lookup(&format!("{META}{name}")) {
            Some(def) => self.reference(def),
            None => json!({"type": "object"}),
        }
    }

    /// References to the objects of a resource and to lists of them.
    pub fn of_resource(&mut self, resource: &Served) -> (Value, Value) {
        match &resource.definition {
            Definition::BuiltIn(def) => {
                let list = schema::lookup(&format!("{}List", def.name()));
                (self.reference(def), list.map_or_else(|| json!({"type": "object"}), |l| self.reference(l)))
            }
            Definition::Custom(schema) => {
                let name = custom::name(resource, &resource.kind);
                let list_name = custom::name(resource, &resource.list_kind);
                let (object, list) = (self.dialect.reference(&name), self.dialect.reference(&list_name));
                if !self.done.contains_key(&name) {
                    let common = self.common();
                    let own = custom::object(resource, schema.as_deref(), self.dialect, &common);
                    self.done.insert(name.clone(), own);
                    let own = custom::list(resource, &object, self.dialect, &common);
                    self.done.insert(list_name, own);
                }
                (object, list)
            }
        }
    }

    /// What custom resources share with all others, in the words of the built-in types.
    fn common(&mut self) -> Common {
        let text = |kind: &str, field: &str| {
            let def = schema::lookup(&format!("io.k8s.api.core.v1.{kind}"));
            let found = def.and_then(|def| Some((def, def.field(field)?)));
            found.map_or("", |(def, field)| self.texts.of_field(def, field)).to_owned()
        };
        let texts = [
            text("ConfigMap", "apiVersion"),
            text("ConfigMap", "kind"),
            text("ConfigMap", "metadata"),
            text("ServiceList", "metadata"),
        ];
        Common { texts, metadata: self.meta("ObjectMeta"), list_metadata: self.meta("ListMeta") }
    }

    /// Also the types that custom resources refer to.
    pub fn want_shared(&mut self) {
        for name in ["DeleteOptions", "ListMeta", "ObjectMeta", "Patch", "Status"] {
            self.meta(name);
        }
        if let Some(scale) = schema::lookup_kind("autoscaling", "v1", "Scale") {
            self.want(scale);
        }
    }

    /// The definitions of custom resources, without the types they refer to.
    pub fn of_custom(self) -> Map<String, Value> {
        self.done.into_iter().collect()
    }

    /// Every definition that was referred to.
    pub fn finish(mut self) -> Map<String, Value> {
        while let Some(def) = self.wanted.pop() {
            if !self.done.contains_key(&def.name()) {
                let value = self.definition(def);
                self.done.insert(def.name(), value);
            }
        }
        self.done.into_iter().collect()
    }

    fn want(&mut self, def: &'static TypeDef) {
        if !self.done.contains_key(&def.name()) {
            self.wanted.push(def);
        }
    }

    fn definition(&mut self, def: &'static TypeDef) -> Value {
        let mut out = Map::new();
        let description = self.texts.of(def);
        if !description.is_empty() {
            out.insert("description".into(), description.into());
        }
        match def.instance() {
            Type::Ref(_) => {}
            special => {
                out.extend(self.scalar(special));
                return Value::Object(out);
            }
        }
        out.insert("type".into(), "object".into());
        if !def.fields.is_empty() {
            let properties = def.fields.iter().map(|f| (f.name.to_owned(), self.property(def, f)));
            let properties: Map<String, Value> = properties.collect();
            out.insert("properties".into(), Value::Object(properties));
        }
        let required = required(def);
        if !required.is_empty() {
            out.insert("required".into(), json!(required));
        }
        if def.markers.atomic {
            out.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        if let Some(gvk) = def.gvk {
            let gvk = json!([{"group": gvk.group, "version": gvk.version, "kind": gvk.kind}]);
            out.insert("x-kubernetes-group-version-kind".into(), gvk);
        }
        if let Some(kind) = def.name().strip_prefix(META).filter(|kind| EVERYWHERE.contains(kind)) {
            let core = std::iter::once(("", "v1"));
            let all = self.versions.iter().map(|(group, version)| (group.as_str(), version.as_str()));
            let kinds: Vec<Value> = core
                .chain(all.filter(|version| *version != ("", "v1")))
                .map(|(group, version)| json!({"group": group, "version": version, "kind": kind}))
                .collect();
            out.insert("x-kubernetes-group-version-kind".into(), kinds.into());
        }
        Value::Object(out)
    }

    fn property(&mut self, def: &'static TypeDef, field: &'static Field) -> Value {
        let mut out = match self.ty(&field.ty) {
            // Beside a reference, v3 tolerates nothing.
            reference if self.dialect == Dialect::V3 && reference.contains_key("$ref") => {
                Map::from_iter([("allOf".to_owned(), json!([reference]))])
            }
            other => other,
        };
        let description = self.texts.of_field(def, field);
        if !description.is_empty() {
            out.insert("description".into(), description.into());
        }
        if self.dialect == Dialect::V3
            && let Some(default) = default_of(field)
        {
            out.insert("default".into(), default);
        }
        if self.dialect == Dialect::V3 && !field.markers.enumeration.is_empty() {
            let texts = json!(field.markers.enumeration);
            match out.get_mut("items").and_then(Value::as_object_mut) {
                Some(items) => drop(items.insert("enum".into(), texts)),
                None => drop(out.insert("enum".into(), texts)),
            }
        }
        extensions(field.markers, &mut out);
        Value::Object(out)
    }

    fn ty(&mut self, ty: &'static Type) -> Map<String, Value> {
        match ty {
            Type::Array(item) => {
                let items = Value::Object(self.ty(item));
                Map::from_iter([("type".to_owned(), "array".into()), ("items".to_owned(), items)])
            }
            Type::Map(value) => {
                let value = Value::Object(self.ty(value));
                Map::from_iter([
                    ("type".to_owned(), "object".into()),
                    ("additionalProperties".to_owned(), value),
                ])
            }
            Type::Ref(_) => self.to(ty.definition()),
            named => match named.special_name() {
                Some(name) => self.to(schema::lookup(name)),
                None => self.scalar(*named),
            },
        }
    }

    fn to(&mut self, def: Option<&'static TypeDef>) -> Map<String, Value> {
        let reference = def.map_or(Value::Null, |def| self.reference(def));
        reference.as_object().cloned().unwrap_or_default()
    }

    fn scalar(&self, ty: Type) -> Map<String, Value> {
        let v3 = self.dialect == Dialect::V3;
        let value = match ty {
            Type::String => json!({"type": "string"}),
            Type::Int32 => json!({"type": "integer", "format": "int32"}),
            Type::Int64 => json!({"type": "integer", "format": "int64"}),
            Type::Double => json!({"type": "number", "format": "double"}),
            Type::Bool => json!({"type": "boolean"}),
            Type::Bytes => json!({"type": "string", "format": "byte"}),
            Type::Quantity if v3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            Type::Quantity => json!({"type": "string"}),
            Type::IntOrString if v3 => {
                json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"})
            }
            Type::IntOrString => json!({"type": "string", "format": "int-or-string"}),
            Type::Time | Type::MicroTime => json!({"type": "string", "format": "date-time"}),
            Type::Any(_) => json!({}),
            _ => json!({"type": "object"}),
        };
        value.as_object().cloned().unwrap_or_default()
    }
}

/// The fields that are always there, in the order of their declaration: that of their numbers but for a few types.
fn required(def: &TypeDef) -> Vec<&'static str> {
    let mut fields: Vec<&Field> = def.fields.iter().filter(|f| f.required).collect();
    fields.sort_by(|a, b| a.tag.cmp(&b.tag));
    let names: Vec<&'static str> = fields.iter().map(|f| f.name).collect();
    let declared = DECLARED.iter().find(|(name, _)| *name == def.name());
    match declared {
        Some((_, order)) => order.iter().copied().filter(|name| names.contains(name)).collect(),
        None => names,
    }
}

/// The declared default, or what Go writes for a field that is not optional.
fn default_of(field: &Field) -> Option<Value> {
    if let Some(default) = &field.markers.default {
        return Some(default.clone());
    }
    if field.markers.by_value {
        return Some(json!({}));
    }
    field.required.then_some(())?;
    match field.ty {
        Type::String => Some(json!("")),
        Type::Int32 | Type::Int64 | Type::Double => Some(json!(0)),
        Type::Bool => Some(json!(false)),
        _ => None,
    }
}

fn extensions(markers: &Markers, out: &mut Map<String, Value>) {
    let mut put = |name: &str, value: Value| drop(out.insert(format!("x-kubernetes-{name}"), value));
    match markers.list_type {
        Some(ListType::Atomic) => put("list-type", "atomic".into()),
        Some(ListType::Set) => put("list-type", "set".into()),
        Some(ListType::Map) => put("list-type", "map".into()),
        None => {}
    }
    if !markers.list_map_keys.is_empty() {
        put("list-map-keys", json!(markers.list_map_keys));
    }
    if markers.atomic {
        put("map-type", "atomic".into());
    }
    if markers.granular {
        put("map-type", "granular".into());
    }
    if let Some(strategy) = markers.patch_strategy {
        put("patch-strategy", strategy.into());
    }
    if let Some(key) = markers.patch_merge_key {
        put("patch-merge-key", key.into());
    }
}
