//! Secrets at rest: the keys beside the store, and their rotation.
//!
//! A server reads its configuration at the start and again when the file changes. Either way it then writes anew what
//! is not sealed with the first key, and notes in a file beside the configuration that it did. It also writes anew when a
//! KMS plugin names another key.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_apiserver::encryption::{EncryptedStore, EncryptionConfig, Rotated, Sealer, metrics, reseal};
use gantry_base::error::Context;
use gantry_base::{Class, Clock, Error, Result, SystemClock, Tasks};
use gantry_store::{Embedded, Store, StoreError};

use crate::instance::Instance;

/// How often the configuration is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How often writing anew is tried again.
const RETRY: Duration = Duration::from_secs(60);
/// How long `rotate-key` waits for a running server.
const PATIENCE: Duration = Duration::from_secs(120);

/// Puts the configured encryption in front of the store and keeps it in step with the file.
///
/// # Errors
/// The configuration is not valid, or cannot be written at the first start.
pub async fn encrypted(store: Arc<dyn Store>, path: PathBuf, tasks: &Tasks) -> Result<Arc<EncryptedStore>> {
    let config = EncryptionConfig::load_or_create(&path)?;
    let sealer = Sealer::new(&config)?;
    // A plugin may start after the server: until then, its values can be neither read nor written.
    if let Err(why) = sealer.check().await {
        tracing::warn!(why, "a KMS plugin is not well");
    }
    sealer.follow(tasks);
    let encrypted = Arc::new(EncryptedStore::new(store, sealer));
    let store = Arc::clone(&encrypted);
    let keeper = Keeper { store, path, tasks: tasks.clone(), seen: config, done: None, tried: None };
    tasks.spawn("encryption", keeper.run());
    Ok(encrypted)
}

struct Keeper {
    store: Arc<EncryptedStore>,
    path: PathBuf,
    tasks: Tasks,
    seen: EncryptionConfig,
    /// The keys of plugins that everything was last written with.
    done: Option<Vec<String>>,
    /// When writing anew was last tried.
    tried: Option<Duration>,
}

impl Keeper {
    async fn run(mut self) {
        let clock = SystemClock::default();
        let mut changed = modified(&self.path);
        loop {
            let keys = self.store.sealer().plugin_keys();
            let due = self.tried.is_none_or(|tried| clock.monotonic().saturating_sub(tried) >= RETRY);
            if keys.is_some() && keys != self.done && due {
                self.tried = Some(clock.monotonic());
                self.rewrite(keys).await;
            }
            tokio::time::sleep(LOOK).await;
            let now = modified(&self.path);
            if now != changed && self.reload().await {
                changed = now;
            }
        }
    }

    /// Takes over what the file says; false if that is to be tried again.
    async fn reload(&mut self) -> bool {
        let read = EncryptionConfig::read(&self.path).and_then(|config| Ok((Sealer::new(&config)?, config)));
        let plugins = match &read {
            Ok((sealer, config)) if self.seen != *config => sealer.check().await,
            _ => Ok(()),
        };
        let read = plugins.map_err(Error::retry).and(read);
        let now = SystemClock::default().now().duration_since(SystemTime::UNIX_EPOCH);
        metrics::reloaded(read.is_ok(), now.map_or(0.0, |since| since.as_secs_f64()));
        match read {
            Ok((_, config)) if self.seen == config => {}
            Ok((sealer, config)) => {
                sealer.follow(&self.tasks);
                self.store.use_sealer(sealer);
                self.seen = config;
                tracing::info!("the encryption configuration has changed");
                (self.done, self.tried) = (None, None);
            }
            // The former one stays in use.
            Err(error) => {
                tracing::error!(%error, "the encryption configuration cannot be used");
                return error.class() != Class::Retry;
            }
        }
        true
    }

