//! Keeps the table of remote servers, their conditions and the local APIServices in step with what is there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use gantry_api::apiregistration::APIService;
use gantry_api::conditions;
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_base::Tasks;
use gantry_client::{Api, Transport};
use parking_lot::Mutex;

use super::availability::{self, Checked};
use super::remote::Remote;
use super::{metrics, openapi, register};
use crate::cache::{Cursor, Selection};
use crate::core::Core;
use crate::identify::User;
use crate::loopback::{Later, Loopback};
use crate::resources::Entry;
use crate::server::FrontProxy;

/// How often servers that answer are looked at.
const RECHECK: Duration = Duration::from_secs(10);
/// How often those are that do not, or what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// What else changes within this time is dealt with at once: definitions often come by the hundred.
const GATHER: Duration = Duration::from_millis(20);

/// Follows the APIServices until `tasks` end. `identity` is how remote servers know us at the time.
///
/// # Errors
/// The watch cache cannot be read.
pub(crate) fn start(
    core: &Arc<Core>,
    later: &Later,
    identity: Option<FrontProxy>,
    tasks: &Tasks,
) -> gantry_base::Result<()> {
    let Some(entry) = core.table.load().entry("apiregistration.k8s.io", "apiservices").cloned() else {
        return Ok(());
    };
    let (_, cursor) = entry.cache.snapshot_and_watch(Selection::default())?;
    let transport: Arc<dyn Transport> =
        Arc::new(Loopback { server: later.clone(), user: User::apiserver(), agent: "kube-aggregator" });
    let controller = Controller {
        core: Arc::clone(core),
        services: entry,
        api: Api::new(Arc::clone(&transport), "kube-aggregator"),
        transport,
        identity,
        said: Mutex::default(),
    };
    tasks.spawn("aggregator", async move { controller.run(cursor).await });
    Ok(())
}

struct Controller {
    core: Arc<Core>,
    services: Arc<Entry>,
    api: Api<APIService>,
    transport: Arc<dyn Transport>,
    identity: Option<FrontProxy>,
    /// Which servers were there when they were looked at last.
    said: Mutex<HashMap<String, bool>>,
}

impl Controller {
    fn all(&self) -> Vec<Arc<APIService>> {
        self.services.cache.last_known().iter().filter_map(|e| e.encoded.typed().ok()).collect()
    }

