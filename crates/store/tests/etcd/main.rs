//! The etcd engine against real etcd servers that are killed, stopped, cut off and restarted.

mod proxy;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gantry_base::{Class, ManualClock};
use gantry_store::testing::EtcdServers;
use gantry_store::{
    Batch, Etcd, EtcdOptions, EtcdTls, Event, Expect, Op, RangeRequest, Revision, Store, StoreError, Value,
    Watch,
};
use proxy::{Mode, Proxy};

/// A test that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(60);

fn options(urls: Vec<String>) -> EtcdOptions {
    EtcdOptions {
        compaction_interval: Duration::ZERO,
        call_timeout: Duration::from_secs(4),
        ..EtcdOptions::new(urls)
    }
}

async fn connect(options: EtcdOptions) -> Arc<Etcd> {
    Arc::new(Etcd::connect(options).await.unwrap())
}

fn put(key: &str, value: &str, expect: Expect) -> Batch {
    let value = Value::Bytes(Bytes::copy_from_slice(value.as_bytes()));
    Batch::durable(vec![Op::Put { key: format!("/registry/{key}").into(), value, expect }])
}

async fn write(store: &Etcd, key: &str, value: &str) -> Revision {
    store.commit(put(key, value, Expect::Any)).await.unwrap().results[0].revision()
}

async fn read(store: &Etcd, key: &str) -> Result<Option<String>, StoreError> {
    let item = store.get(&format!("/registry/{key}"), None).await?.item;
    Ok(item.map(|kv| String::from_utf8(kv.value.to_vec()).unwrap()))
}

/// The next so many events.
async fn events(watch: &mut Watch, count: usize) -> Vec<Event> {
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.extend(watch.next().await.unwrap().events.iter().cloned());
    }
    assert_eq!(seen.len(), count);
    seen
}

async fn passes(watch: &mut Watch, revision: Revision) {
    while watch.position() < revision {
        assert!(watch.next().await.unwrap().events.is_empty());
    }
}

async fn bounded(test: impl Future<Output = ()>) {
    tokio::time::timeout(LIMIT, test).await.expect("the test hangs");
}

