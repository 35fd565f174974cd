//! Which objects of a resource a list or a watch is about.

use gantry_api::status::Result;
use gantry_api::{ApiError, FieldSelector, LabelSelector};
use gantry_kinds::AnyKind;

use super::entry::Entry;

/// A compiled selection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Empty: all.
    pub(crate) namespace: String,
    labels: LabelSelector,
    terms: Vec<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    field: Field,
    value: String,
    equal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    /// Position in the kind's selectable paths.
    Kind(usize),
}

impl Selection {
    /// Objects of `kind`, which are stored as `storage`, in `namespace` (empty: all) that both selectors pick.
    pub(crate) fn new(
        kind: &dyn AnyKind,
        storage: &dyn AnyKind,
        namespace: &str,
        labels: &LabelSelector,
        fields: &FieldSelector,
    ) -> Result<Self> {
        let selectable = if fields.is_everything() { Vec::new() } else { kind.selectable() };
        let terms = fields.terms().iter().map(|term| {
            let field = match term.field.as_str() {
                "metadata.name" => Field::Name,
                "metadata.namespace" if kind.resource().namespaced => Field::Namespace,
                path => {
                    let own = selectable.iter().position(|s| s == path);
                    let own = own.ok_or_else(|| unsupported(kind, path))?;
                    Field::Kind(stored_position(kind, storage, path).unwrap_or(own))
                }
            };
            Ok(Term { field, value: term.value.clone(), equal: term.equal })
        });
        Ok(Self {
            namespace: namespace.to_owned(),
            labels: labels.clone(),
            terms: terms.collect::<Result<_>>()?,
        })
    }

    /// Also only the object of this name.
    pub(crate) fn named(mut self, name: &str) -> Self {
        if !name.is_empty() && self.name().is_none() {
            self.terms.push(Term { field: Field::Name, value: name.to_owned(), equal: true });
        }
        self
    }

    /// The same without what it asks of fields that only the version knows that it was made for; `None` if it asks for
    /// nothing of the kind.
    pub(crate) fn of_any_version(&self) -> Option<Self> {
        let is_own = |term: &Term| matches!(term.field, Field::Kind(_));
        if !self.terms.iter().any(is_own) {
            return None;
        }
        let terms = self.terms.iter().filter(|t| !is_own(t)).cloned().collect();
        Some(Self { namespace: self.namespace.clone(), labels: self.labels.clone(), terms })
    }

    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        (self.namespace.is_empty() || self.namespace == entry.namespace())
            && self.terms.iter().all(|t| (t.value == read(entry, t.field)) == t.equal)
            && self.matches_labels(entry)
    }

    fn matches_labels(&self, entry: &Entry) -> bool {
        let requirements = self.labels.requirements();
        if requirements.is_empty() {
            return self.labels.is_everything();
        }
        requirements.iter().all(|r| r.matches_value(entry.label(&r.key)))
    }

    /// Whether it picks by more than the namespace.
    pub(crate) fn is_selective(&self) -> bool {
        !self.terms.is_empty() || !self.labels.is_everything()
    }

    /// The one name it picks, if it does.
    pub(crate) fn name(&self) -> Option<&str> {
        self.required(Field::Name)
    }

    /// The value that the kind's selectable path number `index` must have, if it asks for one.
    pub(crate) fn field(&self, index: usize) -> Option<&str> {
        self.required(Field::Kind(index))
    }

    fn required(&self, field: Field) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }
}

fn read(entry: &Entry, field: Field) -> &str {
    match field {
        Field::Name => entry.name(),
        Field::Namespace => entry.namespace(),
        Field::Kind(index) => entry.field(index),
    }
}

/// Where another stored kind keeps the field, since the values beside an entry are the stored kind's.
fn stored_position(kind: &dyn AnyKind, storage: &dyn AnyKind, path: &str) -> Option<usize> {
    let stored = kind.stored()?;
    let renamed = stored.selectable.iter().find(|(here, _)| *here == path).map_or(path, |(_, there)| there);
    storage.selectable().iter().position(|s| s == renamed)
}

fn unsupported(kind: &dyn AnyKind, path: &str) -> ApiError {
    let quoted = gantry_api::field::quote(path);
    let resource = kind.resource();
    match (&*resource.group, &*resource.kind) {
        ("batch", "Job") => {
            return ApiError::bad_request(format!("field label {quoted} not supported for Job"));
        }
        ("resource.k8s.io", "ResourceSlice") => {
            let version = resource.api_version();
            let why = format!("field label not supported for {version}, Kind=ResourceSlice: {path}");
            return ApiError::bad_request(why);
        }
        _ => {}
    }
    if kind.definition().is_none() || !kind.selectable().is_empty() {
        return ApiError::bad_request(format!("field label not supported: {path}"));
    }
    ApiError::bad_request(format!(
        "{quoted} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    ))
}
