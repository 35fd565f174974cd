//! Keeps what is served in step with the definitions, their conditions with what is served, and removes the objects
//! of a definition that is being deleted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gantry_api::apiextensions::{
    CustomResourceDefinition, CustomResourceDefinitionCondition, CustomResourceDefinitionNames,
};
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded, ObjectKey, conditions, time};
use gantry_base::Tasks;
use gantry_client::{Api, Transport};
use gantry_kinds::AnyKind;

use super::FINALIZER;
use super::convert::Converter;
use super::kind::CustomKind;
use super::names::{Taken, status};
use crate::cache::{Cursor, Entry as CacheEntry, Selection};
use crate::core::Core;
use crate::discovery::priority;
use crate::identify::User;
use crate::loopback::{Later, Loopback};
use crate::resources::{Conversion, Entry, Version, prefix};
use crate::verbs::{Call, delete};
use crate::warnings::Warnings;

/// How soon a definition is looked at again whose objects are not gone yet, or that could not be written.
const AGAIN: Duration = Duration::from_millis(200);

/// Serves what is defined already, and follows the definitions until `tasks` end.
///
/// # Errors
/// A watch cache cannot be loaded.
pub(crate) async fn start(core: &Arc<Core>, later: &Later, tasks: &Tasks) -> gantry_base::Result<()> {
    let Some(entry) = core.table.load().entry("apiextensions.k8s.io", "customresourcedefinitions").cloned()
    else {
        return Ok(());
    };
    let (_, cursor) = entry.cache.snapshot_and_watch(Selection::default())?;
    let transport: Arc<dyn Transport> =
        Arc::new(Loopback { server: later.clone(), user: User::apiserver(), agent: "gantry" });
    let controller =
        Controller { core: Arc::clone(core), definitions: entry, api: Api::new(transport, "gantry") };
    for item in controller.all(&mut Settled::new()) {
        if let Some(crd) = item.unsettled.as_ref().filter(|crd| is_established(crd)) {
            controller.serve(crd, &item.encoded).await?;
        }
    }
    tasks.spawn("custom resources", async move { controller.run(cursor).await });
    Ok(())
}

/// What is kept of each definition that needs nothing, with the revision of which that is true.
type Settled = HashMap<String, (u64, Arc<Brief>)>;

/// The names of a definition.
struct Brief {
    name: String,
    group: String,
    plural: String,
    accepted: Option<CustomResourceDefinitionNames>,
    /// Whether it waits for names that others have.
    waits: bool,
}

/// What upstream says of a version that is deprecated without a word.
fn deprecation_warning(crd: &CustomResourceDefinition, version: &str) -> String {
    let name = |version: &str| format!("{}/{version} {}", crd.spec.group, crd.spec.names.kind);
    let better = crd.spec.versions.iter().filter(|v| v.served && v.deprecated != Some(true));
    let better = better.filter(|v| priority(&v.name) > priority(version)).max_by_key(|v| priority(&v.name));
    match better {
        Some(better) => format!("{} is deprecated; use {}", name(version), name(&better.name)),
        None => format!("{} is deprecated", name(version)),
    }
}

impl Brief {
    fn new(crd: &CustomResourceDefinition) -> Self {
        let conditions = crd.status.as_ref().and_then(|s| s.conditions.as_ref());
        Self {
            name: crd.name().to_owned(),
            group: crd.spec.group.clone(),
            plural: crd.spec.names.plural.clone(),
            accepted: crd.status.as_ref().and_then(|s| s.accepted_names.clone()),
            waits: !conditions::is_true(conditions, "NamesAccepted") || crd.is_terminating(),
        }
    }
}

/// A definition in a pass.
struct Item {
    brief: Arc<Brief>,
    encoded: Arc<Encoded>,
    /// The definition, unless it is settled.
    unsettled: Option<Arc<CustomResourceDefinition>>,
}

struct Controller {
    core: Arc<Core>,
    definitions: Arc<Entry>,
    api: Api<CustomResourceDefinition>,
}

fn is_established(crd: &CustomResourceDefinition) -> bool {
    conditions::is_true(crd.status.as_ref().and_then(|s| s.conditions.as_ref()), "Established")
}

/// What a pass did for a definition.
enum Step {
    /// It is as it should be.
    Nothing,
    /// It was written.
    Wrote,
    /// It waits for something that is no event of definitions.
    Again,
}

