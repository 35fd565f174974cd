//! Follows the objects through the watch cache, and tells each flow schema whether its level exists.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::Object;
use gantry_api::flowcontrol::{FlowSchema, FlowSchemaCondition, PriorityLevelConfiguration};
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_base::Tasks;
use gantry_client::{Api, Transport};

use super::borrow::PERIOD;
use super::plan::Plan;
use crate::cache::{Cursor, Selection};
use crate::core::Core;
use crate::identify::User;
use crate::loopback::{Later, Loopback};
use crate::resources::Entry;

/// The field manager of the conditions, as upstream's.
const NAME: &str = "api-priority-and-fairness-config-consumer-v1";
/// How soon conditions are written again of which one could not be.
const AGAIN: Duration = Duration::from_secs(1);

/// Digests the objects that there are, and follows them until `tasks` end.
///
/// # Errors
/// A watch cache cannot be watched.
pub(crate) fn start(core: &Arc<Core>, later: &Later, tasks: &Tasks) -> gantry_base::Result<()> {
    if !core.fairness.enabled {
        return Ok(());
    }
    let entry = |plural| core.table.load().entry("flowcontrol.apiserver.k8s.io", plural).cloned();
    let (Some(schemas), Some(levels)) = (entry("flowschemas"), entry("prioritylevelconfigurations")) else {
        return Ok(());
    };
    let transport: Arc<dyn Transport> =
        Arc::new(Loopback { server: later.clone(), user: User::apiserver(), agent: NAME });
    let follower = Follower { core: Arc::clone(core), schemas, levels, api: Api::new(transport, NAME) };
    let cursors = follower.watch()?;
    follower.digest();
    tasks.spawn("priority and fairness", async move { follower.run(cursors).await });
    let core = Arc::clone(core);
    tasks.spawn("priority and fairness: borrowing", async move {
        loop {
            tokio::time::sleep(PERIOD).await;
            core.fairness.plan.load().adjust();
        }
    });
    Ok(())
}

struct Follower {
    core: Arc<Core>,
    schemas: Arc<Entry>,
    levels: Arc<Entry>,
    api: Api<FlowSchema>,
}

impl Follower {
    fn watch(&self) -> Result<(Cursor, Cursor)> {
        let (_, schemas) = self.schemas.cache.snapshot_and_watch(Selection::default())?;
        let (_, levels) = self.levels.cache.snapshot_and_watch(Selection::default())?;
        Ok((schemas, levels))
    }

    async fn run(self, mut cursors: (Cursor, Cursor)) {
        loop {
            let schemas = self.digest();
            let settled = self.tell(&schemas).await;
            let (of_schemas, of_levels) = (&mut cursors.0, &mut cursors.1);
            let next = async {
                tokio::select! {
                    seen = of_schemas.next() => seen.map(drop),
                    seen = of_levels.next() => seen.map(drop),
                }
            };
            let outcome =
                if settled { Some(next.await) } else { tokio::time::timeout(AGAIN, next).await.ok() };
            if let Some(Err(error)) = outcome {
                tracing::warn!(%error, "the watch of flow schemas and priority levels begins anew");
                match self.watch() {
                    Ok(fresh) => cursors = fresh,
                    Err(error) => {
                        tracing::error!(%error, "flow schemas and priority levels cannot be watched");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        }
    }

    /// Puts what the objects say into force.
    fn digest(&self) -> Vec<Arc<FlowSchema>> {
        let schemas = typed::<FlowSchema>(&self.schemas);
        let levels = typed::<PriorityLevelConfiguration>(&self.levels);
        let fairness = &self.core.fairness;
        let before = fairness.plan.load_full();
        let plan =
            Plan::new(&schemas, &levels, fairness.seats, Some(&before), (&fairness.clock, &fairness.tasks));
        fairness.plan.store(Arc::new(plan));
        schemas
    }

    /// Whether nothing is left to do until an object changes.
    async fn tell(&self, schemas: &[Arc<FlowSchema>]) -> bool {
        let mut settled = true;
        for schema in schemas {
            let Some(told) = self.told(schema) else { continue };
            match self.api.update_status(&told).await {
                Ok(_) => {}
                // The change that was in the way, or the end, comes through the watch.
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => {
                    tracing::debug!(name = schema.name(), %error, "a flow schema's condition is not written");
                    settled = false;
                }
            }
        }
        settled
    }

    /// The schema with a condition `Dangling` that is true to the facts; `None` if it has that.
    fn told(&self, schema: &FlowSchema) -> Option<FlowSchema> {
        const TYPE: &str = "Dangling";
        let name = &schema.spec.as_ref()?.priority_level_configuration.name;
        let what = format!("This FlowSchema references the PriorityLevelConfiguration object named {name:?}");
        let (status, reason, message) = if self.core.fairness.plan.load().has_level(name) {
            ("False", "Found", format!("{what} and it exists"))
        } else {
            ("True", "NotFound", format!("{what} but there is no such object"))
        };
        let mut told = schema.clone();
        let conditions = told.status.get_or_insert_default().conditions.get_or_insert_default();
        let at = conditions.iter().position(|c| c.type_.as_deref() == Some(TYPE));
        let says = |c: &FlowSchemaCondition| {
            (c.status.as_deref(), c.reason.as_deref(), c.message.as_deref())
                == (Some(status), Some(reason), Some(message.as_str()))
        };
        if at.is_some_and(|at| says(&conditions[at])) {
            return None;
        }
        let condition = FlowSchemaCondition {
            last_transition_time: Some(gantry_api::time::time(self.core.now())),
            message: Some(message),
            reason: Some(reason.to_owned()),
            status: Some(status.to_owned()),
            type_: Some(TYPE.to_owned()),
        };
        match at {
            Some(at) => conditions[at] = condition,
            None => conditions.push(condition),
        }
        Some(told)
    }
}

fn typed<K: Object>(entry: &Entry) -> Vec<Arc<K>> {
    let known = entry.cache.last_known();
    let typed = |e: &Arc<crate::cache::Entry>| match e.encoded.typed::<K>() {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(name = e.name(), %error, "an object of priority and fairness cannot be read");
            None
        }
    };
    known.iter().filter_map(typed).collect()
}
