//! The scheduler: an incremental snapshot, an engine and its plugins.
