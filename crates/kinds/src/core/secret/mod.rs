//! Secret: confidential data for pods.

mod key_pair;

use std::time::SystemTime;

use gantry_api::core::Secret;
use gantry_api::field::{Error, Path};
use gantry_api::meta::MetaExt;
use serde_json::Value;

use crate::common::check::{immutable, kept_if_marked};
use crate::core::config_map::{MAX_DATA_BYTES, check_key};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

/// The annotation that names the account of a token.
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

/// The kind.
pub struct SecretKind;

impl Kind for SecretKind {
    type Object = Secret;
    const NAMES: Names = Names { singular: "secret", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };

    fn defaults(secret: &mut Secret) {
        if secret.type_.as_deref().unwrap_or("").is_empty() {
            secret.type_ = Some("Opaque".into());
        }
        // `stringData` is write-only: it lands in `data`.
        for (key, text) in secret.string_data.take().into_iter().flatten() {
            secret
                .data
                .get_or_insert_default()
                .insert(key, gantry_api::k8s_openapi::ByteString(text.into_bytes()));
        }
    }

    fn validate(secret: &Secret) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("data");
        let mut total = 0;
        for (key, value) in secret.data.iter().flatten() {
            check_key(&path.key(key), key, &mut errors);
            total += value.0.len();
        }
        if total > MAX_DATA_BYTES {
            errors.push(Error::too_long(&path, MAX_DATA_BYTES));
        }
        let has = |key: &str| secret.data.as_ref().is_some_and(|d| d.contains_key(key));
        let need = |key: &str, errors: &mut Errors| {
            if !has(key) {
                errors.push(Error::required(&path.key(key), ""));
            }
        };
        match secret.type_.as_deref().unwrap_or("") {
            "kubernetes.io/service-account-token"
                if secret.annotation(ACCOUNT_NAME).unwrap_or("").is_empty() =>
            {
                let at = Path::new("metadata").child("annotations").key(ACCOUNT_NAME);
                errors.push(Error::required(&at, ""));
            }
            "kubernetes.io/dockercfg" => check_json(secret, ".dockercfg", &mut errors),
            "kubernetes.io/dockerconfigjson" => check_json(secret, ".dockerconfigjson", &mut errors),
            "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
                errors.push(Error::required(&path.key("username"), ""));
                errors.push(Error::required(&path.key("password"), ""));
            }
            "kubernetes.io/ssh-auth" => {
                let key = secret.data.as_ref().and_then(|d| d.get("ssh-privatekey"));
                if key.is_none_or(|key| key.0.is_empty()) {
                    errors.push(Error::required(&path.key("ssh-privatekey"), ""));
                }
            }
            "kubernetes.io/tls" => {
                need("tls.crt", &mut errors);
                need("tls.key", &mut errors);
            }
            _ => {}
        }
        errors
    }

    fn validate_update(new: &Secret, old: &Secret) -> Errors {
        let mut errors = Errors::new();
        immutable(&Path::new("type"), &new.type_, &old.type_, &mut errors);
        kept_if_marked(new.immutable, old.immutable, &[("data", new.data != old.data)], &mut errors);
        errors
    }

    fn validate_replacement(new: &Secret, old: &Secret) -> Errors {
        let mut errors = Self::validate_update(new, old);
        errors.extend(Self::validate(new));
        errors
    }

    fn warnings(secret: &Secret) -> Vec<String> {
        if secret.type_.as_deref() != Some("kubernetes.io/tls") {
            return Vec::new();
        }
        let part = |key: &str| {
            let data = secret.data.as_ref().and_then(|data| data.get(key));
            data.map_or(&[] as &[u8], |value| value.0.as_slice())
        };
        key_pair::check(part("tls.crt"), part("tls.key")).err().into_iter().collect()
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Type",
                "string",
                "Used to facilitate programmatic handling of secret data. More info: https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
            ),
            Column::new(
                "Data",
                "string",
                "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(secret: &Secret, now: SystemTime) -> Vec<Value> {
        let count = secret.data.as_ref().map_or(0, |d| d.len());
        vec![secret.type_.clone().unwrap_or_default().into(), count.into(), age(&secret.metadata, now)]
    }

    fn selectable() -> &'static [&'static str] {
        &["type"]
    }

    fn selectable_values(secret: &Secret) -> Vec<String> {
        vec![secret.type_.clone().unwrap_or_default()]
    }
}

/// Credentials of registries are a JSON object.
fn check_json(secret: &Secret, key: &str, errors: &mut Errors) {
    let at = Path::new("data").key(key);
    let Some(value) = secret.data.as_ref().and_then(|d| d.get(key)) else {
        errors.push(Error::required(&at, ""));
        return;
    };
    let why = match serde_json::from_slice::<Value>(&value.0) {
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(other) => {
            let found = match other {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                _ => "number",
            };
            format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")
        }
        Err(error) => gantry_api::go_json::unreadable(&value.0, &error),
    };
    // Not the value: it is a secret.
    errors.push(Error::invalid(&at, "<secret contents redacted>", why));
}
