//! What the documents are about.

use std::sync::Arc;

use gantry_api::schema::{Structural, TypeDef};
use sha2::{Digest as _, Sha256};

/// A served resource.
#[derive(Clone, Debug)]
pub struct Served {
    /// The API group; the core group is empty.
    pub group: String,
    /// The version.
    pub version: String,
    /// The kind of its objects.
    pub kind: String,
    /// The kind of lists of them.
    pub list_kind: String,
    /// Its name in URLs.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verbs: Vec<String>,
    /// What its objects look like.
    pub definition: Definition,
    /// The paths of a custom resource that field selectors may name, without a leading dot.
    pub selectable: Vec<String>,
    /// Its subresources.
    pub subresources: Vec<Subresource>,
}

/// What an object looks like.
#[derive(Clone, Debug)]
pub enum Definition {
    /// A type of the table.
    BuiltIn(&'static TypeDef),
    /// The schema of a custom resource; `None` if its definition gives none.
    Custom(Option<Arc<Structural>>),
}

/// A subresource of a served resource.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// `status`, `scale`, `eviction`, `exec`, …
    pub name: String,
    /// The group of its kind.
    pub group: String,
    /// The version of its kind.
    pub version: String,
    /// The kind it takes or gives.
    pub kind: String,
    /// `get`, `update`, `patch`, `create`, `connect`.
    pub verbs: Vec<String>,
}

impl Served {
    /// Where its group and version are served, without the leading slash: `apis/apps/v1`.
    pub(super) fn root(&self) -> String {
        match self.group.as_str() {
            "" => format!("api/{}", self.version),
            group => format!("apis/{group}/{}", self.version),
        }
    }

    pub(super) fn is_custom(&self) -> bool {
        matches!(self.definition, Definition::Custom(_))
    }

    pub(super) fn allows(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Feeds everything that shapes its part of a document.
    pub(super) fn digest(&self, digest: &mut Sha256) {
        let mut feed = |text: &str| {
            digest.update(text.as_bytes());
            digest.update([0]);
        };
        for text in [&self.group, &self.version, &self.kind, &self.list_kind, &self.plural] {
            feed(text);
        }
        feed(if self.namespaced { "namespaced" } else { "cluster" });
        self.verbs.iter().chain(&self.selectable).for_each(|v| feed(v));
        for sub in &self.subresources {
            for text in [&sub.name, &sub.group, &sub.version, &sub.kind] {
                feed(text);
            }
            sub.verbs.iter().for_each(|v| feed(v));
        }
        match &self.definition {
            Definition::BuiltIn(def) => feed(&def.name()),
            // The debug form tells two schemas apart, which is all a hash needs.
            Definition::Custom(schema) => feed(&format!("{schema:?}")),
        }
    }
}

impl Subresource {
    pub(super) fn allows(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}