impl Controller {
    /// All definitions. A definition is only read if it changed since it was last settled.
    fn all(&self, known: &mut Settled) -> Vec<Item> {
        let entries = self.definitions.cache.last_known();
        let names: BTreeSet<&str> = entries.iter().map(|e| e.name()).collect();
        known.retain(|name, _| names.contains(name.as_str()));
        let item = |entry: &Arc<CacheEntry>| {
            let encoded = Arc::clone(&entry.encoded);
            if let Some((revision, brief)) = known.get(entry.name())
                && *revision == encoded.revision()
            {
                return Some(Item { brief: Arc::clone(brief), encoded, unsettled: None });
            }
            let crd: Arc<CustomResourceDefinition> = encoded.typed().ok()?;
            Some(Item { brief: Arc::new(Brief::new(&crd)), encoded, unsettled: Some(crd) })
        };
        entries.iter().filter_map(item).collect()
    }

    async fn run(self, mut cursor: Cursor) {
        let mut known = Settled::new();
        loop {
            let settled = self.reconcile_all(&mut known).await;
            let next = async {
                match cursor.next().await {
                    Ok(_) => Ok(()),
                    Err(error) => Err(error),
                }
            };
            let outcome =
                if settled { Some(next.await) } else { tokio::time::timeout(AGAIN, next).await.ok() };
            if let Some(Err(error)) = outcome {
                tracing::warn!(%error, "the watch of custom resource definitions begins anew");
                match self.definitions.cache.snapshot_and_watch(Selection::default()) {
                    Ok((_, fresh)) => cursor = fresh,
                    Err(error) => {
                        tracing::error!(%error, "custom resource definitions cannot be watched");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        }
    }

    /// Whether nothing is left to do until a definition changes.
    async fn reconcile_all(&self, known: &mut Settled) -> bool {
        let all = self.all(known);
        self.forget_missing(&all).await;
        let mut settled = true;
        for item in &all {
            let Some(crd) = &item.unsettled else { continue };
            match self.reconcile(crd, &item.encoded, &all).await {
                Ok(Step::Nothing) if !item.brief.waits => {
                    let settled = (item.encoded.revision(), Arc::clone(&item.brief));
                    known.insert(item.brief.name.clone(), settled);
                }
                // The event of what was written brings us here again.
                Ok(Step::Nothing | Step::Wrote) => {}
                Ok(Step::Again) => settled = false,
                Err(error) if error.is_conflict() || error.is_not_found() => settled = false,
                Err(error) => {
                    tracing::warn!(name = crd.name(), %error, "a custom resource definition cannot be established");
                    settled = false;
                }
            }
        }
        settled
    }

    async fn forget_missing(&self, all: &[Item]) {
        let present: BTreeSet<(&str, &str)> =
            all.iter().map(|i| (i.brief.group.as_str(), i.brief.plural.as_str())).collect();
        let gone: Vec<Arc<Entry>> = {
            let table = self.core.table.load();
            let custom = table.entries().filter(|e| e.custom);
            let missing = custom.filter(|e| {
                let resource = e.storage.resource();
                !present.contains(&(&*resource.group, &*resource.plural))
            });
            missing.cloned().collect()
        };
        for entry in gone {
            let resource = entry.storage.resource();
            self.core.change_table(|table| table.remove(&resource.group, &resource.plural));
            self.core.hub.remove(&entry.prefix).await;
        }
    }

    async fn reconcile(
        &self,
        crd: &CustomResourceDefinition,
        encoded: &Arc<Encoded>,
        all: &[Item],
    ) -> Result<Step> {
        if crd.is_terminating() {
            let done = self.terminate(crd, encoded).await?;
            return Ok(if done { Step::Wrote } else { Step::Again });
        }
        let others = all.iter().filter(|i| i.brief.group == crd.spec.group && i.brief.name != crd.name());
        let taken = Taken::by(others.filter_map(|i| i.brief.accepted.as_ref()));
        let status = status(crd, &taken, self.core.now());
        let established = conditions::is_true(status.conditions.as_ref(), "Established");
        if established {
            self.serve(crd, encoded).await.map_err(ApiError::internal)?;
        }
        if crd.status.as_ref() != Some(&status) {
            let changed = CustomResourceDefinition { status: Some(status), ..crd.clone() };
            self.api.update_status(&changed).await?;
            return Ok(Step::Wrote);
        }
        Ok(Step::Nothing)
    }

    /// Puts the served versions of a definition into the table, if they are not there as they are.
    async fn serve(&self, crd: &CustomResourceDefinition, source: &Arc<Encoded>) -> gantry_base::Result<()> {
        let (group, plural) = (crd.spec.group.as_str(), crd.spec.names.plural.as_str());
        let generation = crd.generation();
        let known = self.core.table.load().entry(group, plural).cloned();
        if known.as_ref().is_some_and(|e| e.generation == generation && e.uid == crd.uid()) {
            return Ok(());
        }
        let invalid = |why: String| gantry_base::Error::invalid(why);
        let stored = crd
            .spec
            .versions
            .iter()
            .find(|v| v.storage)
            .ok_or_else(|| invalid("no version is stored".to_owned()))?;
        let storage: Arc<dyn AnyKind> = Arc::new(CustomKind::stored(crd, stored, source).map_err(invalid)?);
        let mut served: Vec<_> = crd.spec.versions.iter().filter(|v| v.served).collect();
        served.sort_by_key(|v| std::cmp::Reverse(priority(&v.name)));
        let list_kind =
            crd.spec.names.list_kind.clone().unwrap_or_else(|| format!("{}List", crd.spec.names.kind));
        let converter = Converter::new(crd).map(Arc::new);
        let mut versions = Vec::new();
        for version in served {
            let kind: Arc<dyn AnyKind> = if version.storage {
                Arc::clone(&storage)
            } else {
                Arc::new(CustomKind::stored(crd, version, source).map_err(invalid)?)
            };
            let deprecation = (version.deprecated == Some(true)).then(|| {
                version.deprecation_warning.clone().unwrap_or_else(|| deprecation_warning(crd, &version.name))
            });
            versions.push(Version {
                kind,
                conversion: Conversion::Custom(converter.clone()),
                list_kind: list_kind.clone(),
                deprecation,
            });
        }
        let prefix = prefix(group, plural);
        if known.is_some() {
            // Labels and fields are indexed by the schema: read everything anew.
            self.core.hub.remove(&prefix).await;
        }
        let cache = self.core.hub.add(Arc::clone(&storage), Arc::clone(&prefix)).await?;
        let entry = Entry {
            storage,
            versions,
            cache,
            prefix,
            custom: true,
            terminating: false,
            generation,
            uid: crd.uid().to_owned(),
        };
        let entry = Arc::new(entry);
        self.core.change_table(|table| table.insert(group, plural, Arc::clone(&entry)));
        Ok(())
    }

    /// Deletes the objects; when they are gone, lets the definition go. Whether it is done.
    async fn terminate(&self, crd: &CustomResourceDefinition, encoded: &Arc<Encoded>) -> Result<bool> {
        if !crd.has_finalizer(FINALIZER) {
            return Ok(true);
        }
        let (group, plural) = (crd.spec.group.as_str(), crd.spec.names.plural.as_str());
        let known = self.core.table.load().entry(group, plural).is_some();
        if !known && is_established(crd) {
            // The server was restarted meanwhile: its objects are still there.
            self.serve(crd, encoded).await.map_err(ApiError::internal)?;
        }
        let Some(entry) = self.core.table.load().entry(group, plural).cloned() else {
            return self.release(crd).await;
        };
        if !entry.terminating {
            let closed = Arc::new(Entry { terminating: true, ..(*entry).clone() });
            self.core.change_table(|table| table.insert(group, plural, Arc::clone(&closed)));
            self.mark_terminating(crd).await?;
            return Ok(false);
        }
        self.core.hub.catch_up().await?;
        let left = entry.cache.snapshot(&Selection::default(), 0, None)?;
        if left.entries.is_empty() {
            return self.release(crd).await;
        }
        let version = entry.storage.resource().version.to_string();
        let user = User::apiserver();
        let warnings = Warnings::default();
        let Some(served) = self.core.table.load().find_stored(group, plural, &version) else {
            return Ok(false);
        };
        for object in left.entries {
            let call = Call {
                core: &self.core,
                user: &user,
                served: served.clone(),
                namespace: object.namespace(),
                name: object.name(),
                subresource: "",
                warnings: &warnings,
            };
            match delete::delete(&call, &delete::Options::default()).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    async fn mark_terminating(&self, crd: &CustomResourceDefinition) -> Result<()> {
        let mut changed = crd.clone();
        let condition = CustomResourceDefinitionCondition {
            type_: "Terminating".into(),
            status: "True".into(),
            reason: Some("InstanceDeletionInProgress".into()),
            message: Some("CustomResource deletion is in progress".into()),
            last_transition_time: Some(time::time(self.core.now())),
            ..CustomResourceDefinitionCondition::default()
        };
        conditions::set(&mut changed.status.get_or_insert_default().conditions, condition);
        self.api.update_status(&changed).await.map(drop)
    }

    async fn release(&self, crd: &CustomResourceDefinition) -> Result<bool> {
        let key = ObjectKey::cluster(crd.name());
        let Some(fresh) = self.api.find(&key).await? else { return Ok(true) };
        let mut freed = (*fresh).clone();
        if let Some(finalizers) = &mut freed.metadata.finalizers {
            finalizers.retain(|f| f != FINALIZER);
        }
        self.api.update(&freed).await?;
        Ok(true)
    }
}
