//! Seals and opens values.

use std::sync::Arc;

use bytes::Bytes;
use gantry_base::{Clock, Error, Result, SystemClock, Tasks};
use gantry_store::{Revision, Value};
use ring::rand::SystemRandom;

use super::config::{EncryptionConfig, Provider, Rule};
use super::kms::{Envelope, Provider as Plugin};
use super::secret::Secret;
use crate::admission::aggregate;
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
    Sealed { prefix: Vec<u8>, label: String, secret: Secret },
    Kms { prefix: Vec<u8>, label: String, plugin: Arc<Plugin> },
    Identity,
}

/// What [`Sealer::open_now`] can say.
pub(super) enum Opened {
    /// The value as it was before sealing.
    Plain(Bytes),
    /// A plugin must be asked first.
    Ask(Arc<Plugin>, Box<Envelope>),
}

impl Sealer {
    /// Prepares the keys.
    ///
    /// # Errors
    /// A key is not of the right length.
    pub fn new(config: &EncryptionConfig) -> Result<Self> {
        Self::with_clock(config, Arc::new(SystemClock::default()))
    }

    /// The same by this clock.
    ///
    /// # Errors
    /// A key is not of the right length.
    pub fn with_clock(config: &EncryptionConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let rules = config.resources.iter().map(|rule| SealedResources::new(rule, &clock));
        Ok(Self { rules: rules.collect::<Result<_>>()?, random: SystemRandom::new() })
    }

    /// Follows the KMS plugins, as long as the sealer is in use.
    pub fn follow(&self, tasks: &Tasks) {
        self.plugins().for_each(|plugin| plugin.follow(tasks));
    }

    /// Asks the KMS plugins how they are, unless that is known; without it nothing can be sealed with their keys.
    ///
    /// # Errors
    /// One is not well, in upstream's words.
    pub async fn check(&self) -> std::result::Result<(), String> {
        for plugin in self.plugins() {
            // Told below.
            plugin.check().await.ok();
        }
        self.health()
    }

    /// How the KMS plugins are, as far as that is known.
    ///
    /// # Errors
    /// One is not well, in upstream's words.
    pub fn health(&self) -> std::result::Result<(), String> {
        let faults = self.plugins().enumerate().filter_map(|(at, plugin)| {
            let why = plugin.health().err()?;
            Some(format!("kms-provider-{at}: {why}"))
        });
        aggregate(faults.collect()).map_or(Ok(()), Err)
    }

    /// The keys of the plugins that write, in order; `None` if one has not named its key yet. When it changes, there may
    /// be values to be written anew.
    pub fn plugin_keys(&self) -> Option<Vec<String>> {
        self.plugins().map(|plugin| plugin.key_id()).collect()
    }

