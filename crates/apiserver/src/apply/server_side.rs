//! Server-side apply: merges a configuration into an object, field by field owned.

use std::collections::BTreeMap;

use gantry_api::ApiError;
use gantry_api::metav1::StatusCause;
use gantry_api::schema::Node;
use serde_json::{Map, Value, json};

use super::fields::{self, FieldSet};
use super::go_text::go_quote;
use super::managed::{self, Entry, Operation, Transition, Writer};
use super::typed;
use super::walk;

/// Where `kubectl apply` on the client side keeps what it applied.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager of the fields that an object had before anybody applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// What became of an apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object to store; defaults are still to be put in. `None`: it is as it was, owners included.
    pub object: Option<Value>,
}

/// Applies `config` to `live` (`None`: the object is to be created).
///
/// # Errors
/// 400 if the configuration is of another kind or brings `managedFields`, 409 with one cause for each field that
/// somebody else owns with another value (unless `force`), 500 (as upstream) if it does not fit the schema.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    kind: &str,
    force: bool,
    node: Node<'_>,
) -> Result<Applied, ApiError> {
    check(config, writer, kind, node)?;
    let nothing = json!({});
    let base = live.unwrap_or(&nothing);
    let stored = base.pointer("/metadata/managedFields").cloned().unwrap_or_default();
    let mut entries = managed::decode(stored)
        .map_err(|why| ApiError::new(500, "", format!("failed to decode managed fields: {why}")))?;
    let before = entries.len();
    if entries.is_empty() {
        let first = Writer { manager: BEFORE_FIRST_APPLY, ..*writer };
        let difference = managed::changes(&nothing, base, &first, node);
        let transition = Transition { old: &nothing, new: base };
        entries = managed::updated(entries, difference, transition, &first);
    }
    managed::forget_unserved(&mut entries, writer);
    let reconciled = managed::reconcile(&mut entries, writer, node);
    let apply = Apply { base, config, merged: walk::merge(base.clone(), config, node), writer, node };
    if live.is_some() && entries.len() == before && !reconciled && apply.is_repeated(&entries) {
        return Ok(Applied { object: None });
    }
    let (mut object, entries) = match apply.attempt(entries.clone(), force) {
        Ok(done) => done,
        Err(conflicts) => {
            let conflicts = not_from_client_side_apply(conflicts, base, writer, node);
            if !conflicts.is_empty() {
                return Err(refusal(&conflicts));
            }
            apply.attempt(entries, true).map_err(|rest| refusal(&rest))?
        }
    };
    sync_last_applied(&mut object, config, writer);
    managed::encode(&mut object, entries);
    let same = live.is_some_and(|live| *live == object);
    Ok(Applied { object: (!same).then_some(object) })
}

fn check(config: &Value, writer: &Writer<'_>, kind: &str, node: Node<'_>) -> Result<(), ApiError> {
    let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (api_version, config_kind) = (text("/apiVersion"), text("/kind"));
    let gvk = || {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        format!("{group}/{version}, Kind={config_kind}")
    };
    if api_version != writer.api_version || config_kind != kind {
        return Err(ApiError::bad_request(format!("invalid object type: {}", gvk())));
    }
    if config.pointer("/metadata/managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let problems = typed::problems(config, node);
    if problems.is_empty() {
        return Ok(());
    }
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let why = match problems.as_slice() {
        [only] => only.clone(),
        many => many.iter().fold("errors:".to_owned(), |all, one| all + "\n  " + one),
    };
    let text = format!("failed to create typed patch object ({namespace}/{name}; {}): {why}", gvk());
    Err(ApiError::new(500, "", text))
}

/// A field that somebody else owns.
struct Conflict {
    /// By what conflicts are grouped and sorted.
    identity: String,
    /// Whose it is, in the words of messages.
    manager: String,
    path: String,
    /// The field as a set of one.
    field: FieldSet,
}

/// An apply on its way.
struct Apply<'a> {
    base: &'a Value,
    config: &'a Value,
    /// The two merged, with nothing taken out yet.
    merged: Value,
    writer: &'a Writer<'a>,
    node: Node<'a>,
}

