//! `metadata.managedFields`: who owns which field, kept up to date by every write.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use gantry_api::schema::Node;
use serde_json::{Map, Value, json};

use super::fields::{self, FieldSet, Step};
use super::walk::{self, Difference};

/// The most entries of updates that an object keeps; older ones are merged into one.
pub const MAX_UPDATE_MANAGERS: usize = 10;

/// The manager that the oldest updates are merged into.
const ANCIENT: &str = "ancient-changes";

/// Who writes, and how.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// The field manager; empty is `unknown`.
    pub manager: &'a str,
    /// `apps/v1`.
    pub api_version: &'a str,
    /// The subresource written to; empty for the object itself.
    pub subresource: &'a str,
    /// Now, in RFC 3339 with seconds and `Z`.
    pub time: &'a str,
    /// What this endpoint does not let the writer set.
    pub reset: Reset<'a>,
    /// The other versions of the kind: what was written in one that is not served is forgotten.
    pub others: &'a dyn Versions,
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} of {:?}", self.manager, self.api_version, self.subresource)
    }
}

impl Writer<'_> {
    fn is_served(&self, api_version: &str) -> bool {
        self.api_version == api_version || self.others.node(api_version).is_some()
    }

    /// What differs between two states, as the writers of another version see it.
    fn difference_in(&self, api_version: &str, old: &Value, new: &Value) -> Difference {
        let in_version = |object| self.others.convert(object, api_version);
        let (Some(node), Some(old), Some(new)) =
            (self.others.node(api_version), in_version(old), in_version(new))
        else {
            return Difference::default();
        };
        changes(&old, &new, self, node)
    }
}

/// The versions of a kind beside the one that is written.
pub trait Versions: Sync {
    /// The schema of a version (`apps/v1`); `None` if it is not served.
    fn node(&self, api_version: &str) -> Option<Node<'_>>;
    /// An object, which says of which version it is, in another one; `None` if that cannot be, or is not known yet.
    fn convert(&self, object: &Value, to: &str) -> Option<Value>;
}

/// A kind with one version.
#[derive(Clone, Copy, Debug)]
pub struct OneVersion;

impl Versions for OneVersion {
    fn node(&self, _: &str) -> Option<Node<'_>> {
        None
    }

    fn convert(&self, _: &Value, _: &str) -> Option<Value> {
        None
    }
}

/// An object before and after a write.
#[derive(Clone, Copy)]
pub(super) struct Transition<'a> {
    pub old: &'a Value,
    pub new: &'a Value,
}

/// What an endpoint does not let a writer set, so that the writer does not come to own it either.
#[derive(Clone, Copy, Debug)]
pub enum Reset<'a> {
    /// These fields and what lies below them, such as `["status"]`.
    Fields(&'a [&'a [&'a str]]),
    /// Everything but what lies at or below these places.
    AllBut(&'a [&'a [Step]]),
}

/// How an entry came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// One entry of `managedFields`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub operation: Operation,
    pub time: String,
    pub manager: String,
    pub api_version: String,
    pub subresource: String,
    pub fields: FieldSet,
}

impl Entry {
    pub(super) fn new(writer: &Writer<'_>, operation: Operation, fields: FieldSet) -> Self {
        Self {
            operation,
            time: writer.time.to_owned(),
            manager: name(writer).to_owned(),
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            fields,
        }
    }

    /// Whether it is this writer's: an applier's whatever the version.
    pub(super) fn belongs_to(&self, writer: &Writer<'_>, operation: Operation) -> bool {
        self.operation == operation
            && self.manager == name(writer)
            && self.subresource == writer.subresource
            && (operation == Operation::Apply || self.api_version == writer.api_version)
    }

    /// What entries are ordered by.
    fn order(&self) -> (Operation, &str, &str, &str, &str) {
        (self.operation, &self.time, &self.manager, &self.api_version, &self.subresource)
    }

    fn decode(value: Value, index: usize) -> Result<Self, String> {
        let Value::Object(mut entry) = value else {
            return Err("managed fields entry is no object".to_owned());
        };
        let mut text = |name: &str| match entry.remove(name) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let operation = match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        let api_version = text("apiVersion");
        if api_version.is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match text("fieldsType").as_str() {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
            other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {index}")),
        }
        let (time, manager, subresource) = (text("time"), text("manager"), text("subresource"));
        let fields = match entry.remove("fieldsV1") {
            Some(Value::Object(fields)) => fields,
            None | Some(Value::Null) => Map::new(),
            Some(_) => return Err("error decoding set: fieldsV1 is no object".to_owned()),
        };
        Ok(Self { operation, time, manager, api_version, subresource, fields })
    }

    fn encode(self) -> Value {
        let mut entry = json!({
            "manager": self.manager, "operation": self.operation.as_str(), "apiVersion": self.api_version,
            "fieldsType": "FieldsV1", "fieldsV1": self.fields,
        });
        if !self.time.is_empty() {
            entry["time"] = Value::String(self.time);
        }
        if !self.subresource.is_empty() {
            entry["subresource"] = Value::String(self.subresource);
        }
        entry
    }
}

