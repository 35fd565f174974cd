//! Images from a registry that wants a password: pulls that work, and what users see of those that do not.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gantry_lab::cluster::Cluster;
use gantry_lab::wait::until;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const NAMESPACE: &str = "pulls";
/// In the cluster's own network namespace.
const REGISTRY: &str = "127.0.0.1:5000";

#[test]
fn registry() {
    let cluster = Cluster::start();
    let registry = Registry::start(&cluster);
    let digest = registry.put("app", "1", &Image::new("app"));
    registry.put("team/tool", "1", &Image::new("tool"));
    registry.put("private", "1", &Image::new("private"));
    registry.put("broken", "1", &Image::new("broken").damaged());
    prelude().iter().for_each(|object| drop(cluster.apply(object)));
    let absent = format!("sha256:{}", "0".repeat(64));
    pod(&cluster, "tagged", "app:1", true);
    pod(&cluster, "pinned", &format!("app@{digest}"), true);
    pod(&cluster, "wrong-digest", &format!("app@{absent}"), true);
    pod(&cluster, "wrong-tag", "app:none", true);
    pod(&cluster, "stranger", "private:1", false);
    pod(&cluster, "damaged", "broken:1", true);
    pod(&cluster, "early", "late:1", true);
    with_an_account(&cluster);
    refused_before_any_pull(&cluster);

    for name in ["tagged", "pinned", "by-account"] {
        let pod =
            cluster.wait_for(NAMESPACE, &format!("pod/{name}"), |p| p["status"]["phase"] == "Succeeded");
        let image = pod["status"]["containerStatuses"][0]["imageID"].as_str().expect("an image").to_owned();
        assert!(image.starts_with(REGISTRY) && image.contains("@sha256:"), "{name}: {image}");
    }
    event(&cluster, "tagged", "Pulling", "Pulling image \"127.0.0.1:5000/app:1\"");
    event(&cluster, "tagged", "Pulled", "Successfully pulled image \"127.0.0.1:5000/app:1\" in ");
    backs_off(&cluster, "wrong-digest", "not found");
    backs_off(&cluster, "wrong-tag", "not found");
    backs_off(&cluster, "stranger", "401 Unauthorized");
    backs_off(&cluster, "damaged", "unexpected commit digest");

    // A pull that failed is tried again.
    backs_off(&cluster, "early", "not found");
    registry.put("late", "1", &Image::new("late"));
    cluster.wait_for(NAMESPACE, "pod/early", |p| p["status"]["phase"] == "Succeeded");
}

/// The namespace, the password, and an account that has it.
fn prelude() -> [String; 3] {
    // alice:secret
    let auths = json!({"auths": {REGISTRY: {"auth": "YWxpY2U6c2VjcmV0"}}}).to_string();
    let objects = [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": "login", "namespace": NAMESPACE}, "stringData": {".dockerconfigjson": auths},
        }),
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "puller", "namespace": NAMESPACE},
            "imagePullSecrets": [{"name": "login"}],
        }),
    ];
    objects.map(|o| o.to_string())
}

fn manifest(name: &str, image: &str, policy: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": image, "imagePullPolicy": policy, "command": ["/bin/busybox", "true"],
            }],
        },
    })
}

fn pod(cluster: &Cluster, name: &str, image: &str, with_password: bool) {
    let mut pod = manifest(name, &format!("{REGISTRY}/{image}"), "IfNotPresent");
    if with_password {
        pod["spec"]["imagePullSecrets"] = json!([{"name": "login"}]);
    }
    cluster.apply(&pod.to_string());
}

/// A pod gets the pull secrets of its service account.
fn with_an_account(cluster: &Cluster) {
    let mut pod = manifest("by-account", &format!("{REGISTRY}/team/tool:1"), "Always");
    pod["spec"]["serviceAccountName"] = "puller".into();
    cluster.apply(&pod.to_string());
}

fn refused_before_any_pull(cluster: &Cluster) {
    cluster.apply(&manifest("never", &format!("{REGISTRY}/team/tool:7"), "Never").to_string());
    cluster.wait_for(NAMESPACE, "pod/never", |p| waiting(p)["reason"] == "ErrImageNeverPull");
    cluster.apply(&manifest("nonsense", "Not/An:Image:Name", "IfNotPresent").to_string());
    cluster.wait_for(NAMESPACE, "pod/nonsense", |p| waiting(p)["reason"] == "InvalidImageName");
}

fn waiting(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]["waiting"]
}

/// The pod waits between pulls, and says why the last one failed.
fn backs_off(cluster: &Cluster, name: &str, why: &str) {
    let pod =
        cluster.wait_for(NAMESPACE, &format!("pod/{name}"), |p| waiting(p)["reason"] == "ImagePullBackOff");
    assert_eq!(pod["status"]["phase"], "Pending");
    let message = waiting(&pod)["message"].as_str().expect("a message");
    assert!(message.starts_with("Back-off pulling image \"127.0.0.1:5000/"), "{name}: {message}");
    assert!(message.contains(": ErrImagePull: ") && message.contains(why), "{name}: {message}");
    assert!(!message.contains("secret"), "{name}: {message}");
    event(cluster, name, "Failed", "Failed to pull image \"127.0.0.1:5000/");
    event(cluster, name, "Failed", "Error: ErrImagePull");
    event(cluster, name, "Failed", "Error: ImagePullBackOff");
    event(cluster, name, "BackOff", "Back-off pulling image \"127.0.0.1:5000/");
}

