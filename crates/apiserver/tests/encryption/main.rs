//! Secrets at rest: sealed on the way in, opened on the way out, re-sealed with a new key.

mod kms;
mod plugin;
mod unreadable;

use std::sync::Arc;

use gantry_apiserver::encryption::{EncryptedStore, EncryptionConfig, Key, Sealer, reseal};
use gantry_store::{Batch, Expect, Memory, Op, RangeRequest, Store, StoreError, Value};

const SECRET: &str = "/registry/core/secrets/default/s";
const MAP: &str = "/registry/core/configmaps/default/c";

fn config(keys: &[&str]) -> EncryptionConfig {
    let keys = keys.iter().map(|name| Key::generate((*name).to_owned()).expect("a key"));
    EncryptionConfig::secrets_with(keys.collect())
}

fn store(inner: &Arc<dyn Store>, config: &EncryptionConfig) -> EncryptedStore {
    EncryptedStore::new(Arc::clone(inner), Sealer::new(config).expect("keys"))
}

fn put(key: &str, expect: Expect) -> Batch {
    let template = br#"{"metadata":{"resourceVersion":""},"data":{"password":"hunter2"}}"#;
    let at = br#"{"metadata":{"resourceVersion":""#.len();
    let value = Value::Stamped { template: template.as_slice().into(), at };
    Batch::durable(vec![Op::Put { key: key.into(), value, expect }])
}

async fn raw(inner: &Arc<dyn Store>, key: &str) -> String {
    let read = inner.get(key, None).await.expect("read");
    String::from_utf8_lossy(&read.item.expect("stored").value).into_owned()
}

