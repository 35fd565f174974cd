//! The user's verbs, one file each.