/// Waits until the pod has an event with this reason whose message contains `text`.
fn event(cluster: &Cluster, pod: &str, reason: &str, text: &str) {
    until(&format!("event {reason} of {pod}"), || {
        let selector = format!("involvedObject.name={pod},reason={reason}");
        let args = ["get", "events", "-n", NAMESPACE, "--field-selector", &selector, "-o", "json"];
        let list: Value = serde_json::from_str(&cluster.kubectl_ok(&args)).expect("JSON");
        let messages: Vec<&str> =
            list["items"].as_array().into_iter().flatten().filter_map(|e| e["message"].as_str()).collect();
        if messages.iter().any(|m| m.contains(text)) { Ok(()) } else { Err(format!("{messages:?}")) }
    });
}

/// An image as a registry keeps it: busybox, and a file that makes it unlike the others.
struct Image {
    config: Vec<u8>,
    layer: Vec<u8>,
    /// What is really served as the layer.
    served: Vec<u8>,
}

impl Image {
    fn new(name: &str) -> Self {
        let program = std::fs::read("/bin/busybox").expect("busybox-static is installed");
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in [("bin/busybox", program.as_slice()), ("name", name.as_bytes())] {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content).expect("in memory");
        }
        let layer = tar.into_inner().expect("in memory");
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        Self { config: config.to_string().into_bytes(), served: layer.clone(), layer }
    }

    fn damaged(mut self) -> Self {
        self.served.fill(0);
        self
    }

    fn manifest(&self) -> Vec<u8> {
        let descriptor = |kind: &str, bytes: &[u8]| {
            json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": digest(bytes),
                "size": bytes.len(),
            })
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &self.config),
            "layers": [descriptor("layer.v1.tar", &self.layer)],
        });
        manifest.to_string().into_bytes()
    }
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(content))
}

/// Debian's registry beside the cluster, with one user: alice, whose password is `secret`.
struct Registry {
    child: Child,
    storage: PathBuf,
}

impl Registry {
    fn start(cluster: &Cluster) -> Self {
        let dir = cluster.data().join("registry");
        let storage = dir.join("storage");
        std::fs::create_dir_all(&storage).expect("a folder");
        let users = Command::new("htpasswd").args(["-Bbn", "alice", "secret"]).output();
        let users = users.expect("htpasswd (package apache2-utils) runs");
        std::fs::write(dir.join("users"), users.stdout).expect("written");
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: {REGISTRY}\nauth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            storage.display(),
            dir.join("users").display()
        );
        std::fs::write(dir.join("config.yml"), config).expect("written");
        allow_http(&cluster.data().join("containerd/certs.d"));
        let mut serve = cluster.command("docker-registry");
        serve.arg("serve").arg(dir.join("config.yml"));
        serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = serve.spawn().expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let listening = lines.any(|line| line.is_ok_and(|l| l.contains("listening on ")));
        assert!(listening, "docker-registry (package docker-registry) is installed and listens");
        // It must not block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, storage }
    }

    /// Lays an image into the storage as the registry itself does; returns the manifest's digest.
    fn put(&self, repository: &str, tag: &str, image: &Image) -> String {
        let root = self.storage.join("docker/registry/v2");
        let write = |path: PathBuf, content: &[u8]| {
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
            std::fs::write(path, content).expect("written");
        };
        let of = root.join("repositories").join(repository);
        let manifest = image.manifest();
        let blobs = [(&image.config, &image.config), (&image.layer, &image.served), (&manifest, &manifest)];
        for (content, served) in blobs {
            let digest = digest(content);
            let hex = digest.trim_start_matches("sha256:");
            write(root.join("blobs/sha256").join(&hex[..2]).join(hex).join("data"), served);
            write(of.join("_layers/sha256").join(hex).join("link"), digest.as_bytes());
        }
        let digest = digest(&manifest);
        let hex = digest.trim_start_matches("sha256:");
        write(of.join("_manifests/revisions/sha256").join(hex).join("link"), digest.as_bytes());
        let tag = of.join("_manifests/tags").join(tag);
        write(tag.join("index/sha256").join(hex).join("link"), digest.as_bytes());
        write(tag.join("current/link"), digest.as_bytes());
        digest
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Tells containerd to speak plain HTTP to the registry.
fn allow_http(certs_d: &Path) {
    let dir = certs_d.join(REGISTRY);
    std::fs::create_dir_all(&dir).expect("a folder");
    let text = format!("server = \"http://{REGISTRY}\"\n[host.\"http://{REGISTRY}\"]\n");
    std::fs::write(dir.join("hosts.toml"), text).expect("written");
}
