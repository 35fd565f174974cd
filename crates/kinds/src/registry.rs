//! The list of built-in kinds. Adding a kind is one file, one line here and one fixture.

use std::sync::Arc;

use crate::erased::{AnyKind, Builtin};

macro_rules! kinds {
    ($($kind:path => $definition:literal,)*) => {
        /// All built-in kinds.
        pub fn builtin() -> Vec<Arc<dyn AnyKind>> {
            vec![$(Arc::new(Builtin::<$kind>::new($definition)),)*]
        }
    };
}

kinds! {
    crate::core::config_map::ConfigMapKind => "io.k8s.api.core.v1.ConfigMap",
}
