//! The transport of code in the same process: no TCP, TLS or HTTP, but the same door.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded, FieldSelector, LabelSelector};
use gantry_client::{
    List, ListParams, Mutation, Target, Transport, Verb, WatchEvent, WatchKind, WatchParams, WatchStream,
};
use tokio::sync::watch;

use crate::core::Core;
use crate::dispatch;
use crate::identify::User;
use crate::query::{
    FieldValidation, ListOptions, Query, WriteOptions, parse_match, parse_revision, parse_validation,
};
use crate::resources::Served;
use crate::route::RequestInfo;
use crate::verbs::watch::{Told, Watching};
use crate::verbs::{Call, Input, delete, delete_collection, list};
use crate::warnings::Warnings;

/// A watch of this process has no timeout of its own.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The server, once it has started.
#[derive(Clone)]
pub(crate) struct Later {
    core: watch::Receiver<Option<Arc<Core>>>,
}

impl Later {
    /// What is to be told when the server has started, and what waits for it.
    pub(crate) fn new() -> (watch::Sender<Option<Arc<Core>>>, Self) {
        let (sender, core) = watch::channel(None);
        (sender, Self { core })
    }

    async fn core(&self) -> Result<Arc<Core>> {
        if let Some(core) = &*self.core.borrow() {
            return Ok(Arc::clone(core));
        }
        let mut waiting = self.core.clone();
        let core = waiting.wait_for(Option::is_some).await;
        core.ok().and_then(|c| c.clone()).ok_or_else(|| ApiError::unavailable("the server did not start"))
    }
}

/// The selectors of a request on one object.
fn unselected() -> (&'static FieldSelector, &'static LabelSelector) {
    static NONE: std::sync::LazyLock<(FieldSelector, LabelSelector)> =
        std::sync::LazyLock::new(|| (FieldSelector::everything(), LabelSelector::everything()));
    (&NONE.0, &NONE.1)
}

/// Acts as one user.
pub(crate) struct Loopback {
    pub(crate) server: Later,
    pub(crate) user: User,
    pub(crate) agent: &'static str,
}

impl Loopback {
    /// Authorizes `verb` on `target` and finds the resource.
    async fn enter<'a>(
        &'a self,
        core: &'a Core,
        verb: &'static str,
        target: &'a Target,
        selectors: (&FieldSelector, &LabelSelector),
        warnings: &'a Warnings,
    ) -> Result<Call<'a>> {
        let resource = &target.resource;
        let mut info = RequestInfo {
            is_resource: true,
            path: String::new(),
            verb,
            group: resource.group.to_string(),
            version: resource.version.to_string(),
            namespace: if resource.plural == "namespaces" && resource.group.is_empty() {
                target.name.to_string()
            } else {
                target.namespace.to_string()
            },
            resource: resource.plural.to_string(),
            subresource: target.subresource.to_owned(),
            name: target.name.to_string(),
            rest: String::new(),
            name_in_path: !target.name.is_empty(),
            fields: selectors.0.clone(),
            labels: selectors.1.clone(),
        };
        if info.name.is_empty()
            && let Some(name) = info.fields.required("metadata.name")
        {
            // As for requests by HTTP: who may read one object may also watch it.
            info.name = name.to_owned();
        }
        core.authorize(&self.user, &info).await?;
        let served = core.served(&resource.group, &resource.version, &resource.plural)?;
        let namespace = if served.resource().namespaced { &*target.namespace } else { "" };
        Ok(Call {
            core,
            user: &self.user,
            served,
            namespace,
            name: &target.name,
            subresource: target.subresource,
            warnings,
        })
    }
}

#[async_trait]
impl Transport for Loopback {
    async fn get(&self, target: &Target) -> Result<Arc<Encoded>> {
        let core = self.server.core().await?;
        let warnings = Warnings::default();
        let call = self.enter(&core, "get", target, unselected(), &warnings).await?;
        Ok(dispatch::read(&call, &Query::default()).await?.body)
    }

    async fn list(&self, target: &Target, params: &ListParams) -> Result<List> {
        let core = self.server.core().await?;
        let warnings = Warnings::default();
        let call = self.enter(&core, "list", target, (&params.fields, &params.labels), &warnings).await?;
        let page = list::list(&call, &list_options(params)?).await?;
        let items = page.entries.iter().map(|e| call.served.encoded(&e.encoded)).collect::<Result<_>>()?;
        Ok(List { items, revision: page.revision, continue_token: page.continue_token })
    }

    async fn watch(&self, target: &Target, params: &WatchParams) -> Result<WatchStream> {
        let core = self.server.core().await?;
        let warnings = Warnings::default();
        let call = self.enter(&core, "watch", target, (&params.fields, &params.labels), &warnings).await?;
        let options = ListOptions {
            labels: params.labels.clone(),
            fields: params.fields.clone(),
            revision: (params.from > 0).then_some(params.from),
            bookmarks: params.bookmarks,
            ..ListOptions::default()
        };
        let watching = crate::verbs::watch::watch(&call, &options).await?.with_deadline(FOREVER);
        Ok(stream(watching, call.served.clone()))
    }

