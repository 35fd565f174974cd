//! `EncryptionConfiguration` (apiserver.config.k8s.io/v1): which resources are sealed, and with which keys.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_base::error::Context;
use gantry_base::{Class, Error, Result};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::kms::Kms;

/// The kind's `apiVersion`.
const API_VERSION: &str = "apiserver.config.k8s.io/v1";
/// The kind.
const KIND: &str = "EncryptionConfiguration";

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionConfig {
    api_version: String,
    kind: String,
    /// The first entry that names a resource decides for it.
    pub resources: Vec<Rule>,
}

/// Resources and the providers that seal them: the first one writes, each is tried for reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `secrets`, `deployments.apps`, `*.apps`, `*.` (the core group) or `*.*`.
    pub resources: Vec<String>,
    /// In order of use.
    pub providers: Vec<Provider>,
}

/// One way of writing values. Exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Provider {
    /// AES-GCM with a random nonce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aesgcm: Option<Keys>,
    /// Not sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// AES-CBC with a random vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aescbc: Option<Keys>,
    /// XSalsa20 and Poly1305 with a random nonce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secretbox: Option<Keys>,
    /// Keys that a plugin knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms: Option<Kms>,
}

/// `identity: {}`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {}

/// The keys of a provider: the first one seals, each may open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// In order of use.
    pub keys: Vec<Key>,
}

/// A named key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Written in front of each value that it sealed.
    pub name: String,
    /// 16, 24 (AES-CBC only) or 32 bytes in base64.
    secret: String,
}

impl std::fmt::Debug for Key {
    // A key is in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?})", self.name)
    }
}

impl Key {
    /// A new random key of 256 bits.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn generate(name: String) -> Result<Self> {
        let mut secret = [0; 32];
        SystemRandom::new()
            .fill(&mut secret)
            .map_err(|_| Error::refused("the kernel gives no random bytes for an encryption key"))?;
        Ok(Self { name, secret: STANDARD.encode(secret) })
    }

    /// Its bytes.
    ///
    /// # Errors
    /// They are not base64.
    pub fn secret(&self) -> Result<Vec<u8>> {
        STANDARD.decode(&self.secret).context(Class::Invalid, format!("the secret of key {:?}", self.name))
    }
}

impl EncryptionConfig {
    /// Secrets sealed with this key; what is there unsealed stays readable.
    pub fn secrets_with(keys: Vec<Key>) -> Self {
        let sealing = Provider { aesgcm: Some(Keys { keys }), ..Provider::default() };
        let plain = Provider { identity: Some(Identity {}), ..Provider::default() };
        let rule = Rule { resources: vec!["secrets".to_owned()], providers: vec![sealing, plain] };
        Self { api_version: API_VERSION.to_owned(), kind: KIND.to_owned(), resources: vec![rule] }
    }

    /// Reads and checks YAML or JSON.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = serde_saphyr::from_str(text)
            .map_err(|e| Error::invalid(format!("encryption configuration: {e}")))?;
        config.check()?;
        Ok(config)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or is not a valid configuration; the path is named.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::from);
        text.and_then(|text| Self::parse(&text)).map_err(|e| e.while_doing(path.display().to_string()))
    }

    /// Writes the file so that only its owner reads it, and all of it or nothing.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, path: &Path) -> Result<()> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let text =
            serde_json::to_vec_pretty(self).context(Class::Bug, "write the encryption configuration")?;
        let new = path.with_extension("new");
        let doing = || path.display().to_string();
        let mut options = std::fs::File::options();
        options.create(true).truncate(true).write(true).mode(0o600);
        let mut file = options.open(&new).map_err(|e| Error::from(e).while_doing(doing()))?;
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .map_err(|e| Error::from(e).while_doing(doing()))?;
        std::fs::rename(&new, path).map_err(|e| Error::from(e).while_doing(doing()))
    }

    /// The file's configuration; where there is no file, a new one with a new key.
    ///
    /// # Errors
    /// As [`EncryptionConfig::read`] and [`EncryptionConfig::write`].
    pub fn load_or_create(path: &Path) -> Result<Self> {
        if path.exists() {
            return Self::read(path);
        }
        let config = Self::secrets_with(vec![Key::generate("key1".to_owned())?]);
        config.write(path)?;
        Ok(config)
    }

    /// The same with a new key in front of all others of each sealing provider.
    ///
    /// # Errors
    /// Nothing is sealed with keys, or there is no randomness.
    pub fn with_new_key(&self) -> Result<Self> {
        let names = self.keys().filter_map(|key| key.name.strip_prefix("key")?.parse::<u64>().ok());
        let next = names.max().unwrap_or(0) + 1;
        let key = Key::generate(format!("key{next}"))?;
        let mut config = self.clone();
        let mut providers = config.resources.iter_mut().flat_map(|rule| rule.providers.iter_mut());
        let first = providers.find_map(Provider::keyed_mut);
        let Some(first) = first else {
            return Err(Error::invalid(
                "the encryption configuration has no provider with keys: no key to rotate",
            ));
        };
        first.keys.insert(0, key);
        Ok(config)
    }

    /// The same with only the first key of each sealing provider.
    pub fn without_old_keys(&self) -> Self {
        let mut config = self.clone();
        for provider in config.resources.iter_mut().flat_map(|rule| rule.providers.iter_mut()) {
            if let Some(keys) = provider.keyed_mut() {
                keys.keys.truncate(1);
            }
        }
        config
    }

    /// The names of all keys, in order of use.
    pub fn key_names(&self) -> impl Iterator<Item = &str> {
        self.keys().map(|key| key.name.as_str())
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        let providers = self.resources.iter().flat_map(|rule| &rule.providers);
        providers.filter_map(Provider::keyed).flat_map(|(_, keys)| &keys.keys)
    }

    fn check(&self) -> Result<()> {
        if self.api_version != API_VERSION || self.kind != KIND {
            return Err(Error::invalid(format!(
                "encryption configuration: it is {} {}, expected {API_VERSION} {KIND}",
                self.api_version, self.kind
            )));
        }
        let mut plugins = Vec::new();
        for (i, rule) in self.resources.iter().enumerate() {
            rule.check(&format!("resources[{i}]"))?;
            for (j, provider) in rule.providers.iter().enumerate() {
                let Some(kms) = &provider.kms else { continue };
                kms.check(&format!("encryption configuration: resources[{i}].providers[{j}].kms"), &plugins)?;
                plugins.push(kms.name());
            }
        }
        Ok(())
    }
}