fn name<'a>(writer: &Writer<'a>) -> &'a str {
    if writer.manager.is_empty() { "unknown" } else { writer.manager }
}

/// Reads the entries.
pub(super) fn decode(entries: Value) -> Result<Vec<Entry>, String> {
    let Value::Array(entries) = entries else { return Ok(Vec::new()) };
    let decoded = entries.into_iter().enumerate().map(|(i, entry)| Entry::decode(entry, i));
    let decoded: Vec<Entry> = decoded.collect::<Result<_, _>>()?;
    Ok(decoded)
}

/// The entries in their order; `None` if nobody owns anything.
pub(super) fn encoded(mut entries: Vec<Entry>) -> Option<Value> {
    entries.retain(|e| !e.fields.is_empty());
    entries.sort_by(|a, b| a.order().cmp(&b.order()));
    (!entries.is_empty()).then(|| Value::Array(entries.into_iter().map(Entry::encode).collect()))
}

/// Writes the entries to an object, in their order; none at all if nobody owns anything.
pub(super) fn encode(object: &mut Value, entries: Vec<Entry>) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        match encoded(entries) {
            None => drop(metadata.remove("managedFields")),
            Some(entries) => drop(metadata.insert("managedFields".to_owned(), entries)),
        }
    }
}

/// Takes the entries off an object.
pub(super) fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

/// Who owns an object's fields after a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Owners {
    /// Who owned them before.
    AsBefore,
    /// These entries.
    Are(Value),
    /// Nobody.
    Nobody,
}

/// Brings `metadata.managedFields` of `new` up to date: see [`owners_after`].
pub fn update_managed_fields(live: Option<&Value>, new: &mut Value, writer: &Writer<'_>, node: Node<'_>) {
    let entries = match owners_after(live, new, writer, node) {
        Owners::AsBefore => live.and_then(|l| l.pointer("/metadata/managedFields")).cloned(),
        Owners::Are(entries) => Some(entries),
        Owners::Nobody => None,
    };
    if let (Some(entries), Some(metadata)) = (entries, new.get_mut("metadata").and_then(Value::as_object_mut))
    {
        metadata.insert("managedFields".to_owned(), entries);
    }
}

/// Who owns what after a create (`live` is `None`), update or patch.
///
/// `new` is the object that is to be stored, complete with defaults; what it says in `managedFields` is taken out, and
/// taken as the client's wish, as upstream does: an empty list resets, a malformed or missing one is ignored. A writer
/// that changed nothing leaves every entry and its time alone. An object of which nobody owns anything stays untracked.
pub fn owners_after(live: Option<&Value>, new: &mut Value, writer: &Writer<'_>, node: Node<'_>) -> Owners {
    let wished = take(new);
    let live_entries = live.and_then(|l| l.pointer("/metadata/managedFields"));
    let reset = writer.subresource.is_empty() && wished.as_ref().is_some_and(is_reset);
    let tracked = |entries: Option<&Value>| entries.and_then(Value::as_array).is_some_and(|e| !e.is_empty());
    let own_wish = wished.filter(|_| writer.subresource.is_empty() && !reset);
    if live.is_some() && (reset || !tracked(live_entries) && !tracked(own_wish.as_ref())) {
        return Owners::Nobody;
    }
    let nothing = json!({});
    let old = live.unwrap_or(&nothing);
    let difference = changes(old, new, writer, node);
    // Who sends back what was read wishes for nothing.
    let own_wish = own_wish.filter(|wish| live_entries != Some(wish));
    let wished_entries = own_wish.and_then(|w| decode(w).ok()).filter(|e| !e.is_empty());
    if difference.is_empty() && wished_entries.is_none() {
        return Owners::AsBefore;
    }
    let mut entries = match wished_entries {
        Some(entries) => entries,
        None => live_entries.cloned().and_then(|e| decode(e).ok()).unwrap_or_default(),
    };
    reconcile(&mut entries, writer, node);
    if live.is_some() && entries.is_empty() {
        return Owners::Nobody;
    }
    encoded(updated(entries, difference, Transition { old, new }, writer)).map_or(Owners::Nobody, Owners::Are)
}

/// Fits the entries to the schemas of their versions, which definitions of custom resources change; returns whether
/// anything changed. The types of built-in kinds are what they were.
pub(super) fn reconcile(entries: &mut [Entry], writer: &Writer<'_>, node: Node<'_>) -> bool {
    if !matches!(node, Node::Owned(_)) {
        return false;
    }
    let mut changed = false;
    for entry in entries {
        let own = (entry.api_version == writer.api_version).then_some(node);
        if let Some(node) = own.or_else(|| writer.others.node(&entry.api_version)) {
            changed |= fields::reconcile(&mut entry.fields, node);
        }
    }
    changed
}

