//! OpenID Connect discovery: how others verify this cluster's service account tokens.

use bytes::Bytes;
use serde_json::json;

use super::TokenKey;

/// The two documents, made once.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// `/.well-known/openid-configuration`
    pub configuration: Bytes,
    /// `/openid/v1/jwks`; its media type is `application/jwk-set+json`.
    pub keys: Bytes,
}

impl Discovery {
    /// The documents of `issuer`, whose keys are found at `jwks_uri`. `None` if the issuer is no URL: such a one
    /// cannot be discovered (RFC 8414).
    pub fn new(issuer: &str, jwks_uri: &str, key: &TokenKey) -> Option<Self> {
        if !issuer.starts_with("https://") {
            return None;
        }
        let configuration = json!({
            "issuer": issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": key.algorithms(),
        });
        let keys = json!({"keys": key.jwks()});
        Some(Self { configuration: configuration.to_string().into(), keys: keys.to_string().into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_have_what_verifiers_look_for() {
        let key = super::super::jws::tests::key();
        let other = rcgen::KeyPair::generate().expect("a key").public_key_pem();
        let key = key.with_others(&[other]).expect("another key");
        let documents =
            Discovery::new("https://kubernetes.default.svc", "https://10.0.0.1:6443/openid/v1/jwks", &key)
                .expect("documents");
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            text(&documents.configuration).contains(r#""jwks_uri":"https://10.0.0.1:6443/openid/v1/jwks""#)
        );
        assert!(text(&documents.configuration).contains(r#"["ES256"]"#));
        let keys: serde_json::Value = serde_json::from_slice(&documents.keys).expect("JSON");
        assert_eq!(keys["keys"].as_array().map(Vec::len), Some(2));
        assert!(keys["keys"][0]["kid"].as_str().is_some_and(|kid| kid.len() == 43));
        assert!(Discovery::new("kubernetes/serviceaccount", "", &key).is_none());
    }
}
