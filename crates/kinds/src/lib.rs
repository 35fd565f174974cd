//! One file per kind: names, defaults, validation, update rules, columns, selectable fields.