#[tokio::test]
async fn secrets_are_sealed_in_the_store_and_nowhere_else() {
    let inner: Arc<dyn Store> = Arc::new(Memory::default());
    let store = store(&inner, &config(&["key1"]));
    let mut watch = store.watch("/registry/", 2).await.expect("a watch");
    for key in [SECRET, MAP] {
        let done = store.commit(put(key, Expect::Absent)).await.expect("stored");
        let revision = done.results[0].revision();
        let want =
            format!(r#"{{"metadata":{{"resourceVersion":"{revision}"}},"data":{{"password":"hunter2"}}}}"#);
        assert_eq!(store.get(key, None).await.expect("read").item.expect("stored").value, want);
        let events = watch.next().await.expect("events").events;
        assert_eq!(events[0].current.as_ref().expect("a put").value, want);
    }
    assert!(raw(&inner, SECRET).await.starts_with("k8s:enc:aesgcm:v1:key1:"));
    assert!(!raw(&inner, SECRET).await.contains("hunter2"));
    assert!(raw(&inner, MAP).await.contains("hunter2"));
    let all = store.range(RangeRequest::all("/registry/")).await.expect("a range").items;
    assert!(all.iter().all(|item| item.value.windows(7).any(|w| w == b"hunter2")));
    // What a failed write shows is open as well.
    let conflict = store.commit(put(SECRET, Expect::Absent)).await.expect_err("it exists");
    let StoreError::Conflict { current: Some(current), .. } = conflict else { panic!("{conflict}") };
    assert!(current.value.starts_with(br#"{"metadata""#));
}

#[tokio::test]
async fn a_new_key_replaces_the_old_one() {
    let inner: Arc<dyn Store> = Arc::new(Memory::default());
    let old = config(&["key1"]);
    let store = store(&inner, &old);
    store.commit(put(SECRET, Expect::Absent)).await.expect("stored");
    let both = old.with_new_key().expect("a second key");
    store.use_sealer(Sealer::new(&both).expect("keys"));
    assert_eq!(reseal(&store).await.expect("resealed").written, 1);
    assert_eq!(reseal(&store).await.expect("resealed").written, 0);
    assert!(raw(&inner, SECRET).await.starts_with("k8s:enc:aesgcm:v1:key2:"));
    store.use_sealer(Sealer::new(&both.without_old_keys()).expect("keys"));
    let item = store.get(SECRET, None).await.expect("read").item.expect("stored");
    let want = format!(r#""resourceVersion":"{}""#, item.modified);
    assert!(String::from_utf8_lossy(&item.value).contains(&want), "the new revision is in it");
}

#[tokio::test]
async fn without_the_key_it_is_an_error_and_no_empty_answer() {
    let inner: Arc<dyn Store> = Arc::new(Memory::default());
    store(&inner, &config(&["key1"])).commit(put(SECRET, Expect::Absent)).await.expect("stored");
    for other in [config(&["key9"]), config(&["key1"])] {
        let other = store(&inner, &other);
        let why = other.range(RangeRequest::all("/registry/")).await.expect_err("sealed").to_string();
        assert!(why.starts_with(&format!("unable to transform key {SECRET:?}: ")), "{why}");
        other.get(SECRET, None).await.expect_err("sealed");
    }
}

#[tokio::test]
async fn every_cipher_seals_and_opens_what_the_others_sealed() {
    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const SHORT: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
    const MIDDLE: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";
    let providers = [
        ("secretbox", format!("{{secretbox: {{keys: [{{name: a, secret: {KEY}}}]}}}}")),
        ("aescbc", format!("{{aescbc: {{keys: [{{name: a, secret: {KEY}}}]}}}}")),
        ("aescbc", format!("{{aescbc: {{keys: [{{name: b, secret: {SHORT}}}]}}}}")),
        ("aescbc", format!("{{aescbc: {{keys: [{{name: c, secret: {MIDDLE}}}]}}}}")),
        ("aesgcm", format!("{{aesgcm: {{keys: [{{name: a, secret: {KEY}}}]}}}}")),
    ];
    let config = |first: usize| {
        let mut all: Vec<&str> = providers.iter().map(|(_, text)| text.as_str()).collect();
        all.rotate_left(first);
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: ['*.*']\n  providers: [{}, {{identity: {{}}}}]",
            all.join(", ")
        );
        EncryptionConfig::parse(&text).expect("a configuration")
    };
    let inner: Arc<dyn Store> = Arc::new(Memory::default());
    let store = store(&inner, &config(0));
    const WIDGET: &str = "/registry/example.com/widgets/default/w";
    for key in [SECRET, MAP, WIDGET] {
        store.commit(put(key, Expect::Absent)).await.expect("stored");
    }
    for (first, (cipher, _)) in providers.iter().enumerate() {
        store.use_sealer(Sealer::new(&config(first)).expect("keys"));
        // The first time they are as they were written.
        assert_eq!(reseal(&store).await.expect("resealed").written, if first == 0 { 0 } else { 3 });
        for key in [SECRET, MAP, WIDGET] {
            let sealed = raw(&inner, key).await;
            assert!(sealed.starts_with(&format!("k8s:enc:{cipher}:v1:")) && !sealed.contains("hunter2"));
            let item = store.get(key, None).await.expect("read").item.expect("stored");
            let want = format!(
                r#"{{"metadata":{{"resourceVersion":"{}"}},"data":{{"password":"hunter2"}}}}"#,
                item.modified
            );
            assert_eq!(item.value, want);
        }
    }
    // With no rule for a resource any more, and its values still sealed, they cannot be read.
    let other = EncryptionConfig::secrets_with(vec![Key::generate("x".to_owned()).expect("a key")]);
    store.use_sealer(Sealer::new(&other).expect("keys"));
    store.get(SECRET, None).await.expect_err("sealed with a key that is gone");
}

#[test]
fn faults_of_the_configuration_name_the_field() {
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n";
    let cases = [
        ("- resources: []\n  providers: [{identity: {}}]", "resources[0].resources: Required value"),
        ("- resources: [secrets]\n  providers: []", "resources[0].providers: Required value"),
        (
            "- resources: [secrets]\n  providers: [{kms: {name: x, endpoint: 'unix:///x'}}]",
            "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.  Set --feature-gates=KMSv1=true to use the deprecated KMSv1 feature.",
        ),
        (
            "- resources: [secrets]\n  providers: [{kms: {apiVersion: v2, endpoint: 'unix:///x'}}]",
            "resources[0].providers[0].kms.name: Required value: name is a mandatory field for a provider",
        ),
        (
            "- resources: [secrets]\n  providers: [{kms: {apiVersion: v2, name: 'a:b', endpoint: 'unix:///x'}}]",
            "resources[0].providers[0].kms.name: Invalid value: \"a:b\": invalid KMS provider name a:b, must not contain ':'",
        ),
        (
            "- resources: [secrets]\n  providers: [{kms: {apiVersion: v2, name: a, endpoint: 'unix:///x'}}]\n- resources: [pods]\n  providers: [{kms: {apiVersion: v2, name: a, endpoint: 'unix:///y'}}]",
            "resources[1].providers[0].kms.name: Invalid value: \"a\": duplicate KMS provider name a, names must be unique",
        ),
        (
            "- resources: [secrets]\n  providers: [{kms: {apiVersion: v2, name: a, endpoint: 'tcp://x'}}]",
            "resources[0].providers[0].kms.endpoint: Invalid value: \"tcp://x\": unsupported scheme \"tcp\" for KMS provider, only unix is supported",
        ),
        (
            "- resources: [secrets]\n  providers: [{kms: {apiVersion: v2, name: a}}]",
            "resources[0].providers[0].kms.endpoint: Invalid value: \"\": endpoint is a mandatory field for a kms",
        ),
        (
            "- resources: [secrets]\n  providers: [{kms: {apiVersion: v2, name: a, endpoint: 'unix:///x', timeout: 0s}}]",
            "resources[0].providers[0].kms.timeout: Invalid value: \"0s\": timeout should be a positive value",
        ),
        (
            "- resources: [secrets]\n  providers: [{kms: {apiVersion: v2, name: a, endpoint: 'unix:///x', cachesize: 5}}]",
            "resources[0].providers[0].kms.cachesize: Invalid value: 5: cachesize is not supported in v2",
        ),
        (
            "- resources: [secrets]\n  providers: [{aesgcm: {keys: [{name: a, secret: YWJj}]}}]",
            "secret of 3 bytes, expected 16 or 32",
        ),
        (
            "- resources: [secrets]\n  providers: [{secretbox: {keys: [{name: a, secret: YWJjZGVmZ2hpamtsbW5vcA==}]}}]",
            "resources[0].providers[0].secretbox.keys[\"a\"]: secret of 16 bytes, expected 32",
        ),
        (
            "- resources: [secrets]\n  providers: [{identity: {}, secretbox: {keys: []}}]",
            "resources[0].providers[0]: exactly one provider must be specified",
        ),
    ];
    for (text, want) in cases {
        let why = EncryptionConfig::parse(&format!("{head}{text}")).expect_err(text).to_string();
        assert!(why.contains(want), "{why}");
    }
}
