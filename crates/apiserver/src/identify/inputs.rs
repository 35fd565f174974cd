//! Credentials and files of credentials as bytes: the readers behind authentication, each alone, for fuzz targets.

use gantry_api::field::Path;
use gantry_base::Result;
use serde_json::Value;

use super::config::{Configuration, Jwt};
use super::jws::{TokenKey, unverified_claims};
use super::keys::PublicKey;
use super::oidc::{Expressions, Mapped};
use super::token_file::TokenFile;
use super::tokens::Claims;
use super::{User, bootstrap_tokens};

/// What a token says, if `key` signed it; what it says to somebody who asks nobody is read as well.
///
/// # Errors
/// It is no token, or not of this key.
pub fn verified(key: &TokenKey, token: &str) -> Result<Value, String> {
    if let Some(claims) = unverified_claims(token)
        && let Ok(read) = serde_json::from_value::<Claims>(claims)
    {
        let written = serde_json::to_value(&read).map_err(|e| e.to_string())?;
        assert_eq!(
            serde_json::from_value::<Claims>(written).ok(),
            Some(read),
            "claims written are read again"
        );
    }
    key.verify(token)
}

/// Whether a text looks like a bootstrap token.
pub fn is_bootstrap_token(token: &str) -> bool {
    bootstrap_tokens::parse(token).is_some()
}

/// Reads `--token-auth-file`.
///
/// # Errors
/// A line has too few columns.
pub fn token_file(text: &str) -> Result<()> {
    TokenFile::parse(text, "tokens.csv").map(drop)
}

/// Reads keys, as PEM and as a JSON Web Key Set, and verifies a signature with each.
pub fn keys(text: &str, message: &[u8], signature: &[u8]) {
    let mut all = PublicKey::from_pem(text).unwrap_or_default();
    if let Ok(set) = serde_json::from_str(text) {
        all.extend(PublicKey::from_set(&set));
    }
    for key in all {
        let again = PublicKey::from_jwk(&key.to_jwk()).expect("a key that was written can be read");
        assert_eq!(again.algorithm(), key.algorithm());
        key.verify(key.algorithm(), message, signature);
    }
}

/// Reads an AuthenticationConfiguration, and makes users of these claims by each of its issuers.
///
/// # Errors
/// What is wrong with the file.
pub fn authentication_configuration(text: &str, claims: &Value) -> Result<Vec<Result<User, String>>> {
    let configuration = Configuration::parse(text, &["https://own".to_owned()])?;
    let user = |config: &Jwt| {
        let mut faults = Vec::new();
        let expressions = Expressions::compile(config, &Path::new("jwt"), &mut faults);
        assert!(faults.is_empty(), "what was checked has no faults: {faults:?}");
        Mapped { config, expressions: &expressions, claims }.user()
    };
    Ok(configuration.jwt.iter().map(user).collect())
}
