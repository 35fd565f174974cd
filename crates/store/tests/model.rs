//! Any sequence of writes, reads of the past, compactions and restarts against a model too simple to be wrong.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gantry_store::testing::EtcdServers;
use gantry_store::{
    Batch, Embedded, Etcd, EtcdOptions, Expect, Memory, Op, OpResult, Options, RangeRequest, Revision, Store,
    StoreError, Value,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

#[derive(Clone, Debug)]
enum Step {
    Commit { ops: Vec<(u8, Change, Guess)>, lazy: bool },
    Compact { back: u64 },
    Read { back: u64, limit: usize },
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Put(u8),
    Delete,
}

#[derive(Clone, Copy, Debug)]
enum Guess {
    Any,
    Absent,
    Present,
    /// The current revision, minus this.
    At(u64),
}

/// Every state the store was ever in.
#[derive(Default)]
struct Model {
    /// The state from each revision on: key to value, created, modified.
    states: BTreeMap<Revision, BTreeMap<String, Item>>,
    compacted: Revision,
}

type Item = (Vec<u8>, Revision, Revision);

impl Model {
    fn now(&self) -> &BTreeMap<String, Item> {
        self.states.last_key_value().expect("there is a first state").1
    }

    fn at(&self, revision: Revision) -> &BTreeMap<String, Item> {
        self.states.range(..=revision).next_back().expect("there is a first state").1
    }
}

/// The store under test and what it needs to start again.
struct Run<'a> {
    store: Arc<dyn Store>,
    dir: Option<&'a Path>,
    /// Behind a network: the writes of a batch share a revision, and events take their time.
    remote: bool,
    model: Model,
}

impl Run<'_> {
    async fn step(&mut self, step: Step) {
        match step {
            Step::Commit { ops, lazy } => self.commit(ops, lazy).await,
            Step::Compact { back } => self.compact(back).await,
            Step::Read { back, limit } => self.read(back, limit).await,
            Step::Restart => self.restart().await,
        }
    }

    async fn commit(&mut self, changes: Vec<(u8, Change, Guess)>, lazy: bool) {
        let mut ops = BTreeMap::new();
        for (key, change, guess) in changes {
            let key = format!("/k/{}", key % 6);
            let modified = self.model.now().get(&key).map(|item| item.2);
            let expect = match guess {
                Guess::Any => Expect::Any,
                Guess::Absent => Expect::Absent,
                Guess::Present => Expect::Present,
                Guess::At(off) => Expect::At(modified.unwrap_or(1).saturating_sub(off)),
            };
            ops.insert(key, (change, expect));
        }
        let holds =
            ops.iter().all(|(key, (_, expect))| expect.holds(self.model.now().get(key).map(|item| item.2)));
        let list = ops.iter().map(|(key, (change, expect))| op(key, *change, *expect)).collect();
        let batch = if lazy { Batch::lazy(list) } else { Batch::durable(list) };
        match self.store.commit(batch).await {
            Ok(committed) => {
                assert!(holds);
                for ((key, (change, _)), result) in ops.iter().zip(committed.results) {
                    self.record(key, *change, &result);
                }
            }
            Err(StoreError::Conflict { .. }) => assert!(!holds),
            Err(error) => panic!("{error}"),
        }
    }

    fn record(&mut self, key: &str, change: Change, result: &OpResult) {
        let mut state = self.model.now().clone();
        let before = state.get(key).cloned();
        let revision = result.revision();
        match (change, before) {
            (Change::Delete, None) => return assert_eq!(*result, OpResult::Absent),
            (Change::Delete, Some(_)) => drop(state.remove(key)),
            (Change::Put(byte), before) => {
                let created = before.map_or(revision, |item| item.1);
                state.insert(key.to_owned(), (vec![byte; 3], created, revision));
            }
        }
        let last = *self.model.states.last_key_value().expect("there is a first state").0;
        assert!(revision > last || (self.remote && revision == last), "{revision} after {last}");
        self.model.states.insert(revision, state);
    }

    async fn compact(&mut self, back: u64) {
        let revision = self.store.current_revision().await.unwrap().saturating_sub(back).max(1);
        self.store.compact(revision).await.unwrap();
        self.model.compacted = self.model.compacted.max(revision);
    }

    async fn read(&self, back: u64, limit: usize) {
        let at = self.store.current_revision().await.unwrap().saturating_sub(back).max(1);
        let mut seen = BTreeMap::new();
        let mut after: Option<Arc<str>> = None;
        loop {
            let request = RangeRequest { prefix: "/k/", start_after: after.as_deref(), limit, at: Some(at) };
            let page = match self.store.range(request).await {
                Err(StoreError::Compacted { .. }) => return assert!(at < self.model.compacted),
                page => page.unwrap(),
            };
            after = page.items.last().map(|kv| kv.key.clone());
            for kv in page.items {
                seen.insert(kv.key.to_string(), (kv.value.to_vec(), kv.created, kv.modified));
            }
            if !page.more {
                break;
            }
        }
        assert!(at >= self.model.compacted);
        assert_eq!(&seen, self.model.at(at));
        self.replay(at).await;
    }

    /// The events after a revision lead from its state to the present one.
    async fn replay(&self, at: Revision) {
        let mut state = self.model.at(at).clone();
        let mut watch = self.store.watch("/k/", at + 1).await.unwrap();
        let now = self.store.current_revision().await.unwrap();
        loop {
            let batch = match watch.try_next().unwrap() {
                Some(batch) => batch,
                None if watch.position() >= now || !self.remote => break,
                None => watch.next().await.unwrap(),
            };
            for event in batch.events.iter() {
                let item = |kv: &gantry_store::KeyValue| (kv.value.to_vec(), kv.created, kv.modified);
                assert_eq!(state.get(&*event.key).cloned(), event.previous.as_ref().map(item));
                match &event.current {
                    Some(kv) => drop(state.insert(event.key.to_string(), item(kv))),
                    None => drop(state.remove(&*event.key)),
                }
            }
        }
        assert_eq!(&state, self.model.now());
    }

    async fn restart(&mut self) {
        let Some(dir) = self.dir else { return };
        let before = self.store.current_revision().await.unwrap();
        // Dropping it closes it.
        self.store = Arc::new(Memory::default());
        self.store = Arc::new(Embedded::open(options(dir)).unwrap());
        self.model.compacted = self.store.compacted_revision().await.unwrap();
        assert_eq!(self.model.compacted, before, "nothing was lost, so no revision is skipped");
    }
}

