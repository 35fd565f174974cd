//! Applies that changed nothing: clients and controllers apply the same configuration over and over. What was found
//! out once, about one revision of an object, is not found out again.

use std::collections::HashSet;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::Call;
use crate::limits::MAX_REPEATED_APPLIES;
use crate::query::WriteOptions;

/// An apply, the object and the revision that it was about.
pub(crate) type Question = [u8; 32];

/// The applies that are known to change nothing.
#[derive(Default)]
pub(crate) struct Repeated(Mutex<HashSet<Question>>);

impl Repeated {
    /// Whether the apply is known to change nothing.
    pub(crate) fn knows(&self, question: &Question) -> bool {
        self.0.lock().contains(question)
    }

    /// Notes that it changes nothing. When there are too many, all are forgotten: each is found out again at its next
    /// turn.
    pub(crate) fn note(&self, question: Question) {
        let mut known = self.0.lock();
        if known.len() >= MAX_REPEATED_APPLIES {
            known.clear();
        }
        known.insert(question);
    }
}

/// All that the outcome of an apply depends on.
pub(crate) fn question(
    call: &Call<'_>,
    config: &[u8],
    options: &WriteOptions,
    uid: &str,
    revision: u64,
) -> Question {
    let (resource, entry) = (call.served.resource(), &call.served.entry);
    // A custom resource's schema changes with the generation of its definition.
    let numbers = [revision, entry.generation.unsigned_abs(), u64::from(options.force.unwrap_or(false))];
    let version = resource.api_version();
    let texts = [&*call.key(), uid, &*version, &*entry.uid, call.subresource, options.manager()];
    let mut hash = Sha256::new();
    for number in numbers {
        hash.update(number.to_le_bytes());
    }
    for text in texts {
        hash.update(text);
        hash.update([0]);
    }
    hash.update(config);
    hash.finalize().into()
}
