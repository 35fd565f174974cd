//! What every engine must do, written once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_base::{Class, ManualClock};
use gantry_store::{
    Batch, Event, Expect, Key, MAX_KEY_BYTES, Op, OpResult, RangeRequest, Retention, Revision, Store,
    StoreError, Value, Watch,
};

/// A store under test, with the clock it reads and whatever must live as long.
pub struct Subject {
    pub store: Arc<dyn Store>,
    pub clock: Arc<ManualClock>,
    pub maintain: Box<dyn Fn()>,
    /// Most operations in a batch.
    pub max_ops: usize,
    /// A value of this many bytes is taken, and none of more than twice as many.
    pub max_value: usize,
    pub _keep: Box<dyn std::any::Any>,
}

/// How much history the subjects keep.
pub fn retention() -> Retention {
    Retention { period: Duration::from_secs(300), floor_bytes: 64 << 10, live_share: 4 }
}

/// One test for each behaviour, against the engine that `$make` makes.
macro_rules! suite {
    (local $make:path) => {
        crate::suite::suite!($make);
        crate::suite::suite!(@ $make, history_is_bounded_and_slow_watchers_fall_off);
    };
    ($make:path) => {
        crate::suite::suite!(@ $make,
            revisions_begin_after_one_and_never_repeat,
            expectations_decide,
            a_batch_happens_together_or_not_at_all,
            values_are_stamped_with_their_own_revision,
            lazy_writes_are_visible_at_once,
            reads_of_the_past_see_the_past,
            pages_are_of_one_revision,
            ranges_end_with_their_prefix,
            watches_see_every_write_in_order,
            a_watch_can_begin_in_the_past,
            a_watch_sees_only_its_prefix,
            compaction_forgets,
            compaction_by_time,
            limits_are_kept,
            a_closed_store_refuses,
            concurrent_increments_are_all_counted,
        );
    };
    (@ $make:path, $($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::suite::$name($make().await).await;
            }
        )*
    };
}
pub(crate) use suite;

pub fn put(key: &str, value: &str, expect: Expect) -> Op {
    let value = Value::Bytes(Bytes::copy_from_slice(value.as_bytes()));
    Op::Put { key: key.into(), value, expect }
}

pub fn delete(key: &str, expect: Expect) -> Op {
    Op::Delete { key: key.into(), expect }
}

async fn write(store: &dyn Store, op: Op) -> Revision {
    store.commit(Batch::durable(vec![op])).await.unwrap().results[0].revision()
}

async fn value(store: &dyn Store, key: &str, at: Option<Revision>) -> Option<String> {
    let item = store.get(key, at).await.unwrap().item?;
    Some(String::from_utf8(item.value.to_vec()).unwrap())
}

async fn keys(store: &dyn Store, request: RangeRequest<'_>) -> Vec<String> {
    store.range(request).await.unwrap().items.iter().map(|kv| kv.key.to_string()).collect()
}

async fn events(watch: &mut Watch, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        events.extend(watch.next().await.unwrap().events.iter().cloned());
    }
    assert_eq!(events.len(), count, "{events:?}");
    events
}

fn is_compacted<T>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Compacted { .. }))
}

pub async fn revisions_begin_after_one_and_never_repeat(s: Subject) {
    let store = &*s.store;
    assert_eq!(store.current_revision().await.unwrap(), 1);
    assert_eq!(store.range(RangeRequest::all("")).await.unwrap().revision, 1);
    let first = write(store, put("/a", "1", Expect::Any)).await;
    let second = write(store, put("/a", "2", Expect::Any)).await;
    let third = write(store, delete("/a", Expect::Any)).await;
    assert!(1 < first && first < second && second < third);
    assert_eq!(store.current_revision().await.unwrap(), third);

    let again = write(store, put("/a", "3", Expect::Absent)).await;
    let read = store.get("/a", None).await.unwrap();
    let item = read.item.unwrap();
    assert!(again > third);
    assert_eq!((item.created, item.modified, read.revision), (again, again, again));
    let next = write(store, put("/a", "4", Expect::Present)).await;
    let item = store.get("/a", None).await.unwrap().item.unwrap();
    assert_eq!((item.created, item.modified), (again, next));
}

