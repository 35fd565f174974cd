//! Seals and opens values.

use std::sync::Arc;

use bytes::Bytes;
use gantry_base::{Error, Result};
use gantry_store::{Revision, Value};
use ring::rand::SystemRandom;

use super::config::{EncryptionConfig, Provider, Rule};
use super::secret::Secret;
use crate::cache::ROOT;
use crate::resources::{prefix, split_key};

/// How each sealed value begins.
const SEALED: &[u8] = b"k8s:enc:";
/// In place of an offset: the value carries no revision.
const UNSTAMPED: u32 = u32::MAX;

/// A configuration, ready for use.
pub struct Sealer {
    rules: Vec<SealedResources>,
    random: SystemRandom,
}

struct SealedResources {
    patterns: Vec<String>,
    providers: Vec<Way>,
}

enum Way {
    Sealed { prefix: Vec<u8>, secret: Secret },
    Identity,
}

impl Sealer {
    /// Prepares the keys.
    ///
    /// # Errors
    /// A key is not of the right length.
    pub fn new(config: &EncryptionConfig) -> Result<Self> {
        let rules = config.resources.iter().map(SealedResources::new).collect::<Result<_>>()?;
        Ok(Self { rules, random: SystemRandom::new() })
    }

    /// Whether values under this key of the store are under a rule.
    pub fn covers(&self, key: &str) -> bool {
        self.rule(key).is_some()
    }

    /// Where the values are that a rule may cover.
    pub fn prefixes(&self) -> Vec<Arc<str>> {
        let patterns = self.rules.iter().flat_map(|rule| &rule.patterns);
        let mut prefixes: Vec<Arc<str>> = patterns
            .map(|pattern| match pattern.split_once('.') {
                None => prefix("", pattern),
                Some(("*", _)) => ROOT.into(),
                Some((name, group)) => prefix(group, name),
            })
            .collect();
        if prefixes.iter().any(|prefix| **prefix == *ROOT) {
            return vec![ROOT.into()];
        }
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes
    }

    /// The value as it goes to the disk.
    ///
    /// # Errors
    /// There is no randomness for a nonce.
    pub fn seal(&self, key: &str, value: &Value) -> Result<Value> {
        let Some(rule) = self.rule(key) else { return Ok(value.clone()) };
        let Some(Way::Sealed { prefix, secret }) = rule.providers.first() else {
            return Ok(value.clone());
        };
        let (at, text) = match value {
            Value::Bytes(bytes) => (UNSTAMPED, bytes),
            Value::Stamped { template, at } => {
                (u32::try_from(*at).map_err(|_| Error::invalid("a value of over 4 GiB"))?, template)
            }
        };
        let mut plain = Vec::with_capacity(4 + text.len() + 16);
        plain.extend_from_slice(&at.to_be_bytes());
        plain.extend_from_slice(text);
        let (nonce, sealed) = secret.seal(key, plain, &self.random)?;
        Ok(Value::Bytes([prefix.as_slice(), &nonce, &sealed].concat().into()))
    }

    /// The value as it was before sealing, with its revision. What was never sealed comes back as it is.
    ///
    /// # Errors
    /// No provider of the resource's rule can open it: the text is upstream's.
    pub fn open(&self, key: &str, stored: &Bytes, modified: Revision) -> Result<Bytes> {
        let rule = self.rule(key);
        if !stored.starts_with(SEALED) {
            return match rule {
                Some(rule) if !rule.providers.iter().any(|way| matches!(way, Way::Identity)) => {
                    Err(unreadable(key, "no matching prefix found"))
                }
                _ => Ok(stored.clone()),
            };
        }
        let ways = rule.into_iter().flat_map(|rule| &rule.providers);
        for way in ways {
            if let Way::Sealed { prefix, secret } = way
                && let Some(sealed) = stored.strip_prefix(prefix.as_slice())
            {
                return open_with(secret, key, sealed, modified);
            }
        }
        Err(unreadable(key, "no matching prefix found"))
    }

    /// Whether the value is written as the first provider would write it.
    pub fn is_current(&self, key: &str, stored: &Bytes) -> bool {
        match self.rule(key).and_then(|rule| rule.providers.first()) {
            Some(Way::Sealed { prefix, .. }) => stored.starts_with(prefix),
            Some(Way::Identity) | None => !stored.starts_with(SEALED),
        }
    }

    fn rule(&self, key: &str) -> Option<&SealedResources> {
        let (group, resource) = split_key(key)?;
        self.rules.iter().find(|rule| rule.patterns.iter().any(|p| matches(p, group, resource)))
    }
}

impl SealedResources {
    fn new(rule: &Rule) -> Result<Self> {
        let mut providers = Vec::new();
        for provider in &rule.providers {
            ways(provider, &mut providers)?;
        }
        Ok(Self { patterns: rule.resources.clone(), providers })
    }
}

fn ways(provider: &Provider, found: &mut Vec<Way>) -> Result<()> {
    if let Some((cipher, keys)) = provider.keyed() {
        for key in &keys.keys {
            let prefix = format!("k8s:enc:{}:v1:{}:", cipher.name(), key.name).into_bytes();
            found.push(Way::Sealed { prefix, secret: Secret::new(cipher, key)? });
        }
    }
    if provider.identity.is_some() {
        found.push(Way::Identity);
    }
    Ok(())
}

fn open_with(secret: &Secret, key: &str, sealed: &[u8], modified: Revision) -> Result<Bytes> {
    let damaged = || unreadable(key, "the stored data was tampered with, or the key is another");
    let plain = secret.open(key, sealed).ok_or_else(damaged)?;
    let (at, template) = plain.split_first_chunk::<4>().ok_or_else(damaged)?;
    let template = Bytes::copy_from_slice(template);
    let value = match u32::from_be_bytes(*at) {
        UNSTAMPED => Value::Bytes(template),
        at if at as usize <= template.len() => Value::Stamped { template, at: at as usize },
        _ => return Err(damaged()),
    };
    Ok(value.at_revision(modified))
}

fn unreadable(key: &str, why: &str) -> Error {
    Error::refused(format!("unable to transform key {key:?}: {why}"))
}

/// As upstream's: a resource, `resource.group`, `*.group`, `*.` for the core group, `*.*`.
fn matches(pattern: &str, group: &str, resource: &str) -> bool {
    match pattern.split_once('.') {
        None => group.is_empty() && pattern == resource,
        Some(("*", "*")) => true,
        Some(("*", of)) => of == group,
        Some((name, of)) => name == resource && of == group,
    }
}
