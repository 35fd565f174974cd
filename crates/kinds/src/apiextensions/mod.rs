//! The apiextensions group.
