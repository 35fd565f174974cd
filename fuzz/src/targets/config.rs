//! Configuration files.

use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use gantry_apiserver::encryption::{EncryptionConfig, Sealer};
use gantry_apiserver::testing::inputs::{self, credentials};
use gantry_client::kubeconfig::Kubeconfig;
use serde_json::json;

use crate::input;

/// EncryptionConfiguration; what it seals it opens.
pub fn encryption(data: &[u8]) {
    let Some(text) = input::text(data) else { return };
    let Ok(config) = EncryptionConfig::parse(text) else { return };
    let Ok(sealer) = Sealer::new(&config) else { return };
    // What a plugin seals needs the plugin.
    if sealer.plugin_keys().is_none() {
        return;
    }
    let key = "/registry/secrets/default/a";
    let value = gantry_store::Value::Bytes(Bytes::from_static(b"secret"));
    let sealed = match sealer.seal(key, &value).expect("it can be sealed") {
        gantry_store::Value::Bytes(bytes) => bytes,
        other => panic!("bytes are sealed as bytes: {other:?}"),
    };
    assert_eq!(opened(&sealer, key, &sealed).expect("what was sealed can be opened"), "secret");
    let mut torn = sealed.to_vec();
    if let Some(last) = torn.last_mut() {
        *last ^= 1;
    }
    drop(opened(&sealer, key, &Bytes::from(torn)));
    drop(opened(&sealer, key, &Bytes::copy_from_slice(data)));
}

fn opened(sealer: &Sealer, key: &str, sealed: &Bytes) -> gantry_base::Result<Bytes> {
    input::wait(sealer.open(key, sealed, 1))
}

/// AuthenticationConfiguration, and the claims of a token.
pub fn authentication(data: &[u8]) {
    let Some([text, claims]) = input::parts(data) else { return };
    let claims = input::json(claims).unwrap_or_else(|| json!({"sub": "jane", "groups": ["a"]}));
    drop(credentials::authentication_configuration(text, &claims));
}

/// AuthorizationConfiguration.
pub fn authorization(data: &[u8]) {
    let Some(text) = input::text(data) else { return };
    drop(inputs::authorization_configuration(text));
}

/// A kubeconfig and each of its contexts.
pub fn kubeconfig(data: &[u8]) {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(|| memory_dir().expect("a directory"));
    let path = dir.path().join(format!("config-{:?}", std::thread::current().id()));
    std::fs::write(&path, data).expect("written");
    let Ok(config) = Kubeconfig::read(&path) else { return };
    drop(config.select(None));
    let contexts: Vec<String> = config.contexts().map(str::to_owned).collect();
    for context in contexts {
        drop(config.select(Some(&context)));
    }
}

/// A directory in memory where there is such a thing: nothing of this has to last.
pub fn memory_dir() -> std::io::Result<tempfile::TempDir> {
    match tempfile::tempdir_in(Path::new("/dev/shm")) {
        Ok(dir) => Ok(dir),
        Err(_) => tempfile::tempdir(),
    }
}