pub async fn expectations_decide(s: Subject) {
    let store = &*s.store;
    let conflict = async |op: Op| {
        let error = store.commit(Batch::durable(vec![op])).await.unwrap_err();
        assert_eq!(error.class(), Class::Conflict);
        match error {
            StoreError::Conflict { index: 0, current, .. } => current.map(|kv| kv.modified),
            other => panic!("{other}"),
        }
    };
    assert_eq!(conflict(put("/a", "1", Expect::Present)).await, None);
    assert_eq!(conflict(put("/a", "1", Expect::At(1))).await, None);
    assert_eq!(conflict(delete("/a", Expect::Present)).await, None);
    let first = write(store, put("/a", "1", Expect::Absent)).await;
    assert_eq!(conflict(put("/a", "2", Expect::Absent)).await, Some(first));
    assert_eq!(conflict(delete("/a", Expect::At(first + 1))).await, Some(first));
    let second = write(store, put("/a", "2", Expect::At(first))).await;
    assert_eq!(conflict(put("/a", "3", Expect::At(first))).await, Some(second));
    assert_eq!(value(store, "/a", None).await.unwrap(), "2");
    let deleted = store.commit(Batch::durable(vec![delete("/a", Expect::At(second))])).await.unwrap();
    assert!(matches!(&deleted.results[0], OpResult::Deleted { previous, .. } if previous.value == "2"));

    let current = store.current_revision().await.unwrap();
    let nothing = store.commit(Batch::durable(vec![delete("/a", Expect::Any)])).await.unwrap();
    assert_eq!(nothing.results, [OpResult::Absent]);
    assert_eq!(store.current_revision().await.unwrap(), current, "deleting nothing writes nothing");
}

pub async fn a_batch_happens_together_or_not_at_all(s: Subject) {
    let store = &*s.store;
    write(store, put("/b", "old", Expect::Any)).await;
    let before = store.current_revision().await.unwrap();
    let mut watch = store.watch("/", 0).await.unwrap();

    let ops = vec![put("/a", "1", Expect::Absent), put("/b", "2", Expect::Absent)];
    let error = store.commit(Batch::durable(ops)).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { index: 1, .. }), "{error}");
    assert_eq!(value(store, "/a", None).await, None);
    assert_eq!(store.current_revision().await.unwrap(), before);

    let ops =
        vec![put("/a", "1", Expect::Absent), delete("/b", Expect::Present), put("/c", "3", Expect::Any)];
    let committed = store.commit(Batch::durable(ops)).await.unwrap();
    let revisions: Vec<_> = committed.results.iter().map(OpResult::revision).collect();
    assert!(before < revisions[0] && revisions.is_sorted());
    let seen = events(&mut watch, 3).await;
    assert_eq!(seen.iter().map(|event| &*event.key).collect::<Vec<_>>(), ["/a", "/b", "/c"]);
    assert_eq!(seen.iter().map(|event| event.revision).collect::<Vec<_>>(), revisions);
}

pub async fn values_are_stamped_with_their_own_revision(s: Subject) {
    let store = &*s.store;
    let stamped = |key: &str| Op::Put {
        key: key.into(),
        value: Value::Stamped { template: Bytes::from_static(b"{\"rv\":\"\"}"), at: 7 },
        expect: Expect::Any,
    };
    let committed = store.commit(Batch::durable(vec![stamped("/a"), stamped("/b")])).await.unwrap();
    for result in committed.results {
        let OpResult::Put { current, .. } = result else { panic!("{result:?}") };
        let want = format!("{{\"rv\":\"{}\"}}", current.modified);
        assert_eq!(current.value, want);
        assert_eq!(value(store, &current.key, None).await.unwrap(), want);
    }
}

pub async fn lazy_writes_are_visible_at_once(s: Subject) {
    let store = &*s.store;
    let mut watch = store.watch("/", 0).await.unwrap();
    let mut last = 0;
    for n in 0..20 {
        let op = put("/lease", &n.to_string(), Expect::Any);
        let committed = store.commit(Batch::lazy(vec![op])).await.unwrap();
        assert!(committed.results[0].revision() > last);
        last = committed.results[0].revision();
        assert_eq!(value(store, "/lease", None).await.unwrap(), n.to_string());
    }
    assert_eq!(events(&mut watch, 20).await.last().unwrap().revision, last);
    let durable = write(store, put("/pod", "1", Expect::Any)).await;
    assert!(durable > last);
}

