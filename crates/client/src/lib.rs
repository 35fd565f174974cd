//! Typed verbs, informers and indexes, in process or over HTTPS.
