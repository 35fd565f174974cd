//! What the embedded store does when the disk, or somebody, misbehaves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use gantry_base::Class;
use gantry_store::{Batch, Embedded, Expect, Op, Options, RangeRequest, Store, StoreError, Value};

/// Set in the processes that run with little room.
const CHILD_DIR: &str = "GANTRY_FULL_DIR";

type Contents = BTreeMap<String, Vec<u8>>;

fn open(dir: &Path) -> Result<Embedded, StoreError> {
    Embedded::open(Options { min_free_bytes: 0, ..Options::new(dir) })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn put(store: &Embedded, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
    let op = Op::Put { key: key.into(), value: Value::Bytes(Bytes::from(value)), expect: Expect::Any };
    block_on(store.commit(Batch::durable(vec![op]))).map(drop)
}

fn contents(store: &Embedded) -> Contents {
    let range = block_on(store.range(RangeRequest::all(""))).unwrap();
    range.items.iter().map(|kv| (kv.key.to_string(), kv.value.to_vec())).collect()
}

/// A store with a few keys, closed; and its contents after each write.
fn filled(dir: &Path) -> Vec<Contents> {
    let store = open(dir).unwrap();
    let mut states = vec![Contents::new()];
    for n in 0..12_u8 {
        put(&store, &format!("/key/{}", n % 5), vec![n; 20 + usize::from(n)]).unwrap();
        states.push(contents(&store));
    }
    block_on(store.close()).unwrap();
    states
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(dir: &Path, keep: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, keep));
        } else if keep(&path) {
            found.push(path);
        }
    }
    found
}

fn journal(dir: &Path) -> PathBuf {
    let mut journals = files(&dir.join("log"), &|path| path.extension().is_some_and(|ext| ext == "jnl"));
    assert_eq!(journals.len(), 1);
    journals.remove(0)
}

#[test]
fn only_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let error = open(dir.path()).err().unwrap();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    assert!(error.to_string().contains(dir.path().to_str().unwrap()));
    block_on(first.close()).unwrap();
    open(dir.path()).unwrap();
}

#[test]
fn the_directory_is_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("made/data");
    open(&data).unwrap();
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let states = filled(dir.path());
    let format = dir.path().join("FORMAT");
    let written = std::fs::read(&format).unwrap();
    std::fs::write(&format, "gantry-store 2\n").unwrap();
    let error = open(dir.path()).err().unwrap();
    assert!(matches!(error, StoreError::NewerFormat { found: 2, supported: 1, .. }), "{error}");
    std::fs::write(&format, "gibberish").unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::Corrupt { .. })));
    std::fs::remove_file(&format).unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::Corrupt { .. })), "data without the mark");
    std::fs::write(&format, written).unwrap();
    assert_eq!(Some(&contents(&open(dir.path()).unwrap())), states.last());
    std::fs::rename(dir.path().join("log"), dir.path().join("elsewhere")).unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::Corrupt { .. })), "the mark without a log");
}

#[test]
fn an_interrupted_making_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("log.new")).unwrap();
    std::fs::write(dir.path().join("log.new/0.jnl"), "half").unwrap();
    drop(open(dir.path()).unwrap());
    std::fs::remove_file(dir.path().join("FORMAT")).unwrap();
    drop(open(dir.path()).unwrap());
    assert!(dir.path().join("FORMAT").exists());
}

#[test]
fn a_corrupt_record_is_named() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    {
        let database = fjall::Database::builder(dir.path().join("log")).open().unwrap();
        let keyspace = database.keyspace("gantry", fjall::KeyspaceCreateOptions::default).unwrap();
        let mut row = keyspace.get("/key/3").unwrap().unwrap().to_vec();
        *row.last_mut().unwrap() ^= 1;
        keyspace.insert("/key/3", row).unwrap();
        database.persist(fjall::PersistMode::SyncAll).unwrap();
    }
    let error = open(dir.path()).err().unwrap();
    assert!(matches!(&error, StoreError::Corrupt { key, .. } if key == "/key/3"), "{error}");
    assert_eq!(error.class(), Class::Refused);
    let text = error.to_string();
    assert!(text.contains("/key/3") && text.contains(dir.path().to_str().unwrap()), "{text}");
}

/// Opening a copy with one byte of `file` flipped at `at` must fail, or lose nothing.
fn flip(original: &Path, file: &Path, at: usize, want: &Contents) -> bool {
    let dir = tempfile::tempdir().unwrap();
    copy(original, dir.path());
    let file = dir.path().join(file.strip_prefix(original).unwrap());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[at] ^= 0x55;
    std::fs::write(&file, &bytes).unwrap();
    match open(dir.path()) {
        Ok(store) => {
            assert_eq!(&contents(&store), want, "byte {at} of {} was lost in silence", file.display());
            false
        }
        Err(StoreError::Corrupt { .. } | StoreError::Open { .. }) => true,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn no_flipped_byte_of_the_journal_loses_anything_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let states = filled(dir.path());
    // Opened again, so that the preallocated rest is cut off.
    block_on(open(dir.path()).unwrap().close()).unwrap();
    let journal = journal(dir.path());
    let len = std::fs::metadata(&journal).unwrap().len() as usize;
    assert!(len < 16_000, "{len}");
    let noticed =
        (0..len).step_by(13).filter(|&at| flip(dir.path(), &journal, at, states.last().unwrap())).count();
    assert!(noticed > len / 13 / 2);
}

#[test]
fn no_flipped_byte_of_a_table_loses_anything_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let states = filled(dir.path());
    {
        let database = fjall::Database::builder(dir.path().join("log")).open().unwrap();
        let keyspace = database.keyspace("gantry", fjall::KeyspaceCreateOptions::default).unwrap();
        keyspace.rotate_memtable_and_wait().unwrap();
    }
    std::fs::write(journal(dir.path()), b"").unwrap();
    assert_eq!(Some(&contents(&open(dir.path()).unwrap())), states.last(), "the table has it all");
    let tables =
        files(&dir.path().join("log/keyspaces/1"), &|path| path.parent().unwrap().ends_with("tables"));
    assert!(!tables.is_empty());
    for table in tables {
        let len = std::fs::metadata(&table).unwrap().len() as usize;
        for at in (0..len).step_by(37) {
            flip(dir.path(), &table, at, states.last().unwrap());
        }
    }
}

