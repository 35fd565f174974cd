//! Revisioned bytes: embedded, etcd or memory.
