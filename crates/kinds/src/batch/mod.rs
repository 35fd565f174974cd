//! The batch group.
