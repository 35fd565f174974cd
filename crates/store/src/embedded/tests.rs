//! The commit thread against a log that a test holds in its hand.

use std::collections::BTreeMap;
use std::sync::mpsc;

use bytes::Bytes;
use gantry_base::Class;

use super::log::{LogError, Row};
use super::*;
use crate::store::{Expect, Key, KeyValue, Op, OpResult, Value};

/// A log whose every write waits for the test's verdict.
struct HeldLog {
    /// Tells the test what is to be written.
    asked: mpsc::Sender<Written>,
    verdict: mpsc::Receiver<Result<(), LogError>>,
}

struct Written {
    rows: BTreeMap<Key, Option<KeyValue>>,
    high_water: Option<Revision>,
}

impl Log for HeldLog {
    fn write(&mut self, rows: &[Row], high_water: Option<Revision>) -> Result<(), LogError> {
        let keys = rows.len();
        let rows: BTreeMap<_, _> = rows.iter().cloned().collect();
        assert_eq!(rows.len(), keys, "a key is written twice in a group");
        // A test that has ended asks no more and lets everything pass.
        match self.asked.send(Written { rows, high_water }) {
            Ok(()) => self.verdict.recv().unwrap_or(Ok(())),
            Err(_) => Ok(()),
        }
    }

    fn trim(&mut self) -> Result<(), LogError> {
        Ok(())
    }
}

/// The store goes last: closing it writes once more, which then passes.
struct Held {
    asked: mpsc::Receiver<Written>,
    verdict: mpsc::Sender<Result<(), LogError>>,
    store: Arc<Embedded>,
}

fn held(lazy_delay: Duration) -> Held {
    let (ask, asked) = mpsc::channel();
    let (verdict, receive) = mpsc::channel();
    let log = HeldLog { asked: ask, verdict: receive };
    let contents = Contents { items: Vec::new(), high_water: 1 };
    let options = Options { lazy_delay, ..Options::new("/held") };
    Held { store: Arc::new(Embedded::start(Box::new(log), contents, options).unwrap()), asked, verdict }
}

const NEVER: Duration = Duration::from_secs(3600);

impl Held {
    /// Starts a commit, which goes on in a thread.
    fn begin(&self, op: Op) -> JoinHandle<Result<Committed>> {
        let store = self.store.clone();
        std::thread::spawn(move || futures::executor::block_on(store.commit(Batch::durable(vec![op]))))
    }

    /// A commit that gets `verdict`, and what it wanted to write.
    fn commit(&self, op: Op, verdict: Result<(), LogError>) -> (Result<Committed>, Written) {
        let thread = self.begin(op);
        let written = self.asked.recv().unwrap();
        self.verdict.send(verdict).unwrap();
        (thread.join().unwrap(), written)
    }

    fn lazy(&self, op: Op) -> Result<Committed> {
        futures::executor::block_on(self.store.commit(Batch::lazy(vec![op])))
    }

    fn value(&self, key: &str) -> Option<Bytes> {
        futures::executor::block_on(self.store.get(key, None)).unwrap().item.map(|kv| kv.value)
    }

    fn watch(&self) -> Watch {
        futures::executor::block_on(self.store.watch("", 0)).unwrap()
    }
}

fn put(key: &str, value: &'static str) -> Op {
    Op::Put {
        key: key.into(),
        value: Value::Bytes(Bytes::from_static(value.as_bytes())),
        expect: Expect::Any,
    }
}

fn row(written: &Written, key: &str) -> Option<Option<Bytes>> {
    written.rows.get(key).map(|kv| kv.as_ref().map(|kv| kv.value.clone()))
}

fn full() -> Result<(), LogError> {
    Err(LogError::Full("not a byte".to_owned()))
}

fn revision(committed: &Result<Committed>) -> Revision {
    committed.as_ref().unwrap().results[0].revision()
}