fn op(key: &str, change: Change, expect: Expect) -> Op {
    match change {
        Change::Put(byte) => {
            Op::Put { key: key.into(), value: Value::Bytes(Bytes::from(vec![byte; 3])), expect }
        }
        Change::Delete => Op::Delete { key: key.into(), expect },
    }
}

fn options(dir: &Path) -> Options {
    Options { min_free_bytes: 0, ..Options::new(dir) }
}

fn step() -> impl Strategy<Value = Step> {
    let change = prop_oneof![3 => any::<u8>().prop_map(Change::Put), 1 => Just(Change::Delete)];
    let guess = prop_oneof![
        4 => Just(Guess::Any),
        1 => Just(Guess::Absent),
        1 => Just(Guess::Present),
        2 => (0..3u64).prop_map(Guess::At),
    ];
    let ops = prop::collection::vec((any::<u8>(), change, guess), 1..4);
    prop_oneof![
        12 => (ops, any::<bool>()).prop_map(|(ops, lazy)| Step::Commit { ops, lazy }),
        1 => (0..8u64).prop_map(|back| Step::Compact { back }),
        4 => (0..12u64, 0..4usize).prop_map(|(back, limit)| Step::Read { back, limit }),
        1 => Just(Step::Restart),
    ]
}

fn run(steps: Vec<Step>, store: Arc<dyn Store>, dir: Option<&Path>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(run_on(steps, store, dir, false));
}

async fn run_on(steps: Vec<Step>, store: Arc<dyn Store>, dir: Option<&Path>, remote: bool) {
    let compacted = store.compacted_revision().await.unwrap();
    let mut model = Model { compacted, ..Model::default() };
    model.states.insert(1, BTreeMap::new());
    let mut run = Run { store, dir, remote, model };
    for step in steps {
        run.step(step).await;
    }
    run.read(0, 0).await;
    run.store.close().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]
    #[test]
    fn memory_is_as_the_model(steps in prop::collection::vec(step(), 1..60)) {
        run(steps, Arc::new(Memory::default()), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(30) })]
    #[test]
    fn embedded_is_as_the_model(steps in prop::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        run(steps, Arc::new(Embedded::open(options(dir.path())).unwrap()), Some(dir.path()));
    }
}

/// One etcd for all cases, each below a prefix of its own.
#[test]
fn etcd_is_as_the_model() {
    let servers = EtcdServers::start(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(10) };
    let case = std::cell::Cell::new(0);
    let outcome = TestRunner::new(config).run(&prop::collection::vec(step(), 1..30), |steps| {
        case.set(case.get() + 1);
        let options = EtcdOptions {
            root: String::new(),
            prefix: format!("/case-{}", case.get()),
            ..EtcdOptions::new(servers.urls())
        };
        runtime.block_on(async {
            let store = Arc::new(Etcd::connect(options).await.unwrap());
            run_on(steps, store, None, true).await;
        });
        Ok(())
    });
    outcome.unwrap();
}