impl Apply<'_> {
    /// The fields that the configuration has, as far as the endpoint lets it set them.
    fn fields(&self) -> FieldSet {
        let mut set = walk::field_set(self.config, self.node);
        managed::exclude(&mut set, self.writer);
        set
    }

    /// Whether this very configuration was applied before and still holds: the usual case of a client that applies
    /// over and over, and a cheap one.
    fn is_repeated(&self, entries: &[Entry]) -> bool {
        let own = entries.iter().find(|e| e.belongs_to(self.writer, Operation::Apply));
        let Some(own) = own.filter(|own| own.api_version == self.writer.api_version) else { return false };
        let mut set = self.fields();
        managed::strip(&mut set);
        // An entry of nothing goes, whoever's it is.
        own.fields == set
            && self.merged == *self.base
            && entries.iter().all(|e| !e.fields.is_empty())
            && !is_last_applied_stale(self.base, self.config, self.writer)
    }

    /// Merges, prunes and hands over; fails with the conflicts if it would have to take fields and may not.
    fn attempt(&self, mut entries: Vec<Entry>, force: bool) -> Result<(Value, Vec<Entry>), Vec<Conflict>> {
        let (writer, node) = (self.writer, self.node);
        let mut set = self.fields();
        let own = entries.iter().position(|e| e.belongs_to(writer, Operation::Apply));
        let own = own.map(|at| entries.swap_remove(at));
        let object = match &own {
            // What is still applied, or is owned by others, stays: nothing can go if all of it is applied still.
            Some(last) if !last.fields.is_empty() && !fields::covers(&set, &last.fields) => {
                let pruned = self.pruned(last, &set, &entries);
                // An empty list is owned by nobody and so was pruned, though it is applied.
                walk::merge(pruned, self.config, node)
            }
            _ => self.merged.clone(),
        };
        let unchanged = object == *self.base;
        if !unchanged {
            self.take_over(&mut entries, &object, force)?;
        }
        managed::strip(&mut set);
        let mut entry = Entry::new(writer, Operation::Apply, set);
        if unchanged {
            // A time is that of the last change; who never changed anything has none.
            entry.time = own.map(|own| own.time).unwrap_or_default();
        }
        entries.push(entry);
        entries.retain(|e| !e.fields.is_empty());
        Ok((object, entries))
    }

    /// The merged object without what the writer applied last time, does not apply `now`, and nobody else owns.
    fn pruned(&self, last: &Entry, now: &FieldSet, others: &[Entry]) -> Value {
        let own = self.writer.api_version;
        if last.api_version == own && others.iter().all(|other| other.api_version == own) {
            let owned = others.iter().map(|other| &other.fields);
            return prune(self.merged.clone(), &last.fields, std::iter::once(now).chain(owned), self.node);
        }
        // What cannot be converted stays as it is; if that is because a converter was not asked yet, all of this is done
        // again.
        self.pruned_across(last, now, others).unwrap_or_else(|| self.merged.clone())
    }

    /// The same where versions differ: each manager's fields are looked for in the manager's version.
    fn pruned_across(&self, last: &Entry, now: &FieldSet, others: &[Entry]) -> Option<Value> {
        let mut owned: BTreeMap<&str, FieldSet> = BTreeMap::new();
        let own = (self.writer.api_version, now);
        let all = others.iter().map(|other| (other.api_version.as_str(), &other.fields));
        for (version, fields) in all.chain([own]) {
            fields::union(owned.entry(version).or_default(), fields);
        }
        let mut merged = At::new(self, &self.merged, &last.api_version)?;
        let named = fields::with_named_fields(&last.fields, merged.node);
        let mut pruned = merged.clone();
        walk::remove(&mut pruned.object, &named, pruned.node);
        pruned.keep_identity(&merged);
        // The version of the last apply first: what was pruned there may be needed for conversion.
        let first = owned.remove_entry(last.api_version.as_str());
        for (version, owned) in first.into_iter().chain(owned) {
            merged = At::new(self, &merged.object, version)?;
            pruned = At::new(self, &pruned.object, version)?;
            let mut gone = merged.fields();
            let mut kept = pruned.fields();
            fields::union(&mut kept, &fields::with_named_fields(&owned, merged.node));
            fields::subtract(&mut gone, &kept);
            pruned = merged.clone();
            walk::remove(&mut pruned.object, &gone, pruned.node);
            pruned.keep_identity(&merged);
        }
        // What went along without having been the writer's comes back as well.
        let merged = At::new(self, &merged.object, &last.api_version)?;
        let left = At::new(self, &pruned.object, &last.api_version)?.fields();
        let mut gone = merged.fields();
        fields::subtract(&mut gone, &left);
        let gone = fields::intersection(&gone, &named);
        let mut pruned = merged;
        walk::remove(&mut pruned.object, &gone, pruned.node);
        At::new(self, &pruned.object, self.writer.api_version).map(|at| at.object)
    }

    /// Takes what differs away from everybody else; fails if it is somebody's and there is no `force`.
    fn take_over(&self, entries: &mut [Entry], object: &Value, force: bool) -> Result<(), Vec<Conflict>> {
        let mut difference = walk::compare(self.base, object, self.node);
        managed::exclude(&mut difference.changed, self.writer);
        managed::exclude(&mut difference.removed, self.writer);
        let transition = Transition { old: self.base, new: object };
        if !force {
            let mut conflicts: Vec<Conflict> = Vec::new();
            for entry in &*entries {
                let taken = managed::taken(entry, &difference, transition, self.writer);
                conflicts.extend(conflicts_with(entry, &taken));
            }
            if !conflicts.is_empty() {
                conflicts.sort_by(|a, b| a.identity.cmp(&b.identity));
                return Err(conflicts);
            }
        }
        managed::take_away(entries, &difference, transition, self.writer);
        Ok(())
    }
}

