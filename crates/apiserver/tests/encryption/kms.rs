//! KMS v2: a plugin's key seals, is rotated, and is not there when it is needed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use gantry_apiserver::encryption::{EncryptedStore, EncryptionConfig, Sealer, reseal};
use gantry_apiserver::testing;
use gantry_base::{Clock, ManualClock, SystemClock, Tasks};
use gantry_store::{Expect, Memory, RangeRequest, Store};
use prost::Message;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde_json::json;

use crate::plugin::Plugin;
use crate::{MAP, SECRET, put, raw};

const OTHER: &str = "/registry/core/secrets/default/t";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// A plugin, its configuration, a clock, and the store behind.
struct Scene {
    plugin: Arc<Plugin>,
    config: EncryptionConfig,
    clock: Arc<ManualClock>,
    inner: Arc<dyn Store>,
    _dir: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("kms.sock");
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - kms: {{apiVersion: v2, name: test, endpoint: 'unix://{}', timeout: 500ms}}\n  - identity: {{}}\n",
            socket.display()
        );
        Self {
            plugin: Plugin::start(socket).await,
            config: EncryptionConfig::parse(&text).expect("a configuration"),
            clock: Arc::new(ManualClock::at(Duration::from_secs(1_800_000_000))),
            inner: Arc::new(Memory::default()),
            _dir: dir,
        }
    }

    /// A server that has just started.
    async fn store(&self) -> Arc<EncryptedStore> {
        let clock = Arc::clone(&self.clock);
        let sealer = Sealer::with_clock(&self.config, clock).expect("a sealer");
        // Whether it is well the test looks at.
        sealer.check().await.ok();
        Arc::new(EncryptedStore::new(Arc::clone(&self.inner), sealer))
    }

    async fn read(&self, store: &EncryptedStore, key: &str) -> String {
        let item = store.get(key, None).await.expect("read").item.expect("stored");
        String::from_utf8_lossy(&item.value).into_owned()
    }
}

/// Upstream's `EncryptedObject`.
#[derive(Clone, PartialEq, Message)]
struct EncryptedObject {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    source: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
    #[prost(int32, tag = "5")]
    source_type: i32,
}

async fn sealed(inner: &Arc<dyn Store>, key: &str) -> EncryptedObject {
    let item = inner.get(key, None).await.expect("read").item.expect("stored");
    let object = item.value.strip_prefix(b"k8s:enc:kms:v2:test:".as_slice()).expect("upstream's prefix");
    EncryptedObject::decode(object).expect("an object")
}

#[tokio::test]
async fn a_plugin_is_asked_once_for_all_values_of_a_process() {
    let scene = Scene::new().await;
    let store = scene.store().await;
    for key in [SECRET, OTHER, MAP] {
        store.commit(put(key, Expect::Absent)).await.expect("stored");
    }
    assert!(raw(&scene.inner, MAP).await.contains("hunter2"));
    let (one, other) = (sealed(&scene.inner, SECRET).await, sealed(&scene.inner, OTHER).await);
    assert_eq!((one.key_id.as_str(), one.source_type), ("key-1", 1));
    assert_eq!((&one.source, &one.annotations), (&other.source, &other.annotations));
    assert_ne!(one.data[..32], other.data[..32], "each has a key of its own");
    assert!(scene.read(&store, SECRET).await.contains("hunter2"));
    assert_eq!((scene.plugin.count("Encrypt"), scene.plugin.count("Decrypt")), (1, 0));
    // Another process, or another server: it asks once for each seed. A watch opens what it sees as well.
    let again = scene.store().await;
    let mut watch = again.watch("/registry/core/secrets/", 2).await.expect("a watch");
    let seen = watch.next().await.expect("events").events;
    let value = &seen[0].current.as_ref().expect("a put").value;
    assert!(String::from_utf8_lossy(value).contains("hunter2"));
    assert_eq!(again.range(RangeRequest::all("/registry/")).await.expect("a range").items.len(), 3);
    assert_eq!((scene.plugin.count("Encrypt"), scene.plugin.count("Decrypt")), (2, 1));
    scene.plugin.stop().await;
}