pub async fn reads_of_the_past_see_the_past(s: Subject) {
    let store = &*s.store;
    let one = write(store, put("/a", "1", Expect::Any)).await;
    let two = write(store, put("/a", "2", Expect::Any)).await;
    let gone = write(store, delete("/a", Expect::Any)).await;
    let back = write(store, put("/a", "4", Expect::Any)).await;
    assert_eq!(value(store, "/a", Some(one)).await.unwrap(), "1");
    assert_eq!(value(store, "/a", Some(two)).await.unwrap(), "2");
    assert_eq!(value(store, "/a", Some(gone)).await, None);
    assert_eq!(value(store, "/a", Some(back)).await.unwrap(), "4");
    assert_eq!(value(store, "/a", Some(0)).await.unwrap(), "4", "0 is now");
    assert_eq!(store.get("/a", Some(two)).await.unwrap().revision, two);
    let at = |at| RangeRequest { at: Some(at), ..RangeRequest::all("/") };
    assert_eq!(keys(store, at(two)).await, ["/a"]);
    assert!(keys(store, at(gone)).await.is_empty());

    let future = store.get("/a", Some(back + 1)).await.unwrap_err();
    assert!(matches!(future, StoreError::FutureRevision { .. }), "{future}");
    assert_eq!(future.class(), Class::Retry);
    assert!(store.range(at(back + 1)).await.is_err());
}

pub async fn pages_are_of_one_revision(s: Subject) {
    let store = &*s.store;
    let names: Vec<String> = (0..25).map(|n| format!("/p/{n:03}")).collect();
    for name in &names {
        write(store, put(name, "old", Expect::Any)).await;
    }
    let mut seen = Vec::new();
    let mut after: Option<Key> = None;
    let mut at = None;
    loop {
        let request =
            RangeRequest { start_after: after.as_deref(), limit: 10, at, ..RangeRequest::all("/p/") };
        let page = store.range(request).await.unwrap();
        assert_eq!(page.remaining as usize, names.len() - seen.len() - page.items.len());
        assert_eq!(page.more, page.remaining > 0);
        assert!(page.items.iter().all(|kv| kv.value == "old"));
        seen.extend(page.items.iter().map(|kv| kv.key.to_string()));
        if !page.more {
            break;
        }
        after = page.items.last().map(|kv| kv.key.clone());
        at = Some(page.revision);
        // What happens between the pages is not seen.
        for name in &names {
            write(store, put(name, "new", Expect::Any)).await;
        }
        write(store, delete(&names[24], Expect::Any)).await;
        write(store, put("/p/0055", "new", Expect::Any)).await;
    }
    assert_eq!(seen, names);
}

pub async fn ranges_end_with_their_prefix(s: Subject) {
    let store = &*s.store;
    for key in ["/a", "/a/1", "/a/2", "/a0", "/b/1"] {
        write(store, put(key, "x", Expect::Any)).await;
    }
    assert_eq!(keys(store, RangeRequest::all("/a/")).await, ["/a/1", "/a/2"]);
    assert_eq!(keys(store, RangeRequest::all("/a")).await, ["/a", "/a/1", "/a/2", "/a0"]);
    assert_eq!(keys(store, RangeRequest::all("")).await.len(), 5);
    let after = |after| RangeRequest { start_after: Some(after), ..RangeRequest::all("/a/") };
    assert_eq!(keys(store, after("/a/1")).await, ["/a/2"]);
    assert_eq!(keys(store, after("/a/1z")).await, ["/a/2"]);
    assert_eq!(keys(store, after("/")).await, ["/a/1", "/a/2"], "a cursor in front of the prefix");
    assert!(keys(store, after("/b")).await.is_empty(), "a cursor behind the prefix");
    let exact = RangeRequest { limit: 2, ..RangeRequest::all("/a/") };
    let page = store.range(exact).await.unwrap();
    assert!(!page.more && page.remaining == 0);
}

pub async fn watches_see_every_write_in_order(s: Subject) {
    let store = &*s.store;
    let mut watch = store.watch("/", 0).await.unwrap();
    assert!(watch.try_next().unwrap().is_none());
    let one = write(store, put("/a", "1", Expect::Any)).await;
    let two = write(store, put("/a", "2", Expect::Any)).await;
    let three = write(store, delete("/a", Expect::Any)).await;
    let seen = events(&mut watch, 3).await;
    let shape: Vec<_> = seen
        .iter()
        .map(|event| {
            let text = |kv: &Option<gantry_store::KeyValue>| kv.as_ref().map(|kv| kv.value.clone());
            (event.revision, text(&event.previous), text(&event.current))
        })
        .collect();
    let bytes = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    assert_eq!(shape[0], (one, None, bytes("1")));
    assert_eq!(shape[1], (two, bytes("1"), bytes("2")));
    assert_eq!(shape[2], (three, bytes("2"), None));
    assert_eq!(watch.position(), three);
}

