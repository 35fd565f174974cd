//! Reads the types of `k8s-openapi`: its files are generated and regular, so lines are enough.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::protobuf::Messages;

/// One definition of the API.
#[derive(Debug, Default)]
pub struct TypeDef {
    /// `io.k8s.api.core.v1.Pod`.
    pub name: String,
    /// What the definition is for.
    pub description: String,
    /// Group, version and kind, of kinds only.
    pub gvk: Option<(String, String, String)>,
    /// The list kind's name, of kinds that can be listed.
    pub list_kind: Option<String>,
    /// Fields in the order of their JSON names.
    pub fields: Vec<Field>,
    /// Markers on the type itself: only `structType` occurs.
    pub markers: BTreeMap<String, Vec<String>>,
}

/// One field of a definition.
#[derive(Debug, Default, Clone)]
pub struct Field {
    /// Its name in JSON.
    pub name: String,
    /// Its type as the table writes it.
    pub ty: String,
    /// What the field is for.
    pub description: String,
    /// Whether it must be present.
    pub required: bool,
    /// `listType`, `listMapKey`, `patchStrategy`, … with their values.
    pub markers: BTreeMap<String, Vec<String>>,
}

/// Definitions that are a JSON value with a codec of its own, not a struct.
const SPECIAL: &[&str] = &[
    "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
];

const JSON_TYPES: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";

/// Whether the definition has a codec of its own instead of fields.
pub fn is_special(name: &str) -> bool {
    let union = name
        .strip_prefix(JSON_TYPES)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("SchemaPropsOr"));
    union || SPECIAL.contains(&name)
}

/// Reads every definition below `root`, sorted by name.
pub fn read(root: &Path) -> anyhow::Result<Vec<TypeDef>> {
    let mut types = Vec::new();
    read_folder(root, &mut types)?;
    types.sort_by(|a, b| a.name.cmp(&b.name));
    if types.is_empty() {
        bail!("no definition found below {}", root.display());
    }
    Ok(types)
}

fn read_folder(folder: &Path, types: &mut Vec<TypeDef>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            read_folder(&path, types)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path)?;
            // The one type that stands for every list kind; `add_lists` puts the real ones in its place.
            if text.contains("pub struct List<T>") {
                continue;
            }
            let Some(name) = text.strip_prefix("// Generated from definition ") else { continue };
            let name = name.lines().next().unwrap_or_default().trim().to_owned();
            types.push(parse(name, &text).with_context(|| path.display().to_string())?);
        }
    }
    Ok(())
}

fn parse(name: String, text: &str) -> anyhow::Result<TypeDef> {
    let mut def = TypeDef { name, ..TypeDef::default() };
    let rust_types = rust_fields(text);
    let json_names = json_names(text);
    def.gvk = gvk(text);
    def.list_kind = constant(text, "LIST_KIND");
    let schema = text.split_once("fn json_schema(").map(|(_, schema)| schema).unwrap_or_default();
    let is_object = text.contains("impl crate::Metadata for");
    let required = required(schema);
    def.description = own_description(schema)?;
    for (property, description) in properties(schema)? {
        let ty = match json_names.get(&property).and_then(|rust| rust_types.get(rust)) {
            Some(rust) => table_type(rust)?,
            None if matches!(property.as_str(), "apiVersion" | "kind" | "type") => "string".to_owned(),
            None if property == "object" => "apimachinery.pkg.runtime.RawExtension".to_owned(),
            None => bail!("property {property} has no Rust field"),
        };
        // The crate calls the metadata of every kind required; the API does not.
        let needed = required.contains(&property) && !(is_object && property == "metadata");
        def.fields.push(Field { name: property, ty, description, required: needed, ..Field::default() });
    }
    let lost: Vec<_> = json_names.keys().filter(|n| !def.fields.iter().any(|f| f.name == **n)).collect();
    // The crate reads bookmarks into a variant of their own, whose fields are the inner object's.
    if !lost.is_empty() && !is_special(&def.name) && !def.name.ends_with(".WatchEvent") {
        bail!("JSON fields without a property: {lost:?}");
    }
    def.fields.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(def)
}

/// `pub host_ip: Option<String>,` of the first struct: Rust name to Rust type.
fn rust_fields(text: &str) -> BTreeMap<String, String> {
    let body = text.lines().skip_while(|l| !l.starts_with("pub struct ")).take_while(|l| *l != "}");
    body.filter_map(|line| {
        let (name, ty) = line.strip_prefix("    pub ")?.split_once(": ")?;
        Some((name.to_owned(), ty.trim_end_matches(',').to_owned()))
    })
    .collect()
}

/// `"hostIP" => Field::Key_host_ip,` of the `Deserialize` impl: JSON name to Rust name.
fn json_names(text: &str) -> BTreeMap<String, String> {
    let arms = text.lines().filter_map(|line| {
        let (json, rust) = line.trim().split_once(" => Field::Key_")?;
        Some((json.trim_matches('"').to_owned(), rust.trim_end_matches(',').to_owned()))
    });
    arms.collect()
}

fn constant(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("const {name}: &'static str = \""))?;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

fn gvk(text: &str) -> Option<(String, String, String)> {
    Some((constant(text, "GROUP")?, constant(text, "VERSION")?, constant(text, "KIND")?))
}

