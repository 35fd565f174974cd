//! The storage group.
