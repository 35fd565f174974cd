//! Kills a process in the middle of writing, again and again, and proves what the store promises: every
//! acknowledged durable write is there, no value is torn, revisions never go back and are never used twice.
//!
//! 20 kills by default; `GANTRY_CRASH_KILLS=500` for the long run. `GANTRY_CRASH_SEED` repeats one.
//!
//! The writer is this very test binary, started with `GANTRY_CRASH_DIR` set. Its threads each own some keys and
//! print every acknowledged write, so the parent knows exactly what must be found afterwards.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_store::{
    Batch, Durability, Embedded, Expect, KeyValue, Op, OpResult, Options, RangeRequest, Revision, Store,
    Value,
};

const DIR: &str = "GANTRY_CRASH_DIR";
const LIFE: &str = "GANTRY_CRASH_LIFE";
const WRITERS: usize = 6;
const KEYS_PER_WRITER: usize = 40;

/// The last write of a key that must be found.
#[derive(Clone, Copy)]
struct Known {
    revision: Revision,
    counter: u64,
    deleted: bool,
}

/// Everything the parent has been told.
#[derive(Default)]
struct Knowledge {
    keys: HashMap<String, Known>,
    /// For each writer: its last acknowledged counter in this life.
    last: HashMap<usize, u64>,
    /// For each writer: the counters that were under way when it was killed, since the last look.
    cut_off: HashMap<usize, Vec<u64>>,
    /// The highest revision acknowledged, durable or lazy.
    highest: Revision,
    acknowledged: u64,
}

#[test]
fn what_was_acknowledged_survives_being_killed() {
    if std::env::var_os(DIR).is_some() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let kills = number("GANTRY_CRASH_KILLS").unwrap_or(20);
    let seed = number("GANTRY_CRASH_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("GANTRY_CRASH_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut random = Random(seed);
    let mut knowledge = Knowledge::default();
    for life in 0..kills {
        // Now and then so early that the store is not even made or replayed yet.
        let early = random.below(4) == 0;
        let acks = if early { 0 } else { random.below(1500) };
        let micros = if early { random.below(30_000) } else { random.below(2_000) };
        one_life(&data, life, acks, Duration::from_micros(micros), &mut knowledge);
        // A look closes the store cleanly; crashes must also follow each other.
        if random.below(3) > 0 || life + 1 == kills {
            verify(&data, &mut knowledge);
        }
    }
    assert!(knowledge.acknowledged > 0);
    println!("{kills} kills, {} acknowledged writes, revision {}", knowledge.acknowledged, knowledge.highest);
}

/// Starts a writer, kills it `after` it has acknowledged `acks` writes, and takes in what it said.
fn one_life(data: &Path, life: u64, acks: u64, after: Duration, knowledge: &mut Knowledge) {
    let mut child = start(data, life);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    for _ in 0..acks {
        if !knowledge.hear(&mut lines) {
            break;
        }
    }
    std::thread::park_timeout(after);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.code().is_none(), "the writer ended by itself: {status}");
    // What was already in the pipe had been acknowledged before the kill.
    while knowledge.hear(&mut lines) {}
    knowledge.end_of_life(life);
}

