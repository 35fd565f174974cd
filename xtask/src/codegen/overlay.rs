//! Puts the markers on the fields, and checks that nothing is left over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail};

use super::openapi::{Field, TypeDef, is_special};
use super::protobuf::{Message, MessageField, Messages, normal};

/// The markers the table knows; others (`optional`, `featureGate`, …) say nothing about merging.
const MARKERS: &[&str] =
    &["listType", "listMapKey", "patchStrategy", "patchMergeKey", "mapType", "structType", "default"];

/// What is written by hand.
#[derive(Debug, Default)]
pub struct Overlay {
    /// `new <type>[#<field>]`: the API has it, `k8s-pb` is too old or has no such message.
    new: BTreeSet<String>,
    /// `gone <type>#<field>`: `k8s-pb` has it, the API has not.
    gone: BTreeSet<String>,
    /// `set <type>[#<field>] <marker>=<value>…`: replaces the markers it names.
    set: BTreeMap<String, Vec<(String, Vec<String>)>>,
    /// `type` and `field`: kinds that OpenAPI leaves out.
    added: Vec<TypeDef>,
}

impl Overlay {
    /// Reads the overlay file. A line is a comment, `new`, `gone`, `set`, `type` or `field`.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut overlay = Self::default();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let mut words = line.split_whitespace();
            let (verb, target) =
                (words.next().unwrap_or_default(), words.next().context("a line has a target")?);
            let target = format!("io.k8s.{target}");
            match verb {
                "new" => drop(overlay.new.insert(target)),
                "gone" => drop(overlay.gone.insert(target)),
                "set" => overlay.set.entry(target).or_default().extend(pairs(words)?),
                "type" => overlay.added.push(added_type(target, words.next().context("a type has a kind")?)),
                "field" => {
                    let (owner, name) = target.split_once('#').context("a field has a name")?;
                    let owner =
                        overlay.added.iter_mut().find(|def| def.name == owner).context("no such type")?;
                    owner.fields.push(Field {
                        name: name.to_owned(),
                        ty: words.next().context("a field has a type")?.to_owned(),
                        markers: pairs(words)?.into_iter().collect(),
                        ..Field::default()
                    });
                    owner.fields.sort_by(|a, b| a.name.cmp(&b.name));
                }
                _ => bail!("unknown verb in overlay.txt: {line}"),
            }
        }
        Ok(overlay)
    }
}

fn pairs<'a>(words: impl Iterator<Item = &'a str>) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    words
        .map(|word| {
            let (name, value) = word.split_once('=').with_context(|| format!("no value: {word}"))?;
            let values = value.split(',').filter(|v| !v.is_empty()).map(str::to_owned).collect();
            Ok((name.to_owned(), values))
        })
        .collect()
}

fn added_type(name: String, gvk: &str) -> TypeDef {
    let mut parts = gvk.split('/').map(str::to_owned);
    let gvk = match (parts.next(), parts.next(), parts.next()) {
        (Some(group), Some(version), Some(kind)) => Some((group, version, kind)),
        _ => None,
    };
    TypeDef { name, gvk, ..TypeDef::default() }
}

/// Adds the types that the overlay alone knows.
pub fn add_types(types: &mut Vec<TypeDef>, overlay: &mut Overlay) {
    types.append(&mut overlay.added);
    types.sort_by(|a, b| a.name.cmp(&b.name));
}

/// Copies markers from the messages and the overlay to the types; returns what it could not explain.
pub fn merge(types: &mut [TypeDef], messages: &Messages, overlay: &Overlay) -> Vec<String> {
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    for def in types.iter_mut().filter(|def| !is_special(&def.name)) {
        if let Some(message) = messages.find(&def.name) {
            def.markers = known(&message.markers);
            merge_fields(def, message, messages, overlay, &mut used, &mut problems);
        } else if overlay.new.contains(&def.name) {
            used.insert(def.name.clone());
        } else {
            problems.push(format!("new {} ?", short(&def.name)));
        }
        mark_by_value(def);
        apply(def, overlay, &mut used);
    }
    let written = overlay.new.iter().chain(&overlay.gone).chain(overlay.set.keys());
    problems.extend(
        written.filter(|w| !used.contains(*w)).map(|w| format!("overlay explains nothing: {}", short(w))),
    );
    problems
}