/// `[]` or `[{}]`.
fn is_reset(wished: &Value) -> bool {
    match wished.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// What differs between two states, without what nobody can own.
pub(super) fn changes(old: &Value, new: &Value, writer: &Writer<'_>, node: Node<'_>) -> Difference {
    let mut difference = walk::compare(old, new, node);
    for set in [&mut difference.changed, &mut difference.removed] {
        strip(set);
        exclude(set, writer);
    }
    difference
}

/// The entries after the writer changed these fields: everybody else loses them.
pub(super) fn updated(
    mut entries: Vec<Entry>,
    difference: Difference,
    transition: Transition<'_>,
    writer: &Writer<'_>,
) -> Vec<Entry> {
    forget_unserved(&mut entries, writer);
    take_away(&mut entries, &difference, transition, writer);
    let changed = difference.changed;
    if !changed.is_empty() {
        match entries.iter_mut().find(|e| e.belongs_to(writer, Operation::Update)) {
            Some(own) => {
                fields::union(&mut own.fields, &changed);
                writer.time.clone_into(&mut own.time);
            }
            None => entries.push(Entry::new(writer, Operation::Update, changed)),
        }
    }
    entries.retain(|e| !e.fields.is_empty());
    cap(entries)
}

/// Takes from everybody what differs, in each one's own version.
pub(super) fn take_away(
    entries: &mut [Entry],
    difference: &Difference,
    transition: Transition<'_>,
    writer: &Writer<'_>,
) {
    let mut elsewhere: HashMap<String, Difference> = HashMap::new();
    for entry in entries {
        let difference = match entry.api_version == writer.api_version {
            true => difference,
            false => elsewhere
                .entry(entry.api_version.clone())
                .or_insert_with_key(|v| writer.difference_in(v, transition.old, transition.new)),
        };
        fields::subtract(&mut entry.fields, &difference.changed);
        fields::subtract(&mut entry.fields, &difference.removed);
    }
}

/// What of an entry a difference would take away.
pub(super) fn taken(
    entry: &Entry,
    difference: &Difference,
    transition: Transition<'_>,
    writer: &Writer<'_>,
) -> FieldSet {
    if entry.api_version == writer.api_version {
        return fields::intersection(&entry.fields, &difference.changed);
    }
    let elsewhere = writer.difference_in(&entry.api_version, transition.old, transition.new);
    fields::intersection(&entry.fields, &elsewhere.changed)
}

/// Merges the oldest updates of each version until there are few enough.
fn cap(mut entries: Vec<Entry>) -> Vec<Entry> {
    let mut updates = entries.iter().filter(|e| e.operation == Operation::Update).count();
    if updates <= MAX_UPDATE_MANAGERS {
        return entries;
    }
    entries.sort_by(|a, b| a.order().cmp(&b.order()));
    // The first entry of a version is what the next one of that version is merged into.
    let mut buckets: Vec<Entry> = Vec::new();
    let mut rest = Vec::with_capacity(entries.len());
    for entry in entries {
        if entry.operation == Operation::Apply || updates <= MAX_UPDATE_MANAGERS {
            rest.push(entry);
            continue;
        }
        match buckets.iter_mut().find(|b| b.api_version == entry.api_version) {
            Some(bucket) => {
                fields::union(&mut bucket.fields, &entry.fields);
                ANCIENT.clone_into(&mut bucket.manager);
                bucket.subresource.clear();
                bucket.time = entry.time;
                updates -= 1;
            }
            None => buckets.push(entry),
        }
    }
    rest.extend(buckets);
    rest
}

/// What belongs to nobody: identity and bookkeeping.
static NOBODYS: LazyLock<FieldSet> = LazyLock::new(|| {
    const METADATA: [&str; 9] = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    let mut metadata: FieldSet = METADATA.iter().map(|name| (fields::field(name), json!({}))).collect();
    metadata.insert(".".to_owned(), json!({}));
    let places = [("apiVersion", json!({})), ("kind", json!({})), ("metadata", Value::Object(metadata))];
    places.into_iter().map(|(name, place)| (fields::field(name), place)).collect()
});

/// Removes what belongs to nobody.
pub(super) fn strip(set: &mut FieldSet) {
    fields::subtract(set, &NOBODYS);
}

/// Removes what the writer's endpoint does not let it set.
pub(super) fn exclude(set: &mut FieldSet, writer: &Writer<'_>) {
    match writer.reset {
        _ if set.is_empty() => {}
        Reset::Fields(paths) => paths.iter().for_each(|path| fields::remove_subtree(set, path)),
        Reset::AllBut(patterns) => *set = fields::only(set, patterns),
    }
}

/// Forgets the entries of versions that are served no longer.
pub(super) fn forget_unserved(entries: &mut Vec<Entry>, writer: &Writer<'_>) {
    entries.retain(|e| writer.is_served(&e.api_version));
}

/// Checks what admission made of `managedFields`.
///
/// # Errors
/// Why they cannot be read, in upstream's words.
pub fn validate_managed_fields(entries: Value) -> Result<(), String> {
    decode(entries).map(drop)
}