/// The indentation of a schema's own attributes, and of its properties.
const ATTRIBUTE: &str = "            ";
const PROPERTY: &str = "                ";

fn own_description(schema: &str) -> anyhow::Result<String> {
    let line = schema.lines().find_map(|l| l.strip_prefix(ATTRIBUTE)?.strip_prefix("\"description\": "));
    line.map_or(Ok(String::new()), literal)
}

fn required(schema: &str) -> Vec<String> {
    let lines = schema.lines().skip_while(|l| !l.starts_with(&format!("{ATTRIBUTE}\"required\": ["))).skip(1);
    lines
        .take_while(|l| l.trim() != "],")
        .map(|l| l.trim().trim_matches(&['"', ','][..]).to_owned())
        .collect()
}

fn properties(schema: &str) -> anyhow::Result<Vec<(String, String)>> {
    let lines =
        schema.lines().skip_while(|l| !l.starts_with(&format!("{ATTRIBUTE}\"properties\": {{"))).skip(1);
    let mut found: Vec<(String, String)> = Vec::new();
    for line in lines.take_while(|l| *l != format!("{ATTRIBUTE}}},")) {
        if let Some(rest) = line.strip_prefix(PROPERTY).and_then(|l| l.strip_prefix('"')) {
            let name = rest.split_once("\": ").context("a property has a value")?.0;
            found.push((name.to_owned(), String::new()));
            continue;
        }
        let text = line.trim();
        let text = text.strip_prefix("\"description\": ").or_else(|| {
            text.strip_prefix("schema_obj.ensure_object().insert(\"description\".into(), ")
                .and_then(|t| t.strip_suffix(".into());"))
        });
        // Only the property's own description, never one of a nested schema.
        let own = line.len() - line.trim_start().len() == PROPERTY.len() + 4;
        if let (Some(text), true, Some(last)) = (text, own, found.last_mut()) {
            last.1 = literal(text)?;
        }
    }
    Ok(found)
}

/// A Rust string literal's value. The generator escapes as JSON does, but for `\u{..}`, which does not occur.
fn literal(text: &str) -> anyhow::Result<String> {
    serde_json::from_str(text.trim_end_matches(',')).with_context(|| format!("not a literal: {text}"))
}

/// The table's word for a Rust type: `Option<Vec<crate::api::core::v1::Container>>` is `[]api.core.v1.Container`.
fn table_type(rust: &str) -> anyhow::Result<String> {
    let inner = |prefix: &str| rust.strip_prefix(prefix).and_then(|r| r.strip_suffix('>'));
    for wrapper in ["Option<", "std::boxed::Box<"] {
        if let Some(inner) = inner(wrapper) {
            return table_type(inner);
        }
    }
    if let Some(item) = inner("std::vec::Vec<") {
        return Ok(format!("[]{}", table_type(item)?));
    }
    if let Some(value) = inner("std::collections::BTreeMap<std::string::String, ") {
        return Ok(format!("{{}}{}", table_type(value)?));
    }
    Ok(match rust {
        "std::string::String" => "string".to_owned(),
        "i32" => "int32".to_owned(),
        "i64" => "int64".to_owned(),
        "f64" => "double".to_owned(),
        "bool" => "bool".to_owned(),
        "crate::ByteString" => "bytes".to_owned(),
        path => match path.strip_prefix("crate::") {
            Some(path) => reference(path),
            None => bail!("unknown Rust type {rust}"),
        },
    })
}

/// A module path as a definition name without the leading `io.k8s.`.
fn reference(path: &str) -> String {
    path.replace("::", ".")
        .replace("apiextensions_apiserver", "apiextensions-apiserver")
        .replace("kube_aggregator", "kube-aggregator")
}

/// Adds the definitions of the list kinds, which the crate replaces by one generic type.
pub fn add_lists(types: &mut Vec<TypeDef>, messages: &Messages) -> anyhow::Result<()> {
    let mut lists = Vec::new();
    for def in types.iter() {
        let (Some((group, version, _)), Some(list)) = (&def.gvk, &def.list_kind) else { continue };
        let module = def.name.rsplit_once('.').context("a definition has a module")?.0;
        let name = format!("{module}.{list}");
        let doc = messages.find(&name);
        let text = |field: &str, otherwise: &str| {
            let found = doc.and_then(|m| m.field(field)).map(|f| f.text.clone()).filter(|t| !t.is_empty());
            found.unwrap_or_else(|| otherwise.to_owned())
        };
        let item = def.name.strip_prefix("io.k8s.").context("a definition is Kubernetes' own")?.to_owned();
        let kind = def.fields.iter().filter(|f| f.name == "apiVersion" || f.name == "kind").cloned();
        let mut fields: Vec<Field> = kind.collect();
        fields.push(Field {
            name: "items".into(),
            ty: format!("[]{item}"),
            description: text("items", ""),
            required: true,
            ..Field::default()
        });
        fields.push(Field {
            name: "metadata".into(),
            ty: "apimachinery.pkg.apis.meta.v1.ListMeta".into(),
            description: text("metadata", ""),
            ..Field::default()
        });
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let description = doc.map(|m| m.text.clone()).unwrap_or_default();
        let gvk = Some((group.clone(), version.clone(), list.clone()));
        lists.push(TypeDef { name, description, gvk, fields, ..TypeDef::default() });
    }
    types.extend(lists);
    types.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(())
}
