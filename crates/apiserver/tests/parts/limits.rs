//! Limit ranges.
