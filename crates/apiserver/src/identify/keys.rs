//! Public keys that others sign tokens with: JSON Web Keys (RFC 7517) and PEM, and the algorithms of RFC 7518.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_base::{Class, Error, Result};
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Most keys that are read of one set.
pub(super) const MAX_KEYS: usize = 256;

/// A key that verifies signatures.
#[derive(Clone, Debug)]
pub(super) struct PublicKey {
    /// The key's ID; may be empty.
    pub(super) id: String,
    key: Key,
}

#[derive(Clone, Debug)]
enum Key {
    /// Modulus and exponent, big-endian.
    Rsa(Vec<u8>, Vec<u8>),
    /// An uncompressed point.
    P256(Vec<u8>),
    /// Likewise.
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl PublicKey {
    /// Reads a JSON Web Key; `None` for one that is not for signatures or of a sort that is not known.
    pub(super) fn from_jwk(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
        if text("use").is_some_and(|u| u != "sig") {
            return None;
        }
        let point = |size: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            let padded = |b: &[u8]| [vec![0; size.saturating_sub(b.len())], b.to_vec()].concat();
            Some([vec![4], padded(&x), padded(&y)].concat())
        };
        let key = match (text("kty")?, text("crv")) {
            ("RSA", _) => Key::Rsa(bytes("n")?, bytes("e")?),
            ("EC", Some("P-256")) => Key::P256(point(32)?),
            ("EC", Some("P-384")) => Key::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Key::Ed25519(bytes("x")?),
            _ => return None,
        };
        Some(Self { id: text("kid").unwrap_or("").to_owned(), key })
    }

    /// The keys of a JSON Web Key Set, as far as they are known.
    pub(super) fn from_set(set: &Value) -> Vec<Self> {
        let keys = set.get("keys").and_then(Value::as_array);
        keys.into_iter().flatten().take(MAX_KEYS).filter_map(Self::from_jwk).collect()
    }

    /// Reads the PEM blocks `PUBLIC KEY`; their IDs are those that Kubernetes gives them.
    ///
    /// # Errors
    /// There is none, or one that cannot be used.
    pub(super) fn from_pem(pem: &str) -> Result<Vec<Self>> {
        let bad = |why: String| Error::new(Class::Invalid, why);
        let mut keys = Vec::new();
        for block in SubjectPublicKeyInfoDer::pem_slice_iter(pem.as_bytes()) {
            let der = block.map_err(|e| bad(format!("not a public key: {e}")))?;
            let (_, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|e| bad(e.to_string()))?;
            let key = match info.parsed().map_err(|e| bad(e.to_string()))? {
                Parsed::RSA(rsa) => Key::Rsa(rsa.modulus.to_vec(), rsa.exponent.to_vec()),
                Parsed::EC(point) if point.data().len() == 65 => Key::P256(point.data().to_vec()),
                Parsed::EC(point) if point.data().len() == 97 => Key::P384(point.data().to_vec()),
                _ => return Err(bad("neither RSA nor ECDSA of P-256 or P-384".to_owned())),
            };
            keys.push(Self { id: URL_SAFE_NO_PAD.encode(Sha256::digest(&der)), key });
        }
        if keys.is_empty() { Err(bad("there is no PUBLIC KEY".to_owned())) } else { Ok(keys) }
    }

    /// Whether this key made the signature by this algorithm.
    pub(super) fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let plain = |by: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(by, key).verify(message, signature).is_ok()
        };
        match (&self.key, algorithm) {
            (Key::Rsa(n, e), algorithm) => {
                let by = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                // Leading zeros are DER's; the components have none.
                let bare = |b: &[u8]| b.iter().copied().skip_while(|b| *b == 0).collect::<Vec<u8>>();
                RsaPublicKeyComponents { n: bare(n), e: bare(e) }.verify(by, message, signature).is_ok()
            }
            (Key::P256(point), "ES256") => plain(&signature::ECDSA_P256_SHA256_FIXED, point),
            (Key::P384(point), "ES384") => plain(&signature::ECDSA_P384_SHA384_FIXED, point),
            (Key::Ed25519(key), "EdDSA") => plain(&signature::ED25519, key),
            _ => false,
        }
    }

    /// The key as others read it.
    pub(super) fn to_jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let bare = |b: &[u8]| b.iter().copied().skip_while(|b| *b == 0).collect::<Vec<u8>>();
        let curve = |name: &str, algorithm: &str, point: &[u8]| {
            let (x, y) = point[1..].split_at((point.len() - 1) / 2);
            json!({"kty": "EC", "crv": name, "alg": algorithm, "x": encode(x), "y": encode(y)})
        };
        let mut jwk = match &self.key {
            Key::Rsa(n, e) => {
                json!({"kty": "RSA", "alg": "RS256", "n": encode(&bare(n)), "e": encode(&bare(e))})
            }
            Key::P256(point) => curve("P-256", "ES256", point),
            Key::P384(point) => curve("P-384", "ES384", point),
            Key::Ed25519(key) => json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": encode(key)}),
        };
        jwk["use"] = "sig".into();
        jwk["kid"] = self.id.as_str().into();
        jwk
    }

    /// The algorithm that service account tokens of this key are signed by.
    pub(super) fn algorithm(&self) -> &'static str {
        match self.key {
            Key::Rsa(..) => "RS256",
            Key::P256(_) => "ES256",
            Key::P384(_) => "ES384",
            Key::Ed25519(_) => "EdDSA",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7515, appendix A.3.
    #[test]
    fn a_published_example_verifies() {
        let jwk = json!({
            "kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        });
        let message = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = URL_SAFE_NO_PAD
            .decode("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q")
            .expect("base64");
        let key = PublicKey::from_jwk(&jwk).expect("a key");
        assert!(key.verify("ES256", message.as_bytes(), &signature));
        assert!(!key.verify("ES384", message.as_bytes(), &signature));
        assert!(!key.verify("ES256", b"other", &signature));
    }

    /// The example of RFC 7515, appendix A.2.
    #[test]
    fn rsa_keys_are_known() {
        let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
        let message = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        let key = PublicKey::from_jwk(&json!({"kty": "RSA", "n": n, "e": "AQAB"})).expect("a key");
        assert!(key.verify("RS256", message.as_bytes(), &signature));
        assert!(!key.verify("ES256", message.as_bytes(), &signature));
        assert_eq!(key.to_jwk()["n"], n);
        assert!(PublicKey::from_jwk(&json!({"kty": "oct", "k": "AAAA"})).is_none());
        assert!(PublicKey::from_jwk(&json!({"kty": "RSA", "n": n, "e": "AQAB", "use": "enc"})).is_none());
    }

    #[test]
    fn keys_are_read_from_pem() {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let keys = PublicKey::from_pem(&pair.public_key_pem()).expect("a key");
        assert_eq!((keys.len(), keys[0].algorithm(), keys[0].id.len()), (1, "ES256", 43));
        assert!(PublicKey::from_pem("nothing").is_err());
    }
}
