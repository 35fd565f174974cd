//! Keeps what is served in step with the definitions, their conditions with what is served, and removes the objects
//! of a definition that is being deleted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::apiextensions::{CustomResourceDefinition, CustomResourceDefinitionCondition};
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_api::{ApiError, ObjectKey, conditions, time};
use gantry_base::Tasks;
use gantry_client::{Api, Transport};
use gantry_kinds::AnyKind;

use super::convert::Converter;
use super::kind::CustomKind;
use super::names::{Taken, status};
use crate::cache::{Cursor, Selection};
use crate::core::Core;
use crate::discovery::priority;
use crate::identify::User;
use crate::loopback::{Later, Loopback};
use crate::resources::{Conversion, Entry, Version, prefix};
use crate::verbs::{Call, delete};
use crate::warnings::Warnings;

/// Keeps a definition until its objects are gone.
const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
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
    for crd in controller.all() {
        if is_established(&crd) {
            controller.serve(&crd).await?;
        }
    }
    tasks.spawn("custom resources", async move { controller.run(cursor).await });
    Ok(())
}

struct Controller {
    core: Arc<Core>,
    definitions: Arc<Entry>,
    api: Api<CustomResourceDefinition>,
}

fn is_established(crd: &CustomResourceDefinition) -> bool {
    conditions::is_true(crd.status.as_ref().and_then(|s| s.conditions.as_ref()), "Established")
}

impl Controller {
    fn all(&self) -> Vec<Arc<CustomResourceDefinition>> {
        let snapshot = self.definitions.cache.snapshot(&Selection::default(), 0, None);
        snapshot.entries.iter().filter_map(|e| e.encoded.typed().ok()).collect()
    }

    async fn run(self, mut cursor: Cursor) {
        loop {
            let settled = self.reconcile_all().await;
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
    async fn reconcile_all(&self) -> bool {
        let all = self.all();
        self.forget_missing(&all).await;
        let mut settled = true;
        for crd in &all {
            match self.reconcile(crd, &all).await {
                Ok(done) => settled &= done,
                Err(error) if error.is_conflict() || error.is_not_found() => settled = false,
                Err(error) => {
                    tracing::warn!(name = crd.name(), %error, "a custom resource definition cannot be established");
                    settled = false;
                }
            }
        }
        settled
    }

    async fn forget_missing(&self, all: &[Arc<CustomResourceDefinition>]) {
        let present: BTreeSet<(&str, &str)> =
            all.iter().map(|c| (c.spec.group.as_str(), c.spec.names.plural.as_str())).collect();
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
        all: &[Arc<CustomResourceDefinition>],
    ) -> Result<bool> {
        if crd.is_terminating() {
            return self.terminate(crd).await;
        }
        if !crd.has_finalizer(FINALIZER) {
            let mut marked = crd.clone();
            marked.metadata.finalizers.get_or_insert_default().push(FINALIZER.into());
            self.api.update(&marked).await?;
            // The event of this write brings us here again.
            return Ok(true);
        }
        let taken = Taken::by(all.iter().map(|c| &**c), &crd.spec.group, crd.metadata.name.as_deref());
        let status = status(crd, &taken, self.core.now());
        let established = conditions::is_true(status.conditions.as_ref(), "Established");
        if established {
            self.serve(crd).await.map_err(ApiError::internal)?;
        }
        if crd.status.as_ref() != Some(&status) {
            let changed = CustomResourceDefinition { status: Some(status), ..crd.clone() };
            self.api.update_status(&changed).await?;
        }
        Ok(true)
    }

    /// Puts the served versions of a definition into the table, if they are not there as they are.
    async fn serve(&self, crd: &CustomResourceDefinition) -> gantry_base::Result<()> {
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
        let storage: Arc<dyn AnyKind> = Arc::new(CustomKind::new(crd, stored).map_err(invalid)?);
        let mut served: Vec<_> = crd.spec.versions.iter().filter(|v| v.served).collect();
        served.sort_by_key(|v| std::cmp::Reverse(priority(&v.name)));
        let list_kind =
            crd.spec.names.list_kind.clone().unwrap_or_else(|| format!("{}List", crd.spec.names.kind));
        let converter = Converter::new(crd).map(Arc::new);
        let mut versions = Vec::new();
        for version in served {
            let kind: Arc<dyn AnyKind> = Arc::new(CustomKind::new(crd, version).map_err(invalid)?);
            let deprecation = (version.deprecated == Some(true)).then(|| {
                let name = format!("{group}/{} {}", version.name, crd.spec.names.kind);
                version.deprecation_warning.clone().unwrap_or_else(|| format!("{name} is deprecated"))
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
    async fn terminate(&self, crd: &CustomResourceDefinition) -> Result<bool> {
        if !crd.has_finalizer(FINALIZER) {
            return Ok(true);
        }
        let (group, plural) = (crd.spec.group.as_str(), crd.spec.names.plural.as_str());
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
        let left = entry.cache.snapshot(&Selection::default(), 0, None);
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
