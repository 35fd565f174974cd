//! Server-side apply: merges a configuration into an object, field by field owned.

use gantry_api::ApiError;
use gantry_api::metav1::StatusCause;
use gantry_api::schema::Node;
use serde_json::{Map, Value, json};

use super::fields::{self, FieldSet};
use super::go_text::go_quote;
use super::managed::{self, Entry, Operation, Writer};
use super::typed;
use super::walk;

/// Where `kubectl apply` on the client side keeps what it applied.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager of the fields that an object had before anybody applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// What became of an apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object to store; defaults are still to be put in.
    pub object: Value,
    /// Whether it differs from the live one in more than times.
    pub changed: bool,
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
    let live_or_nothing = live.unwrap_or(&nothing);
    let stored = live_or_nothing.pointer("/metadata/managedFields").cloned().unwrap_or_default();
    let mut entries = managed::decode(stored)
        .map_err(|why| ApiError::new(500, "", format!("failed to decode managed fields: {why}")))?;
    let before = entries.clone();
    let mut base = live_or_nothing.clone();
    managed::take(&mut base);
    if entries.is_empty() {
        let first = Writer { manager: BEFORE_FIRST_APPLY, ..*writer };
        entries = managed::updated(entries, managed::changes(&nothing, &base, &first, node), &first);
    }
    let (mut object, entries) = match attempt(&base, config, entries.clone(), writer, force, node) {
        Ok(done) => done,
        Err(conflicts) => {
            let conflicts = not_from_client_side_apply(conflicts, &base, writer, node);
            if !conflicts.is_empty() {
                return Err(refusal(&conflicts));
            }
            attempt(&base, config, entries, writer, true, node).map_err(|rest| refusal(&rest))?
        }
    };
    sync_last_applied(&mut object, config, writer);
    let same = object == base && live.is_some() && same_owners(&before, &entries);
    if let (true, Some(live)) = (same, live) {
        return Ok(Applied { object: live.clone(), changed: false });
    }
    managed::encode(&mut object, entries);
    Ok(Applied { object, changed: true })
}

/// Whether two states of `managedFields` differ in nothing but times.
fn same_owners(before: &[Entry], after: &[Entry]) -> bool {
    let untimed = |e: &Entry| Entry { time: String::new(), ..e.clone() };
    before.len() == after.len() && after.iter().all(|a| before.iter().any(|b| untimed(a) == untimed(b)))
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

/// Merges, prunes and hands over; fails with the conflicts if it would have to take fields and may not.
fn attempt(
    base: &Value,
    config: &Value,
    mut entries: Vec<Entry>,
    writer: &Writer<'_>,
    force: bool,
    node: Node<'_>,
) -> Result<(Value, Vec<Entry>), Vec<Conflict>> {
    let merged = walk::merge(base.clone(), config, node);
    let mut set = walk::field_set(config, node);
    managed::exclude(&mut set, writer);
    let own =
        entries.iter().position(|e| e.belongs_to(writer, Operation::Apply)).map(|at| entries.swap_remove(at));
    let object = match &own {
        Some(last) if !last.fields.is_empty() => {
            let pruned = prune(merged, &last.fields, &set, &entries, node);
            // An empty list is owned by nobody and so was pruned, though it is applied.
            walk::merge(pruned, config, node)
        }
        _ => merged,
    };
    let mut difference = walk::compare(base, &object, node);
    managed::exclude(&mut difference.changed, writer);
    managed::exclude(&mut difference.removed, writer);
    let taken = |e: &Entry| fields::intersection(&e.fields, &difference.changed);
    if !force {
        let mut conflicts: Vec<Conflict> = Vec::new();
        for entry in &entries {
            conflicts.extend(conflicts_with(entry, &taken(entry)));
        }
        if !conflicts.is_empty() {
            conflicts.sort_by(|a, b| a.identity.cmp(&b.identity));
            return Err(conflicts);
        }
    }
    for entry in &mut entries {
        fields::subtract(&mut entry.fields, &difference.changed);
        fields::subtract(&mut entry.fields, &difference.removed);
    }
    managed::strip(&mut set);
    entries.push(Entry::new(writer, Operation::Apply, set));
    entries.retain(|e| !e.fields.is_empty());
    Ok((object, entries))
}

/// Removes what the writer applied last time, does not apply now, and nobody else owns.
fn prune(merged: Value, last: &FieldSet, now: &FieldSet, others: &[Entry], node: Node<'_>) -> Value {
    let last = fields::with_named_fields(last, node);
    let mut pruned = merged.clone();
    walk::remove(&mut pruned, &last, node);
    if pruned == merged {
        return merged;
    }
    let all = fields::with_named_fields(&walk::field_set(&merged, node), node);
    // What somebody owns comes back.
    let mut kept = fields::with_named_fields(&walk::field_set(&pruned, node), node);
    fields::union(&mut kept, &fields::with_named_fields(now, node));
    for other in others {
        fields::union(&mut kept, &fields::with_named_fields(&other.fields, node));
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
    let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    let Some(annotations) = annotations.filter(|_| writer.manager == "kubectl") else { return };
    let Some(annotation) = annotations.get_mut(LAST_APPLIED) else { return };
    if annotation.as_str().is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    if let Some(own) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        own.remove(LAST_APPLIED);
    }
    *annotation = Value::String(format!("{config}\n"));
}
