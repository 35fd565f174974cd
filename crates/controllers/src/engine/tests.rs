//! The engine on paused time, with a controller that keeps a count of ConfigMaps.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::ObjectKey;
use gantry_api::core::ConfigMap;
use gantry_api::meta::MetaExt;
use gantry_base::{ManualClock, Tasks};
use gantry_client::{Informer, InformerSet};

use super::*;
use crate::model::InMemory;

/// Sees to it that there are as many ConfigMaps as the one named `wanted` says, and never more.
struct Counter {
    maps: Informer<ConfigMap>,
}

impl Controller for Counter {
    const NAME: &'static str = "counter";
    const ACCOUNT: &'static str = "counter";
    const COMPONENT: &'static str = "counter";
    type Seen = usize;

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::on(&self.maps, |_| vec![ObjectKey::new("a", "wanted")])]
    }

    fn observe(&self, key: &ObjectKey) -> Option<usize> {
        let wanted = self.maps.get(key)?.data.clone()?.get("n")?.parse::<usize>().ok()?;
        Some(wanted.saturating_sub(self.maps.len() - 1))
    }

    fn plan(missing: &usize, _: &Moment) -> Plan {
        let mut map = ConfigMap::default();
        map.metadata.namespace = Some("a".into());
        map.metadata.generate_name = Some("made-".into());
        let mut plan = Plan::nothing();
        plan.extend(vec![Write::create(&map); *missing]);
        plan
    }
}

fn wanted(n: usize) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.namespace = Some("a".into());
    map.metadata.name = Some("wanted".into());
    map.data = Some([("n".to_owned(), n.to_string())].into());
    map
}

fn launch(transport: &InMemory, tasks: &Tasks) {
    let door: Arc<dyn gantry_client::Transport> = Arc::new(transport.clone());
    let informers = InformerSet::new(Arc::clone(&door), tasks.clone());
    let clock: Arc<dyn gantry_base::Clock> = Arc::new(ManualClock::at(Duration::from_secs(1_000)));
    let runtime = Runtime {
        recorder: Recorder::start(Arc::clone(&door), Arc::clone(&clock), tasks),
        transport: door,
        clock,
        leadership: Arc::new(AlwaysLeader),
        ports: Ports::default(),
        resync: Duration::from_secs(3600),
    };
    start(Counter { maps: informers.of() }, runtime, tasks);
}

fn made(transport: &InMemory) -> usize {
    let maps = transport.model.lock().all::<ConfigMap>();
    maps.iter().filter(|map| map.name().starts_with("made-")).count()
}

#[tokio::test(start_paused = true)]
async fn writes_run_side_by_side_and_are_seen_before_the_next_look() {
    let (transport, tasks) = (InMemory::default(), Tasks::new());
    transport.model.lock().create(&wanted(200));
    launch(&transport, &tasks);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(made(&transport), 200, "each is made once, though every creation wakes the controller");
    assert_eq!(transport.running.lock().0, 64);
    assert!(tasks.shut_down(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_it_starts_slowly_and_recovers() {
    let (transport, tasks) = (InMemory::default(), Tasks::new());
    transport.model.lock().create(&wanted(10));
    *transport.refusal.lock() = Some("quota".into());
    launch(&transport, &tasks);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(made(&transport), 0);
    transport.running.lock().0 = 0;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(transport.running.lock().0, 1, "one attempt at a time while they fail");
    *transport.refusal.lock() = None;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(made(&transport), 10);
    assert!(tasks.shut_down(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_away_is_made_again() {
    let (transport, tasks) = (InMemory::default(), Tasks::new());
    transport.model.lock().create(&wanted(3));
    launch(&transport, &tasks);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let victim = transport.model.lock().all::<ConfigMap>().into_iter().find(|m| m.name() != "wanted");
    let key = victim.expect("a made one").key();
    transport.model.lock().remove::<ConfigMap>(&key);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(made(&transport), 3);
    assert!(tasks.shut_down(Duration::from_secs(1)).await);
}
