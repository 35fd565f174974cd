//! The transport of code in the same process: no TCP, TLS or HTTP, but the same door.

use std::net::Ipv4Addr;
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

use crate::audit::{self, Came, Level, Trail};
use crate::core::Core;
use crate::dispatch::{self, Reply};
use crate::identify::User;
use crate::query::{
    FieldValidation, ListOptions, Query, WriteOptions, parse_match, parse_revision, parse_validation,
};
use crate::resources::Served;
use crate::respond::Format;
use crate::route::RequestInfo;
use crate::verbs::watch::{Told, Watching};
use crate::verbs::{Answer, Call, Input, delete, delete_collection, list};
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
    /// The request as one by HTTP would be understood.
    fn info(
        &self,
        verb: &'static str,
        target: &Target,
        selectors: (&FieldSelector, &LabelSelector),
    ) -> RequestInfo {
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
            leads_nowhere: false,
            fields: selectors.0.clone(),
            labels: selectors.1.clone(),
        };
        if info.name.is_empty()
            && let Some(name) = info.fields.required("metadata.name")
        {
            // As for requests by HTTP: who may read one object may also watch it.
            info.name = name.to_owned();
        }
        info
    }

    /// What the verbs want to know.
    fn call<'a>(&'a self, core: &'a Core, target: &'a Target, warnings: &'a Warnings) -> Result<Call<'a>> {
        let resource = &target.resource;
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

    /// Does the work if the user may, and tells the audit log; what is answered well has `code`. The trail goes on
    /// with a request that runs long.
    async fn audited<T>(
        &self,
        core: &Core,
        info: &RequestInfo,
        warnings: &Warnings,
        code: u16,
        work: impl Future<Output = Result<T>>,
    ) -> Result<(T, Option<Arc<Trail>>)> {
        let since = core.clock.monotonic();
        let trail = core.auditor.trail(Some(&self.user), info, warnings, || Came {
            id: crate::verbs::lifecycle::new_uid(),
            uri: uri(info),
            source_ips: vec![Ipv4Addr::LOCALHOST.to_string()],
            agent: self.agent.to_owned(),
            received: core.now(),
            since,
        });
        if let Some(trail) = &trail
            && !trail.received().await
        {
            return Err(ApiError::internal("failed to store audit event"));
        }
        let outcome = match core.authorize_noting(&self.user, info, warnings).await {
            Ok(()) => work.await,
            Err(error) => Err(error),
        };
        if let Some(trail) = &trail {
            let failure = outcome.as_ref().err();
            if let Some(error) = failure {
                audit::failed(warnings, error);
            }
            trail.answered(failure.map_or(code, ApiError::code)).await;
        }
        outcome.map(|done| (done, trail))
    }

    async fn change(&self, call: &Call<'_>, mutation: &Mutation) -> Result<Arc<Encoded>> {
        let input =
            Input { content_type: mutation.payload.content_type, bytes: mutation.payload.bytes.clone() };
        let options = self.write_options(mutation)?;
        let answer = match mutation.verb {
            Verb::Create => {
                dispatch::post(&Call { name: post_name(call), ..call.clone() }, &input, &options).await?
            }
            Verb::Update => dispatch::put(call, &input, &options).await?,
            Verb::Patch => dispatch::modify(call, &input, &options).await?,
            Verb::Delete => {
                let mut wanted = delete::Options::read(&input, &Query::default(), call.warnings)?;
                wanted.dry_run |= options.dry_run;
                delete::delete(call, &wanted).await?
            }
            Verb::DeleteCollection => {
                let wanted = delete::Options::read(&input, &Query::default(), call.warnings)?;
                let select = list_options(&mutation.select)?;
                delete_collection::delete_collection(call, &select, &wanted).await?;
                return Ok(Arc::new(dispatch::raw(Bytes::from_static(SUCCESS))));
            }
        };
        note(call, &answer)?;
        Ok(answer.body)
    }
}

/// Notes an answer for the audit log, as a client would see it that asked for nothing special.
fn note(call: &Call<'_>, answer: &Answer) -> Result<()> {
    if call.warnings.audited().is_none_or(|level| level < Level::Metadata) {
        return Ok(());
    }
    let reply = Reply::Object(answer.clone(), Some(call.served.clone()));
    audit::for_reply(call.warnings, &reply, &Format::default(), call.core.now())
}

