//! Tokens, keys and requests for certificates.

use std::sync::OnceLock;

use gantry_apiserver::identify::TokenKey;
use gantry_apiserver::pki::{Pki, common_name_of_request};
use gantry_apiserver::testing::inputs::credentials;
use gantry_base::{Clock, SystemClock};
use serde_json::Value;

use super::config::memory_dir;
use crate::input;

/// The key of a cluster that was just made.
fn key() -> &'static TokenKey {
    static KEY: OnceLock<TokenKey> = OnceLock::new();
    KEY.get_or_init(|| {
        let dir = memory_dir().expect("a directory");
        let pki = Pki::load_or_create(dir.path(), SystemClock::default().now()).expect("keys");
        TokenKey::from_pkcs8(&pki.token_key).expect("a key")
    })
}

/// A token, or the claims of one: then it is signed, believed, and not believed when a byte of it is another.
pub fn jwt(data: &[u8]) {
    let Some(text) = input::text(data) else { return };
    credentials::is_bootstrap_token(text);
    let believed = credentials::verified(key(), text);
    assert!(believed.is_err(), "nobody can sign without the key: {believed:?}");
    let Some(claims) = input::json(text).filter(Value::is_object) else { return };
    let token = key().sign(&claims).expect("a signature");
    assert_eq!(credentials::verified(key(), &token), Ok(claims));
    let mut other = token.into_bytes();
    let at = data.len() % other.len();
    other[at] = if other[at] == b'A' { b'Q' } else { b'A' };
    let other = String::from_utf8(other).expect("base64");
    assert!(credentials::verified(key(), &other).is_err(), "{other}");
}

/// Keys, and a signature.
pub fn keys(data: &[u8]) {
    let Some([text, message, signature]) = input::parts(data) else { return };
    credentials::keys(text, message.as_bytes(), signature.as_bytes());
}

/// `--token-auth-file`
pub fn token_file(data: &[u8]) {
    let Some(text) = input::text(data) else { return };
    drop(credentials::token_file(text));
}

/// PKCS #10 in PEM.
pub fn certificate_request(data: &[u8]) {
    drop(common_name_of_request(data));
}