/// Writes keys of its own one after another until `enough` are acknowledged in all; which were, with revisions, and
/// of which it is not known.
async fn writer(
    store: &Etcd,
    name: usize,
    done: &AtomicUsize,
    enough: usize,
) -> (BTreeMap<String, Revision>, BTreeSet<String>) {
    let (mut known, mut unknown) = (BTreeMap::new(), BTreeSet::new());
    let mut n = 0;
    while done.load(Ordering::Relaxed) < enough {
        let key = format!("w{name}/{n}");
        n += 1;
        match store.commit(put(&key, &key, Expect::Absent)).await {
            Ok(committed) => {
                done.fetch_add(1, Ordering::Relaxed);
                known.insert(format!("/registry/{key}"), committed.results[0].revision());
            }
            Err(error) => {
                assert_eq!(error.class(), Class::Retry, "{error}");
                unknown.insert(format!("/registry/{key}"));
            }
        }
    }
    (known, unknown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_when_members_are_killed() {
    bounded(async {
        let mut servers = EtcdServers::start(3);
        let store = connect(options(servers.urls())).await;
        let mut watch = store.watch("/registry/", 0).await.unwrap();
        let done = AtomicUsize::new(0);
        let writers = futures::future::join_all((0..4).map(|name| writer(&store, name, &done, 300)));
        let killer = async {
            for (place, after) in [(0, 60), (1, 160)] {
                while done.load(Ordering::Relaxed) < after {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                tokio::task::block_in_place(|| servers.kill(place));
                while done.load(Ordering::Relaxed) < after + 40 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                tokio::task::block_in_place(|| servers.run(place));
            }
        };
        let (results, ()) = futures::join!(writers, killer);

        let now = store.range(RangeRequest::all("/registry/")).await.unwrap();
        let there: BTreeMap<_, _> = now.items.iter().map(|kv| (kv.key.to_string(), kv)).collect();
        let mut wanted = there.clone();
        for (known, unknown) in results {
            for (key, revision) in known {
                let kv = wanted.remove(&key).unwrap_or_else(|| panic!("{key} was acknowledged and is lost"));
                assert_eq!((kv.created, kv.modified), (revision, revision), "{key} was written once");
                assert_eq!(format!("/registry/{}", str::from_utf8(&kv.value).unwrap()), key);
            }
            wanted.retain(|key, _| !unknown.contains(key));
        }
        assert!(wanted.is_empty(), "nobody wrote {wanted:?}");

        let seen = events(&mut watch, there.len()).await;
        assert!(seen.is_sorted_by(|a, b| a.revision < b.revision));
        let keys: BTreeSet<_> = seen.iter().map(|event| event.key.to_string()).collect();
        assert!(keys.iter().eq(there.keys()), "each write is seen once");
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_there_are_errors_and_nothing_stale() {
    bounded(async {
        let servers = EtcdServers::start(3);
        let store = connect(options(servers.urls())).await;
        write(&store, "a", "acknowledged").await;
        let mut watch = store.watch("/registry/", 0).await.unwrap();
        servers.pause(0);
        servers.pause(1);
        let (written, read_now, listed, revision) = futures::join!(
            store.commit(put("a", "later", Expect::Any)),
            read(&store, "a"),
            store.range(RangeRequest::all("/registry/")),
            store.current_revision(),
        );
        let failed = |error: StoreError| {
            assert_eq!(error.class(), Class::Retry, "{error}");
            assert!(matches!(error, StoreError::Unavailable(_) | StoreError::TimedOut(_)), "{error}");
        };
        failed(written.unwrap_err());
        failed(read_now.unwrap_err());
        failed(listed.unwrap_err());
        failed(revision.unwrap_err());
        while store.health().is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        servers.resume(0);
        servers.resume(1);
        while let Err(error) = store.commit(put("b", "after", Expect::Any)).await {
            assert_eq!(error.class(), Class::Retry, "{error}");
        }
        // The write of unknown outcome may have come through.
        let a = read(&store, "a").await.unwrap().unwrap();
        assert!(["acknowledged", "later"].contains(&a.as_str()), "{a}");
        let now = store.current_revision().await.unwrap();
        let mut keys = BTreeSet::new();
        while watch.position() < now {
            keys.extend(watch.next().await.unwrap().events.iter().map(|event| event.key.to_string()));
        }
        assert!(keys.contains("/registry/b"));
        while store.health().is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_cannot_be_reached_is_left_for_another() {
    bounded(async {
        let servers = EtcdServers::start(3);
        let mut proxies = Vec::new();
        for place in 0..3 {
            proxies.push(Proxy::start(servers.port(place)).await);
        }
        let store = connect(options(proxies.iter().map(|proxy| proxy.url.clone()).collect())).await;
        let other = connect(options(servers.urls())).await;
        let mut watch = store.watch("/registry/", 0).await.unwrap();
        for mode in [Mode::Silent, Mode::Cut] {
            for (place, proxy) in proxies.iter().enumerate() {
                proxy.set(mode);
                let text = format!("{mode:?} {place}");
                let revision = write(&other, "a", &text).await;
                assert_eq!(
                    read(&store, "a").await.unwrap().unwrap(),
                    text,
                    "what another was promised is seen"
                );
                assert!(store.current_revision().await.unwrap() >= revision);
                assert_eq!(events(&mut watch, 1).await[0].revision, revision, "{text}");
                proxy.set(Mode::Pass);
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_when_etcd_was_restarted() {
    bounded(async {
        let mut servers = EtcdServers::start(1);
        let store = connect(options(servers.urls())).await;
        let mut watch = store.watch("/registry/", 0).await.unwrap();
        let mut written = Vec::new();
        for round in 0..2 {
            written.push(write(&store, "a", &format!("{round} before")).await);
            tokio::task::block_in_place(|| servers.kill(0));
            if round == 0 {
                let error = read(&store, "a").await.unwrap_err();
                assert_eq!(error.class(), Class::Retry, "{error}");
            }
            tokio::task::block_in_place(|| servers.run(0));
            while read(&store, "a").await.is_err() {}
            written.push(write(&store, "a", &format!("{round} after")).await);
            let seen = events(&mut watch, 2).await;
            assert!(seen.iter().map(|event| event.revision).eq(written.drain(..)));
            assert_eq!(seen[1].previous.as_ref().unwrap().modified, seen[0].revision);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_compaction_overtakes_ends() {
    bounded(async {
        let servers = EtcdServers::start(1);
        let proxy = Proxy::start(servers.port(0)).await;
        let cut_off = connect(options(vec![proxy.url.clone()])).await;
        let other = connect(options(servers.urls())).await;
        write(&other, "a", "1").await;
        let mut watch = cut_off.watch("/registry/", 0).await.unwrap();
        proxy.set(Mode::Cut);
        for n in 0..5 {
            write(&other, "a", &n.to_string()).await;
        }
        let now = other.current_revision().await.unwrap();
        other.compact(now).await.unwrap();
        proxy.set(Mode::Pass);
        let error = watch.next().await.unwrap_err();
        assert!(matches!(error, StoreError::Compacted { compacted, .. } if compacted == now), "{error}");
        assert!(watch.next().await.is_err(), "an ended watch stays ended");
        let after = cut_off.watch("/registry/", now + 1).await;
        assert!(after.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_share_an_etcd_and_servers_a_cluster() {
    bounded(async {
        let servers = EtcdServers::start(1);
        let stranger = connect(EtcdOptions { prefix: "/other".to_owned(), ..options(servers.urls()) }).await;
        let (a, b) = (connect(options(servers.urls())).await, connect(options(servers.urls())).await);
        let mut watch = b.watch("/registry/", 0).await.unwrap();
        let theirs = write(&stranger, "x", "theirs").await;
        assert_eq!(read(&b, "x").await.unwrap(), None);
        // Writes that are none of ours do not hold up a consistent read.
        assert!(b.current_revision().await.unwrap() >= theirs);
        passes(&mut watch, theirs).await;

        let revision = write(&a, "x", "ours").await;
        assert!(b.current_revision().await.unwrap() >= revision);
        assert_eq!(read(&b, "x").await.unwrap().unwrap(), "ours");
        assert_eq!(events(&mut watch, 1).await[0].revision, revision);
        assert_eq!(read(&stranger, "x").await.unwrap().unwrap(), "theirs");
        for (store, keys) in [(&b, 1), (&stranger, 1)] {
            assert_eq!(store.range(RangeRequest::all("")).await.unwrap().items.len(), keys);
        }
    })
    .await;
}

/// Writes what no server of ours would, by etcd's HTTP gateway.
async fn write_raw(servers: &EtcdServers, key: &str, value: &str) {
    use base64::Engine as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let text = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let body = format!(r#"{{"key":"{}","value":"{}"}}"#, text(key), text(value));
    let head = format!(
        "POST /v3/kv/put HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: {}",
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", servers.port(0))).await.unwrap();
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_somebody_else_is_told_and_ends_no_watch() {
    bounded(async {
        let servers = EtcdServers::start(1);
        let store = connect(options(servers.urls())).await;
        let mut watch = store.watch("/registry/", 0).await.unwrap();
        let first = write(&store, "a", "1").await;
        write_raw(&servers, "/registry/b", "x").await;
        let last = write(&store, "c", "3").await;
        let (mut faults, mut seen) = (Vec::new(), Vec::new());
        while seen.last() != Some(&last) {
            match watch.next().await {
                Ok(batch) => seen.extend(batch.events.iter().map(|event| event.revision)),
                Err(StoreError::Unreadable { key, passing: false, .. }) => faults.push((key, seen.len())),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(seen, [first, last]);
        assert_eq!(faults.len(), 1);
        assert!(&*faults[0].0 == "/registry/b" && faults[0].1 <= 1, "{faults:?}");
        let error = store.range(RangeRequest::all("/registry/")).await.unwrap_err();
        assert!(matches!(&error, StoreError::Unreadable { key, .. } if &**key == "/registry/b"), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_several_servers_compacts() {
    bounded(async {
        let servers = EtcdServers::start(1);
        let clock = Arc::new(ManualClock::at(Duration::from_secs(1_000)));
        let period = Duration::from_secs(300);
        let of =
            || EtcdOptions { compaction_interval: period, clock: clock.clone(), ..options(servers.urls()) };
        let (a, b) = (connect(of()).await, connect(of()).await);
        let round = async |stores: &[&Etcd]| {
            for store in stores {
                store.maintain().await.unwrap();
                // Not due again.
                store.maintain().await.unwrap();
            }
            let revision = write(&a, "x", "1").await;
            clock.advance(period);
            revision
        };
        let first = round(&[&a, &b]).await;
        assert_eq!(a.compacted_revision().await.unwrap(), 1, "the first round only looks");
        let second = round(&[&a, &b]).await;
        let compacted = a.compacted_revision().await.unwrap();
        assert!(1 < compacted && compacted < first, "{compacted}: what was current one round ago");
        // The first one is gone; the other one takes over.
        let third = round(&[&b]).await;
        let compacted = b.compacted_revision().await.unwrap();
        assert!((first..second).contains(&compacted), "{compacted}");
        round(&[&b, &a]).await;
        let compacted = a.compacted_revision().await.unwrap();
        assert!((second..third).contains(&compacted), "{compacted}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_there_or_not_known_is_named() {
    bounded(async {
        let dir = tempfile::tempdir().unwrap();
        let tls = certificates(dir.path());
        let servers = EtcdServers::start_with(1, Some(&tls));
        let secure = |tls| EtcdOptions { tls, ..options(servers.urls()) };
        let store = connect(secure(tls.clone())).await;
        let revision = write(&store, "a", "1").await;
        let mut watch = store.watch("/registry/", revision).await.unwrap();
        assert_eq!(events(&mut watch, 1).await[0].revision, revision);

        let unknown = EtcdTls { certificate: None, key: None, ..tls.clone() };
        let none = options(vec!["http://127.0.0.1:1".to_owned()]);
        let missing = EtcdTls { ca: Some(dir.path().join("none")), ..tls };
        for (options, why) in [
            (secure(unknown), ""),
            (secure(missing), "No such file"),
            (none, "Connection refused"),
            (EtcdOptions { tls: EtcdTls::default(), ..secure(EtcdTls::default()) }, "authorities"),
        ] {
            let Err(error) = Etcd::connect(options).await else { panic!("connected: {why}") };
            let text = error.to_string();
            assert!(text.contains("127.0.0.1") && text.contains(why), "{text}");
            assert!(matches!(error.class(), Class::Refused | Class::Invalid), "{text}");
        }
    })
    .await;
}

/// An authority and one certificate, for the server and the client.
fn certificates(dir: &std::path::Path) -> EtcdTls {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::default();
    authority.distinguished_name.push(rcgen::DnType::CommonName, "etcd-ca");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut leaf = rcgen::CertificateParams::new(names).unwrap();
    leaf.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    let file = |name: &str, pem: String| {
        let path = dir.join(name);
        std::fs::write(&path, pem).unwrap();
        Some(path)
    };
    EtcdTls {
        ca: file("ca.crt", ca.pem()),
        certificate: file("server.crt", certificate.pem()),
        key: file("server.key", key.serialize_pem()),
    }
}