pub async fn a_watch_can_begin_in_the_past(s: Subject) {
    let store = &*s.store;
    let mut revisions = Vec::new();
    for n in 0..5 {
        revisions.push(write(store, put("/a", &n.to_string(), Expect::Any)).await);
    }
    let ops = (0..4).map(|n| put(&format!("/b/{n}"), "x", Expect::Any)).collect();
    let committed = store.commit(Batch::durable(ops)).await.unwrap();
    revisions.extend(committed.results.iter().map(OpResult::revision));
    revisions.dedup();
    for (skip, from) in revisions.iter().enumerate() {
        let mut watch = store.watch("/", *from).await.unwrap();
        let mut seen = events(&mut watch, 9 - skip).await;
        assert!(watch.try_next().unwrap().is_none());
        seen.dedup_by_key(|event| event.revision);
        assert_eq!(seen.iter().map(|event| event.revision).collect::<Vec<_>>(), revisions[skip..]);
    }
    // Ahead of the store: nothing before it is delivered.
    let ahead = revisions[revisions.len() - 1] + 2;
    let mut watch = store.watch("/", ahead).await.unwrap();
    write(store, put("/skipped", "x", Expect::Any)).await;
    write(store, put("/seen", "x", Expect::Any)).await;
    assert_eq!(&*events(&mut watch, 1).await[0].key, "/seen");
}

pub async fn a_watch_sees_only_its_prefix(s: Subject) {
    let store = &*s.store;
    let mut watch = store.watch("/pods/", 0).await.unwrap();
    let ops = ["/pods/a", "/nodes/a", "/pods/b"].map(|key| put(key, "x", Expect::Any));
    store.commit(Batch::durable(ops.to_vec())).await.unwrap();
    let last = write(store, put("/nodes/b", "x", Expect::Any)).await;
    let seen = events(&mut watch, 2).await;
    assert_eq!(seen.iter().map(|event| &*event.key).collect::<Vec<_>>(), ["/pods/a", "/pods/b"]);
    assert!(watch.try_next().unwrap().is_none());
    while watch.position() < last {
        assert!(watch.next().await.unwrap().events.is_empty());
    }
    assert_eq!(watch.position(), last, "what does not match moves the position too");
}

pub async fn compaction_forgets(s: Subject) {
    let store = &*s.store;
    let one = write(store, put("/a", "1", Expect::Any)).await;
    let two = write(store, put("/a", "2", Expect::Any)).await;
    let three = write(store, put("/b", "3", Expect::Any)).await;
    let gone = write(store, delete("/b", Expect::Any)).await;
    store.compact(two).await.unwrap();
    assert_eq!(store.compacted_revision().await.unwrap(), two);
    assert!(is_compacted(store.get("/a", Some(one)).await));
    assert_eq!(store.get("/a", Some(one)).await.unwrap_err().class(), Class::Missing);
    assert!(is_compacted(store.watch("/", two).await));
    assert_eq!(
        value(store, "/a", Some(two)).await.unwrap(),
        "2",
        "the compacted revision itself can be read"
    );
    assert_eq!(value(store, "/b", Some(three)).await.unwrap(), "3");
    assert_eq!(events(&mut store.watch("/", two + 1).await.unwrap(), 2).await[0].revision, three);

    store.compact(one).await.unwrap();
    assert_eq!(store.compacted_revision().await.unwrap(), two, "compaction does not go back");
    assert!(matches!(store.compact(gone + 1).await, Err(StoreError::FutureRevision { .. })));
    store.compact(gone).await.unwrap();
    assert_eq!(keys(store, RangeRequest::all("/")).await, ["/a"]);
    let mut watch = store.watch("/", gone + 1).await.unwrap();
    let next = write(store, put("/b", "5", Expect::Absent)).await;
    assert_eq!(events(&mut watch, 1).await[0].revision, next);
}

pub async fn compaction_by_time(s: Subject) {
    let store = &*s.store;
    let one = write(store, put("/a", "1", Expect::Any)).await;
    (s.maintain)();
    s.clock.advance(Duration::from_secs(200));
    let two = write(store, put("/a", "2", Expect::Any)).await;
    (s.maintain)();
    s.clock.advance(Duration::from_secs(99));
    (s.maintain)();
    assert_eq!(value(store, "/a", Some(one)).await.unwrap(), "1", "younger than the period");
    s.clock.advance(Duration::from_secs(2));
    (s.maintain)();
    let compacted = store.compacted_revision().await.unwrap();
    assert!((one..two).contains(&compacted), "what was current one period ago: {compacted}");
    s.clock.advance(Duration::from_secs(200));
    (s.maintain)();
    assert!(is_compacted(store.get("/a", Some(one)).await));
    assert_eq!(value(store, "/a", Some(two)).await.unwrap(), "2");
}