    fn plugins(&self) -> impl Iterator<Item = &Arc<Plugin>> {
        let ways = self.rules.iter().flat_map(|rule| &rule.providers);
        ways.filter_map(|way| match way {
            Way::Kms { plugin, .. } => Some(plugin),
            Way::Sealed { .. } | Way::Identity => None,
        })
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
    /// There is no randomness for a nonce, or a plugin was not well for too long.
    pub fn seal(&self, key: &str, value: &Value) -> Result<Value> {
        let Some(rule) = self.rule(key) else { return Ok(value.clone()) };
        let first = rule.providers.first();
        if matches!(first, Some(Way::Identity) | None) {
            return Ok(value.clone());
        }
        let (at, text) = match value {
            Value::Bytes(bytes) => (UNSTAMPED, bytes),
            Value::Stamped { template, at } => {
                (u32::try_from(*at).map_err(|_| Error::invalid("a value of over 4 GiB"))?, template)
            }
        };
        let mut plain = Vec::with_capacity(4 + text.len() + 16);
        plain.extend_from_slice(&at.to_be_bytes());
        plain.extend_from_slice(text);
        let sealed = match first {
            Some(Way::Sealed { prefix, secret, .. }) => {
                let (nonce, sealed) = secret.seal(key, plain, &self.random)?;
                [prefix.as_slice(), &nonce, &sealed].concat()
            }
            Some(Way::Kms { prefix, plugin, .. }) => {
                [prefix.as_slice(), plugin.seal(key, plain)?.as_slice()].concat()
            }
            Some(Way::Identity) | None => plain,
        };
        Ok(Value::Bytes(sealed.into()))
    }

    /// The value as it was before sealing, with its revision. What was never sealed comes back as it is.
    ///
    /// # Errors
    /// No provider of the resource's rule can open it, or a plugin does not: the text is upstream's.
    pub async fn open(&self, key: &str, stored: &Bytes, modified: Revision) -> Result<Bytes> {
        match self.open_now(key, stored, modified)? {
            Opened::Plain(value) => Ok(value),
            Opened::Ask(plugin, envelope) => {
                let plain = plugin.open(key, &envelope).await;
                let failed =
                    |why: Error| Error::new(why.class(), unreadable(key, &why.to_string()).to_string());
                stamped(key, &plain.map_err(failed)?, modified)
            }
        }
    }

    /// The same, as far as it needs nobody else.
    pub(super) fn open_now(&self, key: &str, stored: &Bytes, modified: Revision) -> Result<Opened> {
        let rule = self.rule(key);
        if !stored.starts_with(SEALED) {
            return match rule {
                Some(rule) if !rule.providers.iter().any(|way| matches!(way, Way::Identity)) => {
                    Err(unreadable(key, "no matching prefix found"))
                }
                _ => Ok(Opened::Plain(stored.clone())),
            };
        }
        match rule.and_then(|rule| rule.way_of(stored)) {
            Some(Way::Sealed { prefix, secret, .. }) => {
                let damaged = || unreadable(key, "the stored data was tampered with, or the key is another");
                let plain = secret.open(key, &stored[prefix.len()..]).ok_or_else(damaged)?;
                Ok(Opened::Plain(stamped(key, &plain, modified)?))
            }
            Some(Way::Kms { prefix, plugin, .. }) => {
                let envelope =
                    Envelope::read(&stored[prefix.len()..]).map_err(|why| unreadable(key, &why))?;
                match plugin.open_now(key, &envelope) {
                    Some(Ok(plain)) => Ok(Opened::Plain(stamped(key, &plain, modified)?)),
                    Some(Err(why)) => Err(unreadable(key, &why)),
                    None => Ok(Opened::Ask(Arc::clone(plugin), Box::new(envelope))),
                }
            }
            Some(Way::Identity) | None => Err(unreadable(key, "no matching prefix found")),
        }
    }

    /// How metrics name the provider that seals under this key.
    pub(super) fn writing_label(&self, key: &str) -> &str {
        self.rule(key).and_then(|rule| rule.providers.first()).map_or("", Way::label)
    }

    /// How metrics name the provider that has sealed this value.
    pub(super) fn reading_label(&self, key: &str, stored: &[u8]) -> &str {
        if !stored.starts_with(SEALED) {
            return "identity";
        }
        self.rule(key).and_then(|rule| rule.way_of(stored)).map_or("unknown", Way::label)
    }

    /// Whether the value is written as the first provider would write it.
    pub fn is_current(&self, key: &str, stored: &Bytes) -> bool {
        match self.rule(key).and_then(|rule| rule.providers.first()) {
            Some(Way::Sealed { prefix, .. }) => stored.starts_with(prefix),
            Some(Way::Kms { prefix, plugin, .. }) => {
                stored.strip_prefix(prefix.as_slice()).is_some_and(|stored| plugin.is_current(stored))
            }
            Some(Way::Identity) | None => !stored.starts_with(SEALED),
        }
    }

    fn rule(&self, key: &str) -> Option<&SealedResources> {
        let (group, resource) = split_key(key)?;
        self.rules.iter().find(|rule| rule.patterns.iter().any(|p| matches(p, group, resource)))
    }
}

impl SealedResources {
    fn new(rule: &Rule, clock: &Arc<dyn Clock>) -> Result<Self> {
        let mut providers = Vec::new();
        for provider in &rule.providers {
            ways(provider, clock, &mut providers)?;
        }
        Ok(Self { patterns: rule.resources.clone(), providers })
    }

    /// What has sealed this value.
    fn way_of(&self, stored: &[u8]) -> Option<&Way> {
        self.providers.iter().find(|way| match way {
            Way::Sealed { prefix, .. } | Way::Kms { prefix, .. } => stored.starts_with(prefix),
            Way::Identity => false,
        })
    }
}

impl Way {
    fn label(&self) -> &str {
        match self {
            Self::Sealed { label, .. } | Self::Kms { label, .. } => label,
            Self::Identity => "",
        }
    }
}

fn ways(provider: &Provider, clock: &Arc<dyn Clock>, found: &mut Vec<Way>) -> Result<()> {
    if let Some((cipher, keys)) = provider.keyed() {
        for key in &keys.keys {
            let label = format!("k8s:enc:{}:v1:", cipher.name());
            let prefix = format!("{label}{}:", key.name).into_bytes();
            found.push(Way::Sealed { prefix, label, secret: Secret::new(cipher, key)? });
        }
    }
    if let Some(kms) = &provider.kms {
        let label = format!("k8s:enc:kms:v2:{}:", kms.name());
        let plugin = Plugin::new(kms, Arc::clone(clock))?;
        found.push(Way::Kms { prefix: label.clone().into_bytes(), label, plugin });
    }
    if provider.identity.is_some() {
        found.push(Way::Identity);
    }
    Ok(())
}

/// What was sealed, with its revision in its place.
fn stamped(key: &str, plain: &[u8], modified: Revision) -> Result<Bytes> {
    let damaged = || unreadable(key, "the stored data was tampered with, or the key is another");
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