fn merge_fields(
    def: &mut TypeDef,
    message: &Message,
    messages: &Messages,
    overlay: &Overlay,
    used: &mut BTreeSet<String>,
    problems: &mut Vec<String>,
) {
    let mut seen = BTreeSet::new();
    let keys: BTreeSet<String> = def.fields.iter().map(|f| normal(&f.name)).collect();
    for field in &mut def.fields {
        let target = format!("{}#{}", def.name, field.name);
        if let Some(found) = find_field(message, messages, &def.name, &field.name, &keys, &mut seen) {
            let (found, path) = found;
            field.markers = known(&found.markers);
            field.markers.insert("tag".to_owned(), vec![path]);
        } else if overlay.new.contains(&target) {
            used.insert(target);
        } else if !matches!(field.name.as_str(), "apiVersion" | "kind") {
            problems.push(format!("new {} ?", short(&target)));
        }
    }
    for (name, _) in message.fields().filter(|(name, _)| !seen.contains(*name)) {
        let gone = overlay
            .gone
            .iter()
            .find(|g| g.rsplit_once('#').is_some_and(|(ty, field)| ty == def.name && normal(field) == name));
        match gone {
            Some(gone) => drop(used.insert(gone.clone())),
            None => problems.push(format!("gone {}#{name} ?", short(&def.name))),
        }
    }
}

/// A field of the message, or of a message that Go embeds in it and JSON therefore flattens: one whose own name is
/// no key in JSON. With its number on the wire, the numbers of the embedding fields before it.
fn find_field<'a>(
    message: &'a Message,
    messages: &'a Messages,
    definition: &str,
    json: &str,
    keys: &BTreeSet<String>,
    seen: &mut BTreeSet<String>,
) -> Option<(&'a MessageField, String)> {
    if let Some(field) = message.field(json) {
        seen.insert(normal(json));
        return Some((field, field.tag.to_string()));
    }
    message.fields().filter(|(name, _)| !keys.contains(*name)).find_map(|(name, field)| {
        let embedded = messages.beside(definition, &field.ty)?;
        let (found, path) = find_field(embedded, messages, definition, json, keys, &mut BTreeSet::new())?;
        seen.insert(name.to_owned());
        Some((found, format!("{}.{path}", field.tag)))
    })
}

fn known(markers: &BTreeMap<String, Vec<String>>) -> BTreeMap<String, Vec<String>> {
    markers
        .iter()
        .filter(|(name, _)| MARKERS.contains(&name.as_str()))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect()
}

/// Go holds the required structs, and metadata, spec and status of a kind, by value.
fn mark_by_value(def: &mut TypeDef) {
    let is_kind = def.gvk.is_some();
    for field in &mut def.fields {
        let is_struct = field.ty.contains('.')
            && !field.ty.starts_with(['[', '{'])
            && !is_special(&format!("io.k8s.{}", field.ty));
        let part = is_kind && matches!(field.name.as_str(), "metadata" | "spec" | "status");
        if is_struct && (field.required || part) {
            field.markers.insert("byValue".to_owned(), vec!["true".to_owned()]);
        }
    }
}

fn apply(def: &mut TypeDef, overlay: &Overlay, used: &mut BTreeSet<String>) {
    if let Some(pairs) = overlay.set.get(&def.name) {
        replace(&mut def.markers, pairs);
        used.insert(def.name.clone());
    }
    for field in &mut def.fields {
        let target = format!("{}#{}", def.name, field.name);
        if let Some(pairs) = overlay.set.get(&target) {
            replace(&mut field.markers, pairs);
            if let Some(required) = field.markers.remove("required") {
                field.required = required == ["true"];
            }
            used.insert(target);
        }
    }
}

fn replace(markers: &mut BTreeMap<String, Vec<String>>, pairs: &[(String, Vec<String>)]) {
    for (name, values) in pairs {
        if values.is_empty() {
            markers.remove(name);
        } else {
            markers.insert(name.clone(), values.clone());
        }
    }
}

fn short(target: &str) -> &str {
    target.strip_prefix("io.k8s.").unwrap_or(target)
}