#[test]
fn nothing_is_shown_before_it_is_flushed() {
    let held = held(NEVER);
    let mut watch = held.watch();
    let thread = held.begin(put("/a", "1"));
    held.asked.recv().unwrap();
    assert_eq!(held.value("/a"), None);
    assert!(watch.try_next().unwrap().is_none());
    assert!(!thread.is_finished());
    held.verdict.send(Ok(())).unwrap();
    let committed = thread.join().unwrap();
    assert_eq!(held.value("/a").unwrap(), "1");
    assert_eq!(watch.try_next().unwrap().unwrap().revision, revision(&committed));
}

#[test]
fn writers_share_a_flush() {
    let held = held(NEVER);
    let first = held.begin(put("/a", "1"));
    held.asked.recv().unwrap();
    // These gather while the first is being flushed; the queue tells when they have.
    let others: Vec<_> = ["/b", "/c", "/d"].map(|key| held.begin(put(key, "1"))).into();
    while held.store.queue.len() < 3 {
        std::thread::yield_now();
    }
    held.verdict.send(Ok(())).unwrap();
    assert_eq!(held.asked.recv().unwrap().rows.len(), 3);
    held.verdict.send(Ok(())).unwrap();
    let last = revision(&first.join().unwrap());
    assert!(others.into_iter().all(|thread| revision(&thread.join().unwrap()) > last));
}

#[test]
fn revisions_are_reserved_before_they_are_given_out() {
    let held = held(NEVER);
    let mut reserved = 1;
    for n in 0..30_000_u64 {
        if n % 1000 == 0 {
            let (committed, written) = held.commit(put("/a", "1"), Ok(()));
            reserved = written.high_water.unwrap_or(reserved);
            assert!(revision(&committed) <= reserved);
        } else {
            assert!(revision(&held.lazy(put("/lease", "1"))) <= reserved);
        }
    }
}

#[test]
fn lazy_writes_alone_reserve_first() {
    let held = held(NEVER);
    let store = held.store.clone();
    // The very first write has no reserved revision yet, lazy or not.
    let thread = std::thread::spawn(move || {
        futures::executor::block_on(store.commit(Batch::lazy(vec![put("/l", "1")])))
    });
    let written = held.asked.recv().unwrap();
    held.verdict.send(Ok(())).unwrap();
    assert!(revision(&thread.join().unwrap()) <= written.high_water.unwrap());
}

#[test]
fn lazy_writes_join_the_next_flush_with_their_newest_value() {
    let held = held(NEVER);
    held.commit(put("/a", "1"), Ok(())).0.unwrap();
    held.lazy(put("/lease", "1")).unwrap();
    held.lazy(put("/lease", "2")).unwrap();
    held.lazy(put("/b", "lazy")).unwrap();
    assert_eq!(held.value("/lease").unwrap(), "2");
    let (_, written) = held.commit(put("/b", "durable"), Ok(()));
    assert_eq!(row(&written, "/lease").flatten().unwrap(), "2");
    assert_eq!(row(&written, "/b").flatten().unwrap(), "durable");
    assert_eq!(held.commit(put("/b", "3"), Ok(())).1.rows.len(), 1, "flushed once is enough");
}

#[test]
fn lazy_writes_are_flushed_by_themselves() {
    let held = held(Duration::from_millis(1));
    held.commit(put("/a", "1"), Ok(())).0.unwrap();
    held.lazy(put("/lease", "1")).unwrap();
    let written = held.asked.recv().unwrap();
    held.verdict.send(Ok(())).unwrap();
    assert_eq!(row(&written, "/lease").flatten().unwrap(), "1");
}

#[test]
fn a_failed_flush_ends_writing_and_shows_nothing() {
    let held = held(NEVER);
    held.commit(put("/a", "1"), Ok(())).0.unwrap();
    let mut watch = held.watch();
    let broken = Err(LogError::Failed("fdatasync: input/output error".to_owned()));
    let error = held.commit(put("/a", "2"), broken).0.unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
    assert_eq!(error.class(), Class::Refused);
    // Not tried again: the log is not even asked.
    assert!(matches!(held.begin(put("/a", "3")).join().unwrap(), Err(StoreError::Failed { .. })));
    assert!(matches!(held.lazy(put("/a", "3")), Err(StoreError::Failed { .. })));
    assert!(held.asked.try_recv().is_err());
    assert_eq!(held.value("/a").unwrap(), "1");
    assert!(watch.try_next().unwrap().is_none());
    assert!(matches!(futures::executor::block_on(held.store.close()), Err(StoreError::Failed { .. })));
}

