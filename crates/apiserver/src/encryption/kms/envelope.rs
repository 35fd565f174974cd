//! What stands on the disk in place of a value (upstream's `kmsv2/v2/api.proto`), and what must hold of it.

use std::collections::BTreeMap;

use gantry_api::field::{Error as Fault, Path};
use gantry_api::names;
use prost::Message as _;
use ring::digest;

use crate::admission::aggregate;

/// Bytes of all annotations together.
const MAX_ANNOTATIONS: usize = 32 << 10;
/// Bytes of a key's name.
const MAX_KEY_ID: usize = 1 << 10;
/// Bytes of an encrypted seed.
const MAX_SOURCE: usize = 1 << 10;

/// The source is the key itself (Kubernetes before 1.29).
pub(super) const KEY: i32 = 0;
/// The source is the seed of keys.
pub(super) const SEED: i32 = 1;

/// A sealed value and what opens it.
#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct Envelope {
    /// The sealed value.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) data: Vec<u8>,
    /// The plugin's key.
    #[prost(string, tag = "2")]
    pub(super) key_id: String,
    /// The seed, encrypted with that key.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) source: Vec<u8>,
    /// What the plugin wants to be told when it is to decrypt the seed.
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub(super) annotations: BTreeMap<String, Vec<u8>>,
    /// [`KEY`] or [`SEED`].
    #[prost(int32, tag = "5")]
    pub(super) source_type: i32,
}

impl Envelope {
    /// Reads and checks it.
    ///
    /// # Errors
    /// It is none, in upstream's words.
    pub(in super::super) fn read(stored: &[u8]) -> Result<Self, String> {
        let envelope = Self::decode(stored).map_err(|error| format!("proto: {error}"))?;
        envelope.check()?;
        Ok(envelope)
    }

    /// What must hold of any.
    pub(super) fn check(&self) -> Result<(), String> {
        if ![KEY, SEED].contains(&self.source_type) {
            return Err(format!("unknown encryptedDEKSourceType: {}", self.source_type));
        }
        if self.data.is_empty() {
            return Err("encrypted data is empty".to_owned());
        }
        self.check_source().map_err(|why| format!("failed to validate encrypted DEK source: {why}"))?;
        check_key_id(&self.key_id).map_err(|(_, why)| format!("failed to validate key id: {why}"))?;
        self.check_annotations().map_err(|why| format!("failed to validate annotations: {why}"))
    }

    fn check_source(&self) -> Result<(), String> {
        match self.source.len() {
            0 => Err("encrypted DEK source is empty".to_owned()),
            n if n > MAX_SOURCE => {
                Err(format!("encrypted DEK source is {n} bytes, which exceeds the max size of {MAX_SOURCE}"))
            }
            _ => Ok(()),
        }
    }

    fn check_annotations(&self) -> Result<(), String> {
        let path = Path::new("annotations");
        let mut faults: Vec<String> = Vec::new();
        let mut size = 0;
        for (name, value) in &self.annotations {
            faults.extend(check_domain(&path, name).err().map(|fault| fault.to_string()));
            size += name.len() + value.len();
        }
        if size > MAX_ANNOTATIONS {
            faults.push(format!(
                "total size of annotations is {size}, which exceeds the max size of {MAX_ANNOTATIONS}"
            ));
        }
        aggregate(faults).map_or(Ok(()), Err)
    }

    /// Tells the sources of seeds apart: the digest of all that the plugin is told.
    pub(super) fn source_digest(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut add = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        };
        add(&self.source_type.to_be_bytes());
        add(&self.source);
        add(self.key_id.as_bytes());
        for (name, value) in &self.annotations {
            add(name.as_bytes());
            add(value);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

/// A key's name: the code that is counted and the text.
pub(super) fn check_key_id(id: &str) -> Result<(), (&'static str, String)> {
    match id.len() {
        0 => Err(("empty", "keyID is empty".to_owned())),
        n if n > MAX_KEY_ID => {
            Err(("too_long", format!("keyID is {n} bytes, which exceeds the max size of {MAX_KEY_ID}")))
        }
        _ => Ok(()),
    }
}

/// How messages name a key: its name is in no log.
pub(super) fn key_id_hash(id: &str) -> String {
    if id.is_empty() {
        return String::new();
    }
    let hex: String =
        digest::digest(&digest::SHA256, id.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// Upstream's `IsFullyQualifiedDomainName`.
fn check_domain(path: &Path, name: &str) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(Fault::required(path, ""));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    names::dns1123_subdomain(name).map_err(|why| Fault::invalid(path, name, why))?;
    if !name.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        return Err(Fault::invalid(path, name, why));
    }
    name.split('.')
        .try_for_each(|label| names::dns1123_label(label).map_err(|why| Fault::invalid(path, label, why)))
}