    async fn run(self, mut cursor: Cursor) {
        let mut changes = self.core.table_changes.subscribe();
        loop {
            changes.borrow_and_update();
            if let Err(error) = cursor.take() {
                // The watch says so again below.
                tracing::debug!(%error, "the watch of APIServices has expired");
            }
            let again = self.reconcile().await;
            let timer = async {
                match again {
                    Some(after) => tokio::time::sleep(after).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer => {}
                changed = changes.changed() => match changed {
                    Ok(()) => tokio::time::sleep(GATHER).await,
                    Err(_) => return,
                },
                next = cursor.next() => if let Err(error) = next {
                    tracing::warn!(%error, "the watch of APIServices begins anew");
                    match self.services.cache.snapshot_and_watch(Selection::default()) {
                        Ok((_, fresh)) => cursor = fresh,
                        Err(error) => {
                            tracing::error!(%error, "APIServices cannot be watched");
                            tokio::time::sleep(RETRY).await;
                        }
                    }
                },
            }
        }
    }

    /// Does what is to be done; when to look again if nothing happens.
    async fn reconcile(&self) -> Option<Duration> {
        let services = self.all();
        self.show(&services);
        let table = self.core.table.load_full();
        let registered = register::register(&table, &services, &self.api).await;
        if let Err(error) = &registered {
            tracing::warn!(%error, "a local APIService cannot be written");
        }
        let remotes: Vec<Arc<Remote>> = table.remotes.values().cloned().collect();
        self.forget(&remotes);
        let checks = join_all(remotes.iter().map(|remote| self.check(remote, &services))).await;
        let all_fine = registered.is_ok() && checks.iter().all(|fine| *fine);
        match (remotes.is_empty(), all_fine) {
            (_, false) => Some(RETRY),
            (true, true) => None,
            (false, true) => Some(RECHECK),
        }
    }

    /// Counts no server that is gone.
    fn forget(&self, remotes: &[Arc<Remote>]) {
        self.said.lock().retain(|name, _| {
            let stays = remotes.iter().any(|remote| remote.name == *name);
            if !stays {
                metrics::gone(name);
            }
            stays
        });
    }

    /// Puts the remote servers into the table.
    fn show(&self, services: &[Arc<APIService>]) {
        let before = self.core.table.load_full();
        let mut remotes = BTreeMap::new();
        let identity = self.identity.as_ref().map(|identity| identity());
        for service in services {
            let remote = Remote::new(service, &self.core.callout, identity.as_ref());
            let Some(mut remote) = remote else { continue };
            let key = (remote.group.clone(), remote.version.clone());
            if let Some(known) = before.remotes.get(&key) {
                remote.inherit(known);
            }
            remotes.insert(key, Arc::new(remote));
        }
        self.replace(&before.remotes, remotes);
    }

    fn replace(
        &self,
        before: &BTreeMap<(String, String), Arc<Remote>>,
        remotes: BTreeMap<(String, String), Arc<Remote>>,
    ) {
        let same = before.len() == remotes.len()
            && before.iter().zip(&remotes).all(|((k, a), (l, b))| k == l && a.same(b));
        if !same {
            self.core.change_table(|table| table.remotes.clone_from(&remotes));
        }
    }

    /// Checks one server, notes what it says; whether it is there.
    async fn check(&self, remote: &Arc<Remote>, services: &[Arc<APIService>]) -> bool {
        let checked = availability::check(remote, &self.transport).await;
        let fine = checked.status == "True";
        let changed = self.said.lock().insert(remote.name.clone(), fine) != Some(fine);
        metrics::checked(&remote.name, fine, changed, checked.reason);
        if fine {
            self.learn(remote, &checked).await;
        }
        let Some(service) = services.iter().find(|s| s.name() == remote.name) else { return fine };
        match self.note(service, &checked).await {
            Ok(()) => fine,
            Err(error) if error.is_conflict() || error.is_not_found() => fine,
            Err(error) => {
                tracing::warn!(name = remote.name, %error, "the condition of an APIService cannot be written");
                false
            }
        }
    }

    async fn learn(&self, remote: &Arc<Remote>, checked: &Checked) {
        let mut known = Remote::clone(remote);
        if let Some(resources) = &checked.resources {
            known.resources = Some(Arc::new(resources.clone()));
        }
        openapi::learn(&mut known).await;
        let key = (known.group.clone(), known.version.clone());
        let current = self.core.table.load().remotes.get(&key).cloned();
        // It may have been changed or removed while it was asked.
        let Some(current) = current.filter(|c| c.configured == known.configured) else { return };
        known.available = current.available;
        // The certificate may have been renewed meanwhile.
        known.caller.clone_from(&current.caller);
        known.shown.clone_from(&current.shown);
        if !known.same(&current) {
            let known = Arc::new(known);
            self.core.change_table(|table| drop(table.remotes.insert(key.clone(), Arc::clone(&known))));
        }
    }

    async fn note(&self, service: &APIService, checked: &Checked) -> Result<()> {
        let mut changed = service.clone();
        let condition = checked.condition(self.core.now());
        let list = &mut changed.status.get_or_insert_default().conditions;
        let known = list.iter().flatten().find(|c| c.type_ == "Available");
        let same = known.is_some_and(|c| {
            (&c.status, &c.reason, &c.message) == (&condition.status, &condition.reason, &condition.message)
        });
        if same {
            return Ok(());
        }
        conditions::set(list, condition);
        self.api.update_status(&changed).await.map(drop)
    }
}