/// The URL that the request would have by HTTP.
fn uri(info: &RequestInfo) -> String {
    if !info.is_resource {
        return info.path.clone();
    }
    let mut uri = match info.group.as_str() {
        "" => format!("/api/{}", info.version),
        group => format!("/apis/{group}/{}", info.version),
    };
    let is_namespace = info.group.is_empty() && info.resource == "namespaces";
    if !info.namespace.is_empty() && !is_namespace {
        uri.push_str("/namespaces/");
        uri.push_str(&info.namespace);
    }
    let name = if info.name_in_path { info.name.as_str() } else { "" };
    for part in [&info.resource, name, &info.subresource] {
        if !part.is_empty() {
            uri.push('/');
            uri.push_str(part);
        }
    }
    let query = [
        ("fieldSelector", info.fields.to_string()),
        ("labelSelector", info.labels.to_string()),
        ("watch", if info.verb == "watch" { "true".to_owned() } else { String::new() }),
    ];
    for (separator, (key, value)) in
        std::iter::once('?').chain(std::iter::repeat('&')).zip(query.iter().filter(|(_, v)| !v.is_empty()))
    {
        uri.push(separator);
        uri.push_str(key);
        uri.push('=');
        uri.push_str(&value.replace('=', "%3D").replace(',', "%2C").replace(' ', "+"));
    }
    uri
}

#[async_trait]
impl Transport for Loopback {
    async fn get(&self, target: &Target) -> Result<Arc<Encoded>> {
        let core = self.server.core().await?;
        let warnings = Warnings::default();
        let info = self.info("get", target, unselected());
        let work = async {
            let call = self.call(&core, target, &warnings)?;
            let answer = dispatch::read(&call, &Query::default()).await?;
            note(&call, &answer)?;
            Ok(answer.body)
        };
        self.audited(&core, &info, &warnings, 200, work).await.map(|(body, _)| body)
    }

    async fn list(&self, target: &Target, params: &ListParams) -> Result<List> {
        let core = self.server.core().await?;
        let warnings = Warnings::default();
        let info = self.info("list", target, (&params.fields, &params.labels));
        let work = async {
            let call = self.call(&core, target, &warnings)?;
            let page = list::list(&call, &list_options(params)?).await?;
            if warnings.audited() == Some(Level::RequestResponse) {
                let reply = Reply::List(page.clone(), call.served.clone());
                audit::for_reply(&warnings, &reply, &Format::default(), core.now())?;
            }
            let items =
                page.entries.iter().map(|e| call.served.encoded(&e.encoded)).collect::<Result<_>>()?;
            Ok(List { items, revision: page.revision, continue_token: page.continue_token })
        };
        self.audited(&core, &info, &warnings, 200, work).await.map(|(list, _)| list)
    }

    async fn watch(&self, target: &Target, params: &WatchParams) -> Result<WatchStream> {
        let core = self.server.core().await?;
        let warnings = Warnings::default();
        let info = self.info("watch", target, (&params.fields, &params.labels));
        let options = ListOptions {
            labels: params.labels.clone(),
            fields: params.fields.clone(),
            revision: (params.from > 0).then_some(params.from),
            bookmarks: params.bookmarks,
            ..ListOptions::default()
        };
        let work = async {
            let call = self.call(&core, target, &warnings)?;
            let watching = crate::verbs::watch::watch(&call, &options).await?.with_deadline(FOREVER);
            Ok((watching, call.served.clone()))
        };
        let ((watching, served), trail) = self.audited(&core, &info, &warnings, 200, work).await?;
        Ok(stream(watching, served, trail))
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
            return self.ask(&core, resource, &mutation, &warnings).await;
        }
        let selectors = (&mutation.select.fields, &mutation.select.labels);
        let info = self.info(verb, &mutation.target, selectors);
        let code = if mutation.verb == Verb::Create { 201 } else { 200 };
        let work = async {
            let call = self.call(&core, &mutation.target, &warnings)?;
            self.change(&call, &mutation).await
        };
        Box::pin(self.audited(&core, &info, &warnings, code, work)).await.map(|(body, _)| body)
    }

    async fn raw(&self, path_and_query: &str) -> Result<Bytes> {
        let core = self.server.core().await?;
        let warnings = Warnings::default();
        let request = crate::pipeline::Raw::new(path_and_query, self.agent)?;
        let work = request.answer(&core, &self.user, &warnings);
        self.audited(&core, &request.info, &warnings, 200, work).await.map(|(body, _)| body)
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
        warnings: &Warnings,
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
        let work = async {
            let body = serde_json::from_slice(&mutation.payload.bytes)
                .map_err(|e| ApiError::bad_request(e.to_string()))?;
            audit::object_body(warnings, &body);
            let answer = resource.create(&self.user, &mutation.target.namespace, body).await?;
            let answer = Answer::other(201, &answer, 0);
            audit::for_reply(warnings, &Reply::Object(answer.clone(), None), &Format::default(), core.now())?;
            Ok(answer.body)
        };
        self.audited(core, &info, warnings, 201, work).await.map(|(body, _)| body)
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
fn stream(watching: Watching, served: Served, trail: Option<Arc<Trail>>) -> WatchStream {
    futures::stream::unfold((watching, served, trail), |(mut watching, served, trail)| async move {
        let told = watching.next().await?;
        let events = told.and_then(|told| events(told, &served));
        Some((events, (watching, served, trail)))
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
