//! The events group.
