//! An object as its bytes: serialized once per revision, shared by everybody who needs it.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::decoded;
use crate::object::{DecodeError, Object};

/// One revision of one object: the JSON bytes that LIST, GET and WATCH send, and the typed form while somebody
/// holds it. (A decoded Pod weighs 24 KB, its bytes 3 to 4.)
pub struct Encoded {
    bytes: Bytes,
    revision: u64,
    /// By which the typed form is found.
    id: u64,
    /// Held while the typed form is made: who wants it as well waits for it.
    making: Mutex<()>,
    /// How long the object is in protobuf, and one; zero while nobody knows.
    protobuf_len: AtomicU32,
}

impl Encoded {
    /// The object `bytes` at `revision`.
    pub fn new(bytes: Bytes, revision: u64) -> Self {
        let (id, making) = (decoded::new_id(), Mutex::new(()));
        Self { bytes, revision, id, making, protobuf_len: AtomicU32::new(0) }
    }

    /// The same with its typed form already at hand: it is shared for as long as somebody else holds it.
    pub fn with_typed<K: Object>(bytes: Bytes, revision: u64, typed: &Arc<K>) -> Self {
        let erased: Arc<dyn Any + Send + Sync> = typed.clone();
        let encoded = Self::new(bytes, revision);
        decoded::note(encoded.id, &erased);
        encoded
    }

    /// The object's JSON, with its `resourceVersion` in it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The object's `resourceVersion` as a number.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How long the object's message is in protobuf, once somebody has noted it.
    pub fn protobuf_len(&self) -> Option<usize> {
        let noted = self.protobuf_len.load(Ordering::Relaxed);
        noted.checked_sub(1).map(|len| len as usize)
    }

    /// Notes how long the object's message is: a list says its length before its first object.
    pub fn note_protobuf_len(&self, len: usize) {
        if let Some(noted) = u32::try_from(len).ok().and_then(|len| len.checked_add(1)) {
            self.protobuf_len.store(noted, Ordering::Relaxed);
        }
    }

    /// The typed object: the one that somebody else holds, or decoded now.
    pub fn typed<K: Object>(&self) -> Result<Arc<K>, DecodeError> {
        let _making = self.making.lock();
        if let Some(shared) = decoded::find(self.id)
            && let Ok(object) = shared.downcast::<K>()
        {
            return Ok(object);
        }
        let object = Arc::new(K::decode(&self.bytes)?);
        let erased: Arc<dyn Any + Send + Sync> = object.clone();
        decoded::note(self.id, &erased);
        Ok(object)
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the bytes: they may be a Secret's.
        f.debug_struct("Encoded").field("revision", &self.revision).field("len", &self.bytes.len()).finish()
    }
}
