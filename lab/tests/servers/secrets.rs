//! `gantry secrets rotate-key`: all Secrets are encrypted with another key, while the server runs and while it does not.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use gantry_lab::cluster::binary;
use gantry_lab::wait::until;
use gantry_store::{Embedded, Options, RangeRequest, Store};
use serde_json::Value;

use crate::Server;

const NEEDLE: &str = "correct horse battery staple";

/// The names and the secrets of the keys in the configuration.
fn keys(dir: &Path) -> Vec<(String, String)> {
    let text = std::fs::read(dir.join("pki/encryption.json")).expect("a configuration");
    let config: Value = serde_json::from_slice(&text).expect("JSON");
    let keys = config["resources"][0]["providers"][0]["aesgcm"]["keys"].as_array().expect("keys").clone();
    let text = |key: &Value, of: &str| key[of].as_str().expect("a text").to_owned();
    keys.iter().map(|key| (text(key, "name"), text(key, "secret"))).collect()
}

/// How the Secrets begin that the store of a server holds that does not run: each way once.
fn prefixes(dir: &Path) -> BTreeSet<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = Embedded::open(Options::new(dir.join("store"))).expect("nobody else has it");
        let found = store.range(RangeRequest::all("/registry/core/secrets/")).await.expect("a range");
        assert!(found.items.len() >= 3, "{}", found.items.len());
        let seen = found.items.iter().map(|item| {
            let text = String::from_utf8_lossy(&item.value);
            assert!(!text.contains(NEEDLE), "{} is readable", item.key);
            text.match_indices(':').nth(4).map_or_else(|| text.to_string(), |(at, _)| text[..=at].to_owned())
        });
        let seen = seen.collect();
        store.close().await.expect("closed");
        seen
    })
}

fn rotate(dir: &Path) -> String {
    let mut command = Command::new(binary().expect("the binary"));
    let output = command.args(["secrets", "rotate-key", "--data-dir"]).arg(dir).output().expect("it runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

fn only(name: &str) -> BTreeSet<String> {
    BTreeSet::from([format!("k8s:enc:aesgcm:v1:{name}:")])
}

#[test]
fn a_key_is_replaced_and_forgotten() {
    let dir = Arc::new(tempfile::tempdir().expect("a directory"));
    // An address for documents: nobody calls it.
    let node = ["--node-name", "keys", "--node-ip", "192.0.2.10"];
    let mut server = Server::start_in(Arc::clone(&dir), &node);
    let path = server.path().to_owned();
    let put = |server: &Server, name: &str| {
        let literal = format!("--from-literal=password={NEEDLE}");
        server.kubectl(&["create", "secret", "generic", name, &literal]).expect("created");
    };
    let check = |server: &Server, names: &[&str]| {
        for name in names {
            let read = server.kubectl(&[
                "get",
                "secret",
                name,
                "-o",
                "go-template={{.data.password | base64decode}}",
            ]);
            assert_eq!(read.as_deref(), Ok(NEEDLE), "{name}");
        }
    };
    for name in ["a", "b", "c"] {
        put(&server, name);
    }
    server.stop();
    let first = keys(&path);
    assert_eq!((first.len(), first[0].0.as_str()), (1, "key1"));
    assert_eq!(prefixes(&path), only("key1"));

    // While it runs.
    let mut server = Server::start_in(Arc::clone(&dir), &node);
    let said = rotate(&path);
    assert!(said.contains("The server is running") && said.contains("The old key is forgotten"), "{said}");
    let second = keys(&path);
    assert_eq!((second.len(), second[0].0.as_str()), (1, "key2"));
    assert_ne!(first[0].1, second[0].1);
    check(&server, &["a", "b", "c"]);
    put(&server, "d");
    server.stop();
    assert_eq!(prefixes(&path), only("key2"));

    // While it does not.
    let said = rotate(&path);
    assert!(
        said.contains("were encrypted with the new key") && said.contains("The old key is forgotten"),
        "{said}"
    );
    assert_eq!(keys(&path).iter().map(|key| key.0.as_str()).collect::<Vec<_>>(), ["key3"]);
    assert_eq!(prefixes(&path), only("key3"));
    let mut server = Server::start_in(dir, &node);
    check(&server, &["a", "b", "c", "d"]);
    // The cluster works: its controllers write Secrets and others.
    server.kubectl(&["create", "namespace", "after"]).expect("created");
    until("the controllers work", || server.kubectl(&["get", "sa", "-n", "after", "default"]).map(drop));
    server.stop();
    let kept: String = ["encryption.json", "encryption.done"]
        .map(|file| std::fs::read_to_string(path.join("pki").join(file)).expect(file))
        .concat();
    for (_, secret) in [&first[0], &second[0]] {
        assert!(!kept.contains(secret.as_str()), "an old key is still there");
    }
}
