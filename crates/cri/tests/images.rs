//! Images: importing archives, and pulling from a registry on loopback, with the failures that users meet.

#![allow(clippy::large_futures, reason = "a test is one long future")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use common::{BUSYBOX, Instance, busybox, in_time, run, script, start};
use gantry_base::{Class, Result, SystemClock, Tasks};
use gantry_cri::image::{Archive, ImageImporter, ImageSource, Layer, OciConfig, PAUSE_IMAGE, digest};
use gantry_cri::supervise::StopMode;
use gantry_cri::{Code, Runtime, rpc_code, v1};

fn spec(image: &str) -> v1::ImageSpec {
    v1::ImageSpec { image: image.to_owned(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imported_images_are_cris_and_run() -> Result<()> {
    let (instance, tasks) = (Instance::new(), Tasks::new());
    in_time(async {
        let containerd = start(&instance, &tasks).await?;
        let runtime = containerd.runtime();
        let pause = runtime.image_status(&spec(PAUSE_IMAGE), false).await?.image.expect("imported at start");
        assert_eq!(pause.uid.map(|uid| uid.value), Some(65535));

        let image = runtime.image_status(&spec(BUSYBOX), false).await?.image.expect("imported");
        assert_eq!(image.repo_tags, [BUSYBOX]);
        assert_eq!(image.repo_digests, [format!("gantry.test/busybox@{}", busybox().digest())]);
        assert!(image.id.starts_with("sha256:") && image.size > 100_000);
        assert_eq!(
            runtime.image_status(&spec(&image.id), false).await?.image.map(|i| i.id),
            Some(image.id.clone())
        );

        // The same from a file, under another name and in the format of `docker save`.
        let path = instance.path().join("saved.tar");
        std::fs::write(&path, docker_save("web:2")).expect("written");
        let importer = ImageImporter::new(runtime.clone(), Arc::new(SystemClock::default()));
        let imported = importer.import(Archive::open(&path)?).await?;
        assert_eq!(imported[0].names, ["docker.io/library/web:2"]);
        // Once more changes nothing.
        assert_eq!(importer.import(Archive::open(&path)?).await?, imported);
        let mut config = script("web", "exit 5");
        config.image = Some(spec("docker.io/library/web:2"));
        let (_, id) = run(&runtime, &instance.pod("web"), &config).await?;
        let status = loop {
            let status = runtime.container_status(&id, false).await?.status.expect("a status");
            if status.state() == v1::ContainerState::ContainerExited {
                break status;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(status.exit_code, 5);

        runtime.remove_image(&spec(BUSYBOX)).await?;
        runtime.remove_image(&spec(BUSYBOX)).await?;
        assert_eq!(runtime.image_status(&spec(BUSYBOX), false).await?.image, None);
        containerd.stop(StopMode::KillPods).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_with_wrong_bytes_is_refused() -> Result<()> {
    let (instance, tasks) = (Instance::new(), Tasks::new());
    in_time(async {
        let containerd = start(&instance, &tasks).await?;
        let path = instance.path().join("image.tar");
        let mut layer = Layer::default();
        layer.file("needle", 0o644, b"the original bytes").expect("in memory");
        let layers = vec![layer.finish().expect("in memory")];
        ImageSource::new("gantry.test/broken:1", &OciConfig::default(), layers)?.write_archive(&path)?;
        let mut bytes = std::fs::read(&path).expect("written");
        let at = bytes.windows(8).position(|w| w == b"original").expect("the layer is in it");
        bytes[at..at + 8].copy_from_slice(b"modified");
        let importer = ImageImporter::new(containerd.runtime(), Arc::new(SystemClock::default()));
        let error = importer.import(Archive::from_bytes(bytes.into())?).await.expect_err("wrong bytes");
        assert!(error.to_string().contains("unexpected commit digest"), "{error}");
        let image = containerd.runtime().image_status(&spec("gantry.test/broken:1"), false).await?.image;
        assert_eq!(image, None);
        containerd.stop(StopMode::KillPods).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_from_a_registry() -> Result<()> {
    let (instance, tasks) = (Instance::new(), Tasks::new());
    let registry = Registry::start(&instance.path().join("registry"));
    registry.put("app", "1", &busybox_blobs());
    let mut broken = busybox_blobs();
    broken.layer_on_disk = Bytes::from(vec![0; broken.layer.len()]);
    broken.rename("broken");
    registry.put("broken", "1", &broken);
    in_time(async {
        let containerd = start(&instance, &tasks).await?;
        registry.allow_http(&instance.path().join("containerd/certs.d"));
        let runtime = containerd.runtime();
        let auth = |password: &str| v1::AuthConfig {
            username: "alice".to_owned(),
            password: password.to_owned(),
            ..Default::default()
        };
        let host = &registry.host;

        let reference = runtime.pull_image(&spec(&format!("{host}/app:1")), Some(auth("secret")), None).await?;
        let image = runtime.image_status(&spec(&format!("{host}/app:1")), false).await?.image.expect("pulled");
        assert_eq!(reference, image.id);
        let digest = image.repo_digests[0].clone();
        runtime.pull_image(&spec(&digest), Some(auth("secret")), None).await?;

        let pull = |name: String, auth: Option<v1::AuthConfig>| {
            let runtime = runtime.clone();
            async move { runtime.pull_image(&spec(&name), auth, None).await.expect_err("it cannot be pulled") }
        };
        let error = pull(format!("{host}/app:none"), Some(auth("secret"))).await;
        assert_eq!(rpc_code(&error), Some(Code::NotFound), "{error}");
        assert_eq!(error.class(), Class::Missing);
        assert!(error.to_string().contains(": not found"), "{error}");
        let error = pull(format!("{host}/app@sha256:{}", "0".repeat(64)), Some(auth("secret"))).await;
        assert!(error.to_string().contains("not found"), "{error}");
        let error = pull(format!("{host}/app:1"), None).await;
        assert!(error.to_string().contains("401 Unauthorized"), "{error}");
        let error = pull(format!("{host}/app:1"), Some(auth("guess"))).await;
        assert!(error.to_string().contains("401 Unauthorized"), "{error}");
        assert!(!error.to_string().contains("guess"), "{error}");
        let error = pull(format!("{host}/broken:1"), Some(auth("secret"))).await;
        assert!(error.to_string().contains("unexpected commit digest"), "{error}");
        // Nobody listens on port 1.
        let error = pull("127.0.0.1:1/app:1".to_owned(), None).await;
        assert!(error.to_string().contains("connection refused"), "{error}");
        containerd.stop(StopMode::KillPods).await
    })
    .await
}

/// What `docker save` writes for busybox.
fn docker_save(name: &str) -> Vec<u8> {
    let blobs = busybox_blobs();
    let list = format!(r#"[{{"Config":"c.json","RepoTags":["{name}"],"Layers":["l/layer.tar"]}}]"#);
    let mut tar = tar::Builder::new(Vec::new());
    let files: [(&str, &[u8]); 3] =
        [("c.json", &blobs.config), ("l/layer.tar", &blobs.layer), ("manifest.json", list.as_bytes())];
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content).expect("in memory");
    }
    tar.into_inner().expect("in memory")
}

/// An image as a registry keeps it.
struct Blobs {
    config: Bytes,
    layer: Bytes,
    /// What is really served as the layer.
    layer_on_disk: Bytes,
}

impl Blobs {
    fn manifest(&self) -> Vec<u8> {
        let descriptor = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &self.config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &self.layer)],
        });
        manifest.to_string().into_bytes()
    }

    /// Makes another image of it, so that none of its blobs is there already.
    fn rename(&mut self, name: &str) {
        let mut layer = Layer::default();
        layer.file("name", 0o644, name.as_bytes()).expect("in memory");
        self.layer = layer.finish().expect("in memory");
        self.layer_on_disk = Bytes::from(vec![0; self.layer.len()]);
        self.config = config_of(&self.layer);
    }
}

fn config_of(layer: &[u8]) -> Bytes {
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
    });
    config.to_string().into_bytes().into()
}

fn busybox_blobs() -> Blobs {
    let mut layer = Layer::default();
    let program = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    layer.file("bin/busybox", 0o755, &program).expect("in memory");
    layer.symlink("bin/sh", "busybox").expect("in memory");
    let layer = layer.finish().expect("in memory");
    Blobs { config: config_of(&layer), layer_on_disk: layer.clone(), layer }
}

/// Debian's registry on loopback, with one user: alice, whose password is `secret`.
struct Registry {
    child: Child,
    host: String,
    storage: std::path::PathBuf,
}

impl Registry {
    fn start(dir: &Path) -> Self {
        let storage = dir.join("storage");
        std::fs::create_dir_all(&storage).expect("a folder");
        let users =
            Command::new("htpasswd").args(["-Bbn", "alice", "secret"]).output().expect("htpasswd runs");
        std::fs::write(dir.join("users"), users.stdout).expect("written");
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:0\nauth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            storage.display(),
            dir.join("users").display()
        );
        std::fs::write(dir.join("config.yml"), config).expect("written");
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is installed");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let listening = |line: &String| line.contains("listening on ");
        let line = lines.find_map(|l| l.ok().filter(listening)).expect("it says where it listens");
        let after = line.split("listening on ").nth(1).expect("as found");
        let host = after.split(['"', ' ', ',']).next().expect("an address").to_owned();
        // It must not block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, host, storage }
    }

    /// Lays an image into the storage as the registry itself does.
    fn put(&self, repository: &str, tag: &str, blobs: &Blobs) {
        let root = self.storage.join("docker/registry/v2");
        let write = |path: std::path::PathBuf, content: &[u8]| {
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
            std::fs::write(path, content).expect("written");
        };
        let manifest = blobs.manifest();
        let of = root.join("repositories").join(repository);
        let links = [
            (&blobs.config[..], &blobs.config[..]),
            (&blobs.layer, &blobs.layer_on_disk),
            (&manifest, &manifest),
        ];
        for (content, on_disk) in links {
            let digest = digest(content);
            let hex = digest.trim_start_matches("sha256:");
            write(root.join("blobs/sha256").join(&hex[..2]).join(hex).join("data"), on_disk);
            write(of.join("_layers/sha256").join(hex).join("link"), digest.as_bytes());
        }
        let digest = digest(&manifest);
        let hex = digest.trim_start_matches("sha256:");
        write(of.join("_manifests/revisions/sha256").join(hex).join("link"), digest.as_bytes());
        let tag = of.join("_manifests/tags").join(tag);
        write(tag.join("current/link"), digest.as_bytes());
        write(tag.join("index/sha256").join(hex).join("link"), digest.as_bytes());
    }

    /// Tells containerd to speak plain HTTP to it.
    fn allow_http(&self, certs_d: &Path) {
        let dir = certs_d.join(&self.host);
        std::fs::create_dir_all(&dir).expect("a folder");
        let text = format!("server = \"http://{0}\"\n[host.\"http://{0}\"]\n", self.host);
        std::fs::write(dir.join("hosts.toml"), text).expect("written");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