    async fn rewrite(&mut self, keys: Option<Vec<String>>) {
        match rewrite(&self.store).await {
            Ok(done) => {
                if done.written > 0 {
                    tracing::info!(written = done.written, of = done.covered, "values were encrypted anew");
                }
                self.done = keys;
                let note = digest(&self.seen);
                if let Err(error) = std::fs::write(note_path(&self.path), note) {
                    tracing::error!(%error, "cannot note that the values are encrypted anew");
                }
            }
            Err(error) => tracing::error!(%error, "values cannot be encrypted anew"),
        }
    }
}

/// Writes anew what is stale; then no old revision with the old key can be read either.
async fn rewrite(store: &EncryptedStore) -> Result<Rotated> {
    let done = reseal(store).await?;
    if done.written > 0 {
        store.compact(store.current_revision().await?).await?;
    }
    Ok(done)
}

/// `gantry secrets`
#[derive(clap::Subcommand)]
pub enum Command {
    /// Encrypt all Secrets with a new key and forget the old one.
    RotateKey(RotateArgs),
}

/// Options of `gantry secrets rotate-key`.
#[derive(clap::Args)]
pub struct RotateArgs {
    /// The data directory of the server, which may be running.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/gantry")]
    data_dir: PathBuf,
    /// The server's encryption configuration, if it has one of its own.
    #[arg(long, value_name = "FILE")]
    encryption_provider_config: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// There is no such configuration, or a Secret cannot be opened.
pub async fn run(command: Command) -> Result<()> {
    let Command::RotateKey(args) = command;
    let instance = Instance::of(&std::path::absolute(&args.data_dir).context(Class::Invalid, "--data-dir")?);
    let path = args.encryption_provider_config.clone().unwrap_or_else(|| instance.encryption_config());
    let config = EncryptionConfig::read(&path)?.with_new_key()?;
    config.write(&path)?;
    if !instance.store().exists() {
        println!("The objects are in etcd: the server, which must be running, encrypts with the new key …");
        wait_for_server(&path, &config).await?;
        config.without_old_keys().write(&path)?;
        println!("The old key is forgotten");
        return Ok(());
    }
    match open(&instance).await {
        Ok(store) => {
            let sealer = Sealer::new(&config)?;
            sealer.check().await.map_err(Error::retry)?;
            let store = EncryptedStore::new(store, sealer);
            let done = rewrite(&store).await?;
            store.close().await?;
            println!("{} of {} values were encrypted with the new key", done.written, done.covered);
        }
        Err(StoreError::Locked { .. }) => {
            println!("The server is running: it encrypts with the new key …");
            wait_for_server(&path, &config).await?;
        }
        Err(error) => return Err(error.into()),
    }
    config.without_old_keys().write(&path)?;
    println!("The old key is forgotten");
    Ok(())
}

async fn open(instance: &Instance) -> std::result::Result<Arc<dyn Store>, StoreError> {
    let options = gantry_store::Options::new(instance.store());
    let opened = tokio::task::spawn_blocking(move || Embedded::open(options)).await;
    let opened = opened.map_err(|error| StoreError::Invalid(error.to_string()))?;
    Ok(Arc::new(opened?))
}

async fn wait_for_server(path: &Path, config: &EncryptionConfig) -> Result<()> {
    let clock = SystemClock::default();
    let note = note_path(path);
    let wanted = digest(config);
    let start = clock.monotonic();
    while std::fs::read_to_string(&note).ok().as_deref() != Some(wanted.as_str()) {
        if clock.monotonic().saturating_sub(start) > PATIENCE {
            return Err(Error::retry(format!(
                "the server has not encrypted everything anew after {PATIENCE:?}: see its log; both keys are in {}",
                path.display()
            )));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

fn note_path(path: &Path) -> PathBuf {
    path.with_extension("done")
}

/// The names of the keys, in order: what the note says.
fn digest(config: &EncryptionConfig) -> String {
    config.key_names().collect::<Vec<_>>().join(",")
}
