//! A plugin and the seed that writes: upstream's `kmsv2PluginProbe` and `envelopeTransformer`.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use gantry_api::field::quote;
use gantry_base::{Clock, Error, Result, Tasks};
use parking_lot::Mutex;
use prost::Message as _;

use super::Kms;
use super::cache::Cache;
use super::client::{Client, DecryptRequest, StatusResponse};
use super::envelope::{Envelope, SEED, check_key_id, key_id_hash};
use super::seed::{self, Source};
use crate::admission::aggregate;
use crate::encryption::metrics;
use crate::verbs::lifecycle::new_uid;

/// How often a healthy plugin is asked how it is.
const POLL: Duration = Duration::from_secs(60);
/// How often one that is not.
const POLL_UNHEALTHY: Duration = Duration::from_secs(10);
/// A seed writes for so long after the plugin was last healthy and named its key.
const WRITE_TTL: Duration = Duration::from_secs(180);
/// A health check is answered with what is known for so long.
const HEALTHY_TTL: Duration = Duration::from_secs(20);
/// The same of one that failed.
const UNHEALTHY_TTL: Duration = Duration::from_secs(3);

/// A plugin.
pub(in super::super) struct Provider {
    name: String,
    client: Client,
    clock: Arc<dyn Clock>,
    state: ArcSwapOption<State>,
    cache: Cache,
    known: Mutex<Known>,
    /// One asks at a time.
    asking: tokio::sync::Mutex<()>,
}

/// The seed that writes.
#[derive(Clone)]
struct State {
    source: Arc<Source>,
    digest: [u8; 32],
    key_id: String,
    encrypted: Vec<u8>,
    annotations: BTreeMap<String, Vec<u8>>,
    expires: Expiry,
}

/// When a seed writes no more.
#[derive(Clone, Copy)]
struct Expiry {
    /// What counts: it does not jump.
    monotonic: Duration,
    /// What is told.
    wall: SystemTime,
}

/// What the plugin last said.
#[derive(Default)]
struct Known {
    /// When it was asked, and what is wrong.
    last: Option<(Duration, std::result::Result<(), String>)>,
    /// The version of its first answer.
    version: String,
}

