//! Discovery: which resources there are, now and after each change of a custom resource definition.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use gantry_api::apiextensions::CustomResourceDefinition;
use gantry_api::conditions;
use gantry_api::meta::MetaExt;
use gantry_api::{ObjectKey, Resource};
use gantry_base::{Error, Result, Tasks};
use gantry_client::{Informer, Projection, Transport};
use serde::Deserialize;

use super::{Discoverable, Discovered, Inventory, follow};

/// Discovery is repeated at the latest after this long: aggregated APIs announce themselves to nobody.
const PERIOD: Duration = Duration::from_secs(300);
/// After a change or a failure it is repeated this soon.
const SOON: Duration = Duration::from_millis(250);
/// A definition that changes is served a little later: discovery is repeated this often after a change.
const REPEATS: u32 = 4;

/// What discovery needs to know of a custom resource definition: that it changed.
#[derive(Debug)]
pub struct CrdView {
    key: ObjectKey,
    revision: u64,
    /// Whether it is served.
    pub established: bool,
}

impl Projection for CrdView {
    type Object = CustomResourceDefinition;

    fn project(object: Arc<CustomResourceDefinition>) -> Arc<Self> {
        let list = object.status.as_ref().and_then(|s| s.conditions.as_ref());
        Arc::new(Self {
            key: object.key(),
            revision: MetaExt::revision(&*object),
            established: conditions::is_true(list, "Established"),
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}

#[derive(Deserialize)]
struct GroupList {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    versions: Vec<Version>,
    preferred_version: Option<Version>,
}

#[derive(Clone, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

#[derive(Deserialize)]
struct ResourceList {
    #[serde(default)]
    resources: Vec<WireResource>,
}

#[derive(Deserialize)]
struct WireResource {
    name: String,
    kind: String,
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

/// Runs until it is dropped.
pub(super) async fn run(
    inventory: Arc<Inventory>,
    transport: Arc<dyn Transport>,
    definitions: Informer<CrdView>,
    tasks: Tasks,
) {
    let mut followers: HashMap<Arc<Resource>, Tasks> = HashMap::new();
    let mut changes = definitions.subscribe();
    let mut repeats = 0;
    loop {
        let complete = match discover(&*transport).await {
            Ok(discovered) => {
                let complete = discovered.failed.is_empty();
                reconcile(&inventory, &transport, &discovered, &mut followers, &tasks).await;
                inventory.discover(discovered);
                complete
            }
            Err(error) => {
                tracing::debug!(%error, "discovery failed, trying again");
                false
            }
        };
        let pause = match (complete, repeats) {
            (true, 0) => PERIOD,
            (true, n) => {
                repeats = n - 1;
                SOON * (1 << (REPEATS - n))
            }
            (false, _) => SOON * 4,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            change = changes.next() => {
                if change.is_none() {
                    changes = definitions.subscribe();
                }
                // Many definitions come at once: gather them.
                tokio::time::sleep(SOON).await;
                while changes.try_next().is_some() {}
                repeats = REPEATS;
            }
        }
    }
}

async fn reconcile(
    inventory: &Arc<Inventory>,
    transport: &Arc<dyn Transport>,
    discovered: &Discovered,
    followers: &mut HashMap<Arc<Resource>, Tasks>,
    tasks: &Tasks,
) {
    let watchable: HashSet<&Resource> =
        discovered.resources.iter().filter(|d| d.watchable).map(|d| &d.resource).collect();
    // A group that did not answer keeps its followers.
    let failed = |r: &Resource| discovered.failed.iter().any(|(group, _)| *group == r.group);
    let gone: Vec<_> =
        followers.keys().filter(|r| !watchable.contains(&***r) && !failed(r)).cloned().collect();
    for resource in gone {
        if let Some(group) = followers.remove(&resource) {
            group.shut_down(Duration::from_secs(1)).await;
            inventory.change(|graph| graph.forget(&resource));
        }
    }
    for resource in watchable {
        if !followers.contains_key(resource) {
            let resource = Arc::new(resource.clone());
            let group = tasks.child();
            let (inventory, transport) = (Arc::clone(inventory), Arc::clone(transport));
            group.spawn("metadata", follow::run(inventory, transport, Arc::clone(&resource)));
            followers.insert(resource, group);
        }
    }
}

/// All resources that can be deleted, one version each, preferred versions first.
async fn discover(transport: &dyn Transport) -> Result<Discovered> {
    let mut found = Discovered::default();
    let mut known = HashSet::new();
    let core: ResourceList = read(transport, "/api/v1").await?;
    found.resources.extend(usable(core, "", "v1", &mut known));
    let groups: GroupList = read(transport, "/apis").await?;
    for group in groups.groups {
        let others = group.versions.iter().filter(|v| Some(*v) != group.preferred_version.as_ref());
        for version in group.preferred_version.iter().chain(others) {
            let path = format!("/apis/{}", version.group_version);
            match read::<ResourceList>(transport, &path).await {
                Ok(list) => {
                    let version = version.group_version.rsplit('/').next().unwrap_or("v1");
                    found.resources.extend(usable(list, &group.name, version, &mut known));
                }
                Err(error) => {
                    found.failed.push((group.name.clone(), format!("{}: {error}", version.group_version)));
                }
            }
        }
    }
    Ok(found)
}

async fn read<T: for<'a> Deserialize<'a>>(transport: &dyn Transport, path: &str) -> Result<T> {
    let bytes = transport.raw(path).await.map_err(Error::from)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::retry(format!("{path} answers no discovery: {e}")))
}

fn usable(
    list: ResourceList,
    group: &str,
    version: &str,
    known: &mut HashSet<(String, String)>,
) -> Vec<Discoverable> {
    let usable = list.resources.into_iter().filter(|r| {
        !r.name.contains('/')
            && r.verbs.iter().any(|v| v == "delete")
            // The same events are served by two groups.
            && !(group == "events.k8s.io" && r.name == "events")
    });
    let fresh = usable.filter(|r| known.insert((group.to_owned(), r.name.clone())));
    let discoverable = |r: WireResource| {
        let can = |verb: &str| r.verbs.iter().any(|v| v == verb);
        Discoverable {
            watchable: can("list") && can("watch") && r.name != "events",
            collectable: can("deletecollection"),
            resource: Resource {
                group: group.to_owned().into(),
                version: version.to_owned().into(),
                kind: r.kind.clone().into(),
                plural: r.name.clone().into(),
                namespaced: r.namespaced,
            },
        }
    };
    fresh.map(discoverable).collect()
}
