//! The one binary: roles, flags, configuration and wiring; no logic.

fn main() {}
