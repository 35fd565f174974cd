//! A record of the log: who it belongs to, its revisions, a checksum over all of it, and the value.

use bytes::Bytes;

use crate::store::{KeyValue, Revision};

/// Bytes in front of the value: created, modified, checksum.
const HEADER: usize = 8 + 8 + 4;

/// Encodes what is stored under the key.
pub(crate) fn encode(kv: &KeyValue) -> Vec<u8> {
    let mut row = Vec::with_capacity(HEADER + kv.value.len());
    row.extend_from_slice(&kv.created.to_le_bytes());
    row.extend_from_slice(&kv.modified.to_le_bytes());
    row.extend_from_slice(&checksum(&kv.key, &row, &kv.value).to_le_bytes());
    row.extend_from_slice(&kv.value);
    row
}

/// Decodes the record of `key`. Errors: what is wrong with it.
pub(crate) fn decode(key: &[u8], row: &[u8]) -> Result<KeyValue, String> {
    let key = std::str::from_utf8(key).map_err(|error| format!("the key is not UTF-8: {error}"))?;
    let (created, rest) = take_u64(row).ok_or_else(|| short(row))?;
    let (modified, rest) = take_u64(rest).ok_or_else(|| short(row))?;
    let (stored, value) = rest.split_first_chunk().ok_or_else(|| short(row))?;
    let computed = checksum(key, &row[..16], value);
    let stored = u32::from_le_bytes(*stored);
    if stored != computed {
        return Err(format!("its checksum is {computed:08x}, it was written with {stored:08x}"));
    }
    Ok(KeyValue { key: key.into(), value: Bytes::copy_from_slice(value), created, modified })
}

/// Encodes a revision of the store's own.
pub(crate) fn encode_revision(name: &str, revision: Revision) -> Vec<u8> {
    let mut row = revision.to_le_bytes().to_vec();
    row.extend_from_slice(&checksum(name, &row, &[]).to_le_bytes());
    row
}

/// Decodes what [`encode_revision`] encoded. Errors: what is wrong with it.
pub(crate) fn decode_revision(name: &str, row: &[u8]) -> Result<Revision, String> {
    let (revision, rest) = take_u64(row).ok_or_else(|| short(row))?;
    if rest == checksum(name, &row[..8], &[]).to_le_bytes() {
        Ok(revision)
    } else {
        Err("its checksum does not match".to_owned())
    }
}

fn checksum(key: &str, revisions: &[u8], value: &[u8]) -> u32 {
    let crc = crc32c::crc32c(key.as_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, revisions), value)
}

fn take_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*head), rest))
}

fn short(row: &[u8]) -> String {
    format!("it has only {} bytes", row.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_is_noticed() {
        let kv = KeyValue { key: "/a".into(), value: Bytes::from_static(b"value"), created: 3, modified: 9 };
        let row = encode(&kv);
        assert_eq!(decode(b"/a", &row), Ok(kv));
        for bit in 0..row.len() * 8 {
            let mut flipped = row.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(b"/a", &flipped).is_err(), "bit {bit}");
        }
        assert!(decode(b"/b", &row).is_err(), "a record under another key");
        assert!(decode(b"/a", &row[..row.len() - 1]).is_err());
        assert!(decode(b"/a", &row[..5]).is_err());
    }

    #[test]
    fn a_revision_reads_back() {
        let row = encode_revision("n", 77);
        assert_eq!(decode_revision("n", &row), Ok(77));
        assert!(decode_revision("m", &row).is_err());
    }
}
