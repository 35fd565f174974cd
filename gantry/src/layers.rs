//! Flags that come in layers: the command line, the configuration file.

/// `Self` with each named field from the first of the layers that says something.
macro_rules! first_said {
    ($layers:ident, $($field:ident),*) => {{
        let mut all = Self::default();
        for layer in $layers {
            $(if all.$field.is_none() {
                all.$field.clone_from(&layer.$field);
            })*
        }
        all
    }};
}