impl Provider {
    /// The plugin of this configuration; nobody is asked yet.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub(in super::super) fn new(config: &Kms, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        let socket = config.socket().map_err(Error::invalid)?;
        let patience =
            config.patience().ok_or_else(|| Error::invalid("timeout should be a positive value"))?;
        Ok(Arc::new(Self {
            name: config.name.clone(),
            client: Client::new(config.name.clone(), socket, patience),
            clock,
            state: ArcSwapOption::empty(),
            cache: Cache::default(),
            known: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }))
    }

    /// Asks how the plugin is, again and again, as long as the provider is in use.
    pub(in super::super) fn follow(self: &Arc<Self>, tasks: &Tasks) {
        tasks.spawn("kms plugin", poll(Arc::downgrade(self)));
    }

    /// Asks how the plugin is, unless that is known. The key that it names is the one that writes from now on.
    ///
    /// # Errors
    /// It is not well, in upstream's words.
    pub(in super::super) async fn check(&self) -> std::result::Result<(), String> {
        let asking = self.asking.lock().await;
        if let Some((asked, outcome)) = &self.known.lock().last {
            let ttl = if outcome.is_ok() { HEALTHY_TTL } else { UNHEALTHY_TTL };
            if self.clock.monotonic().saturating_sub(*asked) < ttl {
                return outcome.clone();
            }
        }
        let outcome = match self.client.status().await {
            Ok(status) => self.take(status).await,
            Err(why) => Err(format!(
                "failed to perform status section of the healthz check for KMS Provider {}, error: {why}",
                self.name
            )),
        };
        self.known.lock().last = Some((self.clock.monotonic(), outcome.clone()));
        drop(asking);
        outcome
    }

    /// What is known of the plugin.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in super::super) fn health(&self) -> std::result::Result<(), String> {
        self.known.lock().last.as_ref().map_or(Ok(()), |(_, outcome)| outcome.clone())
    }

    /// The key that writes; `None` if the plugin has not named one yet.
    pub(in super::super) fn key_id(&self) -> Option<String> {
        self.state.load().as_ref().map(|state| state.key_id.clone())
    }

    /// Whether this value is written as one would be written now.
    pub(in super::super) fn is_current(&self, stored: &[u8]) -> bool {
        let state = self.state.load();
        let Some(state) = &*state else { return false };
        Envelope::read(stored).is_ok_and(|at| at.key_id == state.key_id && at.source_type == SEED)
    }

    /// Seals `plain`, bound to its place.
    ///
    /// # Errors
    /// The plugin was not well for too long, in upstream's words.
    pub(in super::super) fn seal(&self, place: &str, plain: Vec<u8>) -> Result<Vec<u8>> {
        let state = self.state.load_full();
        let state = state.ok_or_else(|| Error::refused("got unexpected nil transformer"))?;
        let now = self.clock.now();
        if self.clock.monotonic() > state.expires.monotonic {
            return Err(Error::refused(format!(
                "encryptedDEKSource with keyID hash {} expired at {} (current time is {})",
                quote(&key_id_hash(&state.key_id)),
                rfc3339(Some(state.expires.wall)),
                rfc3339(Some(now))
            )));
        }
        // So that it is no miss when the seed was renewed and a value of the former one is read.
        metrics::kms_sources(&self.name, self.cache.put(state.digest, Arc::clone(&state.source)));
        let data = state.source.seal(place, plain)?;
        metrics::kms_key_used("to_storage", &self.name, &key_id_hash(&state.key_id), now);
        let envelope = Envelope {
            data,
            key_id: state.key_id.clone(),
            source: state.encrypted.clone(),
            annotations: state.annotations.clone(),
            source_type: SEED,
        };
        envelope.check().map_err(Error::refused)?;
        Ok(envelope.encode_to_vec())
    }

    /// Opens a value whose seed is known; `None` if the plugin must be asked.
    ///
    /// # Errors
    /// It cannot be opened, in upstream's words.
    pub(in super::super) fn open_now(
        &self,
        place: &str,
        envelope: &Envelope,
    ) -> Option<std::result::Result<Vec<u8>, String>> {
        let digest = envelope.source_digest();
        let own = self.state.load();
        let own = own.as_ref().filter(|state| state.digest == digest).map(|state| Arc::clone(&state.source));
        let source = own.or_else(|| self.cache.get(&digest))?;
        metrics::kms_key_used("from_storage", &self.name, &key_id_hash(&envelope.key_id), self.clock.now());
        Some(source.open(place, envelope))
    }

    /// Opens a value; the plugin is asked for its seed if that is not known.
    ///
    /// # Errors
    /// It cannot be opened, or (to be tried again) the plugin does not decrypt the seed; in upstream's words.
    pub(in super::super) async fn open(&self, place: &str, envelope: &Envelope) -> Result<Vec<u8>> {
        if let Some(opened) = self.open_now(place, envelope) {
            return opened.map_err(Error::refused);
        }
        metrics::kms_missed();
        let request = DecryptRequest {
            ciphertext: envelope.source.clone(),
            uid: new_uid(),
            key_id: envelope.key_id.clone(),
            annotations: envelope.annotations.clone(),
        };
        let bytes = self.client.decrypt(request).await;
        let bytes = bytes.map_err(|why| Error::retry(format!("failed to decrypt DEK, error: {why}")))?;
        let source = Arc::new(Source::new(envelope.source_type, &bytes).map_err(Error::refused)?);
        let known = self.cache.put(envelope.source_digest(), Arc::clone(&source));
        metrics::kms_sources(&self.name, known);
        metrics::kms_key_used("from_storage", &self.name, &key_id_hash(&envelope.key_id), self.clock.now());
        source.open(place, envelope).map_err(Error::refused)
    }

    async fn take(&self, status: StatusResponse) -> std::result::Result<(), String> {
        let mut faults = Vec::new();
        if status.healthz != "ok" {
            faults.push(format!("got unexpected healthz status: {}", status.healthz));
        }
        faults.extend(self.take_version(&status.version).err());
        match check_key_id(&status.key_id) {
            Err((code, why)) => {
                metrics::kms_invalid_key_id(&self.name, code);
                let hash = quote(&key_id_hash(&status.key_id));
                faults.push(format!("got invalid KMSv2 KeyID hash {hash}: {why}"));
            }
            Ok(()) => {
                metrics::kms_key_named(&self.name, &key_id_hash(&status.key_id), self.clock.now());
                faults.extend(self.renew(&status.key_id).await.err());
            }
        }
        match aggregate(faults) {
            None => Ok(()),
            Some(why) => Err(format!("kmsv2 Provider {} is not healthy, error: {why}", self.name)),
        }
    }

    fn take_version(&self, version: &str) -> std::result::Result<(), String> {
        if !["v2", "v2beta1"].contains(&version) {
            return Err(format!("expected KMSv2 API version v2, got {version}"));
        }
        let mut known = self.known.lock();
        if known.version.is_empty() {
            version.clone_into(&mut known.version);
        }
        if known.version != version {
            return Err(format!(
                "KMSv2 API version should not change after the initial status response version {}, got {version}",
                known.version
            ));
        }
        Ok(())
    }

    /// Goes on with the seed if the plugin's key is the same; has a new one encrypted if it is another. When that fails,
    /// the former seed writes until it expires.
    async fn renew(&self, named: &str) -> std::result::Result<(), String> {
        // Counted from before the call.
        let expires =
            Expiry { monotonic: self.clock.monotonic() + WRITE_TTL, wall: self.clock.now() + WRITE_TTL };
        let state = self.state.load_full();
        if let Some(state) = state.as_ref().filter(|state| state.key_id == named) {
            self.state.store(Some(Arc::new(State { expires, ..State::clone(state) })));
            return Ok(());
        }
        let uid = new_uid();
        let (error, encrypted_with) = match self.make(&uid, expires).await {
            Ok(new) if new.key_id == named => {
                tracing::info!(
                    provider = self.name,
                    key = key_id_hash(named),
                    "values are sealed with a new key"
                );
                self.state.store(Some(Arc::new(new)));
                return Ok(());
            }
            Ok(new) => ("<nil>".to_owned(), new.key_id),
            Err(why) => (why, String::new()),
        };
        let (key_id, expires) =
            state.as_ref().map_or(("", None), |s| (s.key_id.as_str(), Some(s.expires.wall)));
        Err(format!(
            "failed to rotate DEK uid={}, useSeed=true, errState={}, errGen={error}, statusKeyIDHash={}, encryptKeyIDHash={}, stateKeyIDHash={}, expirationTimestamp={}",
            quote(&uid),
            if state.is_some() { "<nil>" } else { "got unexpected nil transformer" },
            quote(&key_id_hash(named)),
            quote(&key_id_hash(&encrypted_with)),
            quote(&key_id_hash(key_id)),
            rfc3339(expires)
        ))
    }

    async fn make(&self, uid: &str, expires: Expiry) -> std::result::Result<State, String> {
        let seed = seed::random().map_err(|error| error.to_string())?;
        let source = Arc::new(Source::new(SEED, &seed)?);
        let answer = self.client.encrypt(uid, &seed).await;
        let answer = answer.map_err(|why| format!("failed to encrypt DEK, error: {why}"))?;
        let envelope = Envelope {
            // Anything: it is not written.
            data: vec![0],
            key_id: answer.key_id,
            source: answer.ciphertext,
            annotations: answer.annotations,
            source_type: SEED,
        };
        envelope.check()?;
        let digest = envelope.source_digest();
        let Envelope { key_id, source: encrypted, annotations, .. } = envelope;
        Ok(State { source, digest, key_id, encrypted, annotations, expires })
    }
}

async fn poll(provider: Weak<Provider>) {
    loop {
        let Some(now) = provider.upgrade() else { return };
        let outcome = now.check().await;
        if let Err(why) = &outcome {
            tracing::warn!(provider = now.name, why, "the KMS plugin is not well");
        }
        drop(now);
        tokio::time::sleep(if outcome.is_ok() { POLL } else { POLL_UNHEALTHY }).await;
    }
}

fn rfc3339(at: Option<SystemTime>) -> String {
    let at = at.and_then(|at| jiff::Timestamp::try_from(at).ok());
    at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
