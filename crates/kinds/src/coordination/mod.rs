//! The coordination group.
