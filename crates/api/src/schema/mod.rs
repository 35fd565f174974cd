//! The schema of every API type: what fields there are, and how lists and maps merge.
//!
//! The built-in types come from a generated table (`cargo xtask codegen`), which is parsed once, when somebody first
//! asks; a custom resource brings a [`Structural`] of its own. Code that merges, prunes or validates walks both
//! through [`Node`] and cannot tell which it has.

mod descriptions;
mod node;
mod parse;
mod structural;
#[cfg(test)]
mod tests;
mod types;
mod unknown;
mod zeros;

use std::collections::HashMap;
use std::sync::OnceLock;

pub use descriptions::Descriptions;
pub use node::{Keys, ListShape, Node, Shape};
pub use structural::{Additional, Structural, StructuralType, ValueValidation};
pub use types::{Field, Gvk, ListType, Markers, Type, TypeDef, Zero};
pub use unknown::{MAX_PROBLEMS, unknown_fields};
pub(crate) use zeros::fill;
pub use zeros::tidied;

pub(crate) struct Table {
    pub(crate) defs: Vec<TypeDef>,
    by_name: HashMap<&'static str, u16>,
    by_gvk: HashMap<(&'static str, &'static str, &'static str), u16>,
}

pub(crate) fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let defs = parse::parse(include_str!("generated/types.txt"));
        let by_name = (0u16..).zip(&defs).map(|(i, def)| (def.name, i)).collect();
        let kinds =
            (0u16..).zip(&defs).filter_map(|(i, def)| def.gvk.map(|g| ((g.group, g.version, g.kind), i)));
        let by_gvk = kinds.collect();
        Table { defs, by_name, by_gvk }
    })
}

/// The definition of a name as OpenAPI writes it: `io.k8s.api.core.v1.Pod`.
pub fn lookup(name: &str) -> Option<&'static TypeDef> {
    let table = table();
    let name = name.strip_prefix(types::PREFIX)?;
    table.by_name.get(name).map(|i| &table.defs[usize::from(*i)])
}

/// The definition of a kind: `("apps", "v1", "Deployment")`; the core group is `""`.
pub fn lookup_kind(group: &str, version: &str, kind: &str) -> Option<&'static TypeDef> {
    let table = table();
    table.by_gvk.get(&(group, version, kind)).map(|i| &table.defs[usize::from(*i)])
}

/// Every definition, in the order of their names.
pub fn all() -> &'static [TypeDef] {
    &table().defs
}

/// The metadata of every object.
pub fn object_meta() -> Node<'static> {
    lookup("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").map_or(Node::ANY, TypeDef::node)
}
