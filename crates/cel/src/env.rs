//! What an expression may refer to.

use std::sync::Arc;

use crate::data::Data;
use crate::declare;
use crate::types::{Fields, Object, Type};

/// Variables, struct types and sizes that expressions are compiled against.
#[derive(Clone, Default)]
pub struct Env {
    variables: Vec<(String, Type)>,
    structs: Option<Structs>,
    data: Option<Arc<Data>>,
    json_patch: bool,
    /// Variables whose fields are computed when they are read.
    computed: Vec<String>,
}

type Structs = Arc<dyn Fn(&str) -> Option<Type> + Send + Sync>;

impl Env {
    /// With the standard functions and Kubernetes' libraries, and no variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a variable; its name may have dots (`authorizer.requestResource`).
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, ty: Type) -> Self {
        self.variables.push((name.into(), ty));
        self
    }

    /// Adds a variable of an object type whose fields are computed when they are read: an evaluation asks its
    /// [`crate::Variables`] for `name.field`, and for `name` only where the whole is used.
    #[must_use]
    pub fn computed(
        mut self,
        name: &str,
        type_name: &str,
        fields: impl IntoIterator<Item = (String, Type)>,
    ) -> Self {
        let fields = Fields::Known(fields.into_iter().collect());
        self.computed.push(name.to_owned());
        self.variable(name, Type::Object(Object::new(type_name, fields)))
    }

    /// Says which struct types expressions may build, by name.
    #[must_use]
    pub fn structs(mut self, find: impl Fn(&str) -> Option<Type> + Send + Sync + 'static) -> Self {
        self.structs = Some(Arc::new(find));
        self
    }

    /// Adds `jsonpatch.escapeKey`.
    #[must_use]
    pub fn json_patch(mut self) -> Self {
        self.json_patch = true;
        self
    }

    /// Bounds the sizes of what variables hold, for cost estimates: a path from any variable is looked up in here.
    #[must_use]
    pub fn sizes(mut self, data: Arc<Data>) -> Self {
        self.data = Some(data);
        self
    }

    pub(crate) fn find_variable(&self, name: &str) -> Option<&Type> {
        self.variables.iter().rev().find(|(n, _)| n == name).map(|(_, ty)| ty)
    }

    pub(crate) fn is_computed(&self, name: &str) -> bool {
        self.computed.iter().any(|n| n == name)
    }

    pub(crate) fn find_type(&self, name: &str) -> Option<Type> {
        let own = self.structs.as_ref().and_then(|find| find(name));
        own.or_else(|| declare::type_named(name))
    }

    pub(crate) fn overloads(&self, function: &str) -> Option<&'static [declare::Overload]> {
        if function == "jsonpatch.escapeKey" && !self.json_patch {
            return None;
        }
        declare::overloads(function)
    }

    pub(crate) fn data(&self) -> Option<&Data> {
        self.data.as_deref()
    }
}
