//! OpenID Connect discovery: how others verify this cluster's service account tokens.

use serde_json::{Value, json};

use super::TokenKey;

/// `/.well-known/openid-configuration`, for the issuer and the URL that clients reach this server by.
pub fn openid_configuration(issuer: &str, server: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{}/openid/v1/jwks", server.trim_end_matches('/')),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

/// `/openid/v1/jwks`; its media type is `application/jwk-set+json`.
pub fn jwks(key: &TokenKey) -> Value {
    json!({"keys": [key.jwk()]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_have_what_verifiers_look_for() {
        let configuration =
            openid_configuration("https://kubernetes.default.svc.cluster.local", "https://10.0.0.1:6443/");
        assert_eq!(configuration["jwks_uri"], "https://10.0.0.1:6443/openid/v1/jwks");
        let keys = jwks(&super::super::jws::tests::key());
        assert_eq!(keys["keys"][0]["alg"], "ES256");
        assert!(keys["keys"][0]["kid"].as_str().is_some_and(|kid| kid.len() == 43));
    }
}
