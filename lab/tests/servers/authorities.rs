//! An authority near its end: its successor is made and told of at a start, and signs at no other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_apiserver::pki::Pki;
use gantry_base::{Clock, SystemClock};
use gantry_lab::wait::until;

use crate::Server;

/// All keys and certificates, by name.
fn files(dir: &Path) -> BTreeMap<String, String> {
    let names = std::fs::read_dir(dir.join("pki")).expect("a folder");
    let names = names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let read = |name: String| {
        let text = std::fs::read_to_string(dir.join("pki").join(&name)).expect("a text");
        (name, text)
    };
    names.filter(|name| name.ends_with(".crt") || name.ends_with(".key")).map(read).collect()
}

#[test]
fn a_successor_is_told_of_and_outlives_a_restart_without_signing() {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    let dir = Arc::new(tempfile::tempdir().expect("a directory"));
    let then = SystemClock::default().now() - YEAR * 17 / 2;
    let pki = Pki::load_or_create(&dir.path().join("pki"), then).expect("keys");
    let first = pki.cluster().certificate_pem().to_owned();
    let node = ["--node-name", "authorities", "--node-ip", "192.0.2.11"];
    let mut server = Server::start_in(Arc::clone(&dir), &node);
    let before = files(dir.path());
    let both = format!("{first}{}", before["ca-next.crt"]);
    assert_eq!(before["ca.crt"], both);
    let told = |server: &Server, namespace: &str, map: &str, key: &str| {
        let path = format!("jsonpath={{.data.{}}}", key.replace('.', "\\."));
        server.kubectl(&["get", "configmap", "-n", namespace, map, "-o", &path])
    };
    let clients = told(&server, "kube-system", "extension-apiserver-authentication", "client-ca-file");
    assert_eq!(clients.as_ref(), Ok(&both));
    until("pods are told", || match told(&server, "default", "kube-root-ca.crt", "ca.crt")? {
        text if text == both => Ok(()),
        text => Err(text),
    });
    for _ in 0..2 {
        server.stop();
        server = Server::start_in(Arc::clone(&dir), &node);
        // Neither a new successor, nor a certificate that it has signed.
        assert_eq!(files(dir.path()), before);
    }
    server.stop();
}