fn start(data: &Path, life: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--nocapture"])
        .env(DIR, data)
        .env(LIFE, life.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

impl Knowledge {
    /// Takes in one whole line; `false` at the end of the output.
    fn hear(&mut self, lines: &mut BufReader<ChildStdout>) -> bool {
        let mut line = String::new();
        let read = lines.read_line(&mut line).unwrap();
        if let Some(text) = line.strip_prefix("ack ").and_then(|text| text.strip_suffix(" .\n")) {
            self.acknowledge(text);
        }
        read > 0
    }

    fn acknowledge(&mut self, text: &str) {
        let words: Vec<&str> = text.split(' ').collect();
        let [writer, kind, key, revision, counter] = words[..] else { panic!("{text}") };
        let revision: Revision = revision.parse().unwrap();
        let counter = counter.parse().unwrap();
        if kind == "put" || kind == "delete" {
            let known = Known { revision, counter, deleted: kind == "delete" };
            self.keys.insert(key.to_owned(), known);
        }
        self.last.insert(writer.parse().unwrap(), counter);
        self.highest = self.highest.max(revision);
        self.acknowledged += 1;
    }

    /// A writer waits for each answer, so exactly its next write may have been cut off.
    fn end_of_life(&mut self, life: u64) {
        for writer in 0..WRITERS {
            let last = self.last.remove(&writer).unwrap_or(first_counter(life));
            self.cut_off.entry(writer).or_default().push(last + 1);
        }
    }

    /// Compares a key with what is known of it, and remembers what is there: it has been shown to a reader now.
    fn compare(&mut self, key: &str, found: Option<&KeyValue>) {
        let writer = key[2..].split('/').next().unwrap().parse().unwrap();
        let cut_off = self.cut_off.get(&writer).map_or(&[][..], Vec::as_slice);
        let known = self.keys.get(key).copied();
        match (found, known) {
            (Some(kv), Some(known)) if kv.modified == known.revision => {
                assert!(!known.deleted && counter_of(kv) == known.counter, "{key}");
            }
            (Some(kv), known) => {
                assert!(
                    cut_off.contains(&counter_of(kv)),
                    "{key}: a write nobody made, or an old one is back"
                );
                assert!(known.is_none_or(|known| known.revision < kv.modified), "{key} went back");
            }
            (None, Some(known)) => {
                let cut_off = cut_off.iter().any(|counter| *counter > known.counter && deletes(*counter));
                assert!(known.deleted || cut_off, "{key} at {} is lost", known.revision);
            }
            (None, None) => {}
        }
        let now = match (found, known) {
            (Some(kv), _) => Known { revision: kv.modified, counter: counter_of(kv), deleted: false },
            (None, Some(known)) => Known { deleted: true, ..known },
            (None, None) => return,
        };
        self.keys.insert(key.to_owned(), now);
    }
}

/// Opens the store and compares.
fn verify(data: &Path, knowledge: &mut Knowledge) {
    let store = Embedded::open(options(data)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let range = store.range(RangeRequest::all("")).await.unwrap();
        assert!(
            range.revision >= knowledge.highest,
            "the revision went back from {} to {}",
            knowledge.highest,
            range.revision
        );
        let found: HashMap<&str, &KeyValue> = range.items.iter().map(|kv| (&*kv.key, kv)).collect();
        for kv in found.values() {
            assert!(kv.modified <= range.revision && kv.created <= kv.modified);
            check_value(kv);
        }
        let keys = (0..WRITERS).flat_map(|w| (0..KEYS_PER_WRITER).map(move |key| format!("/w{w}/{key}")));
        for key in keys {
            knowledge.compare(&key, found.get(&*key).copied());
        }
        knowledge.cut_off.clear();
        // The next write's revision is above everything ever acknowledged.
        let op = Op::Put { key: "/verify".into(), value: value_op("/verify", 0), expect: Expect::Any };
        let committed = store.commit(Batch::durable(vec![op])).await.unwrap();
        assert!(committed.results[0].revision() > knowledge.highest);
        knowledge.highest = committed.results[0].revision();
        store.close().await.unwrap();
    });
}

/// The writing process; an empty test in the parent.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let life: u64 = std::env::var(LIFE).unwrap().parse().unwrap();
    end_with_parent();
    let store = Arc::new(Embedded::open(options(Path::new(&dir))).unwrap());
    let threads: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            std::thread::spawn(move || write_for_ever(&store, writer, life))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn write_for_ever(store: &Embedded, writer: usize, life: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut random = Random(life * 1_000 + writer as u64 + 1);
    let mut counter = first_counter(life);
    loop {
        counter += 1;
        let lazy = !deletes(counter) && random.below(5) == 0;
        let key = match lazy {
            true => format!("/lazy/w{writer}"),
            false => format!("/w{writer}/{}", random.below(KEYS_PER_WRITER as u64)),
        };
        let op = match deletes(counter) {
            true => Op::Delete { key: key.clone().into(), expect: Expect::Any },
            false => Op::Put { key: key.clone().into(), value: value_op(&key, counter), expect: Expect::Any },
        };
        let durability = if lazy { Durability::Lazy } else { Durability::Durable };
        let committed = runtime.block_on(store.commit(Batch { ops: vec![op], durability })).unwrap();
        let result = &committed.results[0];
        let kind = match result {
            OpResult::Put { .. } if lazy => "lazy",
            OpResult::Put { .. } => "put",
            OpResult::Deleted { .. } => "delete",
            OpResult::Absent => "absent",
        };
        // One write, so that lines of several threads do not mix.
        let line = format!("ack {writer} {kind} {key} {} {counter} .\n", result.revision());
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

/// Counters grow over all lives.
fn first_counter(life: u64) -> u64 {
    (life + 1) << 32
}

/// Whether the write with this counter is a delete.
fn deletes(counter: u64) -> bool {
    counter.is_multiple_of(7)
}

/// `key counter revision` and filler of a length that follows from the counter, the revision being stamped.
fn value_op(key: &str, counter: u64) -> Value {
    let head = format!("{key} {counter} ");
    let mut template = head.clone().into_bytes();
    template.push(b' ');
    template.extend(filler(counter));
    Value::Stamped { template: Bytes::from(template), at: head.len() }
}

fn filler(counter: u64) -> Vec<u8> {
    let mut random = Random(counter + 1);
    (0..random.below(6_000)).map(|_| b'a' + random.below(26) as u8).collect()
}

fn counter_of(kv: &KeyValue) -> u64 {
    String::from_utf8_lossy(&kv.value).split(' ').nth(1).unwrap().parse().unwrap()
}

fn check_value(kv: &KeyValue) {
    let counter = counter_of(kv);
    let mut want = format!("{} {counter} {} ", kv.key, kv.modified).into_bytes();
    want.extend(filler(counter));
    assert!(kv.value == want, "{} is torn", kv.key);
}

fn options(data: &Path) -> Options {
    Options { min_free_bytes: 0, ..Options::new(data) }
}

/// Ends this process when the parent's end of its standard input closes, should the parent die.
fn end_with_parent() {
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let ended = std::io::stdin().read_to_end(&mut rest);
        eprintln!("the parent is gone: {ended:?}");
        std::process::exit(1);
    });
}

/// xorshift64*, so that a run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.max(1);
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit.max(1)
    }
}
