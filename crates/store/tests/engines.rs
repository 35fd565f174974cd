//! The shared suite against every engine.

mod suite;

use std::sync::Arc;
use std::time::Duration;

use gantry_base::ManualClock;
use gantry_store::{Embedded, Memory, Options};
use suite::{Subject, retention, suite};

mod memory {
    super::suite!(super::memory_subject);
}

mod embedded {
    super::suite!(super::embedded_subject);
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Duration::from_secs(1_000_000)))
}

fn memory_subject() -> Subject {
    let clock = clock();
    let store = Arc::new(Memory::new(retention(), clock.clone()));
    let maintained = store.clone();
    Subject { store, clock, maintain: Box::new(move || maintained.maintain().unwrap()), _keep: Box::new(()) }
}

fn embedded_subject() -> Subject {
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
    Subject { store, clock, maintain: Box::new(move || maintained.maintain().unwrap()), _keep: Box::new(dir) }
}
