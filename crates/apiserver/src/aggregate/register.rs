//! The APIServices of what this server serves itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use gantry_api::apiregistration::{APIService, APIServiceSpec};
use gantry_api::meta::MetaExt;
use gantry_api::metav1::ObjectMeta;
use gantry_api::status::Result;
use gantry_client::{Api, DeleteOptions};

use super::priorities;
use crate::resources::Table;

/// Marks those that are made here: `onstart` for built-in groups, `true` for custom resources.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// What should be there: name, spec, and the label's value.
fn wanted(table: &Table) -> BTreeMap<String, (APIServiceSpec, &'static str)> {
    let mut all = BTreeMap::new();
    let kinds = table.entries().flat_map(|e| e.versions.iter().map(move |v| (v.kind.resource(), e.custom)));
    for (names, custom) in kinds.chain(table.virtuals.iter().map(|v| (v.resource(), false))) {
        let (group, version) = (names.group.to_string(), names.version.to_string());
        if group == "apiregistration.k8s.io" {
            continue;
        }
        let (by_group, by_version) = priorities::local(&group, &version, custom);
        let spec = APIServiceSpec {
            group: (!group.is_empty()).then(|| group.clone()),
            version: Some(version.clone()),
            group_priority_minimum: by_group,
            version_priority: by_version,
            ..APIServiceSpec::default()
        };
        let label = if custom { "true" } else { "onstart" };
        all.entry(format!("{version}.{group}")).or_insert((spec, label));
    }
    all
}

/// Makes those that are missing, mends those that were changed, and removes those of custom resources that are gone.
/// One that somebody else made for the same group and version stays as it is.
///
/// # Errors
/// The first that could not be written.
pub(super) async fn register(
    table: &Table,
    present: &[Arc<APIService>],
    api: &Api<APIService>,
) -> Result<()> {
    let mut wanted = wanted(table);
    let mut writes = Vec::new();
    for service in present {
        let label = service.metadata.labels.as_ref().and_then(|l| l.get(MANAGED));
        match wanted.remove(service.name()) {
            Some((spec, _)) if label.is_some() && service.spec.as_ref() != Some(&spec) => {
                let mut mended = (**service).clone();
                mended.spec = Some(spec);
                writes.push(Write::Update(mended));
            }
            Some(_) => {}
            None if label.is_some_and(|l| l == "true") => writes.push(Write::Delete(Arc::clone(service))),
            None => {}
        }
    }
    for (name, (spec, label)) in wanted {
        let labels = BTreeMap::from([(MANAGED.to_owned(), label.to_owned())]);
        let metadata = ObjectMeta { name: Some(name), labels: Some(labels), ..ObjectMeta::default() };
        writes.push(Write::Create(APIService { metadata, spec: Some(spec), ..APIService::default() }));
    }
    join_all(writes.iter().map(|write| write.perform(api))).await.into_iter().collect()
}

enum Write {
    Create(APIService),
    Update(APIService),
    Delete(Arc<APIService>),
}

impl Write {
    async fn perform(&self, api: &Api<APIService>) -> Result<()> {
        let done = match self {
            Self::Create(service) => api.create(service).await.map(drop),
            Self::Update(service) => api.update(service).await.map(drop),
            Self::Delete(service) => api.delete(&service.key(), &DeleteOptions::default()).await.map(drop),
        };
        match done {
            // Somebody was faster: their event brings us here again.
            Err(e) if e.is_already_exists() || e.is_conflict() || e.is_not_found() => Ok(()),
            other => other,
        }
    }
}
