//! A key and what it does: upstream's three ciphers with keys in the file.
//!
//! AES-GCM is `ring`'s, and binds a value to its key of the store. The other two are there to read and write what other
//! clusters' configurations say: `ring` has neither. AES-CBC does not notice who changes a value.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use aes::{Aes128, Aes192, Aes256};
use crypto_secretbox::aead::Aead;
use crypto_secretbox::{KeyInit, XSalsa20Poly1305};
use gantry_base::{Error, Result};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use super::config::{Cipher, Key};

/// The bytes of a block of AES, and of the vector before the first.
const BLOCK: usize = 16;
/// The bytes of a nonce of XSalsa20.
const BOX_NONCE: usize = 24;

/// A key, ready for use.
pub(super) enum Secret {
    AesGcm(Box<LessSafeKey>),
    AesCbc(Vec<u8>),
    XSalsa20(Box<XSalsa20Poly1305>),
}

impl Secret {
    /// Prepares a key.
    ///
    /// # Errors
    /// It is not of a length that the cipher takes.
    pub(super) fn new(cipher: Cipher, key: &Key) -> Result<Self> {
        let secret = key.secret()?;
        let wrong = || Error::invalid(format!("key {:?} is not of a length for {}", key.name, cipher.name()));
        Ok(match cipher {
            Cipher::AesGcm => {
                let algorithm = if secret.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
                let unbound = UnboundKey::new(algorithm, &secret).map_err(|_| wrong())?;
                Self::AesGcm(Box::new(LessSafeKey::new(unbound)))
            }
            Cipher::AesCbc if [16, 24, 32].contains(&secret.len()) => Self::AesCbc(secret),
            Cipher::AesCbc => return Err(wrong()),
            Cipher::SecretBox => {
                let cipher = XSalsa20Poly1305::new_from_slice(&secret).map_err(|_| wrong())?;
                Self::XSalsa20(Box::new(cipher))
            }
        })
    }

    /// A nonce, and `plain` sealed with it; `place` is where the value will be.
    ///
    /// # Errors
    /// There is no randomness.
    pub(super) fn seal(
        &self,
        place: &str,
        mut plain: Vec<u8>,
        random: &SystemRandom,
    ) -> Result<(Vec<u8>, Vec<u8>)> {
        let bug = || Error::bug("a value cannot be sealed");
        match self {
            Self::AesGcm(key) => {
                let nonce: [u8; NONCE_LEN] = fresh(random)?;
                key.seal_in_place_append_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(place),
                    &mut plain,
                )
                .map_err(|_| bug())?;
                Ok((nonce.to_vec(), plain))
            }
            Self::AesCbc(key) => {
                let vector: [u8; BLOCK] = fresh(random)?;
                let sealed = match key.len() {
                    16 => encrypt::<Aes128>(key, &vector, &plain),
                    24 => encrypt::<Aes192>(key, &vector, &plain),
                    _ => encrypt::<Aes256>(key, &vector, &plain),
                };
                Ok((vector.to_vec(), sealed.ok_or_else(bug)?))
            }
            Self::XSalsa20(cipher) => {
                let nonce: [u8; BOX_NONCE] = fresh(random)?;
                let sealed = cipher.encrypt(&nonce.into(), plain.as_slice()).map_err(|_| bug())?;
                Ok((nonce.to_vec(), sealed))
            }
        }
    }

    /// What was sealed; `None` if it is damaged or the key is another.
    pub(super) fn open(&self, place: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::AesGcm(key) => {
                let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
                let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
                let mut text = text.to_vec();
                let length = key.open_in_place(nonce, Aad::from(place), &mut text).ok()?.len();
                text.truncate(length);
                Some(text)
            }
            Self::AesCbc(key) => {
                let (vector, text) = sealed.split_at_checked(BLOCK)?;
                match key.len() {
                    16 => decrypt::<Aes128>(key, vector, text),
                    24 => decrypt::<Aes192>(key, vector, text),
                    _ => decrypt::<Aes256>(key, vector, text),
                }
            }
            Self::XSalsa20(cipher) => {
                let (nonce, text) = sealed.split_first_chunk::<BOX_NONCE>()?;
                cipher.decrypt(nonce.into(), text).ok()
            }
        }
    }
}

fn fresh<const N: usize>(random: &SystemRandom) -> Result<[u8; N]> {
    let mut nonce = [0; N];
    random.fill(&mut nonce).map_err(|_| Error::refused("the kernel gives no random bytes for a nonce"))?;
    Ok(nonce)
}

fn encrypt<C>(key: &[u8], vector: &[u8], plain: &[u8]) -> Option<Vec<u8>>
where
    C: aes::cipher::BlockCipher + aes::cipher::BlockEncryptMut,
    cbc::Encryptor<C>: KeyIvInit,
{
    let cipher = cbc::Encryptor::<C>::new_from_slices(key, vector).ok()?;
    Some(cipher.encrypt_padded_vec_mut::<Pkcs7>(plain))
}

fn decrypt<C>(key: &[u8], vector: &[u8], text: &[u8]) -> Option<Vec<u8>>
where
    C: aes::cipher::BlockCipher + aes::cipher::BlockDecryptMut,
    cbc::Decryptor<C>: KeyIvInit,
{
    let cipher = cbc::Decryptor::<C>::new_from_slices(key, vector).ok()?;
    cipher.decrypt_padded_vec_mut::<Pkcs7>(text).ok()
}
