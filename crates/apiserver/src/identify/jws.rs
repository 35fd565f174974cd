//! JSON Web Signatures in compact form, of the one algorithm that this cluster signs with: ES256 (RFC 7515, RFC 7518).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_base::{Class, Error, Result};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::keys::PublicKey;

/// Longest token that is looked at.
const MAX_TOKEN: usize = 16 << 10;
/// What comes before the 65 bytes of the point in the DER of a P-256 public key (RFC 5480).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The key that signs and verifies service account tokens, and those that only verify (an older one's tokens, or
/// those of another signer). Cheap to clone.
#[derive(Clone)]
pub struct TokenKey {
    pair: Arc<EcdsaKeyPair>,
    id: Arc<str>,
    others: Arc<[PublicKey]>,
}

impl TokenKey {
    /// Reads a PKCS#8 key of P-256.
    ///
    /// # Errors
    /// It is no such key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new())
            .map_err(|e| Error::new(Class::Invalid, format!("not an ECDSA P-256 key: {e}")))?;
        let mut spki = SPKI_PREFIX.to_vec();
        spki.extend_from_slice(pair.public_key().as_ref());
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(&spki)).into();
        Ok(Self { pair: Arc::new(pair), id, others: Arc::new([]) })
    }

    /// The same, which also believes the public keys in `pem`.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn with_others(&self, pem: &[String]) -> Result<Self> {
        let mut others = self.others.to_vec();
        for text in pem {
            others.extend(PublicKey::from_pem(text)?);
        }
        Ok(Self { others: others.into(), ..self.clone() })
    }

    /// Signs `claims`.
    ///
    /// # Errors
    /// The machine has no randomness.
    pub fn sign(&self, claims: &Value) -> Result<String> {
        let header = json!({"alg": "ES256", "kid": &*self.id});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut token = format!("{}.{}", encode(&header), encode(claims));
        let signature = self
            .pair
            .sign(&SystemRandom::new(), token.as_bytes())
            .map_err(|_| Error::new(Class::Retry, "cannot sign a token: the machine has no randomness"))?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }

    /// The claims of a token that this key signed; else what is wrong with it.
    pub(super) fn verify(&self, token: &str) -> Result<Value, String> {
        let (message, signature) = token.rsplit_once('.').ok_or("not a token")?;
        let (header, claims) = message.split_once('.').ok_or("not a token")?;
        let header = json_part(header).ok_or("not a token")?;
        let algorithm = header["alg"].as_str().unwrap_or("");
        if algorithm != "ES256" && !self.others.iter().any(|key| key.algorithm() == algorithm) {
            return Err(BAD_SIGNATURE.to_owned());
        }
        let id = header.get("kid").and_then(Value::as_str).unwrap_or("");
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "not a token")?;
        let fits = |key: &str| id.is_empty() || id == key;
        if !fits(&self.id) && !self.others.iter().any(|key| fits(&key.id)) {
            return Err("invalid signature, no keys found".to_owned());
        }
        let by_own = fits(&self.id)
            && algorithm == "ES256"
            && UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref())
                .verify(message.as_bytes(), &signature)
                .is_ok();
        let by_others =
            || self.others.iter().any(|k| fits(&k.id) && k.verify(algorithm, message.as_bytes(), &signature));
        if !by_own && !by_others() {
            return Err(BAD_SIGNATURE.to_owned());
        }
        json_part(claims).ok_or_else(|| "not a token".to_owned())
    }

    /// All public keys as JSON Web Keys.
    pub(super) fn jwks(&self) -> Vec<Value> {
        std::iter::once(self.jwk()).chain(self.others.iter().map(PublicKey::to_jwk)).collect()
    }

    /// The algorithms that tokens may be signed by.
    pub(super) fn algorithms(&self) -> Vec<&'static str> {
        let mut all = vec!["ES256"];
        for key in &*self.others {
            if !all.contains(&key.algorithm()) {
                all.push(key.algorithm());
            }
        }
        all
    }

    /// The public key as a JSON Web Key (RFC 7517).
    pub(super) fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        json!({
            "use": "sig", "kty": "EC", "kid": &*self.id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        })
    }
}

/// The words of upstream's reader for a signature that does not fit, whatever the reason.
const BAD_SIGNATURE: &str = "go-jose/go-jose: error in cryptographic primitive";

/// The claims of what looks like a token, believed by nobody.
pub(super) fn unverified_claims(token: &str) -> Option<Value> {
    if token.len() > MAX_TOKEN {
        return None;
    }
    let mut parts = token.split('.');
    let (_, claims, _, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next());
    if rest.is_some() {
        return None;
    }
    json_part(claims)
}

fn json_part(part: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn key() -> TokenKey {
        let pair = rcgen::KeyPair::generate().expect("a key");
        TokenKey::from_pkcs8(&pair.serialize_der()).expect("a P-256 key")
    }

    #[test]
    fn a_signature_holds_for_its_key_and_text_only() {
        let (key, other) = (key(), key());
        let claims = json!({"iss": "x", "sub": "y"});
        let token = key.sign(&claims).expect("a token");
        assert_eq!(key.verify(&token), Ok(claims.clone()));
        assert_eq!(unverified_claims(&token), Some(claims));
        assert!(other.verify(&token).is_err());
        let (message, signature) = token.rsplit_once('.').expect("three parts");
        let (header, _) = message.split_once('.').expect("three parts");
        let forged =
            format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(r#"{"iss":"x","sub":"root"}"#));
        assert_eq!(key.verify(&forged), Err(BAD_SIGNATURE.to_owned()));
    }

    #[test]
    fn other_algorithms_are_refused() {
        let key = key();
        let token = key.sign(&json!({})).expect("a token");
        let rest = token.split_once('.').expect("parts").1;
        for alg in ["none", "HS256", "RS256"] {
            let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg}).to_string());
            assert_eq!(key.verify(&format!("{header}.{rest}")), Err(BAD_SIGNATURE.to_owned()));
        }
        for rubbish in ["", ".", "..", "a.b.c", "a.b.c.d"] {
            assert!(key.verify(rubbish).is_err(), "{rubbish:?}");
            assert_eq!(unverified_claims(rubbish), None);
        }
    }

    #[test]
    fn the_public_key_can_be_read_by_others() {
        let key = key();
        let jwk = key.jwk();
        let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().expect("text")).expect("base64");
        let point: Vec<u8> = [vec![4], part("x"), part("y")].concat();
        assert_eq!(point, key.pair.public_key().as_ref());
    }
}