/// The ciphers whose keys stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// `aesgcm`
    AesGcm,
    /// `aescbc`
    AesCbc,
    /// `secretbox`
    SecretBox,
}

impl Cipher {
    /// How the file and sealed values name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AesGcm => "aesgcm",
            Self::AesCbc => "aescbc",
            Self::SecretBox => "secretbox",
        }
    }

    /// The lengths that keys may have, in bytes.
    fn lengths(self) -> &'static [usize] {
        match self {
            // (Upstream takes 24 bytes here, too; `ring` does not.)
            Self::AesGcm => &[16, 32],
            Self::AesCbc => &[16, 24, 32],
            Self::SecretBox => &[32],
        }
    }
}

impl Provider {
    /// The cipher and its keys; `None` for what has no keys in the file.
    pub fn keyed(&self) -> Option<(Cipher, &Keys)> {
        let found = [
            (Cipher::AesGcm, &self.aesgcm),
            (Cipher::AesCbc, &self.aescbc),
            (Cipher::SecretBox, &self.secretbox),
        ];
        found.into_iter().find_map(|(cipher, keys)| Some((cipher, keys.as_ref()?)))
    }

    fn keyed_mut(&mut self) -> Option<&mut Keys> {
        self.aesgcm.as_mut().or(self.aescbc.as_mut()).or(self.secretbox.as_mut())
    }

    /// How many ways of writing it names: one is right.
    fn count(&self) -> usize {
        let set = [
            self.aesgcm.is_some(),
            self.aescbc.is_some(),
            self.secretbox.is_some(),
            self.identity.is_some(),
            self.kms.is_some(),
        ];
        set.into_iter().filter(|set| *set).count()
    }
}

impl Rule {
    fn check(&self, path: &str) -> Result<()> {
        let fault = |text: String| Err(Error::invalid(format!("encryption configuration: {path}{text}")));
        if self.resources.is_empty() {
            return fault(".resources: Required value: at least one resource must be specified".into());
        }
        if self.providers.is_empty() {
            return fault(".providers: Required value: at least one provider must be specified".into());
        }
        for (i, provider) in self.providers.iter().enumerate() {
            if provider.count() != 1 {
                return fault(format!(".providers[{i}]: exactly one provider must be specified"));
            }
            let Some((cipher, keys)) = provider.keyed() else { continue };
            let at = format!(".providers[{i}].{}.keys", cipher.name());
            if keys.keys.is_empty() {
                return fault(format!("{at}: Required value: at least one key"));
            }
            for key in &keys.keys {
                let length = key.secret()?.len();
                if key.name.is_empty() || key.name.contains(':') {
                    return fault(format!("{at}: {:?} is no name of a key", key.name));
                }
                if !cipher.lengths().contains(&length) {
                    let lengths: Vec<String> = cipher.lengths().iter().map(usize::to_string).collect();
                    let what = format!("secret of {length} bytes, expected {}", lengths.join(" or "));
                    return fault(format!("{at}[{:?}]: {what}", key.name));
                }
            }
        }
        Ok(())
    }
}