/// An object in one of the versions.
#[derive(Clone)]
struct At<'a> {
    object: Value,
    node: Node<'a>,
}

impl<'a> At<'a> {
    /// An object of any version in this one; `None` if that cannot be known.
    fn new(apply: &Apply<'a>, object: &Value, version: &str) -> Option<Self> {
        let writer = apply.writer;
        let node = match version == writer.api_version {
            true => apply.node,
            false => writer.others.node(version)?,
        };
        let is_there = object.get("apiVersion").and_then(Value::as_str) == Some(version);
        let object = if is_there { object.clone() } else { writer.others.convert(object, version)? };
        Some(Self { object, node })
    }

    /// Puts back what names the object, without which no converter knows what it sees. Nobody owns that.
    fn keep_identity(&mut self, whole: &Self) {
        for name in ["name", "namespace", "uid"] {
            let found = whole.object.get("metadata").and_then(|metadata| metadata.get(name));
            if let (Some(found), Some(object)) = (found, self.object.as_object_mut()) {
                let metadata = object.entry("metadata").or_insert_with(|| json!({}));
                metadata[name] = found.clone();
            }
        }
    }

    fn fields(&self) -> FieldSet {
        fields::with_named_fields(&walk::field_set(&self.object, self.node), self.node)
    }
}

/// Removes what the writer applied last time, unless it is among what is `owned` still.
fn prune<'a>(
    merged: Value,
    last: &FieldSet,
    owned: impl Iterator<Item = &'a FieldSet>,
    node: Node<'_>,
) -> Value {
    let last = fields::with_named_fields(last, node);
    let mut pruned = merged.clone();
    walk::remove(&mut pruned, &last, node);
    if pruned == merged {
        return merged;
    }
    let all = fields::with_named_fields(&walk::field_set(&merged, node), node);
    // What somebody owns comes back.
    let mut kept = fields::with_named_fields(&walk::field_set(&pruned, node), node);
    for owned in owned {
        fields::union(&mut kept, &fields::with_named_fields(owned, node));
    }
    let mut gone = all.clone();
    fields::subtract(&mut gone, &kept);
    let mut pruned = merged.clone();
    walk::remove(&mut pruned, &gone, node);
    // What went along without having been the writer's comes back as well.
    let left = fields::with_named_fields(&walk::field_set(&pruned, node), node);
    let mut gone = all;
    fields::subtract(&mut gone, &left);
    let gone = fields::intersection(&gone, &last);
    let mut pruned = merged;
    walk::remove(&mut pruned, &gone, node);
    pruned
}

fn conflicts_with(entry: &Entry, taken: &FieldSet) -> Vec<Conflict> {
    let mut manager = go_quote(&entry.manager);
    if !entry.subresource.is_empty() {
        manager.push_str(&format!(" with subresource {}", go_quote(&entry.subresource)));
    }
    let mut identity = format!("{}\u{0}{:?}", entry.manager, entry.operation);
    if entry.operation == Operation::Update {
        manager.push_str(&format!(" using {}", entry.api_version));
        identity.push_str(&entry.api_version);
    }
    identity.push_str(&entry.subresource);
    let mut found = Vec::new();
    single_fields(taken, &mut Vec::new(), &mut |path, field| {
        found.push(Conflict { identity: identity.clone(), manager: manager.clone(), path, field });
    });
    found
}