#[test]
fn a_refused_write_is_overwritten_with_the_truth() {
    let held = held(NEVER);
    let before = revision(&held.commit(put("/a", "1"), Ok(())).0);
    assert!(matches!(held.commit(put("/a", "2"), full()).0, Err(StoreError::Full { .. })));
    assert!(matches!(held.commit(put("/b", "2"), full()).0, Err(StoreError::Full { .. })));
    assert_eq!((held.value("/a").unwrap(), held.value("/b")), (Bytes::from_static(b"1"), None));
    // Both may be in the log all the same, so the next write puts right what it does not replace.
    let (committed, written) = held.commit(put("/c", "3"), Ok(()));
    assert_eq!(row(&written, "/a").flatten().unwrap(), "1");
    assert_eq!(row(&written, "/b"), Some(None));
    assert!(revision(&committed) > before + 2, "the refused writes' revisions are not used again");
    assert_eq!(held.commit(put("/c", "4"), Ok(())).1.rows.len(), 1);
}

#[test]
fn a_conflict_with_a_write_that_failed_is_no_conflict() {
    let held = held(NEVER);
    let first = held.begin(put("/x", "1"));
    held.asked.recv().unwrap();
    let create = |value| Op::Put {
        key: "/a".into(),
        value: Value::Bytes(Bytes::from_static(value)),
        expect: Expect::Absent,
    };
    let both = [held.begin(create(b"1")), held.begin(create(b"2"))];
    while held.store.queue.len() < 2 {
        std::thread::yield_now();
    }
    held.verdict.send(Ok(())).unwrap();
    held.asked.recv().unwrap();
    held.verdict.send(full()).unwrap();
    first.join().unwrap().unwrap();
    for thread in both {
        assert!(matches!(thread.join().unwrap(), Err(StoreError::Full { .. })));
    }
}

#[test]
fn closing_flushes_and_records_the_exact_revision() {
    let held = held(NEVER);
    held.commit(put("/a", "1"), Ok(())).0.unwrap();
    let last = revision(&held.lazy(put("/lease", "1")));
    let store = held.store.clone();
    let thread = std::thread::spawn(move || futures::executor::block_on(store.close()));
    let written = held.asked.recv().unwrap();
    held.verdict.send(Ok(())).unwrap();
    thread.join().unwrap().unwrap();
    assert_eq!(row(&written, "/lease").flatten().unwrap(), "1");
    assert_eq!(written.high_water, Some(last));
}

#[test]
fn a_lost_commit_thread_leaves_nobody_waiting() {
    struct Panics;
    impl Log for Panics {
        fn write(&mut self, _: &[Row], _: Option<Revision>) -> Result<(), LogError> {
            panic!("a broken invariant, as this test wants it")
        }

        fn trim(&mut self) -> Result<(), LogError> {
            Ok(())
        }
    }
    let contents = Contents { items: Vec::new(), high_water: 1 };
    let store = Embedded::start(Box::new(Panics), contents, Options::new("/panics")).unwrap();
    let commit = || futures::executor::block_on(store.commit(Batch::durable(vec![put("/a", "1")])));
    assert!(matches!(commit(), Err(StoreError::Closed)));
    assert!(matches!(commit(), Err(StoreError::Closed)));
    assert!(matches!(futures::executor::block_on(store.close()), Err(StoreError::Closed)));
}

#[test]
fn results_tell_what_was_there_before() {
    let held = held(NEVER);
    held.commit(put("/a", "1"), Ok(())).0.unwrap();
    let result = held.commit(put("/a", "2"), Ok(())).0.unwrap().results.remove(0);
    let OpResult::Put { current, previous: Some(previous) } = result else { panic!("{result:?}") };
    assert_eq!((&*previous.value, &*current.value), (&b"1"[..], &b"2"[..]));
    assert!(current.created == previous.created && current.modified > previous.modified);
}