#[test]
fn a_torn_tail_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let states = filled(dir.path());
    block_on(open(dir.path()).unwrap().close()).unwrap();
    let journal = journal(dir.path());
    let len = std::fs::metadata(&journal).unwrap().len();
    let name = journal.strip_prefix(dir.path()).unwrap();
    let mut reached = 0;
    for (n, at) in (0..=len).step_by(29).chain([len]).enumerate() {
        let torn = tempfile::tempdir().unwrap();
        copy(dir.path(), torn.path());
        let file = std::fs::OpenOptions::new().write(true).open(torn.path().join(name)).unwrap();
        file.set_len(at).unwrap();
        if n % 2 == 0 {
            // As a preallocated file looks.
            file.set_len(at + 10_000).unwrap();
        }
        drop(file);
        let store = match open(torn.path()) {
            Err(StoreError::Corrupt { key, .. }) if key.contains("high-water") && reached == 0 => continue,
            opened => opened.unwrap(),
        };
        let found = contents(&store);
        let state = states.iter().rposition(|state| *state == found).expect("the state after some write");
        assert!(state >= reached, "a longer journal holds more");
        reached = state;
        put(&store, "/after", b"x".to_vec()).unwrap();
        drop(store);
        assert_eq!(contents(&open(torn.path()).unwrap()).len(), found.len() + 1);
    }
    assert_eq!(reached, states.len() - 1);
}

/// Runs the test `name` of this binary in a process of its own, told to work in `dir`.
fn in_a_process(mut command: Command, name: &str, dir: &Path) {
    let output = command.args(["--exact", name, "--nocapture"]).env(CHILD_DIR, dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("all was as it should be"), "{text}\n{errors}");
}

#[test]
fn running_out_of_room_refuses_writes_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    in_a_process(Command::new(std::env::current_exe().unwrap()), "with_a_file_size_limit", dir.path());
}

/// The limit on file sizes stands for the full disk, since it strikes in the middle of a write as that does.
#[test]
fn with_a_file_size_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::sys::signal::{SigHandler, Signal, signal};
    let Some(dir) = std::env::var_os(CHILD_DIR).map(PathBuf::from) else { return };
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
    let store = open(&dir).unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 1 << 20, hard).unwrap();
    fill_up(store, &dir, || setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap());
}

#[test]
fn a_full_file_system_refuses_writes_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg(std::env::current_exe().unwrap());
    in_a_process(command, "on_a_small_file_system", dir.path());
}

#[test]
fn on_a_small_file_system() {
    use nix::mount::{MsFlags, mount};
    let Some(dir) = std::env::var_os(CHILD_DIR).map(PathBuf::from) else { return };
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("size=8M")).unwrap();
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![1; 4 << 20]).unwrap();
    let data = dir.join("data");
    let options = Options { min_free_bytes: 1 << 20, ..Options::new(&data) };
    fill_up(Embedded::open(options).unwrap(), &data, || std::fs::remove_file(&ballast).unwrap());
}

/// Writes until there is no room, makes room, writes again, and looks at it all after a restart.
fn fill_up(store: Embedded, dir: &Path, make_room: impl FnOnce()) {
    let mut want = Contents::new();
    let mut watch = block_on(store.watch("/", 0)).unwrap();
    let write = |n: usize, want: &mut Contents| {
        let (key, value) = (format!("/key/{:02}", n % 40), vec![n as u8; 30_000]);
        put(&store, &key, value.clone())?;
        want.insert(key, value);
        Ok::<(), StoreError>(())
    };
    let mut n = 0;
    let error = loop {
        n += 1;
        assert!(n < 10_000, "the disk never filled up");
        if let Err(error) = write(n, &mut want) {
            break error;
        }
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(n > 5, "{n}");
    // Reads go on, and show only what was acknowledged; writes are refused, not lost.
    assert_eq!(contents(&store), want);
    for m in 0..3 {
        assert!(matches!(write(n + m, &mut want), Err(StoreError::Full { .. })));
    }
    let revision = block_on(store.current_revision()).unwrap();
    make_room();
    for m in 5..15 {
        write(n + m, &mut want).unwrap();
    }
    assert_eq!(contents(&store), want);
    let mut seen = 0;
    while let Some(batch) = watch.try_next().unwrap_or(None) {
        assert!(batch.revision > seen);
        seen = batch.revision;
    }
    assert!(block_on(store.current_revision()).unwrap() > revision);
    block_on(store.close()).unwrap();
    drop(store);
    assert_eq!(contents(&open(dir).unwrap()), want);
    println!("all was as it should be");
}