    async fn mutate(&self, mutation: Mutation) -> Result<Arc<Encoded>> {
        let core = self.server.core().await?;
        let warnings = Warnings::default();
        let verb = match mutation.verb {
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        };
        if let Some(resource) = virtual_of(&core, &mutation.target) {
            return self.ask(&core, resource, &mutation).await;
        }
        let call = self
            .enter(
                &core,
                verb,
                &mutation.target,
                (&mutation.select.fields, &mutation.select.labels),
                &warnings,
            )
            .await?;
        let input =
            Input { content_type: mutation.payload.content_type, bytes: mutation.payload.bytes.clone() };
        let options = self.write_options(&mutation)?;
        let answer = match mutation.verb {
            Verb::Create => {
                dispatch::post(&Call { name: post_name(&call), ..call.clone() }, &input, &options).await?
            }
            Verb::Update => dispatch::put(&call, &input, &options).await?,
            Verb::Patch => dispatch::modify(&call, &input, &options).await?,
            Verb::Delete => {
                let mut wanted = delete::Options::read(&input, &Query::default())?;
                wanted.dry_run |= options.dry_run;
                delete::delete(&call, &wanted).await?
            }
            Verb::DeleteCollection => {
                let wanted = delete::Options::read(&input, &Query::default())?;
                let select = list_options(&mutation.select)?;
                delete_collection::delete_collection(&call, &select, &wanted).await?;
                return Ok(Arc::new(dispatch::raw(Bytes::from_static(SUCCESS))));
            }
        };
        Ok(answer.body)
    }

    async fn raw(&self, path_and_query: &str) -> Result<Bytes> {
        let core = self.server.core().await?;
        crate::pipeline::raw(&core, &self.user, self.agent, path_and_query).await
    }
}

const SUCCESS: &[u8] = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}"#;

/// A POST names the object only where it is on a subresource.
fn post_name<'a>(call: &Call<'a>) -> &'a str {
    if call.subresource.is_empty() { "" } else { call.name }
}

fn virtual_of(core: &Core, target: &Target) -> Option<Arc<dyn crate::virtual_resource::VirtualResource>> {
    let resource = &target.resource;
    core.table.load().find_virtual(&resource.group, &resource.version, &resource.plural).cloned()
}

impl Loopback {
    async fn ask(
        &self,
        core: &Core,
        resource: Arc<dyn crate::virtual_resource::VirtualResource>,
        mutation: &Mutation,
    ) -> Result<Arc<Encoded>> {
        let names = resource.resource();
        let info = RequestInfo {
            is_resource: true,
            verb: "create",
            group: names.group.to_string(),
            version: names.version.to_string(),
            resource: names.plural.to_string(),
            namespace: mutation.target.namespace.to_string(),
            ..RequestInfo::default()
        };
        core.authorize(&self.user, &info).await?;
        let body = serde_json::from_slice(&mutation.payload.bytes)
            .map_err(|e| ApiError::bad_request(e.to_string()))?;
        let answer = resource.create(&self.user, &mutation.target.namespace, body).await?;
        Ok(Arc::new(dispatch::raw(Bytes::from(answer.to_string()))))
    }

    fn write_options(&self, mutation: &Mutation) -> Result<WriteOptions> {
        let options = &mutation.options;
        let validation = if options.field_validation.is_empty() {
            // Typed objects have no unknown fields.
            FieldValidation::Ignore
        } else {
            parse_validation(&options.field_validation, "CreateOptions")?
        };
        Ok(WriteOptions {
            dry_run: options.dry_run,
            field_manager: options.field_manager.clone(),
            default_manager: self.agent.to_owned(),
            force: options.force.then_some(true),
            validation,
        })
    }
}

fn list_options(params: &ListParams) -> Result<ListOptions> {
    Ok(ListOptions {
        labels: params.labels.clone(),
        fields: params.fields.clone(),
        limit: params.limit,
        continue_token: params.continue_token.clone(),
        revision: parse_revision(&params.resource_version)?,
        version_match: parse_match(&params.version_match),
        ..ListOptions::default()
    })
}

/// The events of a watch, with the cache's own objects.
fn stream(watching: Watching, served: Served) -> WatchStream {
    futures::stream::unfold((watching, served), |(mut watching, served)| async move {
        let told = watching.next().await?;
        let events = told.and_then(|told| events(told, &served));
        Some((events, (watching, served)))
    })
    .boxed()
}

fn events(told: Told, served: &Served) -> Result<Vec<WatchEvent>> {
    match told {
        Told::Events(seen) => seen
            .iter()
            .map(|s| Ok(WatchEvent { kind: s.kind, object: served.encoded(&s.entry.encoded)? }))
            .collect(),
        Told::Bookmark(revision, initial_end) => {
            let bytes = crate::respond::bookmark(served.resource(), revision, initial_end);
            Ok(vec![WatchEvent {
                kind: WatchKind::Bookmark,
                object: Arc::new(Encoded::new(bytes, revision)),
            }])
        }
    }
}
