//! The discovery group.
