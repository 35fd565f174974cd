//! The shared suite against every engine.

mod suite;

use std::sync::Arc;
use std::time::Duration;

use gantry_base::ManualClock;
use gantry_store::testing::EtcdServers;
use gantry_store::{
    Embedded, Etcd, EtcdOptions, MAX_BATCH_OPS, MAX_TXN_OPS, MAX_VALUE_BYTES, Memory, Options, Store,
};
use suite::{Subject, retention, suite};

mod memory {
    super::suite!(local super::memory_subject);
}

mod embedded {
    super::suite!(local super::embedded_subject);
}

mod etcd {
    super::suite!(super::etcd_subject);
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Duration::from_secs(1_000_000)))
}

async fn memory_subject() -> Subject {
    let clock = clock();
    let store = Arc::new(Memory::new(retention(), clock.clone()));
    let maintained = store.clone();
    let maintain = Box::new(move || maintained.maintain().unwrap());
    local(store, clock, maintain, Box::new(()))
}

async fn embedded_subject() -> Subject {
    let clock = clock();
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        retention: retention(),
        clock: clock.clone(),
        min_free_bytes: 0,
        ..Options::new(dir.path().join("data"))
    };
    let store = Arc::new(Embedded::open(options).unwrap());
    let maintained = store.clone();
    let maintain = Box::new(move || maintained.maintain().unwrap());
    local(store, clock, maintain, Box::new(dir))
}

fn local(
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    maintain: Box<dyn Fn()>,
    keep: Box<dyn std::any::Any>,
) -> Subject {
    let (max_ops, max_value) = (MAX_BATCH_OPS, MAX_VALUE_BYTES);
    Subject { store, clock, maintain, max_ops, max_value, _keep: keep }
}

async fn etcd_subject() -> Subject {
    let clock = clock();
    let servers = EtcdServers::start(1);
    let options = EtcdOptions {
        root: String::new(),
        prefix: "/shared/by/several".to_owned(),
        compaction_interval: retention().period,
        clock: clock.clone(),
        ..EtcdOptions::new(servers.urls())
    };
    let store = Arc::new(Etcd::connect(options).await.unwrap());
    let maintained = store.clone();
    let maintain = move || {
        let store = maintained.clone();
        tokio::task::block_in_place(move || {
            tokio::runtime::Handle::current().block_on(store.maintain()).unwrap();
        });
    };
    let (max_ops, max_value) = (MAX_TXN_OPS, 1 << 20);
    Subject { store, clock, maintain: Box::new(maintain), max_ops, max_value, _keep: Box::new(servers) }
}