pub async fn history_is_bounded_and_slow_watchers_fall_off(s: Subject) {
    let store = &*s.store;
    let mut slow = store.watch("/", 0).await.unwrap();
    let big = "x".repeat(10_000);
    let first = write(store, put("/a", &big, Expect::Any)).await;
    for _ in 0..50 {
        write(store, put("/a", &big, Expect::Any)).await;
    }
    (s.maintain)();
    assert!(store.compacted_revision().await.unwrap() > first);
    assert!(is_compacted(slow.next().await), "no event may be left out in silence");
    assert!(is_compacted(slow.next().await), "an ended watch stays ended");
    assert!(is_compacted(store.get("/a", Some(first)).await));
    let last = store.current_revision().await.unwrap();
    assert_eq!(value(store, "/a", Some(last)).await.unwrap(), big);
}

pub async fn limits_are_kept(s: Subject) {
    let store = &*s.store;
    let refuse = async |ops: Vec<Op>| {
        let error = store.commit(Batch::durable(ops)).await.unwrap_err();
        assert_eq!(error.class(), Class::Invalid, "{error}");
    };
    let long: Key = "k".repeat(MAX_KEY_BYTES + 1).into();
    refuse(vec![put(&long, "x", Expect::Any)]).await;
    refuse(vec![put("/a", &"x".repeat(2 * s.max_value), Expect::Any)]).await;
    refuse(vec![put("/a", &"x".repeat(10 * s.max_value), Expect::Any)]).await;
    refuse((0..=s.max_ops).map(|n| put(&n.to_string(), "x", Expect::Any)).collect()).await;
    refuse(vec![put("", "x", Expect::Any)]).await;
    refuse(vec![put("\0high-water", "x", Expect::Any)]).await;
    refuse(vec![put("/a", "x", Expect::Any), delete("/a", Expect::Any)]).await;
    let template = Bytes::from_static(b"ab");
    let value = Value::Stamped { template, at: 3 };
    refuse(vec![Op::Put { key: "/a".into(), value, expect: Expect::Any }]).await;
    assert_eq!(store.current_revision().await.unwrap(), 1);
    write(store, put(&long[1..], &"x".repeat(s.max_value), Expect::Any)).await;
    assert!(store.commit(Batch::durable(Vec::new())).await.unwrap().results.is_empty());
}

pub async fn a_closed_store_refuses(s: Subject) {
    let store = &*s.store;
    write(store, put("/a", "1", Expect::Any)).await;
    let mut watch = store.watch("/", 0).await.unwrap();
    store.close().await.unwrap();
    store.close().await.unwrap();
    let closed = |result: Result<(), StoreError>| matches!(result, Err(StoreError::Closed));
    assert!(closed(watch.next().await.map(drop)));
    assert!(closed(store.get("/a", None).await.map(drop)));
    assert!(closed(store.watch("/", 0).await.map(drop)));
    let op = put("/a", "2", Expect::Any);
    assert!(closed(store.commit(Batch::durable(vec![op])).await.map(drop)));
}

pub async fn concurrent_increments_are_all_counted(s: Subject) {
    const WRITERS: usize = 8;
    const EACH: usize = 25;
    let mut watch = s.store.watch("/", 0).await.unwrap();
    let increment = async || {
        let read = s.store.get("/n", None).await.unwrap().item;
        let count: usize = read.as_ref().map_or(0, |kv| str::from_utf8(&kv.value).unwrap().parse().unwrap());
        let expect = read.map_or(Expect::Absent, |kv| Expect::At(kv.modified));
        let op = put("/n", &(count + 1).to_string(), expect);
        s.store.commit(Batch::durable(vec![op])).await.map(|_| ())
    };
    let writer = async || {
        let mut done = 0;
        while done < EACH {
            match increment().await {
                Ok(()) => done += 1,
                Err(error) => assert_eq!(error.class(), Class::Conflict, "{error}"),
            }
        }
    };
    futures::future::join_all((0..WRITERS).map(|_| writer())).await;
    let total = WRITERS * EACH;
    assert_eq!(value(&*s.store, "/n", None).await.unwrap(), total.to_string());
    let seen = events(&mut watch, total).await;
    let counts = seen.iter().map(|event| event.current.clone().unwrap().value);
    assert!(counts.eq((1..=total).map(|n| n.to_string())));
    assert!(seen.is_sorted_by(|a, b| a.revision < b.revision));
}