/// Calls back with every member, as text and as a set of one: members of a place before what lies deeper.
fn single_fields(set: &FieldSet, prefix: &mut Vec<String>, found: &mut impl FnMut(String, FieldSet)) {
    for (element, _) in set.iter().filter(|(e, place)| *e != "." && fields::is_member(place)) {
        let path = prefix.iter().chain([element]).map(|e| fields::text(e)).collect();
        let mut field: FieldSet = Map::from_iter([(element.clone(), json!({}))]);
        for outer in prefix.iter().rev() {
            field = Map::from_iter([(outer.clone(), Value::Object(field))]);
        }
        found(path, field);
    }
    for (element, place) in set.iter().filter(|(e, _)| *e != ".") {
        if let Some(below) = place.as_object().filter(|b| !b.is_empty()) {
            prefix.push(element.clone());
            single_fields(below, prefix, found);
            prefix.pop();
        }
    }
}

fn refusal(conflicts: &[Conflict]) -> ApiError {
    let causes = conflicts.iter().map(|c| StatusCause {
        reason: Some("FieldManagerConflict".to_owned()),
        message: Some(format!("conflict with {}", c.manager)),
        field: Some(c.path.clone()),
    });
    let message = match conflicts {
        [only] => format!("Apply failed with 1 conflict: conflict with {}: {}", only.manager, only.path),
        many => {
            let mut lines = Vec::new();
            let mut last = None;
            for conflict in many {
                if last.replace(&conflict.identity) != Some(&conflict.identity) {
                    lines.push(format!("conflicts with {}:", conflict.manager));
                }
                lines.push(format!("- {}", conflict.path));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    ApiError::new(409, "Conflict", message).with_causes(causes.collect())
}

/// kubectl may take what its own client-side apply put there and nobody changed since; the conflicts that remain.
fn not_from_client_side_apply(
    conflicts: Vec<Conflict>,
    live: &Value,
    writer: &Writer<'_>,
    node: Node<'_>,
) -> Vec<Conflict> {
    if writer.manager != "kubectl" {
        return conflicts;
    }
    let Some(allowed) = last_applied_fields(live, writer, node) else { return conflicts };
    conflicts.into_iter().filter(|c| fields::intersection(&c.field, &allowed).is_empty()).collect()
}

/// The fields of the last-applied annotation that still have that value.
fn last_applied_fields(live: &Value, writer: &Writer<'_>, node: Node<'_>) -> Option<FieldSet> {
    let text = live.pointer("/metadata/annotations")?.get(LAST_APPLIED)?.as_str()?;
    let last: Value = serde_json::from_str(text).ok()?;
    if last.get("apiVersion")?.as_str()? != writer.api_version || !typed::problems(&last, node).is_empty() {
        return None;
    }
    let mut set = walk::field_set(&last, node);
    let difference = walk::compare(&last, live, node);
    fields::subtract(&mut set, &difference.changed);
    fields::subtract(&mut set, &difference.removed);
    Some(set)
}

/// kubectl's server-side apply keeps the annotation of its client-side apply up to date, if there is one.
fn sync_last_applied(object: &mut Value, config: &Value, writer: &Writer<'_>) {
    let Some(new) = last_applied(object, config, writer) else { return };
    let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    let Some(annotations) = annotations else { return };
    let others = annotations.iter().filter(|(key, _)| *key != LAST_APPLIED);
    let size: usize = others.map(|(key, value)| key.len() + value.as_str().unwrap_or_default().len()).sum();
    if size + LAST_APPLIED.len() + new.len() > MAX_ANNOTATIONS {
        annotations.remove(LAST_APPLIED);
    } else {
        annotations.insert(LAST_APPLIED.to_owned(), Value::String(new));
    }
}

/// The most bytes that annotations may have altogether.
const MAX_ANNOTATIONS: usize = 256 * 1024;

fn is_last_applied_stale(object: &Value, config: &Value, writer: &Writer<'_>) -> bool {
    let Some(new) = last_applied(object, config, writer) else { return false };
    object.pointer("/metadata/annotations").and_then(|a| a.get(LAST_APPLIED)) != Some(&Value::String(new))
}

/// What the annotation is to say; `None` if it is nobody's business.
fn last_applied(object: &Value, config: &Value, writer: &Writer<'_>) -> Option<String> {
    if writer.manager != "kubectl" {
        return None;
    }
    let old = object.pointer("/metadata/annotations")?.get(LAST_APPLIED)?.as_str()?;
    if old.is_empty() {
        return None;
    }
    let mut config = config.clone();
    if let Some(own) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        own.remove(LAST_APPLIED);
    }
    Some(format!("{config}\n"))
}
