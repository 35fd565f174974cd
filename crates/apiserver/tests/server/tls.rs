//! The real thing: TLS, HTTP, and kubectl where it is installed.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;

use crate::Lab;

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec: {containers: [{name: c, image: i}]}
";

/// Serves on a free port of the loopback; its address.
async fn listen(lab: &Lab) -> std::net::SocketAddr {
    listen_as(lab).await.0
}

/// The same, and the certificate that it shows.
pub(crate) async fn listen_as(lab: &Lab) -> (std::net::SocketAddr, CertificateDer<'static>) {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
        .expect("a certificate");
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .expect("a key pair");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    lab.server.serve(listener, Arc::new(config), &lab.tasks);
    (address, key.cert.der().clone())
}

async fn kubectl(home: &Path, address: std::net::SocketAddr, args: &[&str]) -> (bool, String) {
    let mut command = Command::new("kubectl");
    command
        .arg(format!("--server=https://{address}"))
        .args(["--insecure-skip-tls-verify", "--token=anybody"])
        .args(args);
    command.env("HOME", home).env_remove("KUBECONFIG");
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("the thread ends")
        .expect("kubectl runs");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_works() {
    if Command::new("kubectl").arg("version").arg("--client").output().is_err() {
        eprintln!("kubectl is not installed: nothing is tested");
        return;
    }
    let lab = Lab::new().await;
    let address = listen(&lab).await;
    let home = tempfile::tempdir().expect("a directory");
    let manifest = home.path().join("map.yaml");
    std::fs::write(&manifest, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x: \"1\"\n")
        .expect("a file");
    let file = manifest.to_str().expect("UTF-8");
    let run = async |args: &[&str]| {
        let (fine, text) = kubectl(home.path(), address, args).await;
        assert!(fine, "kubectl {args:?}: {text}");
        text
    };
    assert!(run(&["apply", "-f", file]).await.contains("configmap/a created"));
    assert!(run(&["apply", "-f", file]).await.contains("configmap/a unchanged"));
    assert!(
        run(&["apply", "--server-side", "--force-conflicts", "-f", file])
            .await
            .contains("serverside-applied")
    );
    assert!(run(&["label", "cm", "a", "k=v"]).await.contains("labeled"));
    assert!(run(&["patch", "cm", "a", "-p", "{\"data\":{\"y\":\"2\"}}"]).await.contains("patched"));
    let table = run(&["get", "cm", "-l", "k=v"]).await;
    assert!(table.starts_with("NAME") && table.contains("DATA") && table.contains("a      2"), "{table}");
    // (`kubectl create deployment` sends protobuf, which this server does not read yet.)
    let deployment = home.path().join("deployment.yaml");
    std::fs::write(&deployment, DEPLOYMENT).expect("a file");
    assert!(
        run(&["apply", "-f", deployment.to_str().expect("UTF-8")])
            .await
            .contains("deployment.apps/d created")
    );
    assert!(run(&["scale", "deployment", "d", "--replicas=3"]).await.contains("scaled"));
    assert!(run(&["explain", "deployment.spec.replicas"]).await.contains("replicas"));
    assert!(run(&["api-resources"]).await.contains("configmaps"));
    assert!(run(&["delete", "cm", "a", "--wait=true"]).await.contains("deleted"));
    let (fine, text) = kubectl(home.path(), address, &["get", "cm", "a"]).await;
    assert!(!fine && text.contains("Error from server (NotFound): configmaps \"a\" not found"), "{text}");
    lab.end().await;
}