/// What Kubernetes before 1.29 wrote: the plugin's plain text is the key itself.
#[tokio::test]
async fn a_value_under_a_plain_key_can_be_read() {
    let scene = Scene::new().await;
    let store = scene.store().await;
    store.commit(put(SECRET, Expect::Absent)).await.expect("stored");
    let mut object = sealed(&scene.inner, SECRET).await;
    // The seed, which the plugin knows, is the key now.
    let secret = ring::digest::digest(&ring::digest::SHA256, b"key-1");
    let plugin = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret.as_ref()).expect("a key"));
    let mut seed = object.source.clone();
    let seed = plugin
        .open_in_place(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut seed)
        .expect("the plugin's")
        .to_vec();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &seed).expect("a key"));
    let mut data = [u32::MAX.to_be_bytes().as_slice(), br#"{"old":true}"#].concat();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key([7; 12]), Aad::from(SECRET), &mut data)
        .expect("sealed");
    object.data = [[7; 12].as_slice(), &data].concat();
    object.source_type = 0;
    let stored = [b"k8s:enc:kms:v2:test:".as_slice(), &object.encode_to_vec()].concat().into();
    let sealer = store.sealer();
    assert_eq!(sealer.open(SECRET, &stored, 5).await.expect("opened"), r#"{"old":true}"#);
    assert!(!sealer.is_current(SECRET, &stored));
    scene.plugin.stop().await;
}

#[tokio::test]
async fn a_new_key_of_the_plugin_seals_from_then_on() {
    let scene = Scene::new().await;
    let store = scene.store().await;
    store.commit(put(SECRET, Expect::Absent)).await.expect("stored");
    assert_eq!(reseal(&store).await.expect("nothing to do").written, 0);
    let before = store.sealer().plugin_keys();
    scene.plugin.says.lock().key = "key-2".to_owned();
    scene.clock.advance(Duration::from_secs(60));
    store.sealer().check().await.expect("well");
    assert_ne!(store.sealer().plugin_keys(), before);
    store.commit(put(OTHER, Expect::Absent)).await.expect("stored");
    assert_eq!(sealed(&scene.inner, OTHER).await.key_id, "key-2");
    assert!(scene.read(&store, SECRET).await.contains("hunter2"), "the former one opens");
    assert_eq!(reseal(&store).await.expect("resealed").written, 1);
    assert_eq!(sealed(&scene.inner, SECRET).await.key_id, "key-2");
    let again = scene.store().await;
    assert!(scene.read(&again, SECRET).await.contains("hunter2"));
    scene.plugin.stop().await;
}

#[tokio::test]
async fn without_its_plugin_a_server_reads_what_it_knows_and_soon_writes_no_more() {
    let scene = Scene::new().await;
    let tasks = Tasks::new();
    let store = scene.store().await;
    let behind = Arc::clone(&store);
    let (server, _) = testing::on_store(behind, Arc::new(SystemClock::default()), &tasks).await;
    store.add_health(server.health());
    let secret = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"a": "b"}})
            .to_string()
    };
    assert_eq!(testing::http(&server, "POST", SECRETS, &[], secret("one")).await.code, 201);
    let health = testing::http(&server, "GET", "/healthz/kms-providers", &[], "").await;
    assert_eq!((health.code, &health.bytes[..]), (200, b"ok".as_slice()));

    scene.plugin.stop().await;
    // What is known of the plugin is told for a while.
    assert_eq!(testing::http(&server, "GET", "/readyz", &[], "").await.code, 200);
    scene.clock.advance(Duration::from_secs(20));
    let health = testing::http(&server, "GET", "/healthz/kms-providers", &[], "").await;
    let want = format!(
        "internal server error: kms-provider-0: failed to perform status section of the healthz check for KMS Provider test, error: rpc error: code = DeadlineExceeded desc = latest balancer error: connection error: desc = \"transport: Error while dialing: dial unix {}: connect: no such file or directory\"\n",
        scene.plugin.socket.display()
    );
    assert_eq!((health.code, String::from_utf8_lossy(&health.bytes)), (500, want.into()));
    let ready = testing::http(&server, "GET", "/readyz", &[], "").await;
    assert_eq!(ready.code, 500);
    assert!(String::from_utf8_lossy(&ready.bytes).contains("[-]kms-providers failed: reason withheld"));
    assert_eq!(testing::http(&server, "GET", &format!("{SECRETS}/one"), &[], "").await.code, 200);
    assert_eq!(testing::http(&server, "POST", SECRETS, &[], secret("two")).await.code, 201);

    scene.clock.advance(Duration::from_secs(180));
    let refused = testing::http(&server, "POST", SECRETS, &[], secret("three")).await;
    let hash = "sha256:";
    let message = refused.json()["message"].as_str().unwrap_or_default().to_owned();
    assert_eq!(refused.code, 500, "{message}");
    assert!(message.starts_with(&format!("encryptedDEKSource with keyID hash \"{hash}")), "{message}");
    assert!(
        message.ends_with("expired at 2027-01-15T08:03:00Z (current time is 2027-01-15T08:03:20Z)"),
        "{message}"
    );
    for path in [format!("{SECRETS}/one"), format!("{SECRETS}/two"), SECRETS.to_owned()] {
        assert_eq!(testing::http(&server, "GET", &path, &[], "").await.code, 200, "{path}");
    }

    scene.plugin.start_again().await;
    assert_eq!(testing::http(&server, "GET", "/readyz", &[], "").await.code, 200);
    assert_eq!(testing::http(&server, "POST", SECRETS, &[], secret("three")).await.code, 201);
    assert_eq!(scene.plugin.count("Encrypt"), 1, "the key is the same, and so is the seed");
    scene.plugin.stop().await;
    assert!(tasks.shut_down(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn a_server_may_start_before_its_plugin() {
    let scene = Scene::new().await;
    scene.store().await.commit(put(SECRET, Expect::Absent)).await.expect("stored");
    scene.plugin.stop().await;
    let store = scene.store().await;
    let why = store.commit(put(OTHER, Expect::Absent)).await.expect_err("nothing seals").to_string();
    assert_eq!(why, "got unexpected nil transformer");
    let why = store.get(SECRET, None).await.expect_err("nothing opens").to_string();
    let want = format!(
        "unable to transform key {SECRET:?}: failed to decrypt DEK, error: rpc error: code = DeadlineExceeded desc = "
    );
    assert!(why.starts_with(&want), "{why}");

    // Everything else works.
    let tasks = Tasks::new();
    let behind = Arc::clone(&store);
    let (server, _) = testing::on_store(behind, Arc::new(SystemClock::default()), &tasks).await;
    let refused = testing::http(&server, "GET", SECRETS, &[], "").await;
    assert_eq!(refused.code, 500);
    assert!(refused.json()["message"].as_str().is_some_and(|why| why.starts_with(&want)), "{refused:?}");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}).to_string();
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(testing::http(&server, "POST", maps, &[], map).await.code, 201);
    assert_eq!(testing::http(&server, "GET", maps, &[], "").await.code, 200);
    scene.plugin.start_again().await;
    assert_eq!(testing::http(&server, "GET", &format!("{SECRETS}/s"), &[], "").await.code, 200);
    assert_eq!(testing::http(&server, "GET", SECRETS, &[], "").await.code, 200);
    scene.clock.advance(Duration::from_secs(10));
    store.sealer().check().await.expect("well");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "u"}}).to_string();
    assert_eq!(testing::http(&server, "POST", SECRETS, &[], secret).await.code, 201);
    scene.plugin.stop().await;
    assert!(tasks.shut_down(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn what_a_plugin_says_is_checked() {
    let scene = Scene::new().await;
    let good = scene.plugin.says.lock().clone();
    let kek = |key: &str| BTreeMap::from([(key.to_owned(), b"v".to_vec())]);
    let cases: [(&str, crate::plugin::Says); 8] = [
        ("got unexpected healthz status: sick", with(&good, |s| s.healthz = "sick".to_owned())),
        ("expected KMSv2 API version v2, got v1", with(&good, |s| s.version = "v1".to_owned())),
        ("got invalid KMSv2 KeyID hash \"\": keyID is empty", with(&good, |s| s.key.clear())),
        (
            "keyID is 1025 bytes, which exceeds the max size of 1024",
            with(&good, |s| s.key = "x".repeat(1025)),
        ),
        ("errGen=<nil>, statusKeyIDHash=", with(&good, |s| s.encrypts_with = Some("other".to_owned()))),
        (
            "failed to validate annotations: annotations: Invalid value: \"kek\": should be a domain with at least two segments separated by dots",
            with(&good, |s| s.annotations = kek("kek")),
        ),
        (
            "total size of annotations is 32783, which exceeds the max size of 32768",
            with(&good, |s| {
                s.annotations = BTreeMap::from([("kek.example.com".to_owned(), vec![0; 32 << 10])])
            }),
        ),
        (
            "[got unexpected healthz status: sick, expected KMSv2 API version v2, got v3]",
            with(&good, |s| (s.healthz, s.version) = ("sick".to_owned(), "v3".to_owned())),
        ),
    ];
    for (want, says) in cases {
        *scene.plugin.says.lock() = says;
        let sealer = Sealer::with_clock(&scene.config, Arc::clone(&scene.clock) as _).expect("a sealer");
        let why = sealer.check().await.expect_err(want);
        assert!(why.starts_with("kms-provider-0: kmsv2 Provider test is not healthy, error: "), "{why}");
        assert!(why.contains(want), "{why}");
    }
    *scene.plugin.says.lock() = with(&good, |says| says.refuses = Some("not today".to_owned()));
    let (one, other) = (scene.store().await, scene.store().await);
    one.commit(put(SECRET, Expect::Absent)).await.expect("stored");
    let why = other.get(SECRET, None).await.expect_err("refused").to_string();
    assert_eq!(
        why,
        format!(
            "unable to transform key {SECRET:?}: failed to decrypt DEK, error: rpc error: code = InvalidArgument desc = not today"
        )
    );
    scene.plugin.stop().await;
}

/// A clock whose wall time was set.
struct Set {
    clock: ManualClock,
    /// Seconds that the wall time is ahead.
    ahead: AtomicU64,
}

impl Clock for Set {
    fn now(&self) -> SystemTime {
        self.clock.now() + Duration::from_secs(self.ahead.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

#[tokio::test]
async fn a_clock_that_is_set_does_not_end_a_seed() {
    let scene = Scene::new().await;
    let clock = ManualClock::at(Duration::from_secs(1_800_000_000));
    let clock = Arc::new(Set { clock, ahead: AtomicU64::new(86_400) });
    let sealer = Sealer::with_clock(&scene.config, Arc::clone(&clock) as _).expect("a sealer");
    sealer.check().await.expect("well");
    let store = EncryptedStore::new(Arc::clone(&scene.inner), sealer);
    store.commit(put(SECRET, Expect::Absent)).await.expect("stored");
    clock.ahead.store(7 * 86_400, Ordering::SeqCst);
    store.commit(put(SECRET, Expect::Present)).await.expect("stored");
    clock.ahead.store(0, Ordering::SeqCst);
    clock.clock.advance(Duration::from_secs(181));
    let why = store.commit(put(SECRET, Expect::Present)).await.expect_err("it has expired").to_string();
    assert!(why.contains("expired at 2027-01-16T08:03:00Z (current time is 2027-01-15T08:03:01Z)"), "{why}");
    scene.plugin.stop().await;
}

#[tokio::test]
async fn keys_that_nobody_meets_any_more_are_in_no_metric() {
    const NAMED: &str = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds{";
    const USED: &str = "apiserver_envelope_encryption_key_id_hash_total{";
    let scene = Scene::new().await;
    let store = scene.store().await;
    let tasks = Tasks::new();
    for n in 0..120 {
        scene.plugin.says.lock().key = format!("rotated-{n}");
        scene.clock.advance(Duration::from_secs(60));
        store.sealer().check().await.expect("well");
        store.commit(put(SECRET, Expect::Any)).await.expect("stored");
    }
    let behind = Arc::clone(&store);
    let (server, _) = testing::on_store(behind, Arc::new(SystemClock::default()), &tasks).await;
    let metrics = testing::http(&server, "GET", "/metrics", &[], "").await;
    let metrics = String::from_utf8_lossy(&metrics.bytes).into_owned();
    let digest = ring::digest::digest(&ring::digest::SHA256, b"rotated-119");
    let newest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    for family in [NAMED, USED] {
        let told: Vec<&str> = metrics.lines().filter(|line| line.starts_with(family)).collect();
        assert!(told.len() <= 100, "{}", told.len());
        assert!(told.iter().any(|line| line.contains(&newest)), "{told:?}");
    }
    scene.plugin.stop().await;
    assert!(tasks.shut_down(Duration::from_secs(10)).await);
}

fn with(says: &crate::plugin::Says, change: impl FnOnce(&mut crate::plugin::Says)) -> crate::plugin::Says {
    let mut says = says.clone();
    change(&mut says);
    says
}
