//! Keys from a seed: each value has one of its own, `HKDF-Expand(SHA-256, seed, info)` with 32 random bytes that stand in
//! front of what it seals (upstream's `NewHKDFExtendedNonceGCMTransformer`). So there is no bound on how many values a
//! seed may seal.

use gantry_base::{Error, Result};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk};
use ring::rand::{SecureRandom, SystemRandom};

use super::envelope::{Envelope, KEY};

/// The bytes of seeds, derived keys and their `info`.
const SIZE: usize = 32;

/// What the plugin encrypts.
pub(super) enum Source {
    /// Derives keys.
    Seed(Prk),
    /// Is the key (Kubernetes before 1.29).
    Key(Box<LessSafeKey>),
}

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        SIZE
    }
}

/// A new random seed.
///
/// # Errors
/// The kernel gives no random bytes.
pub(super) fn random() -> Result<[u8; SIZE]> {
    fresh()
}

impl Source {
    /// What the plugin gave back.
    ///
    /// # Errors
    /// It has not the length of one, in upstream's words.
    pub(super) fn new(kind: i32, bytes: &[u8]) -> std::result::Result<Self, String> {
        if kind != KEY {
            if bytes.len() < SIZE {
                return Err(format!("invalid seed length {} used for key generation", bytes.len()));
            }
            return Ok(Self::Seed(Prk::new_less_safe(HKDF_SHA256, bytes)));
        }
        let algorithm = if bytes.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
        let key = UnboundKey::new(algorithm, bytes);
        let key = key.map_err(|_| format!("crypto/aes: invalid key size {}", bytes.len()))?;
        Ok(Self::Key(Box::new(LessSafeKey::new(key))))
    }

    /// Seals `plain`, bound to its place.
    ///
    /// # Errors
    /// There is no randomness, or the source is an old key, which only opens.
    pub(super) fn seal(&self, place: &str, mut plain: Vec<u8>) -> Result<Vec<u8>> {
        let bug = || Error::bug("a value cannot be sealed");
        let info: [u8; SIZE] = fresh()?;
        let nonce: [u8; NONCE_LEN] = fresh()?;
        let Self::Seed(seed) = self else { return Err(bug()) };
        let key = derived(seed, &info).ok_or_else(bug)?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut plain)
            .map_err(|_| bug())?;
        Ok([info.as_slice(), &nonce, &plain].concat())
    }

    /// What was sealed.
    ///
    /// # Errors
    /// It is damaged, is elsewhere than it was, or the seed is another; in upstream's words.
    pub(super) fn open(&self, place: &str, envelope: &Envelope) -> std::result::Result<Vec<u8>, String> {
        let data = envelope.data.as_slice();
        match self {
            Self::Key(key) => open(key, place, data),
            Self::Seed(seed) => {
                let short = || "the stored data was shorter than the required size".to_owned();
                let (info, data) = data.split_at_checked(SIZE).ok_or_else(short)?;
                let key = derived(seed, info).ok_or_else(short)?;
                open(&key, place, data)
            }
        }
    }
}

fn open(key: &LessSafeKey, place: &str, data: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let (nonce, text) = data
        .split_first_chunk::<NONCE_LEN>()
        .ok_or_else(|| "the stored data was shorter than the required size".to_owned())?;
    let mut text = text.to_vec();
    let opened = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(place), &mut text);
    let length = opened.map_err(|_| "cipher: message authentication failed".to_owned())?.len();
    text.truncate(length);
    Ok(text)
}

fn derived(seed: &Prk, info: &[u8]) -> Option<LessSafeKey> {
    let mut key = [0; SIZE];
    seed.expand(&[info], Length).ok()?.fill(&mut key).ok()?;
    Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).ok()?))
}

fn fresh<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let random = SystemRandom::new();
    random.fill(&mut bytes).map_err(|_| Error::refused("the kernel gives no random bytes for a key"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5869 says what `expand` gives; this is its third case, whose pseudo-random key stands in the text.
    #[test]
    fn keys_are_derived_as_the_rfc_says() {
        let prk = [
            0x19, 0xef, 0x24, 0xa3, 0x2c, 0x71, 0x7b, 0x16, 0x7f, 0x33, 0xa9, 0x1d, 0x6f, 0x64, 0x8b, 0xdf,
            0x96, 0x59, 0x67, 0x76, 0xaf, 0xdb, 0x63, 0x77, 0xac, 0x43, 0x4c, 0x1c, 0x29, 0x3c, 0xcb, 0x04,
        ];
        let want = [
            0x8d, 0xa4, 0xe7, 0x75, 0xa5, 0x63, 0xc1, 0x8f, 0x71, 0x5f, 0x80, 0x2a, 0x06, 0x3c, 0x5a, 0x31,
            0xb8, 0xa1, 0x1f, 0x5c, 0x5e, 0xe1, 0x87, 0x9e, 0xc3, 0x45, 0x4e, 0x5f, 0x3c, 0x73, 0x8d, 0x2d,
        ];
        let mut key = [0; SIZE];
        let prk = Prk::new_less_safe(HKDF_SHA256, &prk);
        prk.expand(&[b"".as_slice()], Length).and_then(|out| out.fill(&mut key)).expect("32 bytes");
        assert_eq!(key, want);
    }

    #[test]
    fn a_value_opens_at_its_place_only() {
        let source = Source::new(super::super::envelope::SEED, &[7; SIZE]).expect("a seed");
        let data = source.seal("/registry/a", b"plain".to_vec()).expect("sealed");
        let envelope = Envelope { data, ..Envelope::default() };
        assert_eq!(source.open("/registry/a", &envelope).as_deref(), Ok(b"plain".as_slice()));
        assert_eq!(
            source.open("/registry/b", &envelope),
            Err("cipher: message authentication failed".to_owned())
        );
        assert!(Source::new(super::super::envelope::SEED, &[7; 16]).is_err());
    }
}
