//! The rbac group.
